"""The classifiers of the paper's tables: given files, or trained on demand."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from wasser_tf import attacks
from wasser_tf.attacks import Attack, RadiusSchedule
from wasser_tf.paper.presets import Preset
from wasser_tf.runs import train
from wasser_tf.threat_model import ThreatModel
from wasser_tf.training import run_folder
from wasser_tf.training.config import TrainConfig

# "ours" trains WasserTrain on mirror ascent at a fixed radius, "paper" on WasserAttack with an adaptive radius.
RECIPES = ("ours", "paper")
_PAPER_ITERATIONS = 50
# The fields of TrainConfig that are set by the preset's field of the same name.
_PRESET_FIELDS = (
    *("model", "batch_size", "augment", "optimizer", "learning_rate", "warmup", "momentum", "weight_decay"),
    "ema_momentum",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierTrainer:
    """Trains the classifiers of the paper's tables that are not given.

    Attributes:
      folder: Parent folder of the trainings' folders.
      dataset: See `wasser_tf.data.load`, as for the next two.
      data_dir: Folder of the prepared datasets.
      download: Whether to download a missing dataset.
      preset: Sizes of the trainings.
      recipe: One of `RECIPES`.
      seed: Seed of all trainings.
      given: Paths of existing classifiers by role.

    Raises:
      ValueError: A field is out of its range.
    """

    folder: pathlib.Path
    dataset: str
    data_dir: str | None
    download: bool
    preset: Preset
    recipe: str
    seed: int
    given: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {self.recipe!r}.")

    def prepare_process(self) -> None:
        """Applies process-wide settings (`wasser_tf.runs.train.prepare_process`); call it before using TensorFlow."""
        train.prepare_process(self._config(self.folder, self._wasser()))

    def path(self, role: str, log: Callable[[str], None]) -> str:
        """Returns the path of a role's classifier, and trains the classifier first if necessary.

        Args:
          role: "standard", "pgd" or "wasser_train".
          log: Called with lines of progress.

        Raises:
          ValueError: The dataset is missing, another process trains in the folder, or the folder contains a training
            with other settings.
        """
        if role in self.given:
            return self.given[role]
        if role == "pgd":
            # ω = 1: on adversarial examples only, as in [14].
            folder = self._trained("pgd", self._pgd(), 1.0, self.preset.standard_epochs, self.preset.epochs, log)
        elif role == "standard" and ("wasser_train" in self.given or self._own_settings()):
            # At ω = 0 no attack runs. A run needs at least one epoch; the model saved before that epoch is used.
            settings = self.preset.standard
            folder = self._trained("standard", self._wasser(), 0.0, self.preset.standard_epochs, 1, log, **settings)
        else:
            defaults = {"omega": 0.7, "standard_epochs": self.preset.standard_epochs, "epochs": self.preset.epochs}
            folder = self._trained("wasser_train", self._wasser(), log=log, **{**defaults, **self._own_settings()})
        return str(folder / (run_folder.STANDARD if role == "standard" else run_folder.BEST))

    def omega_run(self, omega: float, log: Callable[[str], None]) -> pathlib.Path:
        """Returns the folder of a training of Fig. 3, from scratch with this ω, and trains first if necessary."""
        return self._trained(f"omega_{omega:g}", self._wasser(), omega, 0, self.preset.omega_epochs, log)

    def _own_settings(self) -> Mapping[str, Any]:
        """Returns the settings in which our WasserTrain deviates from the preset."""
        return self.preset.ours if self.recipe == "ours" else {}

    def _wasser(self) -> Attack:
        ball = ThreatModel(epsilon=self.preset.epsilon)
        if self.recipe == "paper":
            return attacks.make("wasser_attack", ball, iterations=_PAPER_ITERATIONS, schedule=RadiusSchedule())
        # With few iterations, cross-entropy is stronger than the margin (BUILD_NOTES.md, Training).
        settings = {name: getattr(self.preset, name) for name in ("iterations", "step_size", "polish")}
        return attacks.make("mirror_ascent", ball, loss="cross_entropy", **settings)

    def _pgd(self) -> Attack:
        return attacks.make(
            "projected_sinkhorn",
            ThreatModel(epsilon=self.preset.epsilon),
            iterations=self.preset.pgd_iterations,
            schedule=RadiusSchedule() if self.preset.adaptive_pgd else None,
            **self.preset.attack_settings.get("projected_sinkhorn", {}),
        )

    def _trained(
        self,
        name: str,
        attack: Attack,
        omega: float,
        standard_epochs: int,
        epochs: int,
        log: Callable[[str], None],
        **settings: Any,
    ) -> pathlib.Path:
        folder = self.folder / name
        sizes = {"omega": omega, "standard_epochs": standard_epochs, "epochs": epochs}
        config = self._config(folder, attack, **sizes, **settings)
        if (folder / "report.json").exists():
            # Raises if this training has other settings.
            run_folder.check_run_folder(folder, config)
            return folder
        log(f"Training {name}: {standard_epochs} standard epochs, then {epochs} with {attack.name}, ω = {omega:g}")
        train.run_training(config, title=name)
        return folder

    def _config(self, folder: pathlib.Path, attack: Attack, **settings: Any) -> TrainConfig:
        ours = attack.supports_warm_start
        defaults: dict[str, Any] = {
            **{name: getattr(self.preset, name) for name in _PRESET_FIELDS},
            # Only for our recipe: an adaptive radius already varies, and PGD trains as in its paper.
            "random_radius": ours and self.preset.random_radius,
            "warm_start": self.preset.warm_start if ours else 0.0,
            # The middle of the radii of the training.
            "radii": (self.preset.epsilon / 2 if ours and self.preset.random_radius else self.preset.epsilon,),
            # This report only serves to choose the best epoch; the experiments use stronger attacks.
            "report_iterations": 20,
            "num_attack_examples": 100,
        }
        return TrainConfig(
            output_dir=str(folder),
            attack=attack,
            dataset=self.dataset,
            data_dir=self.data_dir,
            download=self.download,
            seed=self.seed,
            resume=True,
            **{**defaults, **settings},
        )
