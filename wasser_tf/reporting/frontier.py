"""Natural against robust accuracy of several classifiers: the frontier between the two, one panel for each radius."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wasser_tf.reporting import drawing

_COLUMNS = 3


class FrontierPoint(NamedTuple):
    """A classifier, or a published result.

    Attributes:
      name: Its name in the legend.
      natural: The natural accuracy, from 0 to 1, or None if it is not published beside the others.
      robust: The robust accuracy, from 0 to 1, by radius.
    """

    name: str
    natural: float | None
    robust: Mapping[float, float]


def save_frontier(
    path: drawing.Path,
    points: Sequence[FrontierPoint],
    radii: Sequence[float],
    *,
    published: Sequence[FrontierPoint] = (),
    title: str = "",
    caption: str = "",
) -> None:
    """Draws robust against natural accuracy at each radius.

    Args:
      path: The file to write.
      points: The classifiers, all measured under one attack.
      radii: The radii, one panel each.
      published: Results of others, drawn in grey; as a line where the natural accuracy is unknown.
      title: Text above the figure.
      caption: Text below the figure.

    Raises:
      ValueError: There are no points or no radii, or a point has no natural accuracy.
    """
    drawing.check_some(points, "points")
    drawing.check_some(radii, "radii")
    if unknown := [point.name for point in points if point.natural is None]:
        raise ValueError(f"points must have a natural accuracy, got none of {', '.join(unknown)}: measure it.")
    columns = min(_COLUMNS, len(radii))
    rows = -(-len(radii) // columns)
    figure = drawing.new_figure(1.0 + 3.5 * columns, 1.4 + 3.1 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    least = min(point.natural for point in [*points, *published] if point.natural is not None)
    for axis, radius in zip(panels.ravel(), radii, strict=False):
        axis.plot([0, 100], [0, 100], color=drawing.GREY, linewidth=0.8, linestyle=":")
        for number, point in enumerate(points):
            if radius in point.robust and point.natural is not None:
                place = ([100 * point.natural], [100 * point.robust[radius]])
                axis.plot(*place, label=point.name, **{**drawing.style(number), "linestyle": "", "markersize": 8})
        for number, point in enumerate(one for one in published if radius in one.robust):
            _draw_published(axis, number, point, 100 * point.robust[radius])
        axis.set_title(f"ε = {radius:g}", fontsize=10, loc="left")
        axis.set_xlim(100 * least - 4, 100)
        axis.set_ylim(-3, 100)
        drawing.clear_axes(axis)
    for axis in panels.ravel()[len(radii) :]:
        axis.set_visible(False)
    for axis in panels[:, 0]:
        axis.set_ylabel("robust accuracy, at most [%]")
    for axis in panels[-1]:
        axis.set_xlabel("natural accuracy [%]")
    handles = {
        label: handle
        for axis in panels.ravel()
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    drawing.save_figure(figure, path, title, caption)


def _draw_published(axis: Any, number: int, point: FrontierPoint, robust: float) -> None:
    style = {"color": drawing.GREY, "linewidth": 0.9}
    if point.natural is None:
        axis.axhline(robust, linestyle="--", **style)
        # Side by side, because the lines lie close together.
        axis.annotate(
            point.name, (0.02 + 0.14 * number, robust), xycoords=("axes fraction", "data"), fontsize=7, va="bottom"
        )
    else:
        axis.plot([100 * point.natural], [robust], marker="x", linestyle="", **style)
        axis.annotate(f"{point.name}  ", (100 * point.natural, robust), fontsize=7, va="center", ha="right")
