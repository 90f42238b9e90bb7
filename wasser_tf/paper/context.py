"""What a reproduction is, and the context of its experiments: classifiers, images, attacks and evaluations."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wasser_tf import attacks, pretrained
from wasser_tf.attacks import Attack
from wasser_tf.data.selection import ImageSource, Selection
from wasser_tf.evaluation.config import EvaluationRun
from wasser_tf.evaluation.fingerprint import safe_name
from wasser_tf.models import ModelOptions
from wasser_tf.paper.classifiers import ClassifierTrainer
from wasser_tf.paper.presets import Preset
from wasser_tf.paper.published_numbers import ROLES, WASSER
from wasser_tf.reporting.report import ModelReport
from wasser_tf.runs.certifiers import SmoothingSettings
from wasser_tf.runs.certify import CertificationRun, run_certification
from wasser_tf.runs.classifiers import load_checked
from wasser_tf.runs.evaluate import run_evaluation
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
      options: What is given about the classifiers in `given` and `others`, such as the range of their pixels.
      allow_chance_accuracy: Whether to attack classifiers of these that are no better than chance.

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
    options: ModelOptions = ModelOptions()
    allow_chance_accuracy: bool = False

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
        self._evaluations, self._certificates = root / "evaluations", root / "certificates"
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
        """Returns the path of a classifier by role, by its name in `others`, or by the name of a packaged one.

        A role's classifier that is not given is trained first.
        """
        if name in self.config.others:
            return self.config.others[name]
        return self.trainer.path(name, self.log) if name in ROLES else f"{pretrained.PREFIX}{name}"

    def options_of(self, name: str) -> ModelOptions:
        """Returns what is given about a classifier by role or name: nothing where it is trained here."""
        return self.config.options if self._is_given(name) else ModelOptions()

    def classifier(self, name: str) -> Any:
        """Returns a classifier by role or name, of images in [0, 1], channels last; trains it first if necessary.

        Raises:
          ValueError: It cannot be loaded, something must be given about it, or it is no better than chance.
        """
        path, allowed = self.path(name), self.config.allow_chance_accuracy or not self._is_given(name)
        return load_checked(path, self.options_of(name), self.images, allowed)

    def _is_given(self, name: str) -> bool:
        return name in self.config.given or name in self.config.others

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

    def certified_radii(self, name: str, method: str) -> np.ndarray:
        """Certifies a classifier on the attacked images. Stored results are reused.

        Args:
          name: As for `path`.
          method: As for `wasser_tf.certify`.

        Returns:
          The largest radius proved for each image, [n]; 0 where the answer is wrong.
        """
        preset = self.config.preset
        run = CertificationRun(
            models={name: self.path(name)},
            source=self.source(preset.num_examples),
            threat_model=self.attack(WASSER).threat_model,
            radii=preset.radii,
            output_dir=str(self._certificates / f"{safe_name(name)}_{method}"),
            method=method,
            smoothing=SmoothingSettings(seed=self.config.seed),
            options=self.options_of(name),
            allow_chance_accuracy=self.config.allow_chance_accuracy or not self._is_given(name),
        )
        return run_certification(run, resume=True, log=self.log)[name].certified

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
            options=self.options_of(name),
        )
        allowed = self.config.allow_chance_accuracy or not self._is_given(name)
        (report,) = run_evaluation(run, resume=True, allow_chance_accuracy=allowed, log=self.log)
        return report
