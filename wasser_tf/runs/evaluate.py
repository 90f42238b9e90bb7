"""Evaluates saved classifiers × attacks × radii and writes a report; bin/evaluate.py runs it."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from wasser_tf import attacks
from wasser_tf.data.selection import Selection
from wasser_tf.data.streaming import in_chunks, is_streamed
from wasser_tf.evaluation import metrics
from wasser_tf.evaluation.check import Check, worst_case_is_per_example
from wasser_tf.evaluation.config import EvaluationRun
from wasser_tf.evaluation.examples import Examples
from wasser_tf.evaluation.fingerprint import fingerprint, safe_name
from wasser_tf.evaluation.minimal_radius import minimal_radii
from wasser_tf.evaluation.record import WORST_CASE
from wasser_tf.evaluation.sanity import SanityChecker
from wasser_tf.evaluation.stored_examples import PICTURES
from wasser_tf.evaluation.surrogate import train_surrogate
from wasser_tf.evaluation.sweep import Model, Sweep
from wasser_tf.evaluation.verification import summarize_exact_checks, verify
from wasser_tf.evaluation.worst_case import least_costs, update_worst_case
from wasser_tf.models.inputs import check_batch
from wasser_tf.reporting.certification import Certified, read_certification
from wasser_tf.reporting.report import FIGURES, ModelReport, write_report
from wasser_tf.runs.classifiers import load_checked
from wasser_tf.runtime import interruption, storage
from wasser_tf.runtime.output_folder import check_output_dir
from wasser_tf.runtime.run_files import CONFIG, REPORT, REPORT_TEXT, RESULTS, Schema, read_document, write_document
from wasser_tf.training import run_folder

CELLS = "cells"
_SURROGATE_IMAGES = 2000
_REPORTS = (REPORT, REPORT_TEXT, RESULTS)


def run_evaluation(
    config: EvaluationRun,
    *,
    resume: bool = False,
    overwrite: bool = False,
    rescore_only: bool = False,
    verify_exact: int | None = None,
    certification: str = "",
    allow_chance_accuracy: bool = False,
    log: Callable[[str], None] | None = None,
) -> list[ModelReport]:
    """Runs an evaluation: attacks all missing cells and writes the reports.

    The output_dir gets config.json, cells/, report.json, report.md, results.csv and figures/. A folder that holds the
    same evaluation is resumed: no cell is attacked twice.

    >>> import tempfile
    >>> from wasser_tf import ThreatModel, attacks, models
    >>> from wasser_tf.data.selection import ImageSource
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/linear.keras"
    ...     models.build("linear", (8, 8, 1), 10, seed=0).save(path)
    ...     config = EvaluationRun(
    ...         models={"linear": path},
    ...         source=ImageSource(dataset="digits", num_examples=4),
    ...         attacks={"random_plan": attacks.make("random_plan", ThreatModel())},
    ...         radii=(0.1,),
    ...         output_dir=f"{folder}/evaluation",
    ...         sanity=False,
    ...     )
    ...     (report,) = run_evaluation(config)
    >>> [(record.attack, record.epsilon, record.num_images) for record in report.records]
    [('random_plan', 0.1, 4)]

    Args:
      config: The configuration.
      resume: Whether to continue in a folder that holds an evaluation with other settings; matching cells are reused.
      overwrite: Whether to delete the evaluation in the folder first.
      rescore_only: Whether to attack nothing and evaluate the classifiers on the stored examples again.
      verify_exact: The number of feasible examples of each model, attack and radius to verify by exact transport;
        0 for all, None for none.
      certification: The output_dir of a certification of the same images; the report then states the bracket.
      allow_chance_accuracy: Whether to attack a classifier that is no better than chance.
      log: Takes lines of progress.

    Returns:
      The results of each model.

    Raises:
      ValueError: A setting, a model or an image is invalid, the folder holds another evaluation, or results that
        `rescore_only` needs are missing; nothing was written.
      OSError: The output_dir cannot be written to; existing files are unchanged.
      wasser_tf.runtime.interruption.Interrupted: A signal requested the run to stop; the same call resumes it.
    """
    folder = pathlib.Path(config.output_dir).expanduser()
    if rescore_only and overwrite:
        raise ValueError(
            "Rescoring needs the stored results in the output_dir: give --rescore or --overwrite, not both."
        )
    _check_folder(config, folder, resume, overwrite)
    run = _Context(
        config,
        folder,
        _make_sweep(config, folder, allow_chance_accuracy or rescore_only),
        rescore_only,
        log or (lambda line: None),
        {},
    )
    if certification:
        found = read_certification(certification)
        found.check(run.sweep.images, config.threat_model)
        run = run._replace(certified=_certificates_of(run, found.classifiers, certification))
    if rescore_only and (missing := run.sweep.missing()):
        raise ValueError(
            f"{len(missing)} results are missing, the first {missing[0].relative_to(folder)}: "
            "run without --rescore to create them."
        )
    storage.make_folder(folder)
    with storage.locked(folder):
        if overwrite:
            for name in (CONFIG, *_REPORTS, CELLS, FIGURES):
                storage.remove(folder / name)
        storage.remove_leftovers(folder)
        write_document(folder / CONFIG, Schema.EVALUATION_CONFIG, config.to_json())
        if not rescore_only:
            run.sweep.run(run.log)
        reports = [_report_on(run, model, verify_exact) for model in run.sweep.models]
        write_report(folder, config.to_json(), config.threat_model, run.sweep.images, reports)
    return reports


class _Context(NamedTuple):
    """One evaluation: its configuration, folder and sweep, whether to attack nothing, and where to log."""

    config: EvaluationRun
    folder: pathlib.Path
    sweep: Sweep
    stored_only: bool
    log: Callable[[str], None]
    # The certificates by the fingerprint of the model; empty without a certification.
    certified: Mapping[str, Certified]


def _make_sweep(config: EvaluationRun, folder: pathlib.Path, allow_chance_accuracy: bool) -> Sweep:
    """Loads the images and the classifiers, and returns their sweep."""
    images = config.source.load()
    classifiers = {
        name: load_checked(path, config.options, images, allow_chance_accuracy) for name, path in config.models.items()
    }
    for classifier in classifiers.values():
        check_batch(classifier, images.images[:1], images.labels[:1])
    return Sweep(
        folder / CELLS,
        [
            Model(name, config.options.mark(fingerprint(path)), classifiers[name])
            for name, path in config.models.items()
        ],
        config.attacks,
        config.radii,
        images,
        chunk_size=config.batch_size,
        batch_size=config.batch_size,
        skip_fooled=config.skip_fooled,
        stored=config.stored_examples,
    )


def _certificates_of(run: _Context, found: Mapping[str, Certified], folder: str) -> Mapping[str, Certified]:
    """Returns the certificates, which must include at least one of the models."""
    if not any(model.fingerprint in found for model in run.sweep.models):
        names = ", ".join(model.name for model in run.sweep.models)
        raise ValueError(
            f"{folder} certifies none of the models {names}: give bin/certify.py the same files as --models, and no "
            "flags that change what the classifier takes or returns."
        )
    return found


def _report_on(run: _Context, model: Model, verify_exact: int | None) -> ModelReport:
    """Scores a model, and adds its minimal radii and sanity checks as configured."""
    interruption.raise_if_requested()
    run.log(f"Scoring {model.name}")
    report = _score_cells(run, model, verify_exact)
    report.certified = run.certified.get(model.fingerprint)
    report.top5 = _top5(model, run.sweep.images)
    if report.exact:
        run.log(summarize_exact_checks(report.exact.values()))
    if run.config.minimal_radius:
        found = _bisected_radii(run, model)
        report.bisected = found is not None
        if found is not None:
            report.minimal_radii = np.minimum(report.minimal_radii, found)
    if run.config.sanity and (checks := _sanity_checks(run, model)):
        report.checks[:] = [*checks, worst_case_is_per_example(report.records)]
    return report


def _top5(model: Model, images: Selection) -> float | None:
    if not metrics.has_many_classes(model.classifier):
        return None
    return metrics.top_accuracy(model.classifier, images.images, images.labels)


def _score_cells(run: _Context, model: Model, verify_exact: int | None) -> ModelReport:
    """Scores the cells of a model, one radius at a time and without the images, which may not fit into memory."""
    config, images = run.config, run.sweep.images
    report = ModelReport(name=model.name, path=config.models[model.name], fingerprint=model.fingerprint)
    worst, smallest, seconds = None, np.full(len(images.labels), np.inf), 0.0
    ranks = np.full(len(images.labels), -1, np.int32)
    # A single attack is its own worst case.
    alone = len(config.attacks) == 1 and not config.skip_fooled
    # The number of examples whose images are needed for figures and verification; None for all.
    kept = PICTURES if verify_exact is None else max(PICTURES, verify_exact) if verify_exact else None

    def check_exactly(label: str, radius: float, examples: Examples) -> None:
        if verify_exact is not None:
            report.exact[label, radius] = verify(examples, config.threat_model, verify_exact or None, run.log)

    for radius in run.sweep.radii:
        worst = None if alone else worst
        exact = verify_exact is not None
        for cell in run.sweep.results(model, radius, rescored=run.stored_only, images=kept, exact=exact):
            seconds += cell.seconds
            report.commits.update(cell.commits)
            if cell.rank is not None:
                ranks[cell.rows] = cell.rank if alone else np.maximum(ranks[cell.rows], cell.rank)
                if not config.skip_fooled:
                    report.robust_top5[cell.label, radius] = float(np.mean(cell.rank < 5))
            if not config.skip_fooled:
                report.add(cell.label, cell.attack, radius, images.name, cell.examples, cell.seconds)
                check_exactly(cell.label, radius, cell.examples)
            smallest[cell.rows] = np.minimum(smallest[cell.rows], least_costs([cell.examples]))
            # The ball contains the smaller balls, so their examples count too.
            worst = cell.examples if worst is None else update_worst_case(worst, cell.examples, cell.rows)
        assert worst is not None  # noqa: S101 (the first attack receives all images)
        if not alone:
            first = next(iter(config.attacks.values()))
            report.add(WORST_CASE, first, radius, images.name, worst, seconds, settings={})
            if report.robust_top5 or config.skip_fooled and ranks.max() >= 0:
                report.robust_top5[WORST_CASE, radius] = float(np.mean(ranks < 5))
        if config.skip_fooled:
            check_exactly(WORST_CASE, radius, worst)
        report.keep_pictures(radius, worst, model.classifier)
    report.minimal_radii = smallest
    return report


def _bisected_radii(run: _Context, model: Model) -> np.ndarray | None:
    """Returns the minimal radii [n], bisected or read from the cache; None if not cached and `stored_only`."""
    config, images = run.config, run.sweep.images
    attack, largest = config.attacks[config.main_attack], max(config.radii)

    def make() -> list[float]:
        run.log(f"Minimal radii of {model.name} with {config.main_attack}")
        radii: list[float] = []
        for rows, chosen in in_chunks(images.images, 4 * config.batch_size):
            found = minimal_radii(
                attack,
                model.classifier,
                chosen,
                images.labels[rows],
                largest=largest,
                index=np.arange(rows.start, rows.stop),
                batch_size=config.batch_size,
                log=run.log,
            )
            radii += found.radius.tolist()
        return radii

    key = {
        "model": model.fingerprint,
        "attack": attacks.serialize(attack),
        "largest": largest,
        **_origin(run),
    }
    found = _cached(run.folder / CELLS / safe_name(model.name) / "minimal_radius.json", key, make, run.stored_only)
    return None if found is None else np.array([float(radius) for radius in found])


def _sanity_checks(run: _Context, model: Model) -> list[Check]:
    """Returns the sanity checks of a model, made or read from the cache; none if not cached and `stored_only`."""
    config, images = run.config, run.sweep.images
    attack = config.attacks[config.main_attack]
    other = next((other for other in run.sweep.models if other.name != model.name), None)
    count = min(config.sanity_examples, len(images.labels))

    def make() -> list[dict[str, Any]]:
        run.log(f"Sanity checks of {model.name} with {config.main_attack} on {count} images")
        checker = SanityChecker(
            model.classifier,
            attack,
            images.images[:count],
            images.labels[:count],
            config.radii,
            surrogate=other.classifier if other else train_surrogate(model.classifier, _some(images)),
            batch_size=config.batch_size,
        )
        return [dataclasses.asdict(check) for check in checker.run(run.log)]

    key = {
        "model": model.fingerprint,
        "surrogate": other.fingerprint if other else None,
        "attack": attacks.serialize(attack),
        "radii": sorted(config.radii),
        **_origin(run),
        "examples": count,
    }
    found = _cached(run.folder / CELLS / safe_name(model.name) / "sanity.json", key, make, run.stored_only)
    return [Check(**check) for check in found or []]


def _some(images: Selection) -> np.ndarray:
    """Returns the images that a surrogate learns from: all in memory, or the first of a stream."""
    return images.images[:_SURROGATE_IMAGES] if is_streamed(images.images) else images.images


def _origin(run: _Context) -> dict[str, Any]:
    """Returns where the images come from, for the key of a cache; a path alone does not identify what was read."""
    digest = run.sweep.images.digest
    return {"source": run.config.source.to_json(), **({"digest": digest} if digest else {})}


def _cached(path: pathlib.Path, key: dict[str, Any], make: Callable[[], Any], stored_only: bool) -> Any:
    """Returns the value stored with an equal key, or computes and stores it; None if missing and `stored_only`."""
    key = storage.through_json(key)
    if path.exists() and (stored := storage.read_json(path))["key"] == key:
        return stored["value"]
    if stored_only:
        return None
    value = make()
    storage.write_json(path, {"key": key, "value": value})
    return value


def _check_folder(config: EvaluationRun, folder: pathlib.Path, resume: bool, overwrite: bool) -> None:
    """Raises ValueError if the folder holds another run and neither `resume` nor `overwrite` allows to use it."""
    if not (folder / CONFIG).exists():
        check_output_dir(folder, (*_REPORTS, run_folder.HISTORY), overwrite)
        return
    if overwrite or resume:
        return
    try:
        stored = read_document(folder / CONFIG, Schema.EVALUATION_CONFIG)
    except ValueError:
        stored = {}
    # Converted to JSON and back, for comparison with the stored values.
    given = storage.through_json(config.to_json())
    if differing := [name for name, value in given.items() if name not in stored or stored[name] != value]:
        raise ValueError(
            f"output_dir {folder} holds another evaluation (its {', '.join(differing)} differ): give another "
            "--output_dir, --resume to continue in it with the new settings (matching results are reused), or "
            "--overwrite."
        )
