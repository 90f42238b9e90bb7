"""Everything that decides how a training run goes, checked before it starts."""

import dataclasses
import itertools
import math
import numbers
from typing import Any

import keras

from wasser_tf import attacks, models
from wasser_tf.attacks import Attack
from wasser_tf.data import augmentation
from wasser_tf.runtime.arguments import is_whole
from wasser_tf.threat_model import ThreatModel
from wasser_tf.training.checks import check_has_radius
from wasser_tf.training.distribution import STRATEGIES
from wasser_tf.training.warm_start import check_warm_start

# Of which epoch the weights are kept.
KEPT = ("best", "last")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")

# Where and on what a run is done, not what it is: a resumed run may have others.
_PLACE = ("data_dir", "download", "output_dir", "resume", "overwrite", "distribute", "attack_chunk", "deterministic")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run: a standard classifier, WasserTrain from it, and both under attack.

    Attributes:
      output_dir: Where everything goes.
      attack: What WasserTrain trains on; its threat model is the run's.
      dataset: Name of the dataset, see `wasser_tf.data.load`.
      data_dir: Folder of the prepared sets.
      download: Whether to fetch a set that is not there.
      validation_size: How many images are held out of train for validation; None for the usual part, see
        `wasser_tf.data.load`.
      model: Name of the classifier, one of `wasser_tf.models.MODELS`.
      width: Multiplies the channels and units of its hidden layers.
      blur: How many means over 3×3 pixels go before the classifier, see `wasser_tf.models.blurred`.
      initial: Path of a saved classifier to start from, which then takes the place of `model` and `width`; or None.
      omega: ω, the weight of the adversarial loss.
      trades_beta: β of TRADES, whose loss takes the place of Eq. 10's; 0 for Eq. 10.
      label_smoothing: What labels give away, in both trainings, to be shared evenly by all classes.
      standard_epochs: Epochs of standard training; 0 leaves the classifier as it was initialised.
      epochs: Epochs of WasserTrain.
      batch_size: Images a step.
      augment: What changes training images, before they are attacked; one of `wasser_tf.data.augmentation.AUGMENTATIONS`.
      optimizer: Name of a Keras optimiser.
      learning_rate: Its highest learning rate; it falls to 0 along a cosine in both trainings.
      warmup: The part of each training in which the learning rate first rises, evenly, from 0; at 0 it starts highest.
      momentum: Of "sgd", where it is Nesterov's.
      weight_decay: What weights lose a step, times the learning rate (decoupled), but for biases and the scales and
        offsets of normalisations; 0 leaves the optimiser its own, which only adamw has.
      ema_momentum: Of an exponential moving average of the weights, which then is what is validated, chosen and saved;
        0 for none.
      seed: Of initial weights, data order and all else that is random.
      precision: "float32", or "mixed_float16" or "mixed_bfloat16" (transport stays in float32).
      jit_compile: Whether XLA compiles the training step; "auto": on a single GPU, but for classifiers with max pooling
        where `deterministic`, whose gradient XLA has none of.
      radii: The ε of the report, rising; the best epoch is chosen on the validation split at the middle one.
      report_iterations: Iterations of the report's attack, MirrorAscent with restarts.
      num_attack_examples: How many images of the test split (and of the validation split) are attacked.
      distribute: Over what the training is spread, one of `wasser_tf.training.distribution.STRATEGIES`. The batch size
        is that of all replicas together.
      attack_chunk: The most images of a step (of each replica) that are attacked at a time, which bounds memory; None
        for all at once.
      keep: Of which epoch the weights are kept: "best", by the validation split, or "last".
      validation_attack: What attacks validation images after each epoch, at the middle one of `radii`; None for
        MirrorAscent with 20 iterations. A classifier may learn to mislead a weak attack: one with restarts tells.
      random_radius: Whether each image is attacked, in training, at a radius of its own from 0 to the attack's.
      warm_start: What is kept, from epoch to epoch, of the potential that the attack on an image ended with, to go on
        from there (`wasser_tf.training.warm_start`); 0 for attacks that start anew.
      deterministic: Whether operations with a choice of algorithms take one that always gives the same result: equal
        runs on equal devices then end with equal weights. Nothing is promised across devices or versions of TensorFlow.
      resume: Whether to go on with the run in output_dir, if there is one.
      overwrite: Whether to replace it.

    Raises:
      ValueError: A field is out of its range.
    """

    output_dir: str
    attack: Attack
    dataset: str = "digits"
    data_dir: str | None = None
    download: bool = False
    validation_size: int | None = None
    model: str = "lenet"
    width: float = 1.0
    blur: int = 0
    initial: str | None = None
    omega: float = 0.7
    trades_beta: float = 0.0
    label_smoothing: float = 0.0
    standard_epochs: int = 30
    epochs: int = 40
    batch_size: int = 64
    augment: str = "none"
    optimizer: str = "adam"
    learning_rate: float = 2e-3
    warmup: float = 0.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    ema_momentum: float = 0.0
    seed: int = 0
    precision: str = "float32"
    jit_compile: bool | str = "auto"
    radii: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3)
    report_iterations: int = 100
    num_attack_examples: int = 400
    distribute: str = "none"
    attack_chunk: int | None = None
    keep: str = "best"
    validation_attack: Attack | None = None
    random_radius: bool = False
    warm_start: float = 0.0
    deterministic: bool = True
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.output_dir, str) or not self.output_dir:
            raise ValueError(f"output_dir must be the path of a folder, got {self.output_dir!r}.")
        if not isinstance(self.attack, Attack):
            raise ValueError(f"attack must be a wasser_tf.attacks.Attack, got {self.attack!r}.")
        if self.model not in models.MODELS:
            raise ValueError(f"model must be one of {', '.join(models.MODELS)}, got {self.model!r}.")
        if not _is_number(self.width) or not 0 < self.width < math.inf:
            raise ValueError(f"width must be a finite number above 0, got {self.width!r}.")
        if not _is_number(self.omega) or not 0 <= self.omega <= 1:
            raise ValueError(f"omega must be a number from 0 to 1, got {self.omega!r}.")
        for name, least in _LEAST.items():
            if not is_whole(value := getattr(self, name), least):
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
        if self.blur > 100:
            raise ValueError(f"blur must be at most 100, got {self.blur!r}.")
        if self.seed >= 2**31:
            raise ValueError(f"seed must be below 2**31, got {self.seed!r}.")
        if not _is_optimizer(self.optimizer):
            raise ValueError(f"optimizer must be one of Keras', such as adam, adamw or sgd, got {self.optimizer!r}.")
        if not _is_number(self.learning_rate) or not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be a finite number above 0, got {self.learning_rate!r}.")
        augmentation.check_suits(self.augment, self.dataset)
        for name in ("warmup", "momentum", "ema_momentum", "label_smoothing"):
            if not _is_number(value := getattr(self, name)) or not 0 <= value < 1:
                raise ValueError(f"{name} must be a number from 0 to below 1, got {value!r}.")
        if self.momentum and self.optimizer.lower() != "sgd":
            raise ValueError(f"momentum is a setting of sgd, got it with optimizer={self.optimizer}: leave it out.")
        for name in ("weight_decay", "trades_beta"):
            if not _is_number(value := getattr(self, name)) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}.")
        if self.jit_compile not in (True, False, "auto"):
            raise ValueError(f"jit_compile must be True, False or 'auto', got {self.jit_compile!r}.")
        if self.distribute not in STRATEGIES:
            raise ValueError(f"distribute must be one of {', '.join(STRATEGIES)}, got {self.distribute!r}.")
        if self.distribute != "none" and self.jit_compile is True:
            raise ValueError("jit_compile must be auto or false with distribute: XLA compiles no step of many devices.")
        if self.validation_size is not None and not is_whole(self.validation_size, 1):
            raise ValueError(
                f"validation_size must be a whole number of at least 1, or None, got {self.validation_size!r}."
            )
        if self.attack_chunk is not None and not is_whole(self.attack_chunk, 1):
            raise ValueError(
                f"attack_chunk must be a whole number of at least 1, or None for no bound, got {self.attack_chunk!r}."
            )
        if self.keep not in KEPT:
            raise ValueError(f"keep must be one of {', '.join(KEPT)}, got {self.keep!r}.")
        validation = self.validation_attack
        if validation is not None and not (isinstance(validation, Attack) and validation.schedule is None):
            raise ValueError(
                f"validation_attack must be a wasser_tf.attacks.Attack of a fixed radius, or None, got {validation!r}."
            )
        if validation is not None and validation.threat_model.rules != self.threat_model.rules:
            raise ValueError(
                f"validation_attack must move mass by the rules of attack, {self.threat_model.rules}; got "
                f"{validation.threat_model.rules}."
            )
        if self.random_radius and self.attack.schedule is not None:
            raise ValueError("random_radius and an adaptive radius exclude one another: give one of them.")
        check_has_radius(self.random_radius, self.attack)
        check_warm_start(self.warm_start, self.attack)
        if self.warm_start and self.augment != "none":
            raise ValueError(
                f"warm_start needs images that are the same in every epoch, got it with augment={self.augment}: leave "
                "one of them out."
            )
        if self.warm_start and self.distribute != "none":
            raise ValueError(f"warm_start needs one replica, got distribute={self.distribute}: leave one of them out.")
        given = self.radii
        try:
            # Floats, so that equal runs have equal configs; flags give them as text.
            object.__setattr__(self, "radii", tuple(float(radius) for radius in self.radii))
        except (TypeError, ValueError):
            object.__setattr__(self, "radii", ())
        if not self.radii or not all(0 < radius < math.inf for radius in self.radii) or not _rises(self.radii):
            raise ValueError(f"radii must be rising numbers above 0 such as 0.1, 0.3, 0.5, got {given!r}.")
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude one another: give one of them.")

    @property
    def threat_model(self) -> ThreatModel:
        """The attack's."""
        return self.attack.threat_model

    @property
    def middle_radius(self) -> float:
        """The middle one of `radii`, by which models are chosen and drawn."""
        return self.radii[len(self.radii) // 2]

    def identity(self) -> dict[str, Any]:
        """Returns, in plain Python values, all that decides what the run ends with."""
        values = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in _PLACE
        }
        validation = None if self.validation_attack is None else attacks.serialize(self.validation_attack)
        return {
            **values,
            "attack": attacks.serialize(self.attack),
            "validation_attack": validation,
            "radii": list(self.radii),
        }


_LEAST = {
    "blur": 0,
    "standard_epochs": 0,
    "epochs": 1,
    "batch_size": 1,
    "seed": 0,
    "report_iterations": 1,
    "num_attack_examples": 1,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _rises(values: tuple[float, ...]) -> bool:
    return all(one < two for one, two in itertools.pairwise(values))


def _is_optimizer(name: Any) -> bool:
    # Not by making one: its variables would start TensorFlow, before a strategy of several workers can be made.
    known = {key.lower() for key, value in vars(keras.optimizers).items() if isinstance(value, type)}
    return isinstance(name, str) and name.lower() in known - {"optimizer", "lossscaleoptimizer"}
