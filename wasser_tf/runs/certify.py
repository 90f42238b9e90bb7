"""Saved classifiers × images to certified radii, tables and pictures: what bin/certify.py does.

A cell is one classifier and one chunk of images; its file is named by a hash of all that its content depends on, and is
written atomically, so that an interrupted run resumes. The radii of the table add no cost, because the radius of each
image is certified once.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from wasser_tf.certification.arguments import METHODS
from wasser_tf.certification.prover import SMOOTHING
from wasser_tf.data.selection import ImageSource, Selection
from wasser_tf.data.streaming import checkable
from wasser_tf.evaluation.fingerprint import array_digest, fingerprint, safe_name
from wasser_tf.models import ModelOptions
from wasser_tf.reporting.bracket import Bracket
from wasser_tf.reporting.certification_report import RADII, write_certification
from wasser_tf.reporting.report import FIGURES
from wasser_tf.runs.certifiers import Certifier, SmoothingSettings, make_certifier
from wasser_tf.runs.classifiers import load_checked
from wasser_tf.runtime import interruption, storage
from wasser_tf.runtime.arguments import check_number, is_whole
from wasser_tf.runtime.output_folder import check_output_dir
from wasser_tf.runtime.progress import Progress
from wasser_tf.runtime.run_files import CONFIG, REPORT, REPORT_TEXT, RESULTS, Schema, read_document
from wasser_tf.threat_model import ThreatModel
from wasser_tf.version import __version__

CELLS, VOTES = "cells", "votes"
# Thousands of votes for each image take minutes.
_VOTED_ON_AT_ONCE = 64
# The first images by which a method is chosen; more than any certifier looks at.
_CHOSEN_BY = 256
_REPORTS = (REPORT, REPORT_TEXT, RESULTS, RADII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CertificationRun:
    """What to certify.

    Attributes:
      models: Names and paths of the classifiers.
      source: The images.
      threat_model: The ball; its epsilon is not used.
      radii: The radii of the table, at which each image is tried itself.
      output_dir: Where everything goes.
      method: "auto", "ibp", "crown" or "smoothing".
      resolution: How far a radius may be below the largest provable one; a 200th of the largest of `radii` by default.
      smoothing: The settings of smoothing.
      batch_size: Images at a time; a file of results holds as many, by smoothing 64 at most.
      evaluation: The output_dir of an evaluation of the same images, for the bracket; none by default.
      options: What is given about the classifiers, such as the range of their pixels.
      allow_chance_accuracy: Whether to certify a classifier that is no better than chance.

    Raises:
      ValueError: A field is out of its range.
    """

    models: Mapping[str, str]
    source: ImageSource
    threat_model: ThreatModel
    radii: tuple[float, ...]
    output_dir: str
    method: str = "auto"
    resolution: float | None = None
    smoothing: SmoothingSettings = SmoothingSettings()
    batch_size: int = 256
    evaluation: str = ""
    options: ModelOptions = ModelOptions()
    allow_chance_accuracy: bool = False

    def __post_init__(self) -> None:
        if not self.models or not self.radii:
            raise ValueError("models and radii must name at least one each, got none.")
        known = ("auto", *METHODS, SMOOTHING)
        if self.method not in known:
            raise ValueError(f"method must be one of {', '.join(known)}, got {self.method!r}.")
        if self.resolution is not None:
            check_number("resolution", self.resolution, above=0)
        if not is_whole(self.batch_size, 1):
            raise ValueError(f"batch_size must be a whole number of at least 1, got {self.batch_size!r}.")
        for radius in self.radii:
            self.threat_model.with_epsilon(radius)
        if max(self.radii) == 0:
            raise ValueError("radii must hold one above 0, got 0.")

    def to_json(self) -> dict[str, Any]:
        """Returns plain Python values, without the folders, so that these may be moved."""
        return {
            "wasser_tf": __version__,
            "models": dict(self.models),
            "source": self.source.to_json(),
            "threat_model": self.threat_model.rules.get_config(),
            "radii": list(self.radii),
            "method": self.method,
            "resolution": self.resolution,
            "smoothing": dataclasses.asdict(self.smoothing),
            **self.options.to_json(),
        }


def run_certification(
    config: CertificationRun,
    *,
    resume: bool = False,
    overwrite: bool = False,
    log: Callable[[str], None] | None = None,
) -> dict[str, Bracket]:
    """Certifies what is missing, and writes the results.

    The output_dir gets config.json, cells/, votes/ (by smoothing), figures/, report.json, report.md, results.csv
    (shares by radius) and radii.csv (both radii of each image).

    Args:
      config: What to certify. A folder that holds the same run is resumed.
      resume: Whether to continue in a folder that holds another run; results that fit are used.
      overwrite: Whether to delete the run that the folder holds.
      log: Is given lines of progress.

    Returns:
      The radii by classifier.

    Raises:
      ValueError: Something is not what is needed; nothing was written.
      wasser_tf.interruption.Interrupted: The run was asked to stop; the same call resumes it.
    """
    log = log or (lambda line: None)
    folder = pathlib.Path(config.output_dir).expanduser()
    _check_folder(config, folder, resume, overwrite)
    images = config.source.load()
    threat_model = config.threat_model.with_epsilon(max(config.radii))
    certifiers = {
        name: make_certifier(
            load_checked(path, config.options, images, config.allow_chance_accuracy),
            threat_model,
            name=path,
            mark=config.options.mark(fingerprint(path)),
            method=config.method,
            resolution=config.resolution,
            radii=config.radii,
            smoothing=config.smoothing,
            batch_size=config.batch_size,
            folder=folder / VOTES,
        )
        for name, path in config.models.items()
    }
    for certifier in certifiers.values():
        certifier.check(images.images[:1], images.labels[:1])
    fooled = _fooled(config, images) if config.evaluation else {}
    storage.make_folder(folder)
    with storage.locked(folder):
        if overwrite:
            for name in (CONFIG, *_REPORTS, CELLS, FIGURES, VOTES):
                storage.remove(folder / name)
        storage.remove_leftovers(folder)
        storage.write_json(folder / CONFIG, config.to_json())
        found = {}
        chunks = {
            name: math.ceil(len(images.labels) / _chunk_size(config, certifier))
            for name, certifier in certifiers.items()
        }
        with Progress([name for name in chunks for _ in range(chunks[name])], log, unit="chunk") as meter:
            for name, certifier in certifiers.items():
                mark = config.options.mark(fingerprint(config.models[name]))
                found[name] = {"fingerprint": mark, **_certified(config, folder, name, mark, certifier, images, meter)}
        brackets = {
            name: Bracket(np.array(values["radius"], np.float64), fooled.get(values["fingerprint"]))
            for name, values in found.items()
        }
        write_certification(folder, config.to_json(), config.threat_model, images, found, brackets)
    return brackets


def _certified(
    config: CertificationRun,
    folder: pathlib.Path,
    name: str,
    mark: str,
    certifier: Certifier,
    images: Selection,
    meter: Progress,
) -> dict[str, Any]:
    """Certifies the images of one classifier, chunk by chunk, or reads what was certified."""
    certifier.check(*checkable(images.images, images.labels))

    def checked(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        return certifier.check(images.images[rows], images.labels[rows])

    settings = {
        "wasser_tf": __version__,
        "model": mark,
        "threat_model": config.threat_model.rules.get_config(),
        "largest": max(config.radii),
        **certifier.settings,
    }
    cells = folder / CELLS / safe_name(name)
    key = {**settings, "images": array_digest(*checked(slice(32)))}
    path = cells / f"method-{_hash(key)}.json"
    if not path.exists():
        storage.make_folder(cells)
        storage.write_json(path, {"key": key, "method": certifier.choose(*checked(slice(_CHOSEN_BY)))})
    method = storage.read_json(path)["method"]
    fields: dict[str, list] = {"radius": [], "predicted": [], "correct": []}
    seconds, shown = 0.0, {"method": method, "confidence": 1.0}
    size = _chunk_size(config, certifier)
    for start in range(0, len(images.labels), size):
        rows = slice(start, start + size)
        chosen, labels = checked(rows)
        key = {**settings, "method": method, "images": array_digest(chosen, labels, images.index[rows])}
        path = cells / f"{start:06d}-{_hash(key)}.json"
        if not path.exists():
            begin = time.perf_counter()
            result = certifier.certify(chosen, labels, images.index[rows], method)
            cell = {field: getattr(result, field).tolist() for field in fields}
            cell |= {"method": result.method, "confidence": result.confidence, "seconds": time.perf_counter() - begin}
            storage.write_json(path, {"key": key, **cell})
            line = f"{name}, {method}: {start + len(labels)} of {len(images.labels)} images done"
            meter.done(name, cell["seconds"], line)
            interruption.raise_if_requested()
        else:
            meter.skip(name)
        cell = storage.read_json(path)
        seconds += cell["seconds"]
        shown = {part: cell[part] for part in shown}
        for field in fields:
            fields[field] += [float(value) if field == "radius" else value for value in cell[field]]
    return {"path": config.models[name], **shown, "settings": certifier.settings, "seconds": seconds, **fields}


def _chunk_size(config: CertificationRun, certifier: Certifier) -> int:
    """Returns the number of images in a file of results."""
    by_votes = certifier.settings["method"] == SMOOTHING
    return min(config.batch_size, _VOTED_ON_AT_ONCE) if by_votes else config.batch_size


def _fooled(config: CertificationRun, images: Selection) -> dict[str, np.ndarray]:
    """Reads the smallest radii that fooled, by fingerprint, of an evaluation.

    Raises:
      ValueError: The folder holds no evaluation, or one of other images or of another ball.
    """
    folder = pathlib.Path(config.evaluation).expanduser()
    if not (folder / REPORT).exists():
        raise ValueError(
            f"{folder} holds no evaluation ({REPORT} is not there): give the output_dir of bin/evaluate.py."
        )
    stored = read_document(folder / REPORT, Schema.EVALUATION_REPORT)
    ball = ThreatModel.from_config(next(iter(stored["config"]["attacks"].values()))["config"]["threat_model"])
    # Evaluations of older versions have no digest; the same command adds it without attacking again.
    if stored.get("images_digest") != array_digest(images.images, images.labels):
        raise ValueError(f"{folder} is of other images: certify those that were evaluated, by the same flags.")
    if ball.rules != config.threat_model.rules:
        raise ValueError(f"{folder} is of another ball ({ball.rules}): certify the one evaluated.")
    found = {
        values["fingerprint"]: np.array(list(map(float, values["minimal_radius"])))
        for values in stored["models"].values()
    }
    if not {fingerprint(path) for path in config.models.values()} & set(found):
        raise ValueError(f"{folder} evaluates none of the models: give the same files as --models, without options.")
    return found


def _check_folder(config: CertificationRun, folder: pathlib.Path, resume: bool, overwrite: bool) -> None:
    if not (folder / CONFIG).exists():
        check_output_dir(folder, (*_REPORTS, "history.json"), overwrite)
        return
    if overwrite or resume:
        return
    stored, given = storage.read_json(folder / CONFIG), storage.through_json(config.to_json())
    if differing := [name for name, value in given.items() if name not in stored or stored[name] != value]:
        raise ValueError(
            f"output_dir {folder} holds another run (its {', '.join(differing)} differ): give another --output_dir, "
            "--resume to continue in it with the new settings (results that fit are used), or --overwrite."
        )


def _hash(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:16]
