"""Figures in the style of the paper's Fig. 1, 3, 4 and 5, drawn from our results."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from wasser_tf.evaluation.record import WORST_CASE, Record
from wasser_tf.reporting import drawing
from wasser_tf.threat_model import ThreatModel


class Attacked(NamedTuple):
    """One attack's examples for Fig. 1.

    Attributes:
      name: Name of the attack.
      images: Adversarial examples [n, H, W, C] in [0, 1].
      predictions: The classifier's predictions on them, [n].
    """

    name: str
    images: np.ndarray
    predictions: np.ndarray


def save_side_by_side(
    path: drawing.Path,
    images: np.ndarray,
    labels: np.ndarray,
    attacked: Sequence[Attacked],
    *,
    title: str = "",
    caption: str = "",
    class_names: Sequence[str] | None = None,
) -> None:
    """Draws clean images, and below them each attack's perturbations and examples (the paper's Fig. 1).

    All perturbations of an attack share one colour map centred at 0. Perturbations of colour images are summed over the
    channels.

    Args:
      path: The file to write.
      images: Clean images [n, H, W, C] in [0, 1], C = 1 or 3.
      labels: Their classes [n], which the classifier predicts correctly.
      attacked: The attacks and their examples.
      title: Text above the figure.
      caption: Text below the figure.
      class_names: A name for each class; numbers by default.

    Raises:
      ValueError: `attacked` is empty.
    """
    drawing.check_some(attacked, "attacked")
    count, rows = len(images), 1 + 2 * len(attacked)
    figure = drawing.new_figure(1.25 * count + 1.8, 1.3 * rows + 0.9)
    grid = figure.add_gridspec(rows, count + 1, width_ratios=[1.0] * count + [0.08], wspace=0.06, hspace=0.05)
    axes = np.array([[figure.add_subplot(grid[row, column]) for column in range(count)] for row in range(rows)])
    for column in range(count):
        drawing.show_image(axes[0, column], images[column])
        drawing.title_image(axes[0, column], int(labels[column]), int(labels[column]), class_names)
    axes[0, 0].set_ylabel("clean", fontsize=9)
    for number, attack in enumerate(attacked):
        above, below = axes[1 + 2 * number], axes[2 + 2 * number]
        change = (attack.images.astype(np.float64) - images).sum(axis=-1)
        limit = float(np.abs(change).max()) or 1.0
        for column in range(count):
            painted = above[column].imshow(change[column], cmap="RdBu_r", vmin=-limit, vmax=limit)
            drawing.show_image(below[column], attack.images[column])
            drawing.title_image(below[column], int(labels[column]), int(attack.predictions[column]), class_names)
        above[0].set_ylabel(f"{attack.name}:\nperturbation", fontsize=9)
        below[0].set_ylabel("example", fontsize=9)
        bar = figure.colorbar(painted, cax=figure.add_subplot(grid[1 + 2 * number, count]))
        drawing.label_change(bar, images.shape[-1])
        bar.ax.tick_params(labelsize=7)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
    drawing.save_figure(figure, path, title, caption)


def save_epoch_curves(
    path: drawing.Path, curves: Mapping[str, Sequence[float]], *, title: str = "", caption: str = "", label: str = ""
) -> None:
    """Draws accuracies against epochs (the paper's Fig. 3).

    Args:
      path: The file to write.
      curves: The accuracy, from 0 to 1, of each epoch from the first on, by the name of the curve.
      title: Text above the figure.
      caption: Text below the figure.
      label: Label of the vertical axis.

    Raises:
      ValueError: There are no curves.
    """
    drawing.check_some(curves, "curves")
    figure = drawing.new_figure(6.8, 4.4)
    axis = figure.subplots()
    for number, (name, values) in enumerate(curves.items()):
        style = {**drawing.style(number), "markersize": 3}
        axis.plot(range(1, len(values) + 1), 100 * np.asarray(values), label=name, **style)
    axis.set_xlabel("epoch")
    axis.set_ylabel(label)
    axis.xaxis.get_major_locator().set_params(integer=True)
    drawing.clear_axes(axis)
    axis.legend(fontsize=9, frameon=False, loc="best", ncols=2 if len(curves) > 5 else 1)
    drawing.save_figure(figure, path, title, caption)


def save_raw_and_feasible(path: drawing.Path, records: Mapping[str, Sequence[Record]], *, title: str = "") -> None:
    """Draws success rate, cross-entropy and precision error against ε (the paper's Fig. 4 and 5).

    The first row shows raw examples, as papers score them; the second row shows feasible examples. The worst case over
    attacks appears in the second row only, because it is defined for feasible examples only.

    Args:
      path: The file to write.
      records: The records of each curve by its name, all of one threat model.
      title: Text above the figure.

    Raises:
      ValueError: There are no records.
    """
    drawing.check_some(records, "records")
    figure = drawing.new_figure(11.5, 7.6)
    panels = figure.subplots(2, 3)
    for number, (name, members) in enumerate(records.items()):
        members = sorted(members, key=lambda record: record.epsilon)
        radii = [record.epsilon for record in members]
        for row, kind in enumerate(("raw", "feasible")):
            if kind == "raw" and members[0].attack == WORST_CASE:
                continue
            scores = [getattr(record, kind) for record in members]
            success, loss, precision = panels[row]
            success.plot(radii, [100 * one.success_rate for one in scores], label=name, **drawing.style(number))
            loss.plot(radii, [one.cross_entropy for one in scores], **drawing.style(number))
            errors = [max(one.precision_error_mean, drawing.PRECISION_FLOOR) for one in scores]
            precision.plot(radii, errors, **drawing.style(number))
    first = next(iter(records.values()))[0]
    threat_model = ThreatModel.from_config(first.threat_model)
    for row, kind in enumerate(("raw", "feasible")):
        success, loss, precision = panels[row]
        drawing.percent_axis(success, f"{kind}: attack success rate [%]")
        loss.set_ylabel(f"{kind}: mean cross-entropy [nats]")
        loss.set_ylim(bottom=0)
        drawing.precision_axis(precision, kind)
        precision.set_ylim(5e-9, 2)
        for axis in panels[row]:
            drawing.radius_axis(axis, threat_model)
    drawing.legend_above(figure, panels[1, 0], title)
    words = "\nRaw: before rounding; may violate the threat model. Feasible: every example satisfies it."
    drawing.save_figure(figure, path, "", drawing.caption(threat_model, first.num_images) + words)
