"""The canvas, colours, axes and captions shared by all figures. Matplotlib is imported on first use."""

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wasser_tf.reporting.tables import threat_model_caption
from wasser_tf.runtime import storage
from wasser_tf.threat_model import ThreatModel

Path = str | os.PathLike[str]

# The colour-blind-safe palette of Okabe and Ito, without yellow, which is too pale on white. Black is reserved for the
# worst case over attacks; it is dashed, so that it does not hide the attack with which it coincides.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P")
WORST = {"color": "black", "linestyle": (0, (4, 3)), "linewidth": 1.3, "marker": "", "zorder": 5}
_DASHES = ("-", "--", ":", "-.")
GREY = "#555555"
# Errors below the rounding error of float32 would only stretch the axis.
PRECISION_FLOOR = 1e-8


def new_figure(width: float, height: float) -> Any:
    """Returns a Matplotlib figure that needs no window system and does not change pyplot's state.

    Args:
      width: Width in inches.
      height: Height in inches.

    Returns:
      The figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path, title: str, words: str) -> None:
    """Writes a figure to a file, atomically.

    Args:
      figure: The figure.
      path: The file to write; its suffix determines the format.
      title: The title above the figure; none if empty.
      words: The caption below the figure; none if empty.

    Raises:
      OSError: The file cannot be written.
    """
    if title:
        figure.suptitle(title, fontsize=12)
    if words:
        lines = [line for paragraph in words.split("\n") for line in _wrapped(paragraph, figure.get_figwidth())]
        figure.supxlabel("\n".join(lines), fontsize=7.5, color=GREY, x=0.01, ha="left")
    with storage.atomic_path(path) as beside:
        figure.savefig(beside, dpi=150)


def _wrapped(text: str, inches: float) -> list[str]:
    """Breaks a caption into lines of similar length, so that the last line is not much shorter than the others."""
    # About 18 characters of this size fit into an inch.
    widest = int(18 * inches)
    count = len(textwrap.wrap(text, widest))
    widths = range(len(text) // max(count, 1), widest)
    return next((lines for lines in (textwrap.wrap(text, width) for width in widths) if len(lines) == count), [text])


def show_image(axis: Any, image: np.ndarray) -> None:
    """Draws an image [H, W, C] of one or three channels."""
    axis.imshow(np.clip(image if image.shape[-1] == 3 else image[..., 0], 0, 1), cmap="gray", vmin=0, vmax=1)


def title_image(axis: Any, label: int, prediction: int, names: Sequence[str] | None) -> None:
    """Writes label → prediction above an image, red where they differ."""
    pair = [
        names[number] if names is not None and number < len(names) else str(number) for number in (label, prediction)
    ]
    # Long names such as "automobile" are written on separate lines.
    text = (" → " if max(map(len, pair)) <= 4 else "\n→ ").join(pair)
    axis.set_title(text, fontsize=9, pad=3, color="#B00020" if prediction != label else "black")


def style(number: int) -> dict[str, Any]:
    """Returns the style of a curve by its number; the first 24 are distinct, also as points without a line."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[(number + number // len(_COLOURS)) % len(_MARKERS)],
        "linestyle": _DASHES[number // len(_COLOURS) % len(_DASHES)],
        "markersize": 4.5,
        "linewidth": 1.6,
    }


def legend_above(figure: Any, axis: Any, title: str) -> None:
    """Places the legend of an axis above the figure, in rows of similar length that fit its width, below the title."""
    handles, labels = axis.get_legend_handles_labels()
    # The sample of a line takes 0.7 inches, and about 12 characters of this size fit into an inch.
    columns = int(figure.get_figwidth() / (0.7 + max(map(len, labels)) / 12))
    rows = math.ceil(len(labels) / max(1, min(columns, 5)))
    # As a separate title, Matplotlib would draw it over the legend.
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=math.ceil(len(labels) / rows),
        frameon=False,
        fontsize=10,
        title=title,
        title_fontsize=12,
    )


def percent_axis(axis: Any, label: str) -> None:
    """Labels the vertical axis and sets its range to 0–100 %."""
    axis.set_ylabel(label)
    axis.set_ylim(-3, 103)


def precision_axis(axis: Any, kind: str) -> None:
    """Makes the vertical axis a logarithmic one of precision errors; errors below the floor are drawn at the floor."""
    axis.set_ylabel(f"{kind}: mean precision error\n({PRECISION_FLOOR:.0e} or less: drawn there)")
    axis.set_yscale("log")


def label_change(bar: Any, channels: int) -> None:
    """Labels the colour bar of a perturbation."""
    bar.set_label("change of pixel" + (",\nsum of channels" if channels == 3 else ""), fontsize=8)


def radius_axis(axis: Any, threat_model: ThreatModel | None) -> None:
    """Labels the horizontal axis with the radius and its unit."""
    axis.set_xlabel("radius ε" + radius_unit(threat_model))
    axis.set_xlim(left=0)
    clear_axes(axis)


def radius_unit(threat_model: ThreatModel | None) -> str:
    """Returns the unit of ε in brackets, or an empty text if the threat model is unknown."""
    if threat_model is None:
        return ""
    power = "" if threat_model.p == 1 else f"^{threat_model.p:g}"
    return f" [pixel{power} per unit of mass]" if threat_model.normalize_mass else f" [pixel{power} × mass]"


def clear_axes(axis: Any) -> None:
    """Adds a grid to an axis and removes its upper and right borders."""
    axis.grid(alpha=0.3, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def caption(threat_model: ThreatModel | None, num_images: int | None, warnings: Sequence[str] = ()) -> str:
    """Returns a caption with the threat model and the number of images, as far as they are known, and the warnings."""
    if threat_model is not None:
        words = threat_model_caption(threat_model.get_config(), num_images)
    else:
        words = "" if num_images is None else f"{num_images} images."
    # Captions are plain text; in Markdown warnings are bold.
    return "\n".join(filter(None, [words, *(line.strip("*") for line in warnings)]))


def check_some(given: Sequence[Any] | Mapping[str, Any], name: str) -> None:
    """Raises an error if there is nothing to draw.

    Raises:
      ValueError: `given` is empty.
    """
    if not given:
        raise ValueError(f"{name} must hold at least one to draw, got none.")
