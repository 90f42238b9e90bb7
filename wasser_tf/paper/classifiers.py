"""The classifiers of the paper's tables: those that were given, and those that the pipeline trains here."""

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

# Of WasserTrain: ours trains on mirror ascent at a fixed radius, the paper's on WasserAttack with an adaptive one.
RECIPES = ("ours", "paper")
_PAPER_ITERATIONS = 50
# What a training takes from the scale by the same name.
_OF_THE_PRESET = (
    *("model", "batch_size", "augment", "optimizer", "learning_rate", "warmup", "momentum", "weight_decay"),
    "ema_momentum",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierTrainer:
    """Where and how classifiers are trained.

    Attributes:
      folder: Each training has a folder of its own in it.
      dataset: See `wasser_tf.data.load`, as for the next two.
      data_dir: The folder of prepared sets.
      download: Whether to fetch a set that is not there.
      preset: How large trainings are.
      recipe: One of `RECIPES`.
      seed: Of all trainings.
      given: Paths of classifiers that need no training, by role.

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
        """Sets what holds for the whole process, see `pipeline.prepare_process`; call it before TensorFlow is used."""
        train.prepare_process(self._config(self.folder, self._wasser()))

    def path(self, role: str, log: Callable[[str], None]) -> str:
        """Returns the path of the classifier of a role, which is trained if it has to be.

        Args:
          role: "standard", "pgd" or "wasser_train".
          log: Is given lines of progress.

        Raises:
          ValueError: The dataset is not there, or another process trains in the folder.
        """
        if role in self.given:
            return self.given[role]
        if role == "pgd":
            # On adversarial examples alone, as [14] trains.
            folder = self._trained("pgd", self._pgd(), 1.0, self.preset.standard_epochs, self.preset.epochs, log)
        elif role == "standard" and ("wasser_train" in self.given or self._own_settings()):
            # At ω = 0 no attack runs; the one epoch is what a run has at least, and what is taken is from before it.
            settings = self.preset.standard
            folder = self._trained("standard", self._wasser(), 0.0, self.preset.standard_epochs, 1, log, **settings)
        else:
            usual = {"omega": 0.7, "standard_epochs": self.preset.standard_epochs, "epochs": self.preset.epochs}
            folder = self._trained("wasser_train", self._wasser(), log=log, **{**usual, **self._own_settings()})
        return str(folder / (run_folder.STANDARD if role == "standard" else run_folder.BEST))

    def omega_run(self, omega: float, log: Callable[[str], None]) -> pathlib.Path:
        """Returns the folder of a training of Fig. 3, from scratch with this ω; trained if it has to be."""
        return self._trained(f"omega_{omega:g}", self._wasser(), omega, 0, self.preset.omega_epochs, log)

    def _own_settings(self) -> Mapping[str, Any]:
        """What WasserTrain has otherwise than the scale says."""
        return self.preset.ours if self.recipe == "ours" else {}

    def _wasser(self) -> Attack:
        ball = ThreatModel(epsilon=self.preset.epsilon)
        if self.recipe == "paper":
            return attacks.make("wasser_attack", ball, iterations=_PAPER_ITERATIONS, schedule=RadiusSchedule())
        # In few iterations stronger than the margin: BUILD_NOTES.md, Training.
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
            # It may be one of other sizes.
            run_folder.check_run_folder(folder, config)
            return folder
        log(f"Training {name}: {standard_epochs} standard epochs, then {epochs} with {attack.name}, ω = {omega:g}")
        train.run_training(config, title=name)
        return folder

    def _config(self, folder: pathlib.Path, attack: Attack, **settings: Any) -> TrainConfig:
        ours = attack.supports_warm_start
        usual: dict[str, Any] = {
            **{name: getattr(self.preset, name) for name in _OF_THE_PRESET},
            # An adaptive radius is one already, and PGD trains as its paper says.
            "random_radius": ours and self.preset.random_radius,
            "warm_start": self.preset.warm_start if ours else 0.0,
            # The middle of those that are trained at.
            "radii": (self.preset.epsilon / 2 if ours and self.preset.random_radius else self.preset.epsilon,),
            # The experiments attack better than this report does; it is there to choose the best epoch by.
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
            **{**usual, **settings},
        )
