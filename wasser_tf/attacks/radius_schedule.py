"""The radius as a function of the iteration: the paper's adaptive radius (section 5.1)."""

import dataclasses
from typing import Any

import tensorflow as tf

from wasser_tf.runtime.arguments import check_number, check_whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class RadiusSchedule:
    """The radius at each iteration: start · factor^(iteration // every), kept within [minimum, maximum].

    With a schedule the threat model's epsilon is not used: an image stops as soon as it is misclassified, and the
    radius where it stopped is its radius in the result. The defaults are the paper's.

    Attributes:
      start: The radius at iteration 0.
      factor: The factor by which the radius grows, at least 1.
      every: The number of iterations between two growths, at least 1.
      minimum: The smallest radius.
      maximum: The largest radius.

    Raises:
      ValueError: A field is out of its range.

    Example:
    >>> [round(float(RadiusSchedule().radius(iteration)), 3) for iteration in (0, 4, 5, 100)]
    [0.1, 0.1, 0.14, 2.1]
    """

    start: float = 0.1
    factor: float = 1.4
    every: int = 5
    minimum: float = 0.1
    maximum: float = 2.1

    def __post_init__(self) -> None:
        for name in ("start", "factor", "minimum", "maximum"):
            check_number(f"{name} of a radius schedule", getattr(self, name))
        if self.factor < 1:
            raise ValueError(f"factor of a radius schedule must be at least 1, got {self.factor!r}.")
        check_whole("every of a radius schedule", self.every, least=1)
        if not 0 <= self.minimum <= self.maximum:
            raise ValueError(
                f"A radius schedule needs 0 <= minimum <= maximum, got minimum {self.minimum!r} and "
                f"maximum {self.maximum!r}."
            )

    def radius(self, iteration: tf.Tensor) -> tf.Tensor:
        """Returns the radius at an iteration (int32 scalar, from 0), a float32 scalar."""
        growth = tf.cast(tf.math.floordiv(iteration, self.every), tf.float32)
        return tf.clip_by_value(self.start * self.factor**growth, self.minimum, self.maximum)

    def get_config(self) -> dict[str, Any]:
        """Returns the fields as plain Python values."""
        return dataclasses.asdict(self)
