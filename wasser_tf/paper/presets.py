"""Presets of a reproduction: for each dataset a quick one, which takes minutes on a laptop, and a full one."""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any

from wasser_tf.runtime.arguments import check_number, is_whole

_LEAST = {
    "standard_epochs": 0,
    "epochs": 1,
    "omega_epochs": 1,
    "batch_size": 1,
    "iterations": 1,
    "pgd_iterations": 1,
    "num_examples": 1,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings of the trainings and of the attacks.

    Attributes:
      model: Name of the classifier to train, one of `wasser_tf.models.MODELS`.
      standard_epochs: Epochs of standard training.
      epochs: Epochs of adversarial training after it.
      omega_epochs: Epochs of each training of Fig. 3, from scratch.
      omegas: Values of ω in Fig. 3, ascending.
      batch_size: Images per training step.
      learning_rate: Highest learning rate; see `wasser_tf.training.config.TrainConfig`, as for the next six.
      augment: Augmentation of the training images.
      optimizer: Name of the optimiser.
      warmup: Share of each training in which the learning rate rises.
      momentum: Momentum of sgd.
      weight_decay: Decoupled weight decay.
      ema_momentum: Momentum of the exponential moving average of the weights.
      epsilon: Radius of the training if it is fixed.
      random_radius: Whether mirror ascent trains at random radii from 0 to `epsilon`.
      warm_start: Share of the final state of mirror ascent from which the next epoch's attack starts.
      iterations: Mirror steps per attack in training.
      step_size: Size of the first mirror step; None for the attack's default.
      polish: Dual steps after the mirror steps; None for the attack's default.
      ours: Fields of TrainConfig in which our WasserTrain deviates from the preset. If there are any, the standard
        classifier is trained separately.
      standard: Fields of TrainConfig in which the separate standard training deviates from the preset.
      pgd_iterations: Iterations of PGD in training.
      adaptive_pgd: Whether PGD trains with the adaptive radius of [14] and the paper; otherwise at `epsilon`.
      radii: Values of ε in Fig. 4 and 5, ascending.
      epsilon_drawn: ε of the Wasserstein half of Fig. 1.
      linf_epsilon: Largest change of a pixel in the ℓ∞ half of Fig. 1.
      num_examples: Number of attacked test images.
      attack_iterations: Iterations of attacks without `attack_settings`; None for each attack's default.
      attack_settings: Settings of attacks by name, which take precedence over `attack_iterations`.

    Raises:
      ValueError: A field is out of its range.
    """

    model: str = "lenet"
    standard_epochs: int
    epochs: int
    omega_epochs: int
    omegas: tuple[float, ...]
    batch_size: int = 128
    learning_rate: float = 2e-3
    augment: str = "none"
    optimizer: str = "adam"
    warmup: float = 0.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    ema_momentum: float = 0.0
    epsilon: float
    random_radius: bool = False
    warm_start: float = 0.0
    iterations: int = 10
    step_size: float | None = None
    polish: int | None = None
    ours: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    standard: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pgd_iterations: int = 50
    adaptive_pgd: bool = True
    radii: tuple[float, ...]
    epsilon_drawn: float
    linf_epsilon: float
    num_examples: int
    attack_iterations: int | None = None
    attack_settings: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, needed, most in (("radii", "above 0", math.inf), ("omegas", "from 0 to 1", 1.0)):
            values = getattr(self, name)
            listed = isinstance(values, (tuple, list)) and len(values) > 0
            if not listed or not all(_in_range(value, most, name == "omegas") for value in values):
                raise ValueError(f"{name} must be numbers {needed}, got {values!r}.")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must differ from one another, got {values!r}.")
        for name in ("epsilon", "epsilon_drawn", "linf_epsilon"):
            check_number(name, getattr(self, name), least=0)
        if self.step_size is not None:
            check_number("step_size", self.step_size, above=0)
        for name, least in _LEAST.items():
            if not is_whole(value := getattr(self, name), least):
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
        for name, least in (("attack_iterations", 1), ("polish", 0)):
            if (value := getattr(self, name)) is not None and not is_whole(value, least):
                raise ValueError(f"{name} must be a whole number of at least {least}, or None, got {value!r}.")


def _in_range(value: Any, most: float, with_zero: bool) -> bool:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    return number and (0 <= value if with_zero else 0 < value) and value <= most


_TENTHS = tuple(tenth / 10 for tenth in range(1, 11))
_FEW = (0.1, 0.5, 1.0)
# λ of the projections depends on the image size: 1000 for MNIST, 3000 for CIFAR-10 [14].
_COLOUR: dict[str, dict[str, Any]] = {
    "projected_sinkhorn": {"regularization": 3000.0},
    "constrained_sinkhorn": {"regularization": 3000.0},
}

_DIGITS = Preset(
    standard_epochs=30,
    epochs=40,
    omega_epochs=40,
    omegas=_TENTHS,
    batch_size=64,
    epsilon=0.1,
    pgd_iterations=20,
    adaptive_pgd=False,
    radii=(0.02, 0.05, 0.1, 0.2, 0.3),
    epsilon_drawn=0.2,
    linf_epsilon=0.2,
    num_examples=400,
)
# The recipe of the packaged classifier mnist_wassertrain.
_MNIST = Preset(
    standard_epochs=5,
    epochs=30,
    omega_epochs=50,
    omegas=_TENTHS,
    warmup=0.1,
    ema_momentum=0.995,
    epsilon=1.0,
    random_radius=True,
    warm_start=0.75,
    iterations=3,
    step_size=7.0,
    ours={"blur": 2, "omega": 0.5, "standard_epochs": 1, "keep": "last"},
    radii=(0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.4, 1.7, 2.0),
    epsilon_drawn=0.5,
    linf_epsilon=0.3,
    num_examples=1000,
)
# The recipes of the packaged classifiers cifar10_wassertrain and cifar10_standard.
_CIFAR10 = Preset(
    model="resnet_small",
    standard_epochs=30,
    epochs=14,
    omega_epochs=20,
    omegas=_TENTHS,
    learning_rate=0.1,
    augment="crop_flip",
    optimizer="sgd",
    warmup=0.2,
    momentum=0.9,
    weight_decay=5e-3,
    ema_momentum=0.99,
    epsilon=0.06,
    random_radius=True,
    iterations=10,
    step_size=8.0,
    polish=3,
    ours={"width": 2.0, "blur": 1, "standard_epochs": 0, "keep": "last"},
    standard={"label_smoothing": 0.1, "validation_size": 1000, "keep": "last"},
    radii=(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
    epsilon_drawn=0.05,
    linf_epsilon=8 / 255,
    num_examples=1000,
    attack_settings=_COLOUR,
)
# With fewer iterations the paper's attack does not converge: its raw examples lie far outside the ball.
_CONVERGED: dict[str, dict[str, Any]] = {"wasser_attack": {"iterations": 200}}
FULL = {"digits": _DIGITS, "mnist": _MNIST, "cifar10": _CIFAR10}
QUICK = {
    "digits": dataclasses.replace(
        _DIGITS,
        model="mlp",
        standard_epochs=15,
        epochs=15,
        omega_epochs=15,
        omegas=_FEW,
        learning_rate=5e-3,
        iterations=5,
        pgd_iterations=5,
        radii=(0.05, 0.1, 0.2, 0.3),
        num_examples=48,
        attack_iterations=40,
        attack_settings=_CONVERGED,
    ),
    "mnist": dataclasses.replace(
        _MNIST,
        standard_epochs=1,
        epochs=1,
        omega_epochs=2,
        omegas=_FEW,
        ours={},
        batch_size=256,
        pgd_iterations=3,
        adaptive_pgd=False,
        radii=(0.1, 0.5, 0.9, 1.4),
        num_examples=48,
        attack_iterations=40,
        attack_settings=_CONVERGED,
    ),
    "cifar10": dataclasses.replace(
        _CIFAR10,
        standard_epochs=1,
        epochs=1,
        omega_epochs=1,
        omegas=_FEW,
        ours={},
        standard={},
        batch_size=256,
        iterations=2,
        pgd_iterations=2,
        adaptive_pgd=False,
        radii=(0.02, 0.05, 0.1),
        num_examples=32,
        attack_iterations=20,
        attack_settings=_COLOUR | _CONVERGED,
    ),
}
