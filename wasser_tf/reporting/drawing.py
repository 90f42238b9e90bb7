"""What all figures share: their canvas, colours, axes and captions. Matplotlib is imported on first use."""

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

# Okabe and Ito's colours, which most colour-blind people can tell apart; the yellow, pale on white, is left out.
# Black is kept for the worst case over attacks, which is dashed so as not to hide the attack it equals.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P")
WORST = {"color": "black", "linestyle": (0, (4, 3)), "linewidth": 1.3, "marker": "", "zorder": 5}
_DASHES = ("-", "--", ":", "-.")
GREY = "#555555"
# Rounding below float32's own would only stretch the axis of precision errors.
PRECISION_FLOOR = 1e-8


def new_figure(width: float, height: float) -> Any:
    """A figure of its own canvas: no window system, and nothing of the caller's pyplot is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path, title: str, words: str) -> None:
    """Writes a figure with a title and words below; an empty one is left out."""
    if title:
        figure.suptitle(title, fontsize=12)
    if words:
        lines = [line for paragraph in words.split("\n") for line in _wrapped(paragraph, figure.get_figwidth())]
        figure.supxlabel("\n".join(lines), fontsize=7.5, color=GREY, x=0.01, ha="left")
    with storage.atomic_path(path) as beside:
        figure.savefig(beside, dpi=150)


def _wrapped(text: str, inches: float) -> list[str]:
    """Breaks a caption into lines of like length, so that no word is left alone on the last."""
    # Some 18 characters of this size fit into an inch.
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
    # Names such as "automobile" need a line each.
    text = (" → " if max(map(len, pair)) <= 4 else "\n→ ").join(pair)
    axis.set_title(text, fontsize=9, pad=3, color="#B00020" if prediction != label else "black")


def style(number: int) -> dict[str, Any]:
    """Returns how the line of a number is drawn; no two of the first two dozen look alike."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _DASHES[number // len(_COLOURS) % len(_DASHES)],
        "markersize": 4.5,
        "linewidth": 1.6,
    }


def legend_above(figure: Any, axis: Any, title: str) -> None:
    """Puts an axis' legend above the figure, in rows of like length that fit its width, and the title above that."""
    handles, labels = axis.get_legend_handles_labels()
    # A line's sample and some twelve characters of this size to an inch.
    columns = int(figure.get_figwidth() / (0.7 + max(map(len, labels)) / 12))
    rows = math.ceil(len(labels) / max(1, min(columns, 5)))
    # The title goes into the legend: beside it, Matplotlib would draw one over the other.
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
    """Makes the vertical axis one of per cent."""
    axis.set_ylabel(label)
    axis.set_ylim(-3, 103)


def precision_axis(axis: Any, kind: str) -> None:
    """Makes the vertical axis one of precision errors, of which those below the floor are drawn there."""
    axis.set_ylabel(f"{kind}: mean precision error\n({PRECISION_FLOOR:.0e} or less: drawn there)")
    axis.set_yscale("log")


def label_change(bar: Any, channels: int) -> None:
    """Says what the colours of a perturbation are."""
    bar.set_label("change of pixel" + (",\nsum of channels" if channels == 3 else ""), fontsize=8)


def radius_axis(axis: Any, threat_model: ThreatModel | None) -> None:
    """Makes the horizontal axis one of radii, with their unit."""
    axis.set_xlabel("radius ε" + unit(threat_model))
    axis.set_xlim(left=0)
    clear_axes(axis)


def unit(threat_model: ThreatModel | None) -> str:
    """Returns the unit of ε in brackets, where the threat model is known."""
    if threat_model is None:
        return ""
    power = "" if threat_model.p == 1 else f"^{threat_model.p:g}"
    return f" [pixel{power} per unit of mass]" if threat_model.normalize_mass else f" [pixel{power} × mass]"


def clear_axes(axis: Any) -> None:
    """Leaves of an axis what is needed to read it."""
    axis.grid(alpha=0.3, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def caption(threat_model: ThreatModel | None, num_images: int | None) -> str:
    """Returns the threat model and the number of images in words."""
    if threat_model is None:
        return "" if num_images is None else f"{num_images} images."
    return threat_model_caption(threat_model.get_config(), num_images)


def check_some(given: Sequence[Any] | Mapping[str, Any], name: str) -> None:
    """Raises ValueError where there is nothing to draw."""
    if not given:
        raise ValueError(f"{name} must hold at least one to draw, got none.")
