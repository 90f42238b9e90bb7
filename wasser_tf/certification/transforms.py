"""What a network is made of: affine maps, activations and pooling by maxima, each with its bounds.

A transform bounds its outputs from intervals of its inputs (`interval`), and pulls linear functionals of its outputs
back to functionals of its inputs (`pull_back`), which bound them from below.
"""

import abc
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from wasser_tf.certification import arithmetic
from wasser_tf.threat_model import ThreatModel

# Intervals beyond the first layers are products in float32, whatever the type of the bounds: rounded outwards, they are
# about 0.3 % looser than in float64 and cost half as much.
_PRODUCTS = tf.float32


class Interval(NamedTuple):
    """Bounds of every unit, [B, …] each."""

    lower: tf.Tensor
    upper: tf.Tensor

    @property
    def magnitude(self) -> tf.Tensor:
        """The largest absolute value in it."""
        return tf.maximum(tf.abs(self.lower), tf.abs(self.upper))


class PulledBack(NamedTuple):
    """A functional of inputs: Σ_inputs A · input + constant is at most the functional of the output.

    Attributes:
      functionals: A for each input, [B, M, …].
      constant: [B, M].
    """

    functionals: list[tf.Tensor]
    constant: tf.Tensor


class Transform(abc.ABC):
    """One step of a network."""

    @abc.abstractmethod
    def interval(self, inputs: Sequence[Interval], mass: tf.Tensor) -> Interval:
        """Returns bounds of what the classifier computes in float32, of any inputs within their intervals.

        Args:
          inputs: Of each input.
          mass: m(x) of each image, [B], which no plan changes.
        """

    @abc.abstractmethod
    def pull_back(self, functional: tf.Tensor, inputs: Sequence[Interval], mass: tf.Tensor) -> PulledBack:
        """Returns functionals of the inputs that are at most A · output for all inputs within their intervals.

        Args:
          functional: A, [B, M, …].
          inputs: Of each input, [B, …].
          mass: m(x) of each image, [B].
        """


class Affine(Transform):
    """L x + b, L linear in all inputs together.

    Attributes:
      linear: (inputs, absolute, mass) -> L x, of |L|, the matrix of absolute entries, where `absolute`.
      offset: dtype -> b, broadcastable to the output; None for 0.
      offset_bound: dtype -> at least the absolute values b is summed of; |b| by default.
      terms: The most roundings between an input and an output in float32; 0 where values are only copied.
      keeps_mass: Whether the output is the input, in another shape or with zeros around it.
      divides_by_mass: Whether L divides by m(x); its input must be the image then.
      lipschitz: (threat model, dtype) -> upper bounds of the Lipschitz constants of its units as functionals of the
        image, [units], or None where they are not known. For training; `certify` computes them from the weights.
    """

    def __init__(
        self,
        linear: Callable[[Sequence[tf.Tensor], bool, tf.Tensor], tf.Tensor],
        offset: Callable[[tf.DType], tf.Tensor] | None = None,
        offset_bound: Callable[[tf.DType], tf.Tensor] | None = None,
        *,
        terms: int,
        keeps_mass: bool = False,
        divides_by_mass: bool = False,
        lipschitz: Callable[[ThreatModel, tf.DType], tf.Tensor | None] | None = None,
    ):
        self.linear = linear
        self.offset = offset
        self.offset_bound = offset_bound
        self.terms = terms
        self.keeps_mass = keeps_mass
        self.divides_by_mass = divides_by_mass
        self.lipschitz = lipschitz

    def apply(self, inputs: Sequence[tf.Tensor], mass: tf.Tensor) -> tf.Tensor:
        """Returns L x + b without any bounds."""
        output = self.linear(inputs, False, mass)
        return output if self.offset is None else output + self.offset(output.dtype)

    def apply_absolute(self, inputs: Sequence[tf.Tensor], mass: tf.Tensor) -> tf.Tensor:
        """Returns |L| x + |b|, the sum of all magnitudes for magnitudes x."""
        output = self.linear(inputs, True, mass)
        bound = self._offset_bound(output.dtype)
        return output if bound is None else output + bound

    def interval(self, inputs: Sequence[Interval], mass: tf.Tensor) -> Interval:
        centres = [0.5 * (each.lower + each.upper) for each in inputs]
        radii = [0.5 * (each.upper - each.lower) for each in inputs]
        if not self.terms:
            centre, radius = self.apply(centres, mass), self.linear(radii, True, mass)
            return Interval(centre - radius, centre + radius)
        # |L| (r + γ |x|) + γ |b|: one product for what inputs may do and for what rounding may, the classifier's and
        # that of the two products here, which are in float32 as well.
        relative = arithmetic.gamma(self.terms, _PRODUCTS)
        magnitudes = [tf.abs(middle) + radius for middle, radius in zip(centres, radii, strict=True)]
        widened = [
            radius + relative * magnitude + arithmetic.TINY for radius, magnitude in zip(radii, magnitudes, strict=True)
        ]
        radius = self._rounded(self._spread(widened, mass), magnitudes, _PRODUCTS)
        centre = self.apply([tf.cast(each, _PRODUCTS) for each in centres], tf.cast(mass, _PRODUCTS))
        # Where there is no bound, the centre may have overflowed too.
        centre = tf.where(tf.math.is_finite(radius), tf.cast(centre, radius.dtype), 0.0)
        return Interval(centre - radius, centre + radius)

    def error(self, inputs: Sequence[Interval], mass: tf.Tensor) -> tf.Tensor | None:
        """Returns the most by which the output computed in float32 is off, for inputs as computed; None for nothing."""
        if not self.terms:
            return None
        magnitudes = [each.magnitude for each in inputs]
        relative = arithmetic.gamma(self.terms, magnitudes[0].dtype)
        spread = [relative * magnitude + arithmetic.TINY for magnitude in magnitudes]
        return self._rounded(self._spread(spread, mass), magnitudes, magnitudes[0].dtype)

    def pull_back_exactly(
        self, functional: tf.Tensor, shapes: Sequence[tuple[int, ...]], mass: tf.Tensor, *, absolute: bool = False
    ) -> list[tf.Tensor]:
        """Returns Lᵀ A, or |L|ᵀ A, [N, *shape] for each input, of A [N, …] and masses [N]."""
        zeros = [tf.zeros([tf.shape(functional)[0], *shape], functional.dtype) for shape in shapes]
        with tf.GradientTape() as tape:
            tape.watch(zeros)
            output = self.linear(zeros, absolute, mass)
        found = tape.gradient(output, zeros, output_gradients=functional)
        return [zero if each is None else each for each, zero in zip(found, zeros, strict=True)]

    def pull_back(self, functional: tf.Tensor, inputs: Sequence[Interval], mass: tf.Tensor) -> PulledBack:
        count, axes = tf.shape(functional)[1], list(range(2, functional.shape.rank))
        shapes = [tuple(each.lower.shape[1:]) for each in inputs]
        flat = tf.reshape(functional, [-1, *functional.shape[2:]])
        found = self.pull_back_exactly(flat, shapes, tf.repeat(mass, count))
        constant = tf.zeros(tf.shape(functional)[:2], functional.dtype)
        if self.offset is not None:
            constant += tf.reduce_sum(functional * self.offset(functional.dtype), axes)
        error = self.error(inputs, mass)
        if error is not None:
            constant -= tf.reduce_sum(tf.abs(functional) * error[:, None], axes)
        return PulledBack([tf.reshape(each, [-1, count, *each.shape[1:]]) for each in found], constant)

    def _spread(self, radii: Sequence[tf.Tensor], mass: tf.Tensor) -> tf.Tensor:
        """Returns at least |L| r for radii r ≥ TINY: a product in float32, rounded outwards, cheaper than in float64.

        All terms are at least 0, so the product is right to a relative γ, and a radius that is larger by γ is hardly
        looser. Radii of TINY do not underflow; products that do are in the allowance of `_rounded`; overflow is inf.
        """
        dtype = radii[0].dtype
        if dtype == tf.float32:
            return self.linear(radii, True, mass)
        single = [tf.cast(each, tf.float32) for each in radii]
        product = tf.cast(self.linear(single, True, tf.cast(mass, tf.float32)), dtype)
        return product * (1.0 + arithmetic.gamma(self.terms, tf.float32))

    def _offset_bound(self, dtype: tf.DType) -> tf.Tensor | None:
        if self.offset_bound is not None:
            return self.offset_bound(dtype)
        return None if self.offset is None else tf.abs(self.offset(dtype))

    def _rounded(self, radius: tf.Tensor, magnitudes: Sequence[tf.Tensor], dtype: tf.DType) -> tf.Tensor:
        """Adds the rounding of b, in `dtype` by us, and what underflows; infinite where a float32 sum may overflow."""
        relative = arithmetic.gamma(self.terms, dtype)
        bound = self._offset_bound(radius.dtype)
        if bound is not None:
            radius += relative * bound
        most = tf.add_n([tf.reduce_max(each, list(range(1, each.shape.rank))) for each in magnitudes])
        most = tf.reshape(most, [-1] + [1] * (radius.shape.rank - 1))
        radius += self.terms * arithmetic.TINY * (1.0 + most)
        return tf.where(radius < relative * 2.0**126, radius, tf.constant(float("inf"), radius.dtype))


class Lines(NamedTuple):
    """Lines below and above a function on intervals: slope · x + intercept, [B, …] each."""

    lower_slope: tf.Tensor
    lower_intercept: tf.Tensor
    upper_slope: tf.Tensor
    upper_intercept: tf.Tensor


class Activation(Transform):
    """A function of each unit alone.

    Attributes:
      bounds: (lower, upper) -> bounds of what is computed.
      lines: (lower, upper) -> lines below and above; constant ones at the bounds by default.
      exact_by_sign: Whether both lines are the function itself where the sign of the input is known, as for ReLU.
    """

    def __init__(
        self,
        bounds: Callable[[tf.Tensor, tf.Tensor], Interval],
        lines: Callable[[tf.Tensor, tf.Tensor], Lines] | None = None,
        exact_by_sign: bool = False,
    ):
        self.bounds = bounds
        self.exact_by_sign = exact_by_sign
        self._lines = lines

    def interval(self, inputs: Sequence[Interval], mass: tf.Tensor) -> Interval:
        return self.bounds(*inputs[0])

    def lines(self, inputs: Interval) -> Lines:
        """Returns lines below and above the function on the intervals."""
        if self._lines is not None:
            return self._lines(*inputs)
        low, high = self.bounds(*inputs)
        return Lines(tf.zeros_like(low), low, tf.zeros_like(high), high)

    def pull_back(self, functional: tf.Tensor, inputs: Sequence[Interval], mass: tf.Tensor) -> PulledBack:
        lines = [each[:, None] for each in self.lines(inputs[0])]
        return _by_sign(functional, Lines(*lines))


class MaxPooling(Transform):
    """The largest of some units, in windows or of all.

    Attributes:
      pool: The maxima of [B, …].
    """

    def __init__(self, pool: Callable[[tf.Tensor], tf.Tensor]):
        self.pool = pool

    def interval(self, inputs: Sequence[Interval], mass: tf.Tensor) -> Interval:
        return Interval(self.pool(inputs[0].lower), self.pool(inputs[0].upper))

    def pull_back(self, functional: tf.Tensor, inputs: Sequence[Interval], mass: tf.Tensor) -> PulledBack:
        # From below by the unit of the largest lower bound, which the gradient of pooling points to; from above by the
        # largest upper bound.
        low, high = inputs[0]
        count, axes = tf.shape(functional)[1], list(range(2, functional.shape.rank))
        positive, negative = tf.maximum(functional, 0.0), tf.minimum(functional, 0.0)
        chosen = tf.repeat(low, count, axis=0)
        with tf.GradientTape() as tape:
            tape.watch(chosen)
            pooled = self.pool(chosen)
        found = tape.gradient(pooled, chosen, output_gradients=tf.reshape(positive, [-1, *functional.shape[2:]]))
        constant = tf.reduce_sum(negative * self.pool(high)[:, None], axes)
        return PulledBack([tf.reshape(found, [-1, count, *found.shape[1:]])], constant)


def _by_sign(functional: tf.Tensor, lines: Lines) -> PulledBack:
    """Takes the line below where A > 0 and the one above where A < 0."""
    axes = list(range(2, functional.shape.rank))
    positive, negative = tf.maximum(functional, 0.0), tf.minimum(functional, 0.0)
    return PulledBack(
        [positive * lines.lower_slope + negative * lines.upper_slope],
        tf.reduce_sum(positive * lines.lower_intercept + negative * lines.upper_intercept, axes),
    )
