"""Saved classifiers × images to certified radii, tables and pictures: what bin/certify.py does.

A cell is one classifier and one chunk of images; its file is named by a hash of all that its content depends on, and is
written atomically, so that an interrupted run resumes. The radii of the table add no cost, because the radius of each
image is certified once.
"""

import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from wasser_tf.certification.bounds import METHODS
from wasser_tf.certification.prover import Prover
from wasser_tf.data.selection import ImageSource, Selection
from wasser_tf.evaluation.fingerprint import fingerprint, safe_name
from wasser_tf.models import ModelOptions, as_layers
from wasser_tf.reporting import bracket, tables
from wasser_tf.reporting.bracket import REPORT, Bracket, digest_of
from wasser_tf.runs.attack import check_output_dir
from wasser_tf.runs.classifiers import load_checked
from wasser_tf.runtime import interruption, provenance, storage
from wasser_tf.runtime.arguments import check_number, is_whole
from wasser_tf.threat_model import ThreatModel
from wasser_tf.version import __version__

CONFIG, CELLS, FIGURES = "config.json", "cells", "figures"
_REPORTS = (REPORT, "report.md", "results.csv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CertificationRun:
    """What to certify.

    Attributes:
      models: Names and paths of the classifiers.
      source: The images.
      threat_model: The ball; its epsilon is not used.
      radii: The radii of the table.
      output_dir: Where everything goes.
      method: "auto", "ibp" or "crown".
      resolution: How far a radius may be below the largest provable one; a 200th of the largest of `radii` by default.
      batch_size: Images at a time; a file of results holds as many.
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
    batch_size: int = 256
    evaluation: str = ""
    options: ModelOptions = ModelOptions()
    allow_chance_accuracy: bool = False

    def __post_init__(self) -> None:
        if not self.models or not self.radii:
            raise ValueError("models and radii must name at least one each, got none.")
        if self.method not in (*METHODS, "auto"):
            raise ValueError(f"method must be auto, {' or '.join(METHODS)}, got {self.method!r}.")
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
            "source": dataclasses.asdict(self.source),
            "threat_model": self.threat_model.rules.get_config(),
            "radii": list(self.radii),
            "method": self.method,
            "resolution": self.resolution,
            **self.options.to_json(),
        }


def run_certification(
    config: CertificationRun,
    *,
    resume: bool = False,
    overwrite: bool = False,
    log: Callable[[str], None] | None = None,
) -> dict[str, Bracket]:
    """Certifies the missing cells and writes config.json, cells/, report.json, report.md, results.csv and figures/.

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
    provers = {
        name: Prover(
            as_layers(load_checked(path, config.options, images, config.allow_chance_accuracy)),
            threat_model,
            batch_size=config.batch_size,
        )
        for name, path in config.models.items()
    }
    for prover in provers.values():
        prover.check(images.images[:1], images.labels[:1])
    fooled = _fooled(config, images) if config.evaluation else {}
    storage.make_folder(folder)
    with storage.locked(folder):
        if overwrite:
            for name in (CONFIG, *_REPORTS, CELLS, FIGURES):
                storage.remove(folder / name)
        storage.remove_leftovers(folder)
        storage.write_json(folder / CONFIG, config.to_json())
        found = {}
        for name, prover in provers.items():
            print_of = config.options.mark(fingerprint(config.models[name]))
            found[name] = {"fingerprint": print_of, **_certified(config, folder, name, print_of, prover, images, log)}
        brackets = {
            name: Bracket(np.array(values["radius"], np.float64), fooled.get(values["fingerprint"]))
            for name, values in found.items()
        }
        _write(config, folder, images, found, brackets)
    return brackets


def _certified(
    config: CertificationRun,
    folder: pathlib.Path,
    name: str,
    print_of: str,
    prover: Prover,
    images: Selection,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Certifies the images of one classifier, chunk by chunk, or reads what was certified."""
    checked, labels = prover.check(images.images, images.labels)
    settings = {
        key: value for key, value in config.to_json().items() if key not in ("models", "source", "radii", "options")
    }
    settings |= {"model": print_of, "largest": max(config.radii)}
    cells = folder / CELLS / safe_name(name)
    method = config.method
    if method == "auto":
        key = {**settings, "images": digest_of(checked[:32], labels[:32])}
        path = cells / f"method-{_hash(key)}.json"
        if not path.exists():
            storage.make_folder(cells)
            storage.write_json(path, {"key": key, "method": prover.choose(checked, labels)})
        method = storage.read_json(path)["method"]
    fields: dict[str, list] = {"radius": [], "predicted": [], "correct": []}
    seconds = 0.0
    for start in range(0, len(labels), config.batch_size):
        rows = slice(start, start + config.batch_size)
        key = {**settings, "method": method, "images": digest_of(checked[rows], labels[rows])}
        path = cells / f"{start:06d}-{_hash(key)}.json"
        if not path.exists():
            begin = time.perf_counter()
            result = prover.certify(checked[rows], labels[rows], method, config.resolution)
            cell = {field: getattr(result, field).tolist() for field in fields}
            storage.make_folder(cells)
            storage.write_json(path, {"key": key, "seconds": time.perf_counter() - begin, **cell})
            log(f"{name}, {method}: {min(rows.stop, len(labels))} of {len(labels)} images certified")
            interruption.raise_if_requested()
        cell = storage.read_json(path)
        seconds += cell["seconds"]
        for field in fields:
            fields[field] += [float(value) if field == "radius" else value for value in cell[field]]
    return {"path": config.models[name], "method": method, "confidence": 1.0, "seconds": seconds, **fields}


def _write(
    config: CertificationRun,
    folder: pathlib.Path,
    images: Selection,
    found: dict[str, dict[str, Any]],
    brackets: dict[str, Bracket],
) -> None:
    radii, ball = sorted(config.radii), config.threat_model
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
        f"{name}: {values['method']}, natural accuracy {100 * np.mean(values['correct']):.2f} %, "
        f"{values['seconds']:.0f} s"
        for name, values in found.items()
    )
    lines = [
        f"# Certificates on {images.name}\n\n{sentence}\n",
        "An image is certified at ε if no feasible plan of that radius changes the right answer, whether an attack "
        "finds it or not. Images that are neither certified nor fooled are undecided.\n",
        f"Certified by {methods}.\n",
        bracket.bracket_table(brackets, radii),
        *(f"![{caption}]({FIGURES}/{file})\n" for caption, file in drawn.items()),
    ]
    if wrong := {name: count for name, values in brackets.items() if (count := values.contradictions())}:
        lines.append(f"**Images fooled within their certified radius: {wrong}. Something is wrong.**\n")
    storage.write_text(folder / "report.md", "\n".join(lines))
    rows = ["model,method,epsilon,certified,not_fooled"]
    for name, values in brackets.items():
        for radius in radii:
            not_fooled = "" if values.fooled is None else f"{values.not_fooled_share(radius):.6g}"
            rows.append(f"{name},{found[name]['method']},{radius:g},{values.certified_share(radius):.6g},{not_fooled}")
    storage.write_text(folder / "results.csv", "\n".join(rows) + "\n")
    report = {
        "config": config.to_json(),
        "commit": provenance.commit(),
        "command": provenance.command(),
        "images": images.name,
        "images_digest": digest_of(images.images, images.labels),
        "models": found,
    }
    # Last: where it is there, all is there.
    storage.write_json(folder / REPORT, report)


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
    stored = storage.read_json(folder / REPORT)
    try:
        attacks, source = stored["config"]["attacks"], stored["config"]["source"]
        ball = next(iter(attacks.values()))["config"]["threat_model"]
        radii = {
            values["fingerprint"]: np.array(list(map(float, values["minimal_radius"])))
            for values in stored["models"].values()
        }
    except (KeyError, TypeError, StopIteration) as error:
        raise ValueError(
            f"{folder} is not of an evaluation ({error}): give the output_dir of bin/evaluate.py."
        ) from error
    if source != storage.through_json(dataclasses.asdict(config.source)):
        raise ValueError(f"{folder} is of other images: certify those that were evaluated, by the same flags.")
    if ThreatModel.from_config(ball).rules != config.threat_model.rules:
        raise ValueError(f"{folder} is of another ball ({ThreatModel.from_config(ball)}): certify the one evaluated.")
    return radii


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
