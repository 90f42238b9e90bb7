"""Saved classifiers × attacks × radii to tables, curves and pictures: what bin/evaluate.py does."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from wasser_tf import attacks
from wasser_tf.attacks.inputs import check_batch
from wasser_tf.data.selection import Selection
from wasser_tf.evaluation import sanity
from wasser_tf.evaluation.config import CONFIG, EvaluationRun
from wasser_tf.evaluation.examples import Examples
from wasser_tf.evaluation.minimal_radius import minimal_radii
from wasser_tf.evaluation.record import WORST_CASE
from wasser_tf.evaluation.sanity import worst_case_is_per_example
from wasser_tf.evaluation.sweep import Model, Sweep, fingerprint, safe_name
from wasser_tf.evaluation.verification import in_words, verify
from wasser_tf.evaluation.worst_case import least_costs, with_more
from wasser_tf.reporting.report import PICTURES, ModelReport, write_report
from wasser_tf.runs.classifiers import load_checked
from wasser_tf.runtime import interruption, storage
from wasser_tf.runtime.output_folder import check_output_dir

CELLS = "cells"
FIGURES = "figures"
_REPORTS = ("report.json", "report.md", "results.csv")


def run_evaluation(
    config: EvaluationRun,
    *,
    resume: bool = False,
    overwrite: bool = False,
    rescore_only: bool = False,
    verify_exact: int | None = None,
    allow_chance_accuracy: bool = False,
    log: Callable[[str], None] | None = None,
) -> list[ModelReport]:
    """Attacks what was not attacked yet and writes config.json, cells/, report.json, report.md, results.csv, figures/.

    Args:
      config: What to evaluate. A folder that holds the same evaluation is gone on with.
      resume: Whether to go on in a folder that holds another evaluation; results that fit are used.
      overwrite: Whether to delete the evaluation that the folder holds.
      rescore_only: Attack nothing; ask the classifiers about the stored examples anew.
      verify_exact: Verify so many feasible examples of each model, attack and radius by exact transport; 0 for all.
      allow_chance_accuracy: Whether to attack a classifier that is no better than chance.
      log: Is given lines of progress.

    Returns:
      A report for each model.

    Raises:
      ValueError: Something is not what is needed; nothing was written.
      OSError: The output_dir cannot be written to; what was there before is whole.
      wasser_tf.runtime.interruption.Interrupted: The run was asked to stop; the same call goes on.
    """
    log = log or (lambda line: None)
    folder = pathlib.Path(config.output_dir).expanduser()
    if rescore_only and overwrite:
        raise ValueError("Rescoring needs what the output_dir holds: give --rescore or --overwrite, not both.")
    _check_folder(config, folder, resume, overwrite)
    images = config.source.load()
    classifiers = {
        name: load_checked(path, config.options, images, allow_chance_accuracy or rescore_only)
        for name, path in config.models.items()
    }
    for classifier in classifiers.values():
        check_batch(classifier, images.images[:1], images.labels[:1])
    known = [
        Model(name, config.options.mark(fingerprint(path)), classifiers[name]) for name, path in config.models.items()
    ]
    sweep = Sweep(
        folder / CELLS,
        known,
        config.attacks,
        config.radii,
        images,
        chunk_size=config.batch_size,
        batch_size=config.batch_size,
        skip_fooled=config.skip_fooled,
    )
    if rescore_only and (missing := sweep.missing()):
        raise ValueError(
            f"{len(missing)} results are not there yet, the first {missing[0].relative_to(folder)}: "
            "run without --rescore to make them."
        )
    storage.make_folder(folder)
    with storage.locked(folder):
        if overwrite:
            for name in (CONFIG, *_REPORTS, CELLS, FIGURES):
                storage.remove(folder / name)
        storage.remove_leftovers(folder)
        storage.write_json(folder / CONFIG, config.to_json())
        if not rescore_only:
            sweep.run(log)
        reports = []
        for model in known:
            interruption.raise_if_requested()
            log(f"Scoring {model.name}")
            report = _report_on(config, sweep, model, images, rescore_only, verify_exact)
            if report.exact:
                log(in_words(report.exact.values()))
            if config.minimal_radius:
                found = _bisected(config, folder, model, images, rescore_only, log)
                report.bisected = found is not None
                if found is not None:
                    report.minimal_radii = np.minimum(report.minimal_radii, found)
            if config.sanity and (checks := _sanity(config, folder, known, model, images, rescore_only, log)):
                report.checks[:] = [*checks, worst_case_is_per_example(report.records)]
            reports.append(report)
        write_report(folder, config.to_json(), config.threat_model, images, reports)
    return reports


def _report_on(
    config: EvaluationRun, sweep: Sweep, model: Model, images: Selection, rescored: bool, verify_exact: int | None
) -> ModelReport:
    """Scores a model's cells, one radius at a time and without the images, which may not fit into memory."""
    report = ModelReport(name=model.name, path=config.models[model.name], fingerprint=model.fingerprint)
    worst, smallest, seconds = None, np.full(len(images.labels), np.inf), 0.0
    # One attack alone is its own worst case.
    alone = len(config.attacks) == 1 and not config.skip_fooled
    # Those that are drawn, and those that are verified, of which 0 means all.
    kept = PICTURES if verify_exact is None else max(PICTURES, verify_exact) if verify_exact else None

    def check_exactly(label: str, radius: float, examples: Examples) -> None:
        if verify_exact is not None:
            report.exact[label, radius] = verify(examples, config.threat_model, verify_exact or None)

    for radius in sweep.radii:
        worst = None if alone else worst
        for cell in sweep.results(model, radius, rescored=rescored, images=kept):
            seconds += cell.seconds
            if not config.skip_fooled:
                report.add(cell.label, cell.attack, radius, images.name, cell.examples, cell.seconds)
                check_exactly(cell.label, radius, cell.examples)
            smallest[cell.rows] = np.minimum(smallest[cell.rows], least_costs([cell.examples]))
            # Examples of a smaller ball are examples of this one too.
            worst = cell.examples if worst is None else with_more(worst, cell.examples, cell.rows)
        assert worst is not None  # noqa: S101 (the first attack gets all images)
        if not alone:
            first = next(iter(config.attacks.values()))
            report.add(WORST_CASE, first, radius, images.name, worst, seconds, settings={})
        if config.skip_fooled:
            check_exactly(WORST_CASE, radius, worst)
        report.keep_pictures(radius, worst, model.classifier)
    report.minimal_radii = smallest
    return report


def _bisected(
    config: EvaluationRun,
    folder: pathlib.Path,
    model: Model,
    images: Selection,
    stored_only: bool,
    log: Callable[[str], None],
) -> np.ndarray | None:
    """Bisects the minimal radius of each image, or reads what was found, [n]; None where it may not be made."""
    attack, largest = config.attacks[config.main_attack], max(config.radii)

    def make() -> list[float]:
        log(f"Minimal radii of {model.name} with {config.main_attack}")
        found = minimal_radii(
            attack,
            model.classifier,
            images.images,
            images.labels,
            largest=largest,
            batch_size=config.batch_size,
            log=log,
        )
        return found.radius.tolist()

    key = {
        "model": model.fingerprint,
        "attack": attacks.serialize(attack),
        "largest": largest,
        "source": dataclasses.asdict(config.source),
    }
    found = _once(folder / CELLS / safe_name(model.name) / "minimal_radius.json", key, make, stored_only)
    return None if found is None else np.array([float(radius) for radius in found])


def _sanity(
    config: EvaluationRun,
    folder: pathlib.Path,
    known: list[Model],
    model: Model,
    images: Selection,
    stored_only: bool,
    log: Callable[[str], None],
) -> list[sanity.Check]:
    """Makes a model's sanity checks, or reads those that were made; none where they may not be made."""
    attack = config.attacks[config.main_attack]
    other = next((other for other in known if other.name != model.name), None)
    count = min(config.sanity_examples, len(images.labels))

    def make() -> list[dict[str, Any]]:
        log(f"Sanity checks of {model.name} with {config.main_attack} on {count} images")
        checker = sanity.SanityChecker(
            model.classifier,
            attack,
            images.images[:count],
            images.labels[:count],
            config.radii,
            surrogate=other.classifier if other else sanity.train_surrogate(model.classifier, images.images),
            batch_size=config.batch_size,
        )
        return [dataclasses.asdict(check) for check in checker.run(log)]

    key = {
        "model": model.fingerprint,
        "surrogate": other.fingerprint if other else None,
        "attack": attacks.serialize(attack),
        "radii": sorted(config.radii),
        "source": dataclasses.asdict(config.source),
        "examples": count,
    }
    found = _once(folder / CELLS / safe_name(model.name) / "sanity.json", key, make, stored_only)
    return [sanity.Check(**check) for check in found or []]


def _once(path: pathlib.Path, key: dict[str, Any], make: Callable[[], Any], stored_only: bool) -> Any:
    """Returns what is stored under the key, or makes and stores it; None where it may not be made."""
    key = storage.through_json(key)
    if path.exists() and (stored := storage.read_json(path))["key"] == key:
        return stored["value"]
    if stored_only:
        return None
    value = make()
    storage.write_json(path, {"key": key, "value": value})
    return value


def _check_folder(config: EvaluationRun, folder: pathlib.Path, resume: bool, overwrite: bool) -> None:
    if not (folder / CONFIG).exists():
        check_output_dir(folder, (*_REPORTS, "history.json"), overwrite)
        return
    if overwrite or resume:
        return
    try:
        stored = storage.read_json(folder / CONFIG)
    except ValueError:
        stored = {}
    # Through JSON and back, as the stored one went.
    given = storage.through_json(config.to_json())
    if differing := [name for name, value in given.items() if name not in stored or stored[name] != value]:
        raise ValueError(
            f"output_dir {folder} holds another evaluation (its {', '.join(differing)} differ): give another "
            "--output_dir, --resume to go on in it with the new settings (results that fit are used), or --overwrite."
        )
