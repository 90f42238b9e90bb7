"""The picture of natural against robust accuracy."""

import pytest

from wasser_tf.reporting import drawing
from wasser_tf.reporting.frontier import FrontierPoint, save_frontier

OURS = [FrontierPoint("a", 0.8, {0.01: 0.5, 0.02: 0.25}), FrontierPoint("b", 0.6, {0.02: 0.5})]
THEIRS = [FrontierPoint("c", None, {0.02: 0.4}), FrontierPoint("d", 0.9, {0.01: 0.1})]


def test_each_panel_has_the_points_of_its_radius(monkeypatch):
    axes = []
    monkeypatch.setattr(drawing, "save_figure", lambda figure, *_: axes.extend(figure.axes))
    save_frontier("", OURS, [0.01, 0.02], published=THEIRS)
    assert [axis.get_title(loc="left") for axis in axes] == ["ε = 0.01", "ε = 0.02"]
    first, second = ({line.get_label(): line for line in axis.lines} for axis in axes)
    assert (first["a"].get_xdata()[0], first["a"].get_ydata()[0]) == (80.0, 50.0) and "b" not in first
    assert (second["b"].get_xdata()[0], second["b"].get_ydata()[0]) == (60.0, 50.0)
    # Published: a line where the natural accuracy is unknown, otherwise a point.
    assert any(list(line.get_ydata()) == [40.0, 40.0] for line in axes[1].lines)
    assert any((list(line.get_xdata()), list(line.get_ydata())) == ([90.0], [10.0]) for line in axes[0].lines)
    # All points lie within the axes.
    assert axes[0].get_xlim()[0] < 60


def test_the_picture_is_written(tmp_path):
    save_frontier(tmp_path / "frontier.png", OURS, [0.01, 0.02], published=THEIRS, title="t", caption="c")
    assert (tmp_path / "frontier.png").stat().st_size > 5000


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="points must hold at least one"):
        save_frontier("", [], [0.01])
    with pytest.raises(ValueError, match="radii must hold at least one"):
        save_frontier("", OURS, [])
    with pytest.raises(ValueError, match="natural accuracy, got none of c"):
        save_frontier("", [*OURS, THEIRS[0]], [0.02])
