"""Formats records as CSV and as Markdown tables."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from wasser_tf.attacks.scoring import flagged_in_words
from wasser_tf.evaluation.metrics import Scores
from wasser_tf.evaluation.record import Record
from wasser_tf.runtime.formatting import percent
from wasser_tf.threat_model import ThreatModel


def to_csv(records: Sequence[Record]) -> str:
    """Returns records as CSV, one line per record.

    Args:
      records: The records.

    Returns:
      A header and the lines. Scores of feasible examples have their own names, those of raw examples begin with raw_,
      and the attack's settings with setting_ and schedule_; the threat model's fields follow.
    """
    lines = [_flat(record) for record in records]
    text = io.StringIO()
    # Attacks have different settings, so the columns are their union, in order of appearance.
    writer = csv.DictWriter(text, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flat(record: Record) -> dict[str, Any]:
    values = record.to_json()
    feasible, raw = values.pop("feasible"), values.pop("raw")
    threat_model, settings = values.pop("threat_model"), values.pop("settings")
    threat_model.pop("epsilon")
    settings.pop("seed", None)
    schedule = settings.pop("schedule", None) or {}
    return {
        **values,
        **feasible,
        **{f"raw_{name}": value for name, value in raw.items()},
        **threat_model,
        **{f"setting_{name}": value for name, value in settings.items()},
        **{f"schedule_{name}": value for name, value in schedule.items()},
    }


_COLUMNS: dict[str, Callable[[Record], str]] = {
    "model": lambda record: record.model,
    "attack": lambda record: record.attack,
    "ε": lambda record: "adaptive" if record.settings.get("schedule") else f"{record.epsilon:g}",
    "images": lambda record: f"{record.num_images}",
    "natural accuracy": lambda record: percent(record.natural_accuracy),
    "robust accuracy": lambda record: percent(record.feasible.robust_accuracy),
    "success": lambda record: percent(record.feasible.success_rate),
    "cross-entropy": lambda record: f"{record.feasible.cross_entropy:.3g}",
    "precision error": lambda record: f"{record.feasible.precision_error_mean:.1e}",
    "max cost / ε": lambda record: f"{record.feasible.max_cost_ratio:.6f}",
    "feasible": lambda record: percent(record.feasible.feasible_share),
    "raw success": lambda record: percent(record.raw.success_rate),
    "raw precision error": lambda record: f"{record.raw.precision_error_mean:.1e}",
    "raw pixels": lambda record: f"{record.raw.min_pixel:.2g} … {record.raw.max_pixel:.3g}",
    "raw feasible": lambda record: percent(record.raw.feasible_share),
    "flagged": lambda record: f"{record.num_flagged}" if record.num_flagged else "–",
    "iterations": lambda record: f"{record.mean_iterations:.0f}",
    "seconds": lambda record: f"{record.seconds:.1f}",
}


def to_markdown(records: Sequence[Record]) -> str:
    """Returns a Markdown table of records for each threat model among them; epsilon is a column.

    Args:
      records: The records.

    Returns:
      The tables, each below its threat model's description.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(threat_model_caption(record.threat_model), []).append(record)
    parts = []
    for caption, members in groups.items():
        rows = [[cell(record) for cell in _COLUMNS.values()] for record in members]
        table = markdown_table(list(_COLUMNS), rows, text_columns=2)
        warnings = "".join(f"\n{line}\n" for line in flagged_lines(members))
        parts.append(f"{caption}\n\n{table}{warnings}")
    return "\n".join(parts)


def flagged_lines(records: Sequence[Record]) -> list[str]:
    """Returns a warning for each classifier with flagged images, which belongs beside its robust accuracy."""
    most: dict[str, Record] = {}
    for record in records:
        if record.num_flagged > (most[record.model].num_flagged if record.model in most else 0):
            most[record.model] = record
    return [f"**{name}: {flagged_in_words(record.num_flagged, record.num_images)}**" for name, record in most.items()]


def summary(record: Record) -> str:
    """Returns a record as text for the terminal.

    Args:
      record: The record.

    Returns:
      A paragraph and a Markdown table with a row per score, for feasible and for raw examples.
    """
    feasible, raw = record.feasible, record.raw
    lines: list[tuple[str, Callable[[Scores], str]]] = [
        ("robust accuracy", lambda scores: percent(scores.robust_accuracy)),
        ("success", lambda scores: percent(scores.success_rate)),
        ("mean cross-entropy", lambda scores: f"{scores.cross_entropy:.3f}"),
        ("precision error, mean", lambda scores: f"{scores.precision_error_mean:.1e}"),
        ("precision error, largest", lambda scores: f"{scores.precision_error_max:.1e}"),
        ("largest cost / ε", lambda scores: f"{scores.max_cost_ratio:.6f}"),
        ("smallest pixel", lambda scores: f"{scores.min_pixel:.4g}"),
        ("largest pixel", lambda scores: f"{scores.max_pixel:.4g}"),
        ("largest row error / mass", lambda scores: f"{scores.max_row_error:.1e}"),
        ("feasible", lambda scores: percent(scores.feasible_share)),
    ]
    flagged = "".join(f"{line}\n" for line in flagged_lines([record]))
    radius = "an adaptive ε" if record.settings.get("schedule") else f"ε = {record.epsilon:g}"
    return (
        f"{record.model} under {record.attack} at {radius}, {record.num_images} images of {record.dataset}.\n"
        f"{threat_model_caption(record.threat_model)}\n"
        f"Natural accuracy {percent(record.natural_accuracy)}; {record.mean_iterations:.0f} iterations per image, "
        f"{record.seconds:.1f} s.\n{flagged}\n"
        + markdown_table(["", "feasible", "raw"], [[name, cell(feasible), cell(raw)] for name, cell in lines])
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Returns a Markdown table, padded so that it is also readable as plain text.

    Args:
      header: The column titles.
      rows: The cells of each row.
      text_columns: The number of leading columns that are aligned left; the others are aligned right.

    Returns:
      The table, ending with a newline.
    """
    widths = [max(len(line[number]) for line in (header, *rows)) for number in range(len(header))]

    def pad(line: Sequence[str]) -> list[str]:
        return [
            cell.ljust(width) if number < text_columns else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]

    rule = [":" + "-" * (w - 1) if number < text_columns else "-" * (w - 1) + ":" for number, w in enumerate(widths)]
    return "".join("| " + " | ".join(line) + " |\n" for line in (pad(header), rule, *map(pad, rows)))


def threat_model_caption(config: dict[str, Any], num_images: int | None = None) -> str:
    """Returns a description of a threat model without its epsilon.

    Args:
      config: The threat model's config.
      num_images: The number of images, which is appended if given.

    Returns:
      The description.
    """
    sentence = ThreatModel.from_config(config).describe("ε")
    return sentence + ("." if num_images is None else f"; {num_images} images.")
