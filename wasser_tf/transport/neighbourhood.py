"""Where mass may go: the support of a transport plan, and the linear maps between plans and images.

A plan is a tensor [B, T, H, W, C]: entry (b, t, h, w, c) is the mass that pixel (h, w, c) of image b sends to its t-th
target. Targets lie in the same channel. Two supports share one interface: `LocalSupport` (the window around each pixel)
and `DenseSupport` (every pixel). Everything else in this package is written once, for both.
"""

import abc
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from wasser_tf.threat_model import ThreatModel

# log 0 where mass may not go. Finite, so that the difference of two of them is 0 and not NaN.
_LOG_ZERO = -1e30


class Ring(NamedTuple):
    """Targets of equal cost: that cost, broadcastable to [R, H, W, 1], and the sum over them, [B, R, H, W, C].

    R is 1 for the local support, which sums as it goes, and T for the dense one, where every target is its own ring.
    """

    cost: tf.Tensor
    total: tf.Tensor


class Support(abc.ABC):
    """The targets of every pixel, what it costs to reach them, and the sums over them.

    Attributes:
      image_shape: (H, W, C).
      num_targets: T, the targets a pixel has (those beyond the border included; they are marked invalid).
      max_cost: The cost of the farthest target.
    """

    image_shape: tuple[int, int, int]
    num_targets: int
    max_cost: float

    @property
    @abc.abstractmethod
    def ground_cost(self) -> tf.Tensor:
        """The cost ‖pos_i − pos_j‖₂^p of every target, float32, broadcastable to [T, H, W, 1]."""

    @property
    @abc.abstractmethod
    def valid(self) -> tf.Tensor:
        """Whether a target lies inside the image, bool, broadcastable to [T, H, W, 1]."""

    @property
    @abc.abstractmethod
    def home(self) -> tf.Tensor:
        """Which target is the pixel itself (mass that stays), bool, broadcastable to [T, H, W, 1]."""

    @abc.abstractmethod
    def push_forward(self, plan: tf.Tensor) -> tf.Tensor:
        """Sums the mass that arrives at each pixel, x̃ = Πᵀ1: [B, T, H, W, C] to [B, H, W, C].

        What a plan sends across the border is dropped, so that this is the adjoint of `pull_back` on all plans.
        """

    @abc.abstractmethod
    def pull_back(self, image: tf.Tensor) -> tf.Tensor:
        """Reads each target's value, 0 off the image, the adjoint: [B, H, W, C] to [B, T, H, W, C]."""

    @abc.abstractmethod
    def smallest_flow(self, plan: tf.Tensor) -> tf.Tensor:
        """Returns the smallest entry of each plan, and at most 0 where one is off the image, [B]."""

    # Plans Π_ij = s_i v_j exp(−λ C_ij) are determined by image-sized tensors and one number λ per image. The next four
    # methods are all that such plans need of a support; only the last one builds the plan.

    @abc.abstractmethod
    def rings(self, values: tf.Tensor) -> list[Ring]:
        """Sums v_j, [B, H, W, C], over the targets j of equal cost. Any λ then needs only a few terms."""

    # The next three work on whole plans. They go target by target where the support is local: a product with a whole
    # `pull_back` becomes one loop in XLA, which takes up to twice as long.

    @abc.abstractmethod
    def weighted_rings(self, plan: tf.Tensor, values: tf.Tensor) -> list[Ring]:
        """Sums Π_ij v_j over the targets j of equal cost, of a plan [B, T, H, W, C] and v [B, H, W, C]."""

    @abc.abstractmethod
    def map_targets(
        self, function: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor], plan: tf.Tensor, values: tf.Tensor
    ) -> tf.Tensor:
        """Applies a function of Π_ij, v_j and C_ij to every entry, [B, T, H, W, C]; the result is 0 off the image.

        Args:
          function: Elementwise; its arguments are broadcastable to [B, R, H, W, C], for R targets of all T at a time.
          plan: Π, [B, T, H, W, C].
          values: v, [B, H, W, C].
        """

    @abc.abstractmethod
    def log_rings(self, potential: tf.Tensor) -> list[Ring]:
        """Returns log Σ exp(Φ_j) over the same targets. Slower, but no Φ [B, H, W, C] overflows."""

    @abc.abstractmethod
    def kernel_push_forward(self, source: tf.Tensor, multiplier: tf.Tensor) -> tf.Tensor:
        """Returns Σ_i s_i exp(−λ C_ij) at every pixel j, [B, H, W, C], of s [B, H, W, C] and λ [B, 1, 1, 1]."""

    @abc.abstractmethod
    def kernel_plan(self, source: tf.Tensor, values: tf.Tensor, multiplier: tf.Tensor) -> tf.Tensor:
        """Returns s_i v_j exp(−λ C_ij) itself, float32 [B, T, H, W, C]; 0 off the image."""

    @property
    def plan_bytes_per_image(self) -> int:
        """The memory of one float32 plan of one image."""
        return 4 * self.num_targets * int(np.prod(self.image_shape))


class LocalSupport(Support):
    """Each pixel reaches the kernel_size × kernel_size window around itself (clipped where the image is smaller)."""

    def __init__(self, image_shape: tuple[int, int, int], kernel_size: int, p: float):
        self.image_shape = image_shape
        height, width, _ = image_shape
        self._reach = min(kernel_size // 2, height - 1), min(kernel_size // 2, width - 1)
        reach_y, reach_x = self._reach
        self._offsets = [(y, x) for y in range(-reach_y, reach_y + 1) for x in range(-reach_x, reach_x + 1)]
        # Rounded to float32, in float64 sums too: a large λ would amplify the difference.
        self._costs = [float(np.float32(np.hypot(y, x) ** p)) for y, x in self._offsets]
        # The distances |y|, |x| of each cost: a ring is symmetric, and sums over it are sums of both sides.
        self._distances: dict[float, list[tuple[int, int]]] = {}
        for (y, x), cost in zip(self._offsets, self._costs, strict=True):
            if y >= 0 and x >= 0:
                self._distances.setdefault(cost, []).append((y, x))
        self.num_targets = len(self._offsets)
        self.max_cost = max(self._costs)

    @property
    def ground_cost(self) -> tf.Tensor:
        return tf.reshape(tf.constant(self._costs, tf.float32), [-1, 1, 1, 1])

    @property
    def valid(self) -> tf.Tensor:
        height, width, _ = self.image_shape
        rows = np.arange(height) + np.array([[y] for y, _ in self._offsets])
        columns = np.arange(width) + np.array([[x] for _, x in self._offsets])
        row_inside = tf.constant((rows >= 0) & (rows < height))[:, :, None, None]
        column_inside = tf.constant((columns >= 0) & (columns < width))[:, None, :, None]
        return row_inside & column_inside

    @property
    def home(self) -> tf.Tensor:
        return tf.reshape(tf.constant([offset == (0, 0) for offset in self._offsets]), [-1, 1, 1, 1])

    def push_forward(self, plan: tf.Tensor) -> tf.Tensor:
        # What pixel i sends by offset o arrives at i + o: read at the arrival, it comes from −o.
        slices = tf.unstack(plan, axis=1)
        return tf.add_n(
            [self._read(self._pad(sent, 0.0), -y, -x) for (y, x), sent in zip(self._offsets, slices, strict=True)]
        )

    def pull_back(self, image: tf.Tensor) -> tf.Tensor:
        return tf.stack(self._shifts(image, 0.0), axis=1)

    def smallest_flow(self, plan: tf.Tensor) -> tf.Tensor:
        # Target by target first, which XLA vectorises.
        slices = zip(tf.unstack(plan, axis=1), tf.unstack(self.valid), strict=True)
        smallest = functools.reduce(tf.minimum, [tf.where(valid, sent, 0.0) for sent, valid in slices])
        return tf.reduce_min(smallest, axis=[1, 2, 3])

    def rings(self, values: tf.Tensor) -> list[Ring]:
        across = [self._both_sides(values, x, axis=2) for x in range(self._reach[1] + 1)]
        return [
            Ring(
                tf.fill([1, 1, 1, 1], tf.constant(cost, values.dtype)),
                tf.expand_dims(tf.add_n([self._both_sides(across[x], y, axis=1) for y, x in ring]), 1),
            )
            for cost, ring in self._distances.items()
        ]

    def weighted_rings(self, plan: tf.Tensor, values: tf.Tensor) -> list[Ring]:
        rings: dict[float, list[tf.Tensor]] = {}
        slices = zip(tf.unstack(plan, axis=1), self._shifts(values, 0.0), self._costs, strict=True)
        for sent, shifted, cost in slices:
            rings.setdefault(cost, []).append(sent * shifted)
        return [
            Ring(tf.fill([1, 1, 1, 1], tf.constant(cost, plan.dtype)), tf.expand_dims(tf.add_n(terms), 1))
            for cost, terms in rings.items()
        ]

    def map_targets(
        self, function: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor], plan: tf.Tensor, values: tf.Tensor
    ) -> tf.Tensor:
        slices = zip(
            tf.unstack(plan, axis=1), self._shifts(values, 0.0), self._costs, tf.unstack(self.valid), strict=True
        )
        return tf.stack(
            [
                function(entry[:, None], shifted[:, None], tf.constant(cost, plan.dtype))[:, 0]
                * tf.cast(valid, plan.dtype)
                for entry, shifted, cost, valid in slices
            ],
            axis=1,
        )

    def log_rings(self, potential: tf.Tensor) -> list[Ring]:
        rings: dict[float, list[tf.Tensor]] = {}
        for shifted, cost in zip(self._shifts(potential, _LOG_ZERO), self._costs, strict=True):
            rings.setdefault(cost, []).append(shifted)
        return [Ring(tf.fill([1, 1, 1, 1], cost), tf.expand_dims(_log_sum(terms), 1)) for cost, terms in rings.items()]

    def kernel_push_forward(self, source: tf.Tensor, multiplier: tf.Tensor) -> tf.Tensor:
        # The transpose of `rings`: down the columns first, then across.
        columns: list[list[tf.Tensor]] = [[] for _ in range(self._reach[1] + 1)]
        for cost, ring in self._distances.items():
            sent = source * tf.exp(-multiplier * tf.constant(cost, source.dtype))
            for y, x in ring:
                columns[x].append(self._both_sides(sent, y, axis=1))
        return tf.add_n([self._both_sides(tf.add_n(terms), x, axis=2) for x, terms in enumerate(columns)])

    def kernel_plan(self, source: tf.Tensor, values: tf.Tensor, multiplier: tf.Tensor) -> tf.Tensor:
        # Target by target: XLA fuses a product with a whole `pull_back` into one loop that branches at every entry on
        # the shift, which takes five times as long.
        return tf.stack(
            [
                tf.cast(source * tf.exp(-multiplier * tf.constant(cost, source.dtype)) * shifted, tf.float32)
                for shifted, cost in zip(self._shifts(values, 0.0), self._costs, strict=True)
            ],
            axis=1,
        )

    def _both_sides(self, image: tf.Tensor, distance: int, axis: int) -> tf.Tensor:
        """Returns the sum of the two pixels at a distance from each pixel along an axis (0 off the image)."""
        if not distance:
            return image
        padded = tf.pad(image, [[distance, distance] if number == axis else [0, 0] for number in range(4)])
        ahead = [2 * distance if number == axis else 0 for number in range(4)]
        size = [-1, *self.image_shape]
        return tf.slice(padded, [0, 0, 0, 0], size) + tf.slice(padded, ahead, size)

    def _shifts(self, image: tf.Tensor, fill: float) -> list[tf.Tensor]:
        """Reads image at (h + y, w + x) for every (h, w), with `fill` beyond the border: for every offset (y, x)."""
        padded = self._pad(image, fill)
        return [self._read(padded, y, x) for y, x in self._offsets]

    def _pad(self, image: tf.Tensor, fill: float) -> tf.Tensor:
        reach_y, reach_x = self._reach
        return tf.pad(image, [[0, 0], [reach_y, reach_y], [reach_x, reach_x], [0, 0]], constant_values=fill)

    def _read(self, padded: tf.Tensor, y: int, x: int) -> tf.Tensor:
        # A strided slice takes twice as long to trace, and there is one for each offset.
        return tf.slice(padded, [0, self._reach[0] + y, self._reach[1] + x, 0], [-1, *self.image_shape])


class DenseSupport(Support):
    """Each pixel reaches every pixel of its channel: T = H·W, target t is pixel (t // W, t % W)."""

    def __init__(self, image_shape: tuple[int, int, int], p: float):
        self.image_shape = image_shape
        self._p = p
        self.num_targets = image_shape[0] * image_shape[1]
        self.max_cost = float(np.hypot(image_shape[0] - 1, image_shape[1] - 1) ** p)

    @property
    def ground_cost(self) -> tf.Tensor:
        # Computed in the graph: a constant would add megabytes to every compiled function.
        height, width, _ = self.image_shape
        rows, columns = tf.range(height, dtype=tf.float32), tf.range(width, dtype=tf.float32)
        rows = tf.reshape(rows, [-1, 1, 1, 1]) - tf.reshape(rows, [1, 1, -1, 1])
        columns = tf.reshape(columns, [1, -1, 1, 1]) - tf.reshape(columns, [1, 1, 1, -1])
        distance = tf.sqrt(rows**2 + columns**2)
        return tf.reshape(distance**self._p, [self.num_targets, height, width, 1])

    @property
    def valid(self) -> tf.Tensor:
        return tf.constant(True, shape=[1, 1, 1, 1])

    @property
    def home(self) -> tf.Tensor:
        height, width, _ = self.image_shape
        return tf.reshape(tf.eye(self.num_targets, dtype=tf.bool), [self.num_targets, height, width, 1])

    def push_forward(self, plan: tf.Tensor) -> tf.Tensor:
        return self._as_image(tf.reduce_sum(plan, axis=[2, 3]))

    def pull_back(self, image: tf.Tensor) -> tf.Tensor:
        height, width, _ = self.image_shape
        return tf.tile(self._as_targets(image), [1, 1, height, width, 1])

    def smallest_flow(self, plan: tf.Tensor) -> tf.Tensor:
        return tf.reduce_min(plan, axis=[1, 2, 3, 4])

    def rings(self, values: tf.Tensor) -> list[Ring]:
        return [Ring(tf.cast(self.ground_cost, values.dtype), self._as_targets(values))]

    def weighted_rings(self, plan: tf.Tensor, values: tf.Tensor) -> list[Ring]:
        return [Ring(tf.cast(self.ground_cost, plan.dtype), plan * self._as_targets(values))]

    def map_targets(
        self, function: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor], plan: tf.Tensor, values: tf.Tensor
    ) -> tf.Tensor:
        return function(plan, self._as_targets(values), tf.cast(self.ground_cost, plan.dtype))

    def log_rings(self, potential: tf.Tensor) -> list[Ring]:
        return self.rings(potential)

    def kernel_push_forward(self, source: tf.Tensor, multiplier: tf.Tensor) -> tf.Tensor:
        return self.push_forward(source[:, None] * self._kernel(multiplier))

    def kernel_plan(self, source: tf.Tensor, values: tf.Tensor, multiplier: tf.Tensor) -> tf.Tensor:
        return tf.cast(source[:, None] * self._kernel(multiplier) * self._as_targets(values), tf.float32)

    def _kernel(self, multiplier: tf.Tensor) -> tf.Tensor:
        return tf.exp(-multiplier[:, None] * tf.cast(self.ground_cost, multiplier.dtype))

    def _as_targets(self, image: tf.Tensor) -> tf.Tensor:
        return tf.reshape(image, [-1, self.num_targets, 1, 1, self.image_shape[2]])

    def _as_image(self, targets: tf.Tensor) -> tf.Tensor:
        return tf.reshape(targets, [-1, *self.image_shape])


def _log_sum(terms: list[tf.Tensor]) -> tf.Tensor:
    """Returns log Σ exp of terms of equal shape, without overflow."""
    if len(terms) == 1:
        return terms[0]
    peak = functools.reduce(tf.maximum, terms)
    return peak + tf.math.log(tf.add_n([tf.exp(term - peak) for term in terms]))


def make_support(threat_model: ThreatModel, image_shape: tuple[int, int, int]) -> Support:
    """Returns the support of the threat model on images of shape (H, W, C).

    Raises:
      ValueError: The largest cost exceeds float32.
    """
    return _make_support(threat_model.kernel_size, threat_model.p, image_shape)


_MANY_OFFSETS = 64
# Of ten: costs are multiplied by masses and added up.
_LARGEST_EXPONENT = 30


@functools.cache
def _make_support(kernel_size: int | None, p: float, image_shape: tuple[int, int, int]) -> Support:
    # One object per support, because compiled functions are looked up by it.
    if kernel_size is None:
        _check_cost(p, float(np.hypot(image_shape[0] - 1, image_shape[1] - 1)))
        return DenseSupport(image_shape, p)
    if kernel_size**2 > _MANY_OFFSETS and kernel_size // 2 >= max(image_shape[:2]) - 1:
        # The window holds the whole image. Its offsets, unrolled in a graph, would take minutes to compile.
        return _make_support(None, p, image_shape)
    _check_cost(p, float(np.hypot(kernel_size // 2, kernel_size // 2)))
    return LocalSupport(image_shape, kernel_size, p)


def _check_cost(p: float, farthest: float) -> None:
    if farthest > 1 and p * np.log10(farthest) > _LARGEST_EXPONENT:
        raise ValueError(
            f"p={p:g} is too large: the cost of moving mass over {farthest:.4g} pixels, the farthest that it may move, "
            "exceeds float32; give a smaller p or kernel_size."
        )
