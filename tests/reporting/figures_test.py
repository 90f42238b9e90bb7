import dataclasses

import matplotlib.image
import numpy as np
import pytest

from wasser_tf import ThreatModel
from wasser_tf.attacks import make
from wasser_tf.evaluation.record import WORST_CASE, make_record
from wasser_tf.paper import drawings
from wasser_tf.reporting import drawing, figures


def drawn(path):
    """The picture is there, and not one colour."""
    pixels = matplotlib.image.imread(path)
    return pixels.shape[0] > 200 and pixels.std() > 0.02


@pytest.fixture
def records(make_examples):
    examples = make_examples([True, False], [2, 0])
    record = make_record(
        make("random_plan", ThreatModel()),
        examples.result,
        examples.clean,
        radius=0.1,
        model_name="m",
        dataset_name="d",
        seconds=1,
    )
    return [
        dataclasses.replace(record, attack=attack, epsilon=radius)
        for attack in ("random_plan", WORST_CASE)
        for radius in (0.1, 0.3)
    ]


@pytest.fixture
def axes(monkeypatch):
    """The axes of the figure that is drawn, which is not written."""
    found = []
    monkeypatch.setattr(drawing, "save_figure", lambda figure, *_: found.extend(figure.axes))
    return found


def test_axes_are_labelled_and_lines_do_not_end_at_the_frame(axes, records):
    figures.save_accuracy_curves("", {"one": np.array([0.1, np.inf])}, max_radius=0.5)
    assert max(axes[0].lines[0].get_xdata()) == 0.5 < axes[0].get_xlim()[1]
    axes.clear()
    figures.save_panels("", records)
    drawings.save_raw_and_feasible("", {"one": records[:1]})
    labels = [axis.get_ylabel() for axis in axes if "precision" in axis.get_ylabel()]
    assert len(labels) == 3 and all("1e-08 or less" in label for label in labels)
    axes.clear()
    images, labels = np.zeros([2, 3, 3, 3], np.float32), np.zeros(2, np.int32)
    drawings.save_side_by_side("", images, labels, [drawings.Attacked("ball", images, labels)])
    assert "sum of channels" in axes[-1].get_ylabel()


@pytest.mark.parametrize("count, channels, names", [(1, 1, None), (3, 3, ["cat", "automobile"]), (12, 1, ["a", "b"])])
def test_examples(tmp_path, count, channels, names):
    random = np.random.default_rng(0)
    clean, moved = random.random([2, count, 5, 4, channels]).astype(np.float32)
    labels = np.zeros(count, np.int32)
    path = tmp_path / "new" / "examples.png"
    figures.save_examples(
        path, clean, moved, labels, labels, labels + 1, threat_model=ThreatModel(), title="t", class_names=names
    )
    assert drawn(path)
    assert [file.name for file in path.parent.iterdir()] == ["examples.png"]


def test_unchanged_examples_are_drawn_too(tmp_path):
    images, labels = np.zeros([2, 3, 3, 1], np.float32), np.zeros(2, np.int32)
    figures.save_examples(tmp_path / "examples.png", images, images, labels, labels, labels)
    assert drawn(tmp_path / "examples.png")


@pytest.mark.parametrize("shape", [(0, 4, 4, 1), (2, 4, 4, 2)])
def test_examples_that_cannot_be_drawn(tmp_path, shape):
    images, labels = np.zeros(shape, np.float32), np.zeros(shape[0], np.int32)
    with pytest.raises(ValueError, match="1 or 3"):
        figures.save_examples(tmp_path / "examples.png", images, images, labels, labels, labels)
    assert not any(tmp_path.iterdir())


def test_curves_and_panels(tmp_path, records):
    curves = {"standard": ([0.1, 0.3], [0.2, 1.0]), "robust": ([0.1, 0.3], [0.1, 0.3])}
    figures.save_success_curves(tmp_path / "success.png", curves, threat_model=ThreatModel(), num_images=9, title="t")
    figures.save_panels(tmp_path / "panels.png", records)
    assert drawn(tmp_path / "success.png") and drawn(tmp_path / "panels.png")


def test_panels_of_two_classifiers_are_refused(tmp_path, records):
    with pytest.raises(ValueError, match="one classifier"):
        figures.save_panels(tmp_path / "panels.png", [records[0], dataclasses.replace(records[1], model="other")])


@pytest.mark.parametrize("radii", [[0, 0.1, 0.2, np.inf], [np.inf, np.inf], [0, 0]])
def test_minimal_radii(tmp_path, radii):
    given = {"standard": np.array(radii), "robust": np.array([0.3, 0.4])}
    figures.save_radius_histogram(tmp_path / "histogram.png", given, threat_model=ThreatModel(p=2))
    figures.save_accuracy_curves(tmp_path / "accuracy.png", given, threat_model=ThreatModel(normalize_mass=False))
    assert drawn(tmp_path / "histogram.png") and drawn(tmp_path / "accuracy.png")


@pytest.mark.parametrize(
    "draw", [figures.save_success_curves, figures.save_radius_histogram, figures.save_accuracy_curves]
)
def test_nothing_to_draw(tmp_path, draw):
    with pytest.raises(ValueError, match="at least one to draw"):
        draw(tmp_path / "nothing.png", {})
