"""The report of a certification: report.md, report.json, results.csv, radii.csv and pictures."""

import csv
import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from wasser_tf.data.selection import Selection
from wasser_tf.evaluation.fingerprint import array_digest, safe_name
from wasser_tf.reporting import bracket, tables
from wasser_tf.reporting.bracket import Bracket
from wasser_tf.reporting.report import FIGURES
from wasser_tf.runtime import provenance, storage
from wasser_tf.runtime.run_files import REPORT, REPORT_TEXT, RESULTS, Schema, write_document
from wasser_tf.threat_model import ThreatModel

RADII = "radii.csv"


def write_certification(
    folder: pathlib.Path,
    config: dict[str, Any],
    threat_model: ThreatModel,
    images: Selection,
    found: dict[str, dict[str, Any]],
    brackets: dict[str, Bracket],
) -> None:
    """Writes the report of a certification, replacing an existing one.

    Args:
      folder: The output_dir.
      config: The configuration, as plain Python values.
      threat_model: The ball; its epsilon is ignored.
      images: The images.
      found: By classifier: "fingerprint", "path", "method", "confidence", "settings", "seconds", and the fields of
        `CertificationResult` as lists.
      brackets: The radii from both sides, by classifier.

    Raises:
      OSError: A file cannot be written.
    """
    radii, ball = sorted(config["radii"]), threat_model
    pictures = folder / FIGURES
    title = f"Certified and not fooled on {images.name}"
    drawn = {"Bracket": "bracket.png"}
    bracket.save_bracket(
        pictures / "bracket.png", brackets, threat_model=ball, title=title, max_radius=1.1 * max(radii)
    )
    for name, values in brackets.items():
        file = f"radii_{safe_name(name)}.png"
        drawn[f"{name}: radii of each image"] = file
        bracket.save_radii_by_image(pictures / file, values, threat_model=ball, title=f"{name} on {images.name}")
    sentence = tables.threat_model_caption(ball.get_config(), len(images.labels))
    methods = "; ".join(
        f"{name}: {values['method']}, {_confidence(values['confidence'])}, "
        f"natural accuracy {100 * np.mean(values['correct']):.2f} %, {values['seconds']:.0f} s"
        for name, values in found.items()
    )
    lines = [
        f"# Certificates on {images.name}\n\n{sentence}\n",
        "An image is certified at ε if no feasible plan of that radius changes the right answer, whether an attack "
        "finds it or not. Images that are neither certified nor fooled are undecided.\n",
        f"Method of certification: {methods}.\n",
        bracket.bracket_table(brackets, radii),
        f"{RADII} lists the radii of each image: the largest one certified, and, if an evaluation was given, the "
        "smallest one at which an attack succeeded.\n",
        *(f"![{caption}]({FIGURES}/{file})\n" for caption, file in drawn.items()),
    ]
    if note := bracket.contradiction_note(brackets):
        lines.append(note)
    storage.write_text(folder / REPORT_TEXT, "\n".join(lines))
    _write_shares(folder, radii, found, brackets)
    _write_radii(folder, images, found, brackets)
    report = {
        "config": config,
        "commit": provenance.commit(),
        "command": provenance.command(),
        "images": images.name,
        "images_digest": array_digest(images.images, images.labels),
        "models": found,
    }
    # Last: where it is there, all is there.
    write_document(folder / REPORT, Schema.CERTIFICATION_REPORT, report)


def _confidence(confidence: float) -> str:
    return "deterministic" if confidence == 1 else f"each certificate with a probability of {confidence:g}"


def _write_shares(
    folder: pathlib.Path, radii: Sequence[float], found: dict[str, dict[str, Any]], brackets: dict[str, Bracket]
) -> None:
    rows: list[list[Any]] = [["model", "method", "confidence", "epsilon", "certified", "not_fooled"]]
    for name, shares in bracket.bracket_shares(brackets, radii).items():
        method, confidence = found[name]["method"], f"{found[name]['confidence']:g}"
        for share in shares:
            numbers = ("" if value is None else f"{value:.6g}" for value in share.values())
            rows.append([name, method, confidence, *numbers])
    _write_csv(folder / RESULTS, rows)


def _write_radii(
    folder: pathlib.Path, images: Selection, found: dict[str, dict[str, Any]], brackets: dict[str, Bracket]
) -> None:
    rows: list[list[Any]] = [["model", "index", "label", "predicted", "certified_radius", "minimal_radius"]]
    for name, values in brackets.items():
        for place, index in enumerate(images.index):
            fooled = "" if values.fooled is None else f"{values.fooled[place]:.6g}"
            predicted = found[name]["predicted"][place]
            radius = f"{values.certified[place]:.6g}"
            rows.append([name, int(index), int(images.labels[place]), predicted, radius, fooled])
    _write_csv(folder / RADII, rows)


def _write_csv(path: pathlib.Path, rows: list[list[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    storage.write_text(path, text.getvalue())
