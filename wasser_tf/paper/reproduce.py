"""The paper's tables and figures, each by name: what bin/reproduce.py does.

An experiment is a function from a `Bench` (classifiers, images, attacks, evaluations that are never made twice) to an
`ExperimentOutput`. What was trained or attacked once is found again in the output_dir, so an interrupted run goes on where it
was.
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
from wasser_tf.evaluation.sweep import safe_name
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
    """What to reproduce.

    Attributes:
      experiments: Keys of `wasser_tf.paper.experiments.EXPERIMENTS`.
      dataset: See `wasser_tf.data.load`, as for the next two.
      data_dir: The folder of prepared sets.
      download: Whether to fetch a set that is not there.
      original_index: See `ImageSource`: the first images are then the first of that order.
      output_dir: Where everything goes: training/, evaluations/, outputs/.
      preset: How large everything is.
      given: Paths of classifiers by role, "standard", "pgd" or "wasser_train"; those that lack are trained.
      others: Paths of more classifiers by name, which Table 1 and "beyond" have too.
      leave_out: Roles that are neither trained nor attacked; not "standard".
      recipe: How WasserTrain trains, one of `wasser_tf.paper.classifiers.RECIPES`.
      attacks: Names of the attacks beside the paper's two, in Fig. 4 and "beyond".
      seed: Of trainings and attacks.
      batch_size: Images under attack at a time.
      publish_dir: Where outputs are copied and the dataset's page is rendered, such as docs/results; or None.

    Raises:
      ValueError: A field is not what is needed, a role is unknown, or a classifier of `others` is called like a role.
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
            raise ValueError(f"{', '.join(taken)} is a classifier of the paper's: name the other one differently.")
        if not isinstance(self.leave_out, (tuple, list)) or not set(self.leave_out) <= set(ROLES[1:]):
            raise ValueError(f"leave_out must be some of {', '.join(ROLES[1:])}, got {self.leave_out!r}.")
        if set(self.leave_out) == set(ROLES[1:]) and "fig5" in self.experiments:
            raise ValueError(f"leave_out must leave one of {', '.join(ROLES[1:])} for fig5.")

    @property
    def roles(self) -> tuple[str, ...]:
        """The paper's classifiers that are wanted."""
        return tuple(role for role in ROLES if role not in self.leave_out)


class ExperimentContext:
    """What experiments are made with.

    Attributes:
      config: What to reproduce.
      folder: Where outputs and pictures go.
      workshop: What trains.
      log: Is given lines of progress.
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
        """Returns the path of a classifier, by role (trained if it has to be) or one of the others."""
        return self.config.others[name] if name in self.config.others else self.trainer.path(name, self.log)

    def omega_run(self, omega: float) -> pathlib.Path:
        """Returns the folder of a training of Fig. 3."""
        return self.trainer.omega_run(omega, self.log)

    def source(self, count: int | None) -> ImageSource:
        """Returns the first few test images, or all."""
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

    @functools.cache  # noqa: B019 (a bench lives as long as its process)
    def attack(self, name: str) -> Attack:
        """Returns an attack with the dataset's settings."""
        preset = self.config.preset
        settings: dict[str, Any] = {} if preset.attack_iterations is None else {"iterations": preset.attack_iterations}
        settings.update(preset.attack_settings.get(name, {}))
        return attacks.make(name, ThreatModel(epsilon=0.0), seed=self.config.seed, **settings)

    def evaluation(self, name: str, attack_names: Sequence[str]) -> ModelReport:
        """Returns a classifier under attacks at all radii; what was attacked before is not attacked again."""
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
    """Makes the outputs, or what is left of them.

    Returns:
      The Markdown files, one for each experiment, and the page if there is one.

    Raises:
      ValueError: There is no such experiment, or something it needs is not there.
    """
    from wasser_tf.paper.experiments import EXPERIMENTS  # They are made of what is above.

    if unknown := [name for name in config.experiments if name not in EXPERIMENTS]:
        raise ValueError(f"There is no experiment {', '.join(unknown)}; there are {', '.join(EXPERIMENTS)}.")
    log = log or (lambda line: None)
    context = ExperimentContext(config, log)
    context.trainer.prepare_process()
    # What is wrong with these is told before hours of training.
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
                with storage.atomic_path(place / file) as beside:
                    shutil.copyfile(context.folder / file, beside)
    if config.publish_dir is not None:
        written.append(
            results_page.write_results_page(pathlib.Path(config.publish_dir).expanduser(), safe_name(config.dataset))
        )
    return written
