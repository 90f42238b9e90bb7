"""Reproduces the paper's tables and figures (bin/reproduce.py).

An experiment is a function from an `ExperimentContext` (classifiers, images, attacks and evaluations) to an
`ExperimentOutput`. Trainings and evaluations are stored in the output_dir and reused: after an interruption, the same
command resumes the run.
"""

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wasser_tf import attacks, models
from wasser_tf.attacks import Attack
from wasser_tf.attacks.inputs import check_batch
from wasser_tf.data.selection import ImageSource, Selection
from wasser_tf.evaluation.config import EvaluationRun
from wasser_tf.evaluation.fingerprint import safe_name
from wasser_tf.paper import experiment_output, results_page
from wasser_tf.paper.classifiers import ClassifierTrainer
from wasser_tf.paper.experiment_output import ExperimentOutput
from wasser_tf.paper.presets import Preset
from wasser_tf.paper.published_numbers import ROLES
from wasser_tf.reporting.report import ModelReport
from wasser_tf.runs.evaluate import run_evaluation
from wasser_tf.runtime import storage
from wasser_tf.threat_model import ThreatModel

OUTPUTS = "outputs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduction:
    """Settings of a reproduction.

    Attributes:
      experiments: Keys of `wasser_tf.paper.experiments.EXPERIMENTS`.
      dataset: See `wasser_tf.data.load`, as for the next two.
      data_dir: Folder of the prepared datasets.
      download: Whether to download a missing dataset.
      original_index: See `ImageSource`; the first images are then the first ones in that order.
      output_dir: Folder for training/, evaluations/ and outputs/.
      preset: Sizes of the trainings and attacks.
      given: Paths of existing classifiers by role, "standard", "pgd" or "wasser_train"; the others are trained.
      others: Paths of additional classifiers by name, for Table 1 and "beyond".
      leave_out: Roles that are neither trained nor attacked; "standard" is always needed.
      recipe: Recipe of WasserTrain, one of `wasser_tf.paper.classifiers.RECIPES`.
      attacks: Names of the attacks in Fig. 4 and "beyond", in addition to the paper's two.
      seed: Seed of trainings and attacks.
      batch_size: Number of images that are attacked at a time.
      publish_dir: Folder to which outputs are copied and in which the dataset's results page is rendered, such as
        docs/results; None to skip both.

    Raises:
      ValueError: A field is out of its range, a role is unknown, or a name in `others` is a role.

    Example:
    >>> from wasser_tf.paper import presets
    >>> config = Reproduction(
    ...     experiments=["table1"], dataset="digits", output_dir="runs/paper", preset=presets.QUICK["digits"],
    ...     leave_out=("pgd",),
    ... )
    >>> config.roles
    ('standard', 'wasser_train')
    """

    experiments: Sequence[str]
    dataset: str
    data_dir: str | None = None
    download: bool = False
    original_index: str | None = None
    output_dir: str
    preset: Preset
    given: Mapping[str, str] = dataclasses.field(default_factory=dict)
    others: Mapping[str, str] = dataclasses.field(default_factory=dict)
    leave_out: Sequence[str] = ()
    recipe: str = "ours"
    attacks: tuple[str, ...] = ("mirror_ascent", "frank_wolfe", "constrained_sinkhorn", "ensemble")
    seed: int = 0
    batch_size: int = 128
    publish_dir: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.experiments, str) or not isinstance(self.experiments, Sequence) or not self.experiments:
            raise ValueError(f"experiments must be a list that names at least one, got {self.experiments!r}.")
        if not isinstance(self.preset, Preset):
            raise ValueError(f"preset must be a wasser_tf.paper.presets.Preset, got {self.preset!r}.")
        for name in ("given", "others"):
            if not isinstance(value := getattr(self, name), Mapping):
                raise ValueError(f"{name} must be a dict of paths, got {value!r}.")
        if not isinstance(self.output_dir, str) or not self.output_dir:
            raise ValueError(f"output_dir must be the path of a folder, got {self.output_dir!r}.")
        if unknown := sorted(set(self.given) - set(ROLES)):
            raise ValueError(f"given must be classifiers of {', '.join(ROLES)}, got {', '.join(unknown)}.")
        if taken := sorted(set(self.others) & set(ROLES)):
            raise ValueError(f"others must not contain the role {', '.join(taken)}: choose another name.")
        if not isinstance(self.leave_out, (tuple, list)) or not set(self.leave_out) <= set(ROLES[1:]):
            raise ValueError(f"leave_out must be some of {', '.join(ROLES[1:])}, got {self.leave_out!r}.")
        if set(self.leave_out) == set(ROLES[1:]) and "fig5" in self.experiments:
            raise ValueError(f"leave_out must leave one of {', '.join(ROLES[1:])} for fig5.")

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the paper's classifiers, without those in `leave_out`."""
        return tuple(role for role in ROLES if role not in self.leave_out)


class ExperimentContext:
    """Gives experiments their classifiers, images, attacks and evaluations, and makes each of them once.

    Attributes:
      config: The settings.
      folder: Folder of outputs and pictures.
      trainer: Trains the classifiers that are not given.
      log: Called with lines of progress.
    """

    def __init__(self, config: Reproduction, log: Callable[[str], None]):
        root = pathlib.Path(config.output_dir).expanduser()
        self.config, self.log = config, log
        self.folder = root / OUTPUTS
        self._evaluations = root / "evaluations"
        self.trainer = ClassifierTrainer(
            folder=root / "training",
            dataset=config.dataset,
            data_dir=config.data_dir,
            download=config.download,
            preset=config.preset,
            recipe=config.recipe,
            seed=config.seed,
            given=config.given,
        )

    def path(self, name: str) -> str:
        """Returns the path of a classifier by role, or by its name in `others`; trains it first if necessary."""
        return self.config.others[name] if name in self.config.others else self.trainer.path(name, self.log)

    def omega_run(self, omega: float) -> pathlib.Path:
        """Returns the folder of a training of Fig. 3, and trains first if necessary."""
        return self.trainer.omega_run(omega, self.log)

    def source(self, count: int | None) -> ImageSource:
        """Returns the source of the first `count` test images, or of all (None)."""
        return ImageSource(
            dataset=self.config.dataset,
            data_dir=self.config.data_dir,
            download=self.config.download,
            num_examples=count,
            original_index=self.config.original_index,
        )

    @functools.cached_property
    def images(self) -> Selection:
        """All test images."""
        return self.source(None).load()

    @functools.cache  # noqa: B019 (a context lives as long as its process)
    def attack(self, name: str) -> Attack:
        """Returns an attack with the preset's settings."""
        preset = self.config.preset
        settings: dict[str, Any] = {} if preset.attack_iterations is None else {"iterations": preset.attack_iterations}
        settings.update(preset.attack_settings.get(name, {}))
        return attacks.make(name, ThreatModel(epsilon=0.0), seed=self.config.seed, **settings)

    def evaluation(self, name: str, attack_names: Sequence[str]) -> ModelReport:
        """Evaluates a classifier under attacks at all radii of the preset. Stored results are reused.

        Args:
          name: A role, or a name in `others`.
          attack_names: Names of the attacks.
        """
        folder = self._evaluations / safe_name(name)
        run = EvaluationRun(
            models={name: self.path(name)},
            source=self.source(self.config.preset.num_examples),
            attacks={attack: self.attack(attack) for attack in attack_names},
            radii=self.config.preset.radii,
            output_dir=str(folder),
            sanity=False,
            batch_size=min(self.config.batch_size, self.config.preset.num_examples),
        )
        (report,) = run_evaluation(run, resume=True, log=self.log)
        return report


def reproduce(config: Reproduction, log: Callable[[str], None] | None = None) -> list[pathlib.Path]:
    """Runs experiments and writes their outputs. Trainings and evaluations of an earlier run are reused.

    Args:
      config: The settings.
      log: Called with lines of progress; None for none.

    Returns:
      The Markdown files, one for each experiment, and the results page if there is one.

    Raises:
      ValueError: An experiment is unknown, or a dataset, classifier or attack cannot be loaded.
    """
    from wasser_tf.paper.experiments import EXPERIMENTS  # At the top, the import would be circular.

    if unknown := [name for name in config.experiments if name not in EXPERIMENTS]:
        raise ValueError(f"There is no experiment {', '.join(unknown)}; there are {', '.join(EXPERIMENTS)}.")
    log = log or (lambda line: None)
    context = ExperimentContext(config, log)
    context.trainer.prepare_process()
    # Errors in these are raised before hours of training.
    images = context.source(config.preset.num_examples).load()
    for path in (*config.given.values(), *config.others.values()):
        check_batch(models.load_classifier(path), images.images[:1], images.labels[:1])
    for name in config.attacks:
        context.attack(name)
    if config.publish_dir is not None:
        storage.make_folder(pathlib.Path(config.publish_dir).expanduser())
    written = []
    for name in config.experiments:
        log(f"{name}")
        made: ExperimentOutput = EXPERIMENTS[name](context)
        experiment_output.write_output(context.folder, made, dataset=config.dataset, seed=config.seed)
        written.append(context.folder / f"{name}.md")
        if config.publish_dir is not None:
            place = pathlib.Path(config.publish_dir).expanduser() / safe_name(config.dataset)
            for file in (*made.pictures, f"{name}.csv", f"{name}.json"):
                with storage.atomic_path(place / file) as temporary:
                    shutil.copyfile(context.folder / file, temporary)
    if config.publish_dir is not None:
        written.append(
            results_page.write_results_page(pathlib.Path(config.publish_dir).expanduser(), safe_name(config.dataset))
        )
    return written
