"""Reports a comparison of several classifiers under one attack: the table, the figures and the files."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wasser_tf.evaluation import metrics
from wasser_tf.evaluation.comparison import Comparison
from wasser_tf.reporting import figures, tables
from wasser_tf.runtime import run_files, storage
from wasser_tf.runtime.formatting import percent
from wasser_tf.threat_model import ThreatModel


def comparison_table(comparison: Comparison) -> str:
    """Returns accuracies as a Markdown table.

    Args:
      comparison: The evaluations.

    Returns:
      A table with a row for natural accuracy and for each radius, a column for each classifier, and for two
      classifiers the gain of the second in percentage points.
    """
    names = list(comparison.evaluations)
    columns = [_accuracies(comparison, name) for name in names]
    header = ["accuracy on the test images", *names, *(["gain, points"] if len(names) == 2 else [])]
    labels = ["natural", *(f"robust at ε = {radius:g}" for radius in comparison.radii)]
    rows = []
    for number, label in enumerate(labels):
        values = [column[number] for column in columns]
        gain = [f"{100 * (values[1] - values[0]):+.1f}"] if len(values) == 2 else []
        rows.append([label, *(percent(value, 1) for value in values), *gain])
    # The table is printed alone too.
    warnings = "".join(f"\n{line}\n" for line in tables.flagged_lines(comparison.records))
    return tables.markdown_table(header, rows) + warnings


def save_figures(
    folder: str | os.PathLike[str], comparison: Comparison, radius: float, class_names: Sequence[str] | None = None
) -> list[pathlib.Path]:
    """Draws examples at one radius for each classifier (the paper's Fig. 1), and success against ε for all of them.

    Args:
      folder: The folder of the files.
      comparison: The evaluations.
      radius: The radius of the examples, one of the comparison's radii.
      class_names: Names of the classes; numbers by default.

    Returns:
      The written files: examples_<classifier>.png for each classifier, and success.png.

    Raises:
      ValueError: The radius is not one of the comparison's radii.
      OSError: A file cannot be written.
    """
    folder = pathlib.Path(folder)
    at, split = comparison.radii.index(radius), comparison.split
    threat_model = ThreatModel.from_config(comparison.records[at].threat_model)
    # The first images that every classifier predicts correctly: on others no attack is needed.
    known = np.logical_and.reduce([~members[at].clean.wrong for members in comparison.evaluations.values()])
    known = known[: min(len(members[at].result.adversarial) for members in comparison.evaluations.values())]
    chosen = np.flatnonzero(known)[:8] if known.any() else np.arange(min(8, len(known)))
    paths = []
    for name, members in comparison.evaluations.items():
        adversarial = members[at].result.adversarial[chosen]
        attacked = metrics.predict(comparison.classifiers[name], adversarial, split.labels[chosen])
        paths.append(folder / f"examples_{name}.png")
        figures.save_examples(
            paths[-1],
            split.images[chosen],
            adversarial,
            split.labels[chosen],
            members[at].clean.predicted[chosen],
            attacked.predicted,
            threat_model=threat_model,
            title=f"{name} under {members[at].record.attack.replace('_', ' ')}",
            class_names=class_names,
        )
    paths.append(folder / "success.png")
    radii = (0.0, *comparison.radii)
    curves = {
        name: (radii, [1 - accuracy for accuracy in _accuracies(comparison, name)]) for name in comparison.evaluations
    }
    figures.save_success_curves(
        paths[-1],
        curves,
        threat_model=threat_model,
        num_images=len(split.labels),
        warnings=tables.flagged_lines(comparison.records),
    )
    return paths


def save_report(folder: str | os.PathLike[str], comparison: Comparison, metadata: Mapping[str, Any], text: str) -> None:
    """Writes report.md and report.json.

    Args:
      folder: The folder of the files.
      comparison: The evaluations.
      metadata: More entries of report.json, plain Python values.
      text: The beginning of report.md, which the table and all scores follow.

    Raises:
      OSError: A file cannot be written.
    """
    folder = pathlib.Path(folder)
    storage.write_text(
        folder / run_files.REPORT_TEXT,
        f"{text}\n{comparison_table(comparison)}\n## All scores\n\n{tables.to_markdown(comparison.records)}",
    )
    records = [record.to_json() for record in comparison.records]
    run_files.write_document(
        folder / run_files.REPORT, run_files.Schema.COMPARISON_REPORT, {**metadata, "records": records}
    )


def _accuracies(comparison: Comparison, name: str) -> list[float]:
    records = [evaluation.record for evaluation in comparison.evaluations[name]]
    return [records[0].natural_accuracy, *(record.feasible.robust_accuracy for record in records)]
