"""The bracket: the share of images certified at ε, and the share not fooled; robust accuracy lies between the two."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from wasser_tf.reporting import drawing, tables
from wasser_tf.runtime.formatting import percentage
from wasser_tf.threat_model import ThreatModel

# Panels in a row of a picture.
_PANELS = 4


class Bracket(NamedTuple):
    """Radii of one classifier's images from both sides.

    Attributes:
      certified: The largest radius proved for each image, [n]: 0 where the answer is wrong.
      fooled: The smallest radius known to fool each image, [n]: 0 where the answer is wrong, infinite where none is
        known; or None where nothing was attacked.
    """

    certified: np.ndarray
    fooled: np.ndarray | None = None

    def certified_share(self, epsilon: float) -> float:
        """Returns the share of images whose answer is proved to be right in the whole ball of a radius."""
        return float(np.mean((self.certified >= epsilon) & (self.certified > 0)))

    def not_fooled_share(self, epsilon: float) -> float:
        """Returns the share of images that nothing known fools within a radius: 1 where nothing was attacked."""
        return 1.0 if self.fooled is None else float(np.mean(self.fooled > epsilon))

    def contradictions(self) -> int:
        """Returns the number of images fooled within their certified radius, which is 0 unless something is wrong."""
        if self.fooled is None:
            return 0
        within = (self.fooled <= self.certified) & np.isfinite(self.fooled)
        return int(np.sum(within & (self.certified > 0)))


def bracket_shares(brackets: Mapping[str, Bracket], radii: Sequence[float]) -> dict[str, list[dict[str, float | None]]]:
    """Returns the shares certified and not fooled at each radius as plain Python values, by classifier.

    Args:
      brackets: By classifier.
      radii: The radii of the shares.

    Returns:
      Rows with "epsilon", "certified" and "not_fooled", which is None where nothing was attacked.
    """
    return {
        name: [
            {
                "epsilon": radius,
                "certified": one.certified_share(radius),
                "not_fooled": None if one.fooled is None else one.not_fooled_share(radius),
            }
            for radius in radii
        ]
        for name, one in brackets.items()
    }


def contradiction_note(brackets: Mapping[str, Bracket]) -> str:
    """Returns a line about images fooled within their certified radius; empty if there are none."""
    wrong = {name: count for name, one in brackets.items() if (count := one.contradictions())}
    if not wrong:
        return ""
    counts = ", ".join(f"{name}: {count}" for name, count in wrong.items())
    return f"**Contradiction: images fooled within their certified radius ({counts}). One of the two is incorrect.**\n"


def bracket_table(brackets: Mapping[str, Bracket], radii: Sequence[float]) -> str:
    """Returns a Markdown table: certified, or certified to not fooled, a classifier a row and a radius a column."""

    def cell(bracket: Bracket, radius: float) -> str:
        low = percentage(bracket.certified_share(radius), 1)
        return low if bracket.fooled is None else f"{low} to {percentage(bracket.not_fooled_share(radius), 1)}"

    def median(values: np.ndarray) -> str:
        return f"{float(np.quantile(values, 0.5, method='inverted_cdf')):.4g}"

    attacked = any(bracket.fooled is not None for bracket in brackets.values())
    header = ["certified" + (" to not fooled" if attacked else "") + " [%]", *(f"ε = {radius:g}" for radius in radii)]
    header.append("median radius")
    rows = []
    for name, bracket in brackets.items():
        medians = median(bracket.certified)
        if bracket.fooled is not None:
            # Attacks that fooled fewer than half of the images leave the other end open.
            upper = median(bracket.fooled)
            medians += " or more" if upper == "inf" else f" to {upper}"
        rows.append([name, *(cell(bracket, radius) for radius in radii), medians])
    return tables.markdown_table(header, rows)


def save_bracket(
    path: drawing.Path,
    brackets: Mapping[str, Bracket],
    *,
    threat_model: ThreatModel | None = None,
    title: str = "",
    max_radius: float | None = None,
    warnings: Sequence[str] = (),
) -> None:
    """Draws the share certified and the share not fooled against ε, and shades the undecided between them.

    Args:
      path: The file to write.
      brackets: By classifier, one panel each.
      threat_model: Written below; its epsilon is not.
      title: Written above.
      max_radius: Where the axis ends; at the largest finite radius by default.
      warnings: Sentences about numbers that may mislead, written into the caption.

    Raises:
      ValueError: There is nothing to draw.
    """
    drawing.check_some(brackets, "brackets")
    values = [side for bracket in brackets.values() for side in bracket if side is not None]
    finite = np.concatenate([side[np.isfinite(side)] for side in values])
    end = max_radius or float(finite.max(initial=0)) or 1.0
    rows, columns = -(-len(brackets) // _PANELS), min(_PANELS, len(brackets))
    figure = drawing.new_figure(max(6.4, 4.2 * columns), 0.4 + 4.0 * rows)
    grid_of_axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    axes = grid_of_axes.ravel()[: len(brackets)]
    for axis in grid_of_axes.ravel()[len(brackets) :]:
        axis.set_visible(False)
    for axis, (name, bracket) in zip(axes, brackets.items(), strict=True):
        places = np.unique(np.concatenate([side[side <= end] for side in bracket if side is not None] + [[0.0, end]]))
        certified = np.array([100 * bracket.certified_share(place) for place in places])
        axis.step(places, certified, where="pre", color="#009E73", label="certified")
        axis.fill_between(places, 0, certified, step="pre", color="#009E73", alpha=0.15, linewidth=0)
        if bracket.fooled is not None:
            not_fooled = np.array([100 * bracket.not_fooled_share(place) for place in places])
            axis.step(places, not_fooled, where="post", color="#D55E00", label="not fooled")
            # Steps go down after a radius on one side and at it on the other: shade on a fine grid of both.
            grid = np.linspace(0, end, 1000)
            low = np.array([100 * bracket.certified_share(place) for place in grid])
            high = np.array([100 * bracket.not_fooled_share(place) for place in grid])
            axis.fill_between(grid, low, high, color="#999999", alpha=0.3, linewidth=0, label="undecided")
        axis.set_title(name, fontsize=10)
        drawing.radius_axis(axis, threat_model)
        axis.set_xlim(0, end)
        axis.legend(fontsize=9, frameon=False, loc="upper right")
    for axis in grid_of_axes[:, 0]:
        drawing.percent_axis(axis, "share of images [%]")
    counts = {len(bracket.certified) for bracket in brackets.values()}
    words = drawing.caption(threat_model, counts.pop() if len(counts) == 1 else None, warnings)
    drawing.save_figure(figure, path, title, words)


def save_radii_by_image(
    path: drawing.Path, bracket: Bracket, *, threat_model: ThreatModel | None = None, title: str = ""
) -> None:
    """Draws the minimal radius of each image from both sides, images by the certified one, as vertical lines."""
    order = np.lexsort((bracket.certified if bracket.fooled is None else bracket.fooled, bracket.certified))
    places = np.arange(len(order))
    figure = drawing.new_figure(6.4, 4.0)
    axis = figure.subplots()
    axis.plot(places, bracket.certified[order], color="#009E73", linewidth=1.2, label="certified radius")
    if bracket.fooled is not None:
        fooled = bracket.fooled[order]
        axis.plot(places, fooled, ".", color="#D55E00", markersize=2, label="smallest radius that fooled, if any")
        axis.vlines(places, bracket.certified[order], fooled, color="#999999", alpha=0.3, linewidth=0.5)
    axis.set_xlabel("image")
    axis.set_ylabel("radius ε" + drawing.radius_unit(threat_model))
    axis.legend(fontsize=9, frameon=False, loc="upper left")
    drawing.clear_axes(axis)
    drawing.save_figure(figure, path, title, drawing.caption(threat_model, len(order)))
