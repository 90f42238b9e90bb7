"""Figures of attacks: examples, success and accuracy curves, and histograms of minimal radii.

The suffix of the path determines the format.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from wasser_tf.evaluation.record import WORST_CASE, Record
from wasser_tf.reporting import drawing, tables
from wasser_tf.threat_model import ThreatModel


def save_examples(
    path: drawing.Path,
    images: np.ndarray,
    adversarial: np.ndarray,
    labels: np.ndarray,
    clean_predictions: np.ndarray,
    adversarial_predictions: np.ndarray,
    *,
    threat_model: ThreatModel | str | None = None,
    title: str = "",
    class_names: Sequence[str] | None = None,
    max_examples: int = 8,
) -> None:
    """Draws a row of clean images, one of perturbations and one of adversarial images (the paper's Fig. 1).

    Each image is titled "label → prediction", in red if the prediction is wrong. Perturbations share one colour scale
    centred at 0; for images with three channels, the sum over the channels is drawn.

    Args:
      path: The file to write.
      images: Clean images [n, H, W, C] in [0, 1], C = 1 or 3; the first `max_examples` are drawn.
      adversarial: The adversarial images, [n, H, W, C].
      labels: The classes of the images, int [n].
      clean_predictions: The predicted classes of the clean images, int [n].
      adversarial_predictions: The predicted classes of the adversarial images, int [n].
      threat_model: The threat model, written into the caption, or its description as returned by `Attack.ball`.
      title: The title.
      class_names: Names of the classes; numbers by default.
      max_examples: The largest number of columns.

    Raises:
      ValueError: There is no image, or the images have neither one nor three channels.
      OSError: The file cannot be written.
    """
    count, channels = min(len(images), max_examples), images.shape[-1]
    if count < 1 or channels not in (1, 3):
        raise ValueError(f"images must be [n, height, width, 1 or 3] with n of at least 1, got {images.shape}.")
    images, adversarial = np.asarray(images[:count]), np.asarray(adversarial[:count])
    change = (adversarial.astype(np.float64) - images).sum(axis=-1)
    limit = float(np.abs(change).max()) or 1.0
    names = [str(name) for name in class_names] if class_names is not None else None

    figure = drawing.new_figure(1.3 * count + 1.6, 4.9 if title else 4.6)
    # The colour bar has its own column, so that it does not displace the images in its row.
    grid = figure.add_gridspec(3, count + 1, width_ratios=[1.0] * count + [0.08], wspace=0.06, hspace=0.05)
    axes = np.array([[figure.add_subplot(grid[row, column]) for column in range(count)] for row in range(3)])
    for axis, label in zip(axes[:, 0], ("clean", "perturbation", "adversarial"), strict=True):
        axis.set_ylabel(label, fontsize=10)
    for column in range(count):
        drawing.show_image(axes[0, column], images[column])
        painted = axes[1, column].imshow(change[column], cmap="RdBu_r", vmin=-limit, vmax=limit)
        drawing.show_image(axes[2, column], adversarial[column])
        for row, predictions in ((0, clean_predictions), (2, adversarial_predictions)):
            drawing.title_image(axes[row, column], int(labels[column]), int(predictions[column]), names)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
    bar = figure.colorbar(painted, cax=figure.add_subplot(grid[1, count]))
    drawing.label_change(bar, channels)
    bar.ax.tick_params(labelsize=8)
    caption = "Above each image: label → prediction, red where the classifier is wrong."
    if threat_model is not None:
        caption += f"\n{threat_model}."
    drawing.save_figure(figure, path, title, caption)


def save_success_curves(
    path: drawing.Path,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    threat_model: ThreatModel | None = None,
    num_images: int | None = None,
    title: str = "",
    warnings: Sequence[str] = (),
) -> None:
    """Draws success rates against the radius ε.

    Args:
      path: The file to write.
      curves: The radii and the success rates (0 to 1) of each curve, by name.
      threat_model: The threat model, written into the caption without its epsilon.
      num_images: The number of images, written into the caption.
      title: The title.
      warnings: Sentences about numbers that may mislead, written into the caption.

    Raises:
      ValueError: There are no curves.
      OSError: The file cannot be written.
    """
    drawing.check_some(curves, "curves")
    figure = drawing.new_figure(6.4, 4.4)
    axis = figure.subplots()
    for number, (name, (radii, success)) in enumerate(curves.items()):
        axis.plot(radii, 100 * np.asarray(success), label=name, **drawing.style(number))
    drawing.percent_axis(axis, "attack success rate [%]")
    drawing.radius_axis(axis, threat_model)
    axis.legend(fontsize=9, frameon=False, loc="best")
    drawing.save_figure(figure, path, title, drawing.caption(threat_model, num_images, warnings))


def save_panels(path: drawing.Path, records: Sequence[Record], *, title: str = "") -> None:
    """Draws the four panels of the paper's Fig. 4 and 5 for one classifier, with a curve for each attack.

    The upper panels show the success rate and the cross-entropy of the feasible examples. The lower panels show by how
    much the raw examples violate the threat model: the precision error (logarithmic), as in the paper, and the largest
    pixel. Feasible examples have no such errors except rounding. Robust accuracy is 1 − success.

    Args:
      path: The file to write.
      records: Records of one classifier and one threat model, at fixed radii.
      title: The title; the classifier's name by default.

    Raises:
      ValueError: There are no records, or they belong to several classifiers.
      OSError: The file cannot be written.
    """
    drawing.check_some(records, "records")
    if len({record.model for record in records}) > 1:
        raise ValueError("The records must belong to one classifier; draw a figure for each.")
    lines: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.epsilon):
        lines.setdefault(record.attack, []).append(record)
    figure = drawing.new_figure(10, 7.4)
    panels = figure.subplots(2, 2)
    for number, (attack, members) in enumerate(lines.items()):
        radii = [record.epsilon for record in members]
        drawn = [
            [100 * record.feasible.success_rate for record in members],
            [record.feasible.cross_entropy for record in members],
            [max(record.raw.precision_error_mean, drawing.PRECISION_FLOOR) for record in members],
            [record.raw.max_pixel for record in members],
        ]
        # The worst case is taken over feasible examples; its raw examples carry no information.
        style, drawn = (drawing.WORST, drawn[:2]) if attack == WORST_CASE else (drawing.style(number), drawn)
        for axis, values in zip(panels.ravel(), drawn, strict=False):
            axis.plot(radii, values, label=attack, **style)
    threat_model = ThreatModel.from_config(records[0].threat_model)
    (success, loss), (precision, pixel) = panels
    drawing.percent_axis(success, "attack success rate [%]")
    loss.set_ylabel("mean cross-entropy [nats]")
    loss.set_ylim(bottom=0)
    drawing.precision_axis(precision, "raw")
    precision.set_ylim(5e-9, max(1e-2, 2 * precision.get_ylim()[1]))
    pixel.set_ylabel("raw: largest pixel")
    pixel.set_ylim(0, max(1.25, 1.05 * pixel.get_ylim()[1]))
    if threat_model.capacity is not None:
        pixel.axhline(threat_model.capacity, color=drawing.GREY, linewidth=1, linestyle=":")
    for axis in panels.ravel():
        drawing.radius_axis(axis, threat_model)
    drawing.legend_above(figure, success, title or records[0].model)
    flagged = "".join(f"\n{line.strip('*')}" for line in tables.flagged_lines(records))
    raw = "\nAbove: feasible examples. Below: raw examples, before rounding; dotted: the capacity."
    drawing.save_figure(figure, path, "", drawing.caption(threat_model, records[0].num_images) + raw + flagged)


def save_radius_histogram(
    path: drawing.Path,
    radii: Mapping[str, np.ndarray],
    *,
    threat_model: ThreatModel | None = None,
    title: str = "",
    bins: int = 30,
    warnings: Sequence[str] = (),
) -> None:
    """Draws a histogram of the minimal radii of each classifier's images.

    Args:
      path: The file to write.
      radii: The minimal radii [n] of each classifier, by name: 0 for an image that is misclassified clean, infinity
        for one that was never fooled.
      threat_model: The threat model, written into the caption without its epsilon.
      title: The title.
      bins: The number of bars.
      warnings: Sentences about numbers that may mislead, written into the caption.

    Raises:
      ValueError: There is no classifier.
      OSError: The file cannot be written.
    """
    drawing.check_some(radii, "radii")
    finite = np.concatenate([np.asarray(values)[np.isfinite(values)] for values in radii.values()])
    edges = np.linspace(0, float(finite.max(initial=0)) or 1.0, bins + 1)
    figure = drawing.new_figure(6.8, 1.1 + 1.9 * len(radii))
    axes = figure.subplots(len(radii), 1, sharex=True, squeeze=False)[:, 0]
    for number, (axis, (name, values)) in enumerate(zip(axes, radii.items(), strict=True)):
        values = np.asarray(values, np.float64)
        axis.hist(values[np.isfinite(values)], edges, color=drawing.style(number)["color"], alpha=0.75)
        median = float(np.quantile(values, 0.5, method="inverted_cdf"))
        note = f"{name}: no median, because fewer than half are fooled"
        if np.isfinite(median):
            axis.axvline(median, color="black", linewidth=1, linestyle="--")
            note = f"{name}: median {median:.3g}"
        never = int((~np.isfinite(values)).sum())
        note += f"; never fooled {never} of {len(values)}" if never else ""
        axis.set_title(note, fontsize=10, loc="left")
        axis.set_ylabel("images")
        axis.yaxis.get_major_locator().set_params(integer=True)
        drawing.clear_axes(axis)
        axis.set_xlim(0, edges[-1])
    axes[-1].set_xlabel("minimal radius" + drawing.radius_unit(threat_model))
    counts = {len(values) for values in radii.values()}
    note = "0: misclassified without an attack. Dashed: the median.\n"
    drawing.save_figure(
        figure, path, title, note + drawing.caption(threat_model, counts.pop() if len(counts) == 1 else None, warnings)
    )


def save_accuracy_curves(
    path: drawing.Path,
    radii: Mapping[str, np.ndarray],
    *,
    threat_model: ThreatModel | None = None,
    title: str = "",
    max_radius: float | None = None,
    warnings: Sequence[str] = (),
) -> None:
    """Draws robust accuracy against ε, computed from minimal radii: the share of images that are not fooled at ε.

    A minimal radius found by an attack is an upper bound, and so is the accuracy.

    Args:
      path: The file to write.
      radii: The minimal radii [n] of each classifier, by name, see `save_radius_histogram`.
      threat_model: The threat model, written into the caption without its epsilon.
      title: The title.
      max_radius: The end of the curves; the largest finite radius by default.
      warnings: Sentences about numbers that may mislead, written into the caption.

    Raises:
      ValueError: There is no classifier.
      OSError: The file cannot be written.
    """
    drawing.check_some(radii, "radii")
    finite = np.concatenate([np.asarray(values)[np.isfinite(values)] for values in radii.values()])
    end = max_radius or float(finite.max(initial=0)) or 1.0
    figure = drawing.new_figure(6.4, 4.4)
    axis = figure.subplots()
    for number, (name, values) in enumerate(radii.items()):
        steps = np.sort(np.asarray(values, np.float64))
        places = np.concatenate([[0.0], steps[steps <= end], [end]])
        accuracy = [100 * float(np.mean(steps > place)) for place in places]
        style = {
            key: value for key, value in drawing.style(number).items() if key in ("color", "linestyle", "linewidth")
        }
        axis.step(places, accuracy, where="post", label=name, **style)
    drawing.percent_axis(axis, "robust accuracy, at most [%]")
    drawing.radius_axis(axis, threat_model)
    axis.set_xlim(0, 1.03 * end)
    axis.legend(fontsize=9, frameon=False, loc="best")
    counts = {len(values) for values in radii.values()}
    drawing.save_figure(
        figure, path, title, drawing.caption(threat_model, counts.pop() if len(counts) == 1 else None, warnings)
    )
