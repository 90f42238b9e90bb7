"""Saved classifiers × attacks × radii to tables, curves and pictures: what bin/evaluate.py does."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import wasser_tf
from wasser_tf import attacks, interruption, models, storage
from wasser_tf._checks import is_whole
from wasser_tf.attacks import Attack
from wasser_tf.attacks.inputs import check_batch, check_transports
from wasser_tf.evaluation import sanity
from wasser_tf.evaluation.attack_run import check_output_dir, model_name
from wasser_tf.evaluation.minimal_radius import minimal_radii
from wasser_tf.evaluation.record import WORST_CASE
from wasser_tf.evaluation.report import PICTURES, ModelReport, write_report
from wasser_tf.evaluation.sanity import worst_case_is_per_example
from wasser_tf.evaluation.selection import ImageSource, Selection
from wasser_tf.evaluation.sweep import Model, Sweep, fingerprint, safe_name
from wasser_tf.evaluation.verify import in_words, verify
from wasser_tf.evaluation.worst_case import least_costs, worst_case

CONFIG = "config.json"
CELLS = "cells"
FIGURES = "figures"
_REPORTS = ("report.json", "report.md", "results.csv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationRun:
    """What to evaluate.

    Attributes:
      models: Names and paths of the classifiers.
      source: The images.
      attacks: Attacks by what reports call them, all with the same threat model but for epsilon.
      radii: The radii.
      output_dir: Where everything goes.
      minimal_radius: Whether to bisect each image's minimal radius with the main attack, up to the largest radius.
        Otherwise it is told from the examples at the radii alone.
      sanity: Whether to make the sanity checks, with the main attack on `sanity_examples` images.
      main_attack: Which of the attacks that is; mirror ascent by default if it is there, else the first.
      sanity_examples: On how many images, the first ones.
      batch_size: Images at a time; a file of results holds as many.

    Raises:
      ValueError: A field is out of its range.
    """

    models: Mapping[str, str]
    source: ImageSource
    attacks: Mapping[str, Attack]
    radii: tuple[float, ...]
    output_dir: str
    minimal_radius: bool = False
    sanity: bool = True
    main_attack: str = ""
    sanity_examples: int = 100
    batch_size: int = 128

    def __post_init__(self) -> None:
        for name, kind in (("models", Mapping), ("attacks", Mapping), ("radii", (tuple, list))):
            if not isinstance(value := getattr(self, name), kind):
                raise ValueError(f"{name} must be a {'list' if name == 'radii' else 'dict'}, got {value!r}.")
            if not value:
                raise ValueError(f"{name} must name at least one, got none.")
        for label, attack in self.attacks.items():
            if not isinstance(attack, Attack):
                raise ValueError(f"The attack {label!r} must be a wasser_tf.attacks.Attack, got {attack!r}.")
        for name in ("sanity_examples", "batch_size"):
            if not is_whole(getattr(self, name), 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {getattr(self, name)!r}.")
        if WORST_CASE in self.attacks:
            raise ValueError(f"{WORST_CASE!r} is the name of the row over all attacks: give the attack another.")
        for attack in self.attacks.values():
            check_transports(attack)
        if len({attack.threat_model.with_epsilon(0) for attack in self.attacks.values()}) > 1:
            raise ValueError("All attacks of an evaluation must have the same threat model, but for epsilon.")
        if any(attack.schedule is not None for attack in self.attacks.values()):
            raise ValueError("An evaluation is at fixed radii: leave out the adaptive radius.")
        if not self.main_attack:
            usual = [label for label, attack in self.attacks.items() if attack.name == "mirror_ascent"]
            object.__setattr__(self, "main_attack", (usual or list(self.attacks))[0])
        if self.main_attack not in self.attacks:
            raise ValueError(f"main_attack must be one of {', '.join(self.attacks)}, got {self.main_attack!r}.")
        for radius in self.radii:
            self.threat_model.with_epsilon(radius)

    @property
    def threat_model(self) -> wasser_tf.ThreatModel:
        """The threat model of all attacks; its epsilon is not used."""
        return next(iter(self.attacks.values())).threat_model

    def to_json(self) -> dict[str, Any]:
        """Returns plain Python values, without the output_dir, so that a folder may be moved."""
        return {
            "wasser_tf": wasser_tf.__version__,
            "models": dict(self.models),
            "source": dataclasses.asdict(self.source),
            "attacks": {label: attacks.serialize(attack) for label, attack in self.attacks.items()},
            "radii": list(self.radii),
            "sanity": self.sanity,
            "main_attack": self.main_attack,
            "minimal_radius": self.minimal_radius,
            "sanity_examples": self.sanity_examples,
            "batch_size": self.batch_size,
        }

    @classmethod
    def stored(cls, output_dir: str) -> "EvaluationRun":
        """Makes the config of the run that an output_dir holds.

        Raises:
          ValueError: It holds none.
        """
        path = pathlib.Path(output_dir).expanduser() / CONFIG
        if not path.exists():
            raise ValueError(
                f"{output_dir} holds no evaluation ({CONFIG} is not there): say what to evaluate, --models."
            )
        values = storage.read_json(path)
        try:
            values.pop("wasser_tf")
            values["source"] = ImageSource(**values["source"])
            values["attacks"] = {label: attacks.deserialize(config) for label, config in values["attacks"].items()}
            values["radii"] = tuple(values["radii"])
            return cls(**values, output_dir=output_dir)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no evaluation's ({error}): give another --output_dir, or --overwrite."
            ) from error


def run_evaluation(
    config: EvaluationRun,
    *,
    resume: bool = False,
    overwrite: bool = False,
    rescore_only: bool = False,
    verify_exact: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[ModelReport]:
    """Attacks what was not attacked yet and writes config.json, cells/, report.json, report.md, results.csv, figures/.

    Args:
      config: What to evaluate. A folder that holds the same evaluation is gone on with.
      resume: Whether to go on in a folder that holds another evaluation; results that fit are used.
      overwrite: Whether to delete the evaluation that the folder holds.
      rescore_only: Attack nothing; ask the classifiers about the stored examples anew.
      verify_exact: Verify so many certified examples of each model, attack and radius by exact transport; 0 for all.
      tell: Is given lines of progress.

    Returns:
      A report for each model.

    Raises:
      ValueError: Something is not what is needed; nothing was written.
      OSError: The output_dir cannot be written to; what was there before is whole.
      wasser_tf.interruption.Interrupted: The run was asked to stop; the same call goes on.
    """
    tell = tell or (lambda line: None)
    folder = pathlib.Path(config.output_dir).expanduser()
    if rescore_only and overwrite:
        raise ValueError("Rescoring needs what the output_dir holds: give --rescore or --overwrite, not both.")
    _check_folder(config, folder, resume, overwrite)
    images = config.source.load()
    classifiers = {name: models.load_classifier(path) for name, path in config.models.items()}
    for classifier in classifiers.values():
        check_batch(classifier, images.images[:1], images.labels[:1])
    known = [Model(name, fingerprint(path), classifiers[name]) for name, path in config.models.items()]
    sweep = Sweep(
        folder / CELLS,
        known,
        config.attacks,
        config.radii,
        images,
        chunk_size=config.batch_size,
        batch_size=config.batch_size,
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
            sweep.run(tell)
        reports = []
        for model in known:
            interruption.check()
            tell(f"Scoring {model.name}")
            report = _report_on(config, sweep, model, images, rescore_only, verify_exact)
            if report.exact:
                tell(in_words(report.exact.values()))
            if config.minimal_radius:
                found = _bisected(config, folder, model, images, rescore_only, tell)
                report.bisected = found is not None
                if found is not None:
                    report.minimal_radii = np.minimum(report.minimal_radii, found)
            if config.sanity and (checks := _sanity(config, folder, known, model, images, rescore_only, tell)):
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
    # Those that are drawn, and those that are verified, of which 0 means all.
    kept = PICTURES if verify_exact is None else max(PICTURES, verify_exact) if verify_exact else None
    for radius in sweep.radii:
        results = []
        for cell in sweep.results(model, radius, rescored=rescored, images=kept):
            examples = cell.examples
            results.append(examples)
            seconds += cell.seconds
            report.add(cell.label, cell.attack, radius, images.name, examples, cell.seconds)
            if verify_exact is not None:
                report.exact[cell.label, radius] = verify(examples, config.threat_model, verify_exact or None)
        if len(config.attacks) > 1:
            # Examples of a smaller ball are examples of this one too.
            worst = worst_case(results if worst is None else [worst, *results])
            report.add(
                WORST_CASE, next(iter(config.attacks.values())), radius, images.name, worst, seconds, settings={}
            )
        smallest = np.minimum(smallest, least_costs(results))
        report.keep_pictures(radius, results[0] if worst is None else worst, model.classifier)
    report.minimal_radii = smallest
    return report


def _bisected(
    config: EvaluationRun,
    folder: pathlib.Path,
    model: Model,
    images: Selection,
    stored_only: bool,
    tell: Callable[[str], None],
) -> np.ndarray | None:
    """Bisects the minimal radius of each image, or reads what was found, [n]; None where it may not be made."""
    attack, largest = config.attacks[config.main_attack], max(config.radii)

    def make() -> list[float]:
        tell(f"Minimal radii of {model.name} with {config.main_attack}")
        found = minimal_radii(
            attack,
            model.classifier,
            images.images,
            images.labels,
            largest=largest,
            batch_size=config.batch_size,
            tell=tell,
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
    tell: Callable[[str], None],
) -> list[sanity.Check]:
    """Makes a model's sanity checks, or reads those that were made; none where they may not be made."""
    attack = config.attacks[config.main_attack]
    other = next((other for other in known if other.name != model.name), None)
    count = min(config.sanity_examples, len(images.labels))

    def make() -> list[dict[str, Any]]:
        tell(f"Sanity checks of {model.name} with {config.main_attack} on {count} images")
        checker = sanity.SanityChecker(
            model.classifier,
            attack,
            images.images[:count],
            images.labels[:count],
            config.radii,
            surrogate=other.classifier if other else sanity.train_surrogate(model.classifier, images.images),
            batch_size=config.batch_size,
        )
        return [dataclasses.asdict(check) for check in checker.run(tell)]

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


def parse_models(given: Sequence[str]) -> dict[str, str]:
    """Returns names and paths out of "path" or "name=path" each.

    Raises:
      ValueError: Two have the same name.
    """
    named: dict[str, str] = {}
    for item in given:
        name, equals, path = item.partition("=")
        name, path = (name, path) if equals else (model_name(item), item)
        if name in named:
            raise ValueError(f"Two models are called {name!r}: name them apart, as in --models={name}_2={path}.")
        named[name] = path
    return named


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
