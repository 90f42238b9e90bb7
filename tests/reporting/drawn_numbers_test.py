"""Numbers, labels and captions of the figures, without writing files."""

import dataclasses

import numpy as np
import pytest

from wasser_tf import ThreatModel, attacks
from wasser_tf.evaluation.record import WORST_CASE, make_record
from wasser_tf.paper import drawings
from wasser_tf.paper.drawings import Attacked
from wasser_tf.reporting import drawing, figures


@pytest.fixture
def axes(monkeypatch):
    found = []

    def save(figure, path, title, words):
        found.extend(figure.axes)
        found.append((path, title, words))
        found.append(figure)

    monkeypatch.setattr(drawing, "save_figure", save)
    return found


@pytest.fixture
def records(make_examples):
    attack = attacks.make("random_plan", ThreatModel())

    def make(name, radius, success, loss, **raw):
        made = make_examples(success, [loss] * 4)
        options = {"radius": radius, "model_name": "m", "dataset_name": "d", "seconds": 1}
        record = make_record(attack, made.result, made.clean, **options)
        return dataclasses.replace(record, attack=name, raw=dataclasses.replace(record.raw, **raw))

    one, two = [True, False, False, False], [True, True, False, False]
    return [
        make("a", 0.3, two, 2.0, precision_error_mean=0.5, max_pixel=2.5, success_rate=0.75, cross_entropy=9.0),
        make("a", 0.1, one, 1.0, precision_error_mean=0.0, max_pixel=1.5, success_rate=0.5, cross_entropy=8.0),
        make(WORST_CASE, 0.1, two, 3.0),
    ]


def _has_grid_and_two_sides(axis):
    sides = [axis.spines[side].get_visible() for side in ("top", "right", "bottom", "left")]
    return sides == [False, False, True, True] and axis.xaxis.get_gridlines()[0].get_visible()


def _line(line):
    return list(map(float, line.get_xdata())), [round(float(value), 9) for value in line.get_ydata()]


def test_panels(axes, records):
    figures.save_panels("p.png", records, title="T")
    success, loss, precision, pixel = axes[:4]
    assert _line(success.lines[0]) == ([0.1, 0.3], [25, 50]) and _line(success.lines[1]) == ([0.1], [50])
    assert _line(loss.lines[0]) == ([0.1, 0.3], [1, 2]) and _line(loss.lines[1]) == ([0.1], [3])
    assert _line(precision.lines[0]) == ([0.1, 0.3], [1e-8, 0.5]) and _line(pixel.lines[0]) == ([0.1, 0.3], [1.5, 2.5])
    # Raw, the worst case is not drawn; the other line of pixels is the capacity.
    assert len(precision.lines) == 1 and list(pixel.lines[1].get_ydata()) == [1, 1] and len(pixel.lines) == 2
    assert [line.get_label() for line in success.lines] == ["a", WORST_CASE]
    assert success.lines[1].get_color() == "black" and success.lines[0].get_color() == "#0072B2"
    assert [axis.get_ylabel().split("\n")[0] for axis in axes[:4]] == [
        "attack success rate [%]", "mean cross-entropy [nats]", "raw: mean precision error", "raw: largest pixel",
    ]  # fmt: skip
    assert success.get_ylim() == (-3, 103) and loss.get_ylim()[0] == pixel.get_ylim()[0] == 0
    assert precision.get_yscale() == "log" and precision.get_ylim()[0] == pytest.approx(5e-9)
    assert precision.get_ylim()[1] > 0.5 and pixel.get_ylim()[1] > 2.5
    assert all(
        axis.get_xlabel() == "radius ε [pixel per unit of mass]" and axis.get_xlim()[0] == 0 for axis in axes[:4]
    )
    assert all(_has_grid_and_two_sides(axis) for axis in axes[:4])
    path, title, words = axes[4]
    assert (
        path == "p.png" and title == "" and words.startswith("Wasserstein ball: ε ") and "; 4 images.\nAbove" in words
    )
    assert axes[5].legends[0].get_title().get_text() == "T"
    axes.clear()
    unbounded = [dataclasses.replace(one, threat_model=ThreatModel(capacity=None).get_config()) for one in records]
    figures.save_panels("p.png", unbounded)
    assert len(axes[3].lines) == 1 and axes[5].legends[0].get_title().get_text() == "m"


def test_raw_and_feasible(axes, records):
    drawings.save_raw_and_feasible("p.png", {"one": records[:2], "worst": records[2:]}, title="T")
    raw, feasible = axes[:3], axes[3:6]
    assert [_line(axis.lines[0]) for axis in raw] == [
        ([0.1, 0.3], [50, 75]), ([0.1, 0.3], [8, 9]), ([0.1, 0.3], [1e-8, 0.5]),
    ]  # fmt: skip
    assert [_line(axis.lines[0]) for axis in feasible] == [
        ([0.1, 0.3], [25, 50]), ([0.1, 0.3], [1, 2]), ([0.1, 0.3], [1e-8, 1e-8]),
    ]  # fmt: skip
    assert [len(axis.lines) for axis in axes[:6]] == [1, 1, 1, 2, 2, 2]
    assert [axis.get_ylabel().split("\n")[0] for axis in (*raw, *feasible)] == [
        f"{kind}: {what}"
        for kind in ("raw", "feasible")
        for what in ("attack success rate [%]", "mean cross-entropy [nats]", "mean precision error")
    ]
    for axis in axes[:6]:
        assert axis.get_xlabel() == "radius ε [pixel per unit of mass]" and axis.get_xlim()[0] == 0
        assert _has_grid_and_two_sides(axis)
    for success, loss, precision in (raw, feasible):
        assert success.get_ylim() == (-3, 103) and loss.get_ylim()[0] == 0
        assert precision.get_yscale() == "log" and precision.get_ylim() == pytest.approx((5e-9, 2))
    assert axes[7].legends[0].get_title().get_text() == "T"
    assert [text.get_text() for text in axes[7].legends[0].get_texts()] == ["one", "worst"]
    assert axes[6][2].endswith("Feasible: every example satisfies it.") and "4 images." in axes[6][2]
    with pytest.raises(ValueError, match="records must hold at least one to draw"):
        drawings.save_raw_and_feasible("p.png", {})


def test_curves(axes):
    curves = {"x": ([0.1, 0.3], [0.25, 1.0]), "y": ([0.2], [0.5])}
    figures.save_success_curves("p.png", curves, threat_model=ThreatModel(p=2.0), num_images=7, title="T")
    axis, (path, title, words) = axes[:2]
    assert _line(axis.lines[0]) == ([0.1, 0.3], [25, 100]) and _line(axis.lines[1]) == ([0.2], [50])
    assert [line.get_label() for line in axis.lines] == ["x", "y"] and (path, title) == ("p.png", "T")
    assert axis.get_ylabel() == "attack success rate [%]" and axis.get_ylim() == (-3, 103)
    assert axis.get_legend() is not None and _has_grid_and_two_sides(axis)
    assert axis.get_xlabel() == "radius ε [pixel^2 per unit of mass]" and words.endswith("none crossed; 7 images.")
    axes.clear()
    drawings.save_epoch_curves("p.png", {"x": [0.5, 0.75]}, title="T", caption="C", label="L")
    axis, told = axes[:2]
    assert _line(axis.lines[0]) == ([1, 2], [50, 75]) and told == ("p.png", "T", "C")
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "L") and _has_grid_and_two_sides(axis)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["x"]
    with pytest.raises(ValueError, match="curves must hold at least one to draw"):
        drawings.save_epoch_curves("p.png", {})


def test_robust_accuracy_is_the_share_of_larger_minimal_radii(axes):
    radii = {"x": np.array([0.3, 0.0, np.inf, 0.1]), "y": np.array([0.2] * 4)}
    figures.save_accuracy_curves("p.png", radii, threat_model=ThreatModel(), max_radius=0.5, title="T")
    axis, (_, title, words) = axes[:2]
    assert _line(axis.lines[0]) == ([0, 0, 0.1, 0.3, 0.5], [75, 75, 50, 25, 25])
    assert _line(axis.lines[1]) == ([0, 0.2, 0.2, 0.2, 0.2, 0.5], [100, 0, 0, 0, 0, 0])
    assert axis.get_xlim() == pytest.approx((0, 0.515)) and title == "T" and words.endswith("; 4 images.")
    assert _has_grid_and_two_sides(axis) and axis.get_ylim() == (-3, 103)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["x", "y"]
    assert axis.lines[0].get_drawstyle() == "steps-post" and axis.get_ylabel() == "robust accuracy, at most [%]"
    axes.clear()
    figures.save_accuracy_curves("p.png", {"x": radii["x"], "y": np.array([0.4])})
    # To the largest that is finite; of unlike counts none is named.
    assert _line(axes[0].lines[0])[0][-1] == 0.4 and axes[1][2] == ""
    axes.clear()
    figures.save_accuracy_curves("p.png", {"x": np.array([0.1, 0.3])}, max_radius=0.2)
    assert _line(axes[0].lines[0]) == ([0, 0.1, 0.2], [100, 50, 50])


def test_histograms(axes):
    radii = {"x": np.array([0.1, 0.0, np.inf, 0.4]), "y": np.array([np.inf, np.inf, 0.2])}
    figures.save_radius_histogram("p.png", radii, threat_model=ThreatModel(normalize_mass=False), title="T", bins=4)
    first, second, (_, title, words) = axes[:3]
    assert [patch.get_height() for patch in first.patches] == [1, 1, 0, 1]
    assert [patch.get_height() for patch in second.patches] == [0, 0, 1, 0]
    assert first.get_title(loc="left") == "x: median 0.1; never fooled 1 of 4"
    assert second.get_title(loc="left") == "y: no median, because fewer than half are fooled; never fooled 2 of 3"
    assert list(first.lines[0].get_xdata()) == [0.1, 0.1] and not second.lines
    assert second.get_xlabel() == "minimal radius [pixel × mass]" and first.get_xlim() == (0, 0.4)
    # Zooming into one moves both.
    assert first.get_shared_x_axes().joined(first, second) and not first.get_xlabel()
    assert all(axis.get_ylabel() == "images" and _has_grid_and_two_sides(axis) for axis in (first, second))
    assert title == "T"
    assert words.startswith("0: misclassified without an attack. Dashed: the median.\nWasserstein ball")
    assert words.endswith("none crossed.")
    axes.clear()
    figures.save_radius_histogram("p.png", {"x": np.array([0.2, 0.2])}, threat_model=ThreatModel())
    assert axes[0].get_title(loc="left") == "x: median 0.2" and axes[1][2].endswith("; 2 images.")


def test_examples(axes):
    clean = np.full([3, 2, 2, 1], 0.5, np.float32)
    moved = clean.copy()
    moved[1, 0, 0], moved[2, 0, 0] = 0.75, 0.0
    labels, before, after = np.array([0, 1, 2]), np.array([0, 1, 1]), np.array([0, 2, 2])
    figures.save_examples(
        "p.png", clean, moved, labels, before, after, threat_model="A ball", title="T", class_names=["a", "b", "truck"]
    )
    grid = np.array(axes[:9], object).reshape(3, 3)
    np.testing.assert_allclose(grid[0, 1].images[0].get_array(), 0.5)
    np.testing.assert_allclose(grid[1, 1].images[0].get_array(), [[0.25, 0], [0, 0]])
    np.testing.assert_allclose(grid[2, 1].images[0].get_array(), [[0.75, 0.5], [0.5, 0.5]])
    # One scale for all, around 0.
    assert {image.get_clim() for image in (axis.images[0] for axis in grid[1])} == {(-0.5, 0.5)}
    assert [axis.get_title() for axis in grid[0]] == ["a → a", "b → b", "truck\n→ b"]
    assert [axis.get_title() for axis in grid[2]] == ["a → a", "b\n→ truck", "truck\n→ truck"]
    assert [axis.title.get_color() for axis in grid[0]] == ["black", "black", "#B00020"]
    assert [axis.title.get_color() for axis in grid[2]] == ["black", "#B00020", "black"]
    assert [axis.get_ylabel() for axis in grid[:, 0]] == ["clean", "perturbation", "adversarial"]
    assert all(not axis.get_xticks().size and not axis.get_yticks().size for axis in grid.ravel())
    assert axes[9].get_ylabel() == "change of pixel"
    assert axes[10][2] == "Above each image: label → prediction, red where the classifier is wrong.\nA ball."
    axes.clear()
    figures.save_examples("p.png", clean, clean, labels, before, after, max_examples=2)
    assert len(axes) == 3 * 2 + 1 + 2 and axes[2].images[0].get_clim() == (-1, 1) and axes[0].get_title() == "0 → 0"


def test_side_by_side(axes):
    clean = np.full([2, 2, 2, 3], 0.5, np.float32)
    moved = clean.copy()
    moved[1, 0, 0, :2] = 0.75
    attacked = [Attacked("one", moved, np.array([0, 9])), Attacked("two", clean, np.array([0, 1]))]
    drawings.save_side_by_side("p.png", clean, np.array([0, 1]), attacked, title="T", caption="C")
    grid = np.array(axes[:10], object).reshape(5, 2)
    np.testing.assert_allclose(grid[1, 1].images[0].get_array(), [[0.5, 0], [0, 0]])
    np.testing.assert_allclose(grid[2, 1].images[0].get_array(), moved[1])
    assert grid[1, 0].images[0].get_clim() == (-0.5, 0.5) and grid[3, 0].images[0].get_clim() == (-1, 1)
    assert [axis.get_title() for axis in grid[:, 1]] == ["1 → 1", "", "1 → 9", "", "1 → 1"]
    assert grid[1, 0].get_ylabel() == "one:\nperturbation" and grid[4, 0].get_ylabel() == "example"
    assert axes[0].get_ylabel() == "clean" and grid[0, 0].get_title() == "0 → 0"
    assert all(not axis.get_xticks().size and not axis.get_yticks().size for axis in grid.ravel())
    assert axes[12][1:] == ("T", "C")
    with pytest.raises(ValueError, match="attacked must hold at least one to draw"):
        drawings.save_side_by_side("p.png", clean, np.array([0, 1]), [])


def test_lines_are_distinguishable_and_captions_are_wrapped():
    styles = [tuple(drawing.style(number).items()) for number in range(24)]
    assert len(set(styles)) == 24
    points = {(drawing.style(number)["color"], drawing.style(number)["marker"]) for number in range(24)}
    assert len(points) == 24
    assert drawing.caption(None, None) == "" and drawing.caption(None, 3) == "3 images."
    assert drawing.radius_unit(None) == "" and drawing.radius_unit(ThreatModel()) == " [pixel per unit of mass]"
    lines = drawing._wrapped("word " * 40, 5)
    assert (
        len(lines) == 3 and max(map(len, lines)) - min(map(len, lines)) <= 10 and drawing._wrapped("one", 5) == ["one"]
    )


def test_a_figure_has_a_title_and_a_caption(tmp_path):
    figure = drawing.new_figure(5, 4)
    drawing.save_figure(figure, tmp_path / "p.png", "T", "one\ntwo")
    assert figure.get_suptitle() == "T" and figure.get_supxlabel() == "one\ntwo" and (tmp_path / "p.png").exists()
    figure = drawing.new_figure(5, 4)
    drawing.save_figure(figure, tmp_path / "p.png", "", "")
    assert figure.get_suptitle() == figure.get_supxlabel() == ""
