"""The settings of a training run, each declared once: type, default, range and description."""

import dataclasses
import functools
from typing import Any

from wasser_tf import attacks, models
from wasser_tf.attacks import Attack
from wasser_tf.data import augmentation
from wasser_tf.models.precision import POLICIES
from wasser_tf.threat_model import ThreatModel
from wasser_tf.training.checks import check_epsilon, check_has_radius
from wasser_tf.training.curriculum import MOST
from wasser_tf.training.distribution import STRATEGIES
from wasser_tf.training.field_checks import (
    as_radii,
    attack_object,
    attack_of_fixed_radius_or_none,
    folder,
    number,
    optimizer_name,
    positive_or_none,
    whole,
    whole_or_none,
)
from wasser_tf.training.image_fields import ImageFields
from wasser_tf.training.schedules import SPEC, Schedule, check_schedule_text, parse_schedule
from wasser_tf.training.setting import document_fields, setting
from wasser_tf.training.warm_start import check_warm_start

# Which epoch's weights are kept.
KEPT = ("best", "last")
DECAYS = ("cosine", "linear")
JIT_COMPILE = ("auto", True, False)

# Fields that do not change the result of a run. A resumed run may have other values of these.
_PLACE = (
    "data_dir",
    "download",
    "streaming",
    "output_dir",
    "resume",
    "overwrite",
    "distribute",
    "attack_chunk",
    "deterministic",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(ImageFields):
    """The settings of a training run: standard training, WasserTrain from its result, and an evaluation of both.

    Each field is declared once, with its default, its range and its description; the flags of bin/train.py are derived
    from the fields (`metadata["help"]`, `metadata["choices"]`).

    Raises:
      ValueError: A field is out of its range, or fields contradict each other.

    Example:
    >>> from wasser_tf import MirrorAscent, ThreatModel
    >>> attack = MirrorAscent(ThreatModel(epsilon=0.1), iterations=10)
    >>> TrainConfig(output_dir="runs/digits", attack=attack, omega=0.5).middle_radius
    0.1
    """

    output_dir: str = setting("Folder of the results.", check=folder)
    attack: Attack = setting("The attack of WasserTrain. Its threat model is that of the run.", check=attack_object)
    model: str = setting(
        f"Architecture of the classifier: {', '.join(models.MODELS)}, or keras:NAME of keras.applications, such as "
        "keras:MobileNetV2 (with weights: keras:NAME:weights=FILE).",
        "lenet",
        check=models.check_architecture,
    )
    width: float = setting(
        "Factor on the number of channels and units of the hidden layers.", 1.0, check=number(above=0)
    )
    blur: int = setting(
        "Number of 3×3 mean filters in front of the classifier, also of an initial one.",
        0,
        check=whole(0, 100),
    )
    initial: str | None = setting(
        "Path of a saved classifier to start from, instead of a new one of `model` and `width`; usually with "
        "standard_epochs=0.",
        None,
    )
    omega: float = setting("Weight ω of the adversarial loss, from 0 to 1.", 0.7, check=number(least=0, most=1))
    omega_schedule: str | None = setting(
        f"Schedule of ω over the steps of WasserTrain, given as {SPEC}. `omega` then only weighs the accuracies by "
        "which the best epoch is selected.",
        None,
        check=functools.partial(check_schedule_text, most=MOST["omega"]),
    )
    epsilon_schedule: str | None = setting(
        "Schedule of the radius ε over the steps of WasserTrain, given as for omega_schedule, instead of the attack's "
        "epsilon.",
        None,
        check=check_schedule_text,
    )
    trades_beta: float = setting(
        "Weight β of the TRADES loss, which replaces that of Eq. 10; 0 for Eq. 10.",
        0.0,
        check=number(least=0),
    )
    matching: float = setting(
        "Weight λ of the squared distance between the probabilities of natural and adversarial images, which is added "
        "to the loss of Eq. 10 or TRADES (GAT); 0 for none.",
        0.0,
        check=number(least=0),
    )
    label_smoothing: float = setting(
        "Label smoothing of both trainings, such as 0.1: the probability that is spread over all classes.",
        0.0,
        check=number(least=0, below=1),
    )
    standard_epochs: int = setting(
        "Number of epochs of standard training; 0 keeps the initial weights.", 30, check=whole(0)
    )
    epochs: int = setting("Number of epochs of WasserTrain; 0 only with certified.", 40, check=whole(0))
    certified: bool = setting(
        "Whether to train a classifier by CertifiedTrain as well; the report then has the bracket.", False
    )
    certified_epochs: int = setting("Number of epochs of CertifiedTrain.", 40, check=whole(1))
    certified_epsilon: float | None = setting(
        "Radius ε at the end of CertifiedTrain, which rises from 0 to it over the first half (default: the attack's).",
        None,
        check=positive_or_none,
    )
    certified_schedule: str | None = setting(
        "Schedule of that ε instead, given as for omega_schedule.", None, check=check_schedule_text
    )
    kappa: float = setting(
        "Weight κ of the natural loss at the end of CertifiedTrain, from 0 to 1. It falls from 1 over the first half.",
        0.2,
        check=number(least=0, most=1),
    )
    kappa_schedule: str | None = setting(
        "Schedule of κ instead, given as for omega_schedule.",
        None,
        check=functools.partial(check_schedule_text, most=MOST["kappa"]),
    )
    certified_exponent: float = setting(
        "Exponent q of the bounded loss (1 − p^q) / q of CertifiedTrain's bounds, from 0 (cross-entropy) to 1. It "
        "rises from 0 over the first half.",
        0.0,
        check=number(least=0, most=1),
    )
    certified_random_radius: bool = setting(
        "Whether CertifiedTrain bounds each training image at its own radius, uniform from 0 to ε.", False
    )
    box_fraction: float = setting(
        "Share of the radius of CertifiedTrain's boxes; below 1 they are moved (SABR).",
        1.0,
        check=number(above=0, most=1),
    )
    potentials: int = setting("Number of transport potentials of the certified classifier.", 256, check=whole(1))
    hidden_units: int = setting("Number of units of its two hidden layers.", 256, check=whole(1))
    batch_size: int = setting("Number of images in a step, of all replicas together.", 64, check=whole(1))
    augment: str = setting(
        "Augmentation of training images, before the attack; shift: random shifts; flip: horizontal "
        "flips; crop_flip: both; crop_flip_cutout: also a grey square of a quarter of each side.",
        "none",
        choices=augmentation.AUGMENTATIONS,
    )
    optimizer: str = setting("Name of a Keras optimizer, such as adam, adamw or sgd.", "adam", check=optimizer_name)
    learning_rate: float = setting(
        "Highest learning rate. It decays to 0 in both trainings.",
        2e-3,
        check=number(above=0),
    )
    decay: str = setting(
        "Decay of the learning rate to 0, along a cosine or linear; linear with a warmup is a one-cycle policy.",
        "cosine",
        choices=DECAYS,
    )
    warmup: float = setting(
        "Fraction of each training over which the learning rate first rises linearly from 0; 0 for no warmup.",
        0.0,
        check=number(least=0, below=1),
    )
    momentum: float = setting("Nesterov momentum; for the optimizer sgd only.", 0.0, check=number(least=0, below=1))
    weight_decay: float = setting(
        "Decoupled weight decay, not applied to biases and to scales and offsets of normalization layers; 0 for the "
        "optimizer's default (none, except for adamw).",
        0.0,
        check=number(least=0),
    )
    ema_momentum: float = setting(
        "Momentum of an exponential moving average of the weights. The averaged weights are validated, selected and "
        "saved; 0 for no average.",
        0.0,
        check=number(least=0, below=1),
    )
    seed: int = setting(
        "Seed of the initial weights, the order of the data and all other random numbers.",
        0,
        check=whole(0, 2**31 - 1),
    )
    precision: str = setting(
        "Precision policy of the classifier; the transport is computed in float32. A mixed one also applies to "
        "`initial`, otherwise a loaded classifier keeps its own.",
        "float32",
        choices=POLICIES,
    )
    jit_compile: bool | str = setting(
        "Whether XLA compiles the training step; auto compiles it on a single GPU, except for classifiers with max "
        "pooling in deterministic runs, whose gradient XLA does not support.",
        "auto",
        choices=JIT_COMPILE,
    )
    radii: tuple[float, ...] = setting(
        "Radii ε of the report, ascending. The best epoch is selected on the validation split at the middle one.",
        (0.02, 0.05, 0.1, 0.2, 0.3),
    )
    report_iterations: int = setting(
        "Number of iterations of the report's attack, MirrorAscent, in each restart.", 100, check=whole(1)
    )
    num_attack_examples: int = setting(
        "Number of attacked images of the test split, and of the validation split.", 400, check=whole(1)
    )
    distribute: str = setting(
        "Distribution of the training over devices (docs/how_to/distribute.md).", "none", choices=STRATEGIES
    )
    attack_chunk: int | None = setting(
        "Maximum number of images per replica that a step attacks at a time, to bound memory (default: all at once).",
        None,
        check=whole_or_none,
    )
    keep: str = setting(
        "The epoch whose weights are kept, the best on the validation split or the last.", "best", choices=KEPT
    )
    validation_attack: Attack | None = setting(
        "Attack on validation images after each epoch, at the middle one of `radii` (default: MirrorAscent with 20 "
        "iterations). A classifier may learn to mislead a weak attack; one with restarts is harder to mislead.",
        None,
        check=attack_of_fixed_radius_or_none,
    )
    random_radius: bool = setting(
        "Whether each training image is attacked at its own radius, uniform from 0 to the attack's.", False
    )
    warm_start: float = setting(
        "Factor, such as 0.75, on the final potential of each image's attack, from which its attack in the next epoch "
        "starts (`wasser_tf.training.warm_start`); 0 for attacks from scratch.",
        0.0,
    )
    deterministic: bool = setting(
        "Whether to use deterministic operations, with which equal runs on equal devices end with equal weights. "
        "Results may differ between devices and versions of TensorFlow.",
        True,
    )
    resume: bool = setting("Whether to resume the run in the output folder, if there is one.", False)
    overwrite: bool = setting("Whether to replace the run in the output folder.", False)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.metadata["check"] is not None:
                field.metadata["check"](field.name, getattr(self, field.name))
        self.normalize_reading()
        augmentation.check_suits(self.augment, self.dataset)
        object.__setattr__(self, "radii", as_radii(self.radii))
        self._check_attacks()
        self._check_combinations()

    def _check_attacks(self) -> None:
        validation = self.validation_attack
        if validation is not None and validation.threat_model.rules != self.threat_model.rules:
            raise ValueError(
                "validation_attack must move mass by the rules of attack: its threat model must differ in epsilon only "
                f"from {self.threat_model.rules}, got {validation.threat_model.rules}."
            )
        if self.random_radius and self.attack.schedule is not None:
            raise ValueError("random_radius and an adaptive radius exclude each other: set only one of them.")
        check_has_radius(self.random_radius, self.attack)
        check_epsilon(self.schedule_of("epsilon"), self.attack)
        check_warm_start(self.warm_start, self.attack)

    def _check_combinations(self) -> None:
        if self.momentum and self.optimizer.lower() != "sgd":
            raise ValueError(f"momentum is a setting of sgd, got it with optimizer={self.optimizer}: leave it out.")
        if self.distribute != "none" and self.jit_compile is True:
            raise ValueError(
                "jit_compile must be auto or false with distribute, because XLA cannot compile a distributed step."
            )
        if self.warm_start and self.distribute != "none":
            raise ValueError(f"warm_start needs one replica, got distribute={self.distribute}: leave one of them out.")
        if not self.epochs and not self.certified:
            raise ValueError("epochs must be at least 1 unless certified is set, got 0: set certified, or more epochs.")
        if self.certified and not self.attack.in_wasserstein_ball:
            raise ValueError(
                f"certified needs an attack in the Wasserstein ball: choose another than {self.attack.name}."
            )
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude each other: set only one of them.")

    @property
    def threat_model(self) -> ThreatModel:
        """The threat model of the attack."""
        return self.attack.threat_model

    def schedule_of(self, name: str) -> Schedule | None:
        """Returns the schedule of "epsilon", "omega", "certified" or "kappa", or None."""
        text = getattr(self, f"{name}_schedule")
        return None if text is None else parse_schedule(text)

    @property
    def middle_radius(self) -> float:
        """The middle one of `radii`, at which epochs are selected and figures drawn."""
        return self.radii[len(self.radii) // 2]

    def identity(self) -> dict[str, Any]:
        """Returns the fields that determine the result of the run, as plain Python values."""
        values = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in _PLACE
        }
        validation = None if self.validation_attack is None else attacks.serialize(self.validation_attack)
        return {
            **values,
            "attack": attacks.serialize(self.attack),
            "validation_attack": validation,
            "radii": list(self.radii),
            **self.plain_lists(),
        }


document_fields(TrainConfig)
