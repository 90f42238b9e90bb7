"""Shares, tables and figures of certified and fooled radii, compared with values computed by hand."""

import numpy as np
import pytest

from wasser_tf import ThreatModel
from wasser_tf.reporting import drawing
from wasser_tf.reporting.bracket import Bracket, bracket_table, save_bracket, save_radii_by_image

BOTH = Bracket(np.array([0.0, 0.1, 0.2, 0.3]), np.array([0.0, 0.4, 0.25, np.inf]))
PROVED = Bracket(np.array([0.5, 0.0]))


@pytest.fixture
def saved(monkeypatch):
    found = []
    monkeypatch.setattr(drawing, "save_figure", lambda figure, *given: found.append((figure, *given)))
    return found


def test_contradictions_are_counted_image_by_image():
    assert BOTH.contradictions() == 0 and PROVED.contradictions() == 0
    # Certified at 0.3 includes plans of radius 0.3. A wrong answer has the radii 0.
    wrong = Bracket(np.array([0.0, 0.3, 0.3, 0.3, np.inf]), np.array([-1.0, 0.2, 0.3, 0.1, 0.5]))
    assert wrong.contradictions() == 4
    assert PROVED.not_fooled_share(9.0) == 1.0 and PROVED.certified_share(0.5) == 0.5


def test_the_table_has_both_shares_and_the_median_radii():
    text = bracket_table({"a": BOTH, "b": PROVED}, [0.1, 0.25])
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert cells[0] == ["certified to not fooled [%]", "ε = 0.1", "ε = 0.25", "median radius"]
    assert cells[2:] == [["a", "75.0 to 75.0", "25.0 to 50.0", "0.1 to 0.25"], ["b", "50.0", "50.0", "0"]]
    assert bracket_table({"b": PROVED}, [0.1]).startswith("| certified [%] ")
    half_open = BOTH._replace(fooled=np.array([0.0, np.inf, np.inf, np.inf]))
    assert "0.1 or more" in bracket_table({"a": half_open}, [0.1])


def test_the_figure_shows_both_shares_and_shades_between_them(saved):
    save_bracket("p.png", {"a": BOTH, "b": PROVED}, threat_model=ThreatModel(), title="T")
    (figure, path, title, words), (one, two) = saved[0], saved[0][0].axes
    assert (path, title) == ("p.png", "T") and words.startswith("Wasserstein ball") and "images." not in words
    assert [axis.get_title() for axis in (one, two)] == ["a", "b"]
    assert one.get_ylabel() == "share of images [%]" and two.get_ylabel() == ""
    assert one.get_ylim() == two.get_ylim() == (-3, 103)
    assert [line.get_label() for line in one.lines] == ["certified", "not fooled"]
    assert [line.get_label() for line in two.lines] == ["certified"]
    assert [text.get_text() for text in one.get_legend().get_texts()] == ["certified", "not fooled", "undecided"]
    # To the largest finite radius of both classifiers.
    assert one.get_xlim() == two.get_xlim() == (0, 0.5)
    certified, not_fooled = one.lines
    assert certified.get_drawstyle() == "steps-pre" and not_fooled.get_drawstyle() == "steps-post"
    places = [0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5]
    assert certified.get_xdata().tolist() == not_fooled.get_xdata().tolist() == places
    assert certified.get_ydata().tolist() == [75, 75, 50, 25, 25, 0, 0]
    assert not_fooled.get_ydata().tolist() == [75, 75, 75, 50, 50, 25, 25]
    undecided = one.collections[-1].get_paths()[0].vertices
    assert undecided[:, 0].min() == 0 and undecided[:, 0].max() == 0.5
    at = np.isclose(undecided[:, 0], 0.35, atol=3e-4)
    assert set(undecided[at, 1].round(6)) == {0, 50}
    assert all(axis.get_xlabel() == "radius ε [pixel per unit of mass]" for axis in (one, two))
    assert figure.get_figwidth() == pytest.approx(8.4)


def test_the_figure_ends_at_the_given_radius_and_names_the_common_number_of_images(saved):
    save_bracket("p.png", {"a": BOTH}, threat_model=ThreatModel(p=2.0), max_radius=0.15)
    figure, _, title, words = saved[0]
    (axis,) = figure.axes
    assert axis.get_xlim() == (0, 0.15) and axis.lines[0].get_xdata().tolist() == [0, 0.1, 0.15]
    assert title == "" and words.endswith("; 4 images.") and figure.get_figwidth() == pytest.approx(6.4)
    save_bracket("p.png", {"none": Bracket(np.zeros(3), np.full(3, np.inf))})
    assert saved[1][0].axes[0].get_xlim() == (0, 1) and saved[1][3] == "3 images."


def test_radii_by_image_are_ordered_by_the_certified_one(saved):
    shuffled = Bracket(BOTH.certified[[2, 0, 3, 1]], BOTH.fooled[[2, 0, 3, 1]])
    save_radii_by_image("p.png", shuffled, threat_model=ThreatModel(), title="T")
    (figure, path, title, words) = saved[0]
    (axis,) = figure.axes
    certified, fooled = axis.lines
    assert certified.get_ydata().tolist() == [0, 0.1, 0.2, 0.3] and fooled.get_ydata().tolist() == [
        0,
        0.4,
        0.25,
        np.inf,
    ]
    assert certified.get_xdata().tolist() == [0, 1, 2, 3]
    assert [line.get_label() for line in axis.lines] == ["certified radius", "smallest radius that fooled, if any"]
    segments = axis.collections[0].get_segments()
    assert [(segment[0].tolist(), segment[1].tolist()) for segment in segments[:3]] == [
        ([0, 0], [0, 0]), ([1, 0.1], [1, 0.4]), ([2, 0.2], [2, 0.25]),
    ]  # fmt: skip
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("image", "radius ε [pixel per unit of mass]")
    assert (path, title) == ("p.png", "T") and words.endswith("; 4 images.") and not axis.spines["top"].get_visible()
    # Of equal certified radii the one fooled earlier comes first.
    save_radii_by_image("p.png", Bracket(np.array([0.1, 0.1]), np.array([0.3, 0.2])))
    assert saved[1][0].axes[0].lines[1].get_ydata().tolist() == [0.2, 0.3]
    save_radii_by_image("p.png", PROVED)
    assert len(saved[2][0].axes[0].lines) == 1 and saved[2][0].axes[0].lines[0].get_ydata().tolist() == [0, 0.5]
