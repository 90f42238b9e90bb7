r"""Lower bounds of margins over the ball, by intervals (IBP) or by linear bounds backwards to the image (CROWN).

Both begin alike: nodes that are affine in the image have bounds of their own (image_functionals.py), and later ones get
intervals from those. The margins z_y − z_j are functionals of the logits, and are pulled back through the last affine
layers as such, so that what the two logits share cancels (elision). There IBP puts in the intervals of what these
layers read. CROWN goes on: an activation is replaced by a line below it where the functional is positive and one above
it where it is negative, down to the image, where

    margin ≥ a · x + c − h(−a; x, ρ),

and so the budget is spent once, not once a unit. Before that it bounds the inputs of every activation the same way
(Zhang et al. 2018), and takes the better of that and the interval.
"""

import math
from typing import Any, NamedTuple

import tensorflow as tf

from wasser_tf.certification import arithmetic
from wasser_tf.certification.arguments import check_ball, check_method, check_precision
from wasser_tf.certification.image_functionals import SMALL, ImageFunctionals, PreparedBatch, pull_back_to_image
from wasser_tf.certification.network import Network
from wasser_tf.certification.transforms import Activation, Affine, Interval
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.support_function import support_function

# Values of λ that are tried for the margins, and for each of the many bounds on the way.
_EVALUATIONS, _FEW_EVALUATIONS = 24, 5
# Numbers in functionals at a time.
_ENTRIES = 2**23


class Batch(NamedTuple):
    """Images, and what bounds at any radius need of them.

    Attributes:
      images: x, [B, H, W, C].
      mass: m(x), [B]; 1 where there is none, for then nothing can be moved.
      prepared: Of each node that `ImageFunctionals` bound, in their order.
    """

    images: tf.Tensor
    mass: tf.Tensor
    prepared: list[PreparedBatch]


class Bounds:
    """Bounds of a classifier over balls of one kind, for any images and radii. Graph code.

    Args:
      network: The classifier.
      threat_model: The ball; its epsilon is not used.
      dtype: Of first layers and linear functionals; intervals of later layers are float32 products, rounded outwards.
      table_entries: The most numbers that tables of a node may hold; fewer are a little looser.
    """

    def __init__(
        self,
        network: Network,
        threat_model: ThreatModel,
        dtype: tf.DType = tf.float64,
        table_entries: int | None = None,
    ):
        check_ball(threat_model)
        check_precision(dtype, table_entries)
        self.network = network
        self.threat_model = threat_model.rules
        self.dtype = dtype
        self.functionals = {
            number: ImageFunctionals(network, number, threat_model, dtype, table_entries)
            for number in frontier_of(network)
        }

    def prepare(self, images: tf.Tensor) -> Batch:
        """Returns what all radii share, for images [B, H, W, C] in [0, 1]."""
        images = tf.cast(images, self.dtype)
        mass = tf.reduce_sum(images, [1, 2, 3])
        divisor = tf.where(mass > 0, mass, tf.ones_like(mass))
        return Batch(images, mass, [each.prepare(images, divisor) for each in self.functionals.values()])

    def margins(self, batch: Batch, labels: tf.Tensor, epsilon: tf.Tensor, method: str) -> tf.Tensor:
        """Returns lower bounds of z_y − max_{j≠y} z_j over the ball, [B]: −inf where there is none.

        Args:
          batch: What `prepare` made.
          labels: y, int [B].
          epsilon: The radius of each image, [B].
          method: "ibp" or "crown".
        """
        check_method(method)
        one_hot = tf.one_hot(labels, self.network.num_classes, dtype=self.dtype)
        functional = one_hot[:, None] - tf.eye(self.network.num_classes, dtype=self.dtype)
        found = _Pass(self, batch, tf.cast(epsilon, self.dtype), method).lower(self.network.output, functional)
        # Of y itself the margin is 0, and does not count.
        found = tf.where(one_hot > 0, tf.constant(math.inf, self.dtype), found)
        least = tf.reduce_min(tf.where(tf.math.is_nan(found), tf.constant(-math.inf, self.dtype), found), axis=1)
        return least - arithmetic.SOFTMAX_MARGIN if self.network.softmax else least

    def logits(self, batch: Batch, epsilon: tf.Tensor) -> Interval:
        """Returns intervals of the logits, [B, classes], by IBP."""
        return _Pass(self, batch, tf.cast(epsilon, self.dtype), "ibp").interval(self.network.output)


class _Pass:
    """Bounds at one radius of each image."""

    def __init__(self, bounds: Bounds, batch: Batch, epsilon: tf.Tensor, method: str):
        self._bounds = bounds
        self._network = bounds.network
        self._batch = batch
        self._method = method
        scale = batch.mass if bounds.threat_model.normalize_mass else tf.ones_like(batch.mass)
        # Without mass nothing is moved, whatever the budget.
        budget = tf.where(batch.mass > 0, epsilon * scale, tf.zeros_like(epsilon))
        self._budget = budget * (1.0 + arithmetic.BUDGET_EXCESS)
        self._divisor = tf.where(batch.mass > 0, batch.mass, tf.ones_like(batch.mass))
        self._intervals: dict[int, Interval] = {}
        self._prepared = dict(zip(bounds.functionals, batch.prepared, strict=True))

    def interval(self, number: int) -> Interval:
        """Returns the bounds of a node."""
        if number not in self._intervals:
            self._intervals[number] = self._bound(number)
        return self._intervals[number]

    def lower(self, number: int, functional: tf.Tensor, evaluations: int = _EVALUATIONS) -> tf.Tensor:
        """Returns a lower bound, [B, M], of functionals [B, M, …] of a node."""
        constant = tf.zeros(tf.shape(functional)[:2], functional.dtype)
        open_ones, of_image = {number: functional}, {}
        for place in reversed(range(number + 1)):
            if place not in open_ones:
                continue
            node, current = self._network.nodes[place], open_ones.pop(place)
            if node.affine_in_image:
                of_image[place] = current
                constant -= self._rounding(place, current)
            elif self._method == "crown" or isinstance(node.transform, Affine):
                inputs = [self.interval(read) for read in node.inputs]
                assert node.transform is not None  # noqa: S101 (only the image has none, and it is affine)
                found = node.transform.pull_back(current, inputs, self._divisor)
                constant += found.constant
                for read, part in zip(node.inputs, found.functionals, strict=True):
                    open_ones[read] = open_ones[read] + part if read in open_ones else part
            else:
                constant += _least(current, self.interval(place))
        return constant + self._least_of_image(of_image, evaluations) if of_image else constant

    def _bound(self, number: int) -> Interval:
        node = self._network.nodes[number]
        if number in self._prepared:
            found = self._bounds.functionals[number]
            return found.interval(self._prepared[number], self._budget, self._divisor)
        if node.transform is None:
            return self._pixels()
        interval = node.transform.interval([self.interval(read) for read in node.inputs], self._divisor)
        if self._method == "crown" and number in _read_by_nonlinear(self._network) and not node.affine_in_image:
            return self._tightened(number, interval)
        return interval

    def _pixels(self) -> Interval:
        """Returns what each pixel can hold, for what reads the image itself; any move costs at least 1 per mass."""
        images, moved = self._batch.images, self._budget[:, None, None, None]
        capacity = self._bounds.threat_model.capacity
        high = images + moved
        high = high if capacity is None else tf.minimum(high, tf.constant(capacity, high.dtype))
        rounded = 2.0**-23 * high + arithmetic.TINY
        return Interval(tf.maximum(images - moved - rounded, 0.0), high + rounded)

    def _tightened(self, number: int, interval: Interval) -> Interval:
        """Returns the better of an interval and linear bounds of each unit, some units at a time."""
        shape = self._network.nodes[number].shape
        units, count = math.prod(shape), self._batch.images.shape[0] or 64
        widest = max(math.prod(node.shape) for node in self._network.nodes[: number + 1])
        chunk = max(1, min(units, _ENTRIES // (2 * count * widest)))
        chosen = self._undecided(number, interval)

        def bound(start: tf.Tensor) -> tf.Tensor:
            # Beyond the last unit there is a row of zeros.
            some = tf.one_hot(chosen[start : start + chunk], units, dtype=self._bounds.dtype)
            some = tf.pad(some, [[0, chunk - tf.shape(some)[0]], [0, 0]])
            some = tf.reshape(some, [1, chunk, *shape])
            functional = tf.repeat(tf.concat([some, -some], axis=1), tf.shape(self._batch.images)[0], axis=0)
            return self.lower(number, functional, _FEW_EVALUATIONS)

        # All intervals before it are known from here, outside of the loop.
        for read in range(number):
            if read in _ancestors(self._network, number):
                self.interval(read)
        self._intervals[number] = interval
        total, batch_size = tf.size(chosen), tf.shape(self._batch.images)[0]
        found = tf.map_fn(
            bound, tf.range(0, total, chunk), parallel_iterations=1, fn_output_signature=self._bounds.dtype
        )
        # What is not a number bounds nothing.
        found = tf.where(tf.math.is_nan(found), tf.constant(-math.inf, found.dtype), found)
        # [chunks, B, 2 · chunk] to two of [units, B].
        found = tf.reshape(
            tf.transpose(tf.reshape(found, [-1, batch_size, 2, chunk]), [2, 0, 3, 1]), [2, -1, batch_size]
        )[:, :total]
        low, high = (
            tf.reshape(tf.transpose(side), [-1, *shape])
            for side in (
                tf.tensor_scatter_nd_max(_flat(interval.lower), chosen[:, None], found[0]),
                tf.tensor_scatter_nd_min(_flat(interval.upper), chosen[:, None], -found[1]),
            )
        )
        return Interval(low, high)

    def _undecided(self, number: int, interval: Interval) -> tf.Tensor:
        """Returns the units whose bounds matter, int32 [n]: all, or those of unknown sign if signs suffice."""
        units = tf.range(math.prod(self._network.nodes[number].shape))
        readers = [node.transform for node in self._network.nodes if number in node.inputs]
        nonlinear = [each for each in readers if not isinstance(each, Affine)]
        if not all(isinstance(each, Activation) and each.exact_by_sign for each in nonlinear):
            return units
        unknown = tf.reduce_any((_flat(interval.lower) < 0) & (_flat(interval.upper) > 0), axis=1)
        return tf.boolean_mask(units, unknown)

    def _rounding(self, number: int, functional: tf.Tensor) -> tf.Tensor:
        """Returns what float32 may change in functionals [B, M, …] of a node that is affine in the image, [B, M]."""
        if number in self._prepared:
            found = self._bounds.functionals[number]
            error = found.error(self._prepared[number], self._budget, self._divisor)
        else:  # The image itself.
            high = self._pixels().upper
            error = 2.0**-23 * high + arithmetic.TINY
        return tf.reduce_sum(tf.abs(functional) * error[:, None], list(range(2, functional.shape.rank)))

    def _least_of_image(self, functionals: dict[int, tf.Tensor], evaluations: int) -> tf.Tensor:
        """Returns the least, over the ball, of functionals [B, M, …] of nodes that are affine in the image, [B, M]."""
        first = next(iter(functionals.values()))
        count = tf.shape(first)[1]
        flat = {number: tf.reshape(each, [-1, *each.shape[2:]]) for number, each in functionals.items()}
        potential = pull_back_to_image(self._network, flat, tf.repeat(self._divisor, count))
        potential = tf.reshape(potential, [-1, first.shape[1] or count, *self._network.image_shape])
        potential = tf.ensure_shape(potential, [self._batch.images.shape[0], *potential.shape[1:]])
        value = tf.zeros(tf.shape(first)[:2], first.dtype)
        for number, each in functionals.items():
            here = self._value(number)
            value += tf.reduce_sum(each * here[:, None], list(range(2, each.shape.rank)))
        rise = _support_function(-potential, self._batch.images, self._budget, self._bounds.threat_model, evaluations)
        # Our own sums, and the cancellation within them.
        lost = (math.prod(self._network.image_shape) + 64) * arithmetic.unit(self._bounds.dtype)
        size = tf.reduce_max(tf.abs(potential), [2, 3, 4]) * self._divisor[:, None]
        return value - rise * (1.0 + lost) - lost * size

    def _value(self, number: int) -> tf.Tensor:
        """Returns a node that is affine in the image at the images, [B, …]."""
        if number == 0:
            return self._batch.images
        return tf.reshape(self._prepared[number].value, [-1, *self._network.nodes[number].shape])


def _flat(values: tf.Tensor) -> tf.Tensor:
    """Returns values of units, [B, …], as [units, B]."""
    return tf.transpose(tf.reshape(values, [-1, math.prod(values.shape[1:])]))


def _least(functional: tf.Tensor, interval: Interval) -> tf.Tensor:
    """Returns the least of functionals [B, M, …] on intervals [B, …], with the rounding of the sum: [B, M]."""
    axes = list(range(2, functional.shape.rank))
    middle, radius = 0.5 * (interval.lower + interval.upper), 0.5 * (interval.upper - interval.lower)
    lost = (math.prod(functional.shape[2:]) + 8) * arithmetic.unit(functional.dtype)
    radius = radius + lost * (tf.abs(middle) + radius)
    return tf.reduce_sum(functional * middle[:, None], axes) - tf.reduce_sum(
        tf.abs(functional) * radius[:, None], axes
    ) * (1.0 + lost)


_compiled_support_function = tf.function(support_function, jit_compile=True, autograph=False)


def _support_function(potential: tf.Tensor, *arguments: Any) -> tf.Tensor:
    entries = potential.shape.num_elements()
    small = entries is not None and entries <= SMALL
    return (support_function if small else _compiled_support_function)(potential, *arguments)


def frontier_of(network: Network) -> list[int]:
    """Returns the nodes that are affine in the image and read by one that is not, or are the output, rising."""
    found = {network.output} if network.nodes[network.output].affine_in_image else set()
    for node in network.nodes:
        if not node.affine_in_image:
            found |= {read for read in node.inputs if network.nodes[read].affine_in_image}
    return sorted(found - {0})


def _read_by_nonlinear(network: Network) -> set[int]:
    nonlinear = [each for each in network.nodes if each.transform and not isinstance(each.transform, Affine)]
    return {read for node in nonlinear for read in node.inputs}


def _ancestors(network: Network, number: int) -> set[int]:
    found: set[int] = set()
    for place in reversed(range(number + 1)):
        if place == number or place in found:
            found |= set(network.nodes[place].inputs)
    return found
