"""The threat model: a Wasserstein ball around an image."""

import dataclasses
import functools
import math
import numbers
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """The images that a feasible transport plan of bounded cost can make of a clean image x.

    A plan Π moves the mass Π_ij from pixel i to pixel j of the same channel. It is feasible if Π ≥ 0, Π1 = x,
    Πᵀ1 ≤ capacity and ⟨Π, C⟩ ≤ budget, with the ground cost C_ij = ‖pos_i − pos_j‖₂^p in pixels^p (Eq. 2 and 3 of
    WasserTrain, ICASSP 2022).

    Attributes:
      epsilon: The radius ε, at least 0. With `normalize_mass` the budget is ε · Σx (ε in pixels^p per unit of mass, as
        in the published attacks and the figures of the paper), otherwise it is ε (in pixels^p · mass).
      p: The exponent of the ground cost, above 0. 1 is the Euclidean distance, 2 its square.
      kernel_size: The side, an odd number of pixels, of the window around each pixel within which its mass moves; None
        for the dense plan of the paper's Eq. 2, which moves mass anywhere.
      normalize_mass: Whether the budget scales with the mass of the image.
      capacity: The largest value of a pixel, at least 1, or None for no bound; then examples may leave [0, 1].

    Raises:
      ValueError: A field is out of its range.

    Example:
    >>> from wasser_tf import ThreatModel
    >>> ball = ThreatModel(epsilon=0.3, kernel_size=3)
    >>> ball.with_epsilon(0.1).epsilon, ball.slug
    (0.1, 'p1-k3-normalized-capacity1')
    """

    epsilon: float = 0.5
    p: float = 1.0
    kernel_size: int | None = 5
    normalize_mass: bool = True
    capacity: float | None = 1.0

    def __post_init__(self) -> None:
        if not _is_number(self.epsilon) or not 0 <= self.epsilon < math.inf:
            raise ValueError(f"epsilon must be a finite number of at least 0, got {self.epsilon!r}.")
        if not _is_number(self.p) or not 0 < self.p < math.inf:
            raise ValueError(f"p must be a finite number above 0 (1 or 2 are usual), got {self.p!r}.")
        if self.kernel_size is not None and (
            isinstance(self.kernel_size, bool)
            or not isinstance(self.kernel_size, numbers.Integral)
            or self.kernel_size < 1
            or self.kernel_size % 2 == 0
        ):
            raise ValueError(
                "kernel_size must be an odd whole number such as 5, or None for the dense plan, "
                f"got {self.kernel_size!r}."
            )
        if not isinstance(self.normalize_mass, bool):
            raise ValueError(f"normalize_mass must be True or False, got {self.normalize_mass!r}.")
        if self.capacity is not None and not (_is_number(self.capacity) and 1 <= self.capacity < math.inf):
            raise ValueError(f"capacity must be a finite number of at least 1, or None, got {self.capacity!r}.")
        # Plain Python numbers, so that threat models of equal values have equal configs.
        object.__setattr__(self, "epsilon", float(self.epsilon))
        object.__setattr__(self, "p", float(self.p))
        if self.kernel_size is not None:
            object.__setattr__(self, "kernel_size", int(self.kernel_size))
        if self.capacity is not None:
            object.__setattr__(self, "capacity", float(self.capacity))

    def with_epsilon(self, epsilon: float) -> "ThreatModel":
        """Returns the threat model with another radius, at least 0."""
        return dataclasses.replace(self, epsilon=epsilon)

    @property
    def rules(self) -> "ThreatModel":
        """The threat model with ε = 0. Threat models that differ only in the radius share the same object.

        TensorFlow looks up compiled functions by the identity of their arguments, so they are compiled once for all
        radii.
        """
        return _one_of_equals(dataclasses.replace(self, epsilon=0.0))

    def get_config(self) -> dict[str, Any]:
        """Returns the fields as plain Python values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ThreatModel":
        """Returns the threat model from the result of `get_config`."""
        return cls(**config)

    @property
    def slug(self) -> str:
        """A name for files and folders, without the radius, such as "p1-k5-normalized-capacity1"."""
        support = "dense" if self.kernel_size is None else f"k{self.kernel_size}"
        capacity = "uncapped" if self.capacity is None else f"capacity{self.capacity:g}"
        return f"p{self.p:g}-{support}-{'normalized' if self.normalize_mass else 'absolute'}-{capacity}"

    def describe(self, radius: str | None = None) -> str:
        """Describes the ball in words: the radius, and the six properties that give it its meaning.

        Args:
          radius: The symbol for the radius, such as "ε" (default: its value, such as "epsilon 0.5").

        Example:
        >>> print(ThreatModel(epsilon=0.1).describe("ε"))  # doctest: +ELLIPSIS
        Wasserstein ball: ε normalised (× mass), p = 1 (Euclidean cost in pixels), local 5×5 plan, capacity 1, ...
        """
        radius = f"epsilon {self.epsilon:g}" if radius is None else radius
        budget = "normalised (× mass)" if self.normalize_mass else "absolute (pixel mass)"
        cost = "Euclidean cost" if self.p == 1 else "cost Euclidean^p"
        support = "dense plan" if self.kernel_size is None else f"local {self.kernel_size}×{self.kernel_size} plan"
        capacity = "no capacity" if self.capacity is None else f"capacity {self.capacity:g}"
        return (
            f"Wasserstein ball: {radius} {budget}, p = {self.p:g} ({cost} in pixels), {support}, "
            f"{capacity}, one budget for all channels, none crossed"
        )

    def __str__(self) -> str:
        """The same as `describe()`."""
        return self.describe()


@functools.cache
def _one_of_equals(threat_model: ThreatModel) -> ThreatModel:
    return threat_model


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
