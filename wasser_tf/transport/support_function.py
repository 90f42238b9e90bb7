r"""The support function of the Wasserstein ball: how far a linear functional of the image can rise in it.

For a functional a and an image x with budget ρ (capacity dropped, which only makes the ball larger)

    h(a; x, ρ) = max over plans Π ≥ 0, Π1 = x, ⟨Π, C⟩ ≤ ρ of a · (Πᵀ1 − x)
               = min over λ ≥ 0 of  λρ + Σ_i x_i G_λ(i),    G_λ(i) = max_j (a_j − a_i − λ C_ij)

with j over the window of i in its channel, j = i included, so that G ≥ 0. The two are equal by the duality of linear
programs: for fixed λ the rows are independent, and each puts its mass on one target. *Every* λ ≥ 0 gives an upper bound
of h, whatever became of the search for the best one. The function of λ is convex and piecewise linear. At
λ = Lip(a) = max |a_j − a_i| / C_ij it is ρ · Lip(a) (Kantorovich and Rubinstein).

It is Frank-Wolfe's linear maximiser at temperature 0, and shares its search for λ (linear_maximiser.py).
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.linear_maximiser import DualPoint, meet_tangents, search_multiplier

# Windows of so many offsets are unrolled, larger ones are gone through target by target.
_MOST_UNROLLED = 121


def c_transform(potential: tf.Tensor, multiplier: tf.Tensor, threat_model: ThreatModel) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns max_j (a_j − λ C_ij) at every pixel i, and C_ij of the target j that attains it.

    Args:
      potential: a, floats [N, H, W, C].
      multiplier: λ ≥ 0, [N].
      threat_model: Gives the window and p. Targets beyond the border are none.

    Returns:
      The maximum and the cost, both [N, H, W, C]. Of targets that are equally good the first in some order is taken,
      the pixel itself before all others.
    """
    slope = multiplier[:, None, None, None]

    def improve(best: tuple[tf.Tensor, tf.Tensor], there: tf.Tensor, cost: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        offered = there - slope * cost
        better = offered > best[0]
        return tf.where(better, offered, best[0]), tf.where(better, cost, best[1])

    return _over_targets(potential, improve, (potential, tf.zeros_like(potential)), threat_model)


def lipschitz(potential: tf.Tensor, threat_model: ThreatModel) -> tf.Tensor:
    """Returns Lip(a) = max (a_j − a_i) / C_ij over the pairs within a window, at least 0: [N, H, W, C] to [N]."""

    def improve(best: tuple[tf.Tensor], there: tf.Tensor, cost: tf.Tensor) -> tuple[tf.Tensor]:
        return (tf.maximum(best[0], tf.math.divide_no_nan(there - potential, cost)),)

    steepest = _over_targets(potential, improve, (tf.zeros_like(potential),), threat_model)[0]
    return tf.reduce_max(steepest, axis=[1, 2, 3])


def largest_cost(threat_model: ThreatModel, image_shape: tuple[int, int, int]) -> float:
    """Returns the cost of the farthest target there is: a budget of so much per unit of mass binds no plan."""
    reach = _reach(threat_model, image_shape)
    return float(np.hypot(*reach) ** threat_model.p)


def support_function(
    potential: tf.Tensor, images: tf.Tensor, budget: tf.Tensor, threat_model: ThreatModel, evaluations: int = 24
) -> tf.Tensor:
    """Returns h(a; x, ρ), or a little more: an upper bound whatever the number of evaluations.

    The search begins with the λ 0 and Lip(a) and tries where the tangents of the ends meet: for a piecewise linear
    function this finds the minimum itself after a few steps.

    Args:
      potential: a, floats [B, M, H, W, C]: M functionals for each image.
      images: x ≥ 0, of the same type, [B, H, W, C].
      budget: ρ ≥ 0, [B], in pixels^p × mass.
      threat_model: Gives the window and p; epsilon, normalisation and capacity are not used.
      evaluations: How many λ are tried besides 0 and Lip(a).

    Returns:
      [B, M], at least 0.
    """
    shape = tf.shape(potential)
    flat = tf.reshape(potential, [-1, *potential.shape[2:]])
    # From mass that moves alone, and so 0 exactly where nothing does.
    weights, rho = images[:, None], budget[:, None]

    def dual(multiplier: tf.Tensor) -> DualPoint:
        best, cost = c_transform(flat, tf.reshape(multiplier, [-1]), threat_model)
        gained, spent = tf.reshape(best - flat, shape), tf.reshape(cost, shape)
        return DualPoint(
            multiplier,
            rho - tf.reduce_sum(weights * spent, axis=[2, 3, 4]),
            multiplier * rho + tf.reduce_sum(weights * gained, axis=[2, 3, 4]),
        )

    steepest = tf.reshape(lipschitz(flat, threat_model), shape[:2])
    start = dual(tf.zeros_like(steepest)), DualPoint(steepest, rho + tf.zeros_like(steepest), steepest * rho)
    low, high = search_multiplier(dual, meet_tangents, *start, evaluations)
    return tf.minimum(low.value, high.value)


def _reach(threat_model: ThreatModel, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    height, width, _ = image_shape
    if threat_model.kernel_size is None:
        return height - 1, width - 1
    half = threat_model.kernel_size // 2
    return min(half, height - 1), min(half, width - 1)


def _over_targets(
    potential: tf.Tensor, improve: Callable, best: tuple[tf.Tensor, ...], threat_model: ThreatModel
) -> tuple[tf.Tensor, ...]:
    """Folds `improve` over the targets: it is given the best so far, a_j of a target of each pixel, and its cost."""
    _, height, width, channels = potential.shape
    reach = _reach(threat_model, (height, width, channels))
    if (2 * reach[0] + 1) * (2 * reach[1] + 1) <= _MOST_UNROLLED:
        return _over_offsets(potential, improve, best, reach, threat_model.p)

    rows, columns = tf.range(height), tf.range(width)
    flat = tf.reshape(potential, [-1, height * width, channels])

    def visit(target: tf.Tensor, best: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        down, across = rows - target // width, columns - target % width
        near = (tf.abs(down) <= reach[0])[:, None] & (tf.abs(across) <= reach[1])[None]
        squares = tf.cast(down**2, potential.dtype)[:, None] + tf.cast(across**2, potential.dtype)[None]
        cost = tf.pow(squares, 0.5 * threat_model.p)[:, :, None]
        value = tf.slice(flat, tf.stack([0, target, 0]), [-1, 1, -1])[:, :, None]
        there = tf.where(near[:, :, None], value, tf.constant(-np.inf, potential.dtype))
        return target + 1, improve(best, there, cost)

    return tf.while_loop(lambda target, best: target < height * width, visit, (tf.constant(0), best))[1]


def _over_offsets(
    potential: tf.Tensor, improve: Callable, best: tuple[tf.Tensor, ...], reach: tuple[int, int], p: float
) -> tuple[tf.Tensor, ...]:
    _, height, width, _ = potential.shape
    down, across = reach
    padded = tf.pad(potential, [[0, 0], [down, down], [across, across], [0, 0]], constant_values=-np.inf)
    offsets = [(y, x) for y in range(-down, down + 1) for x in range(-across, across + 1) if (y, x) != (0, 0)]

    def visit(best: tuple[tf.Tensor, ...], offset: tuple[int, int]) -> tuple[tf.Tensor, ...]:
        y, x = offset
        there = padded[:, down + y : down + y + height, across + x : across + x + width]
        return improve(best, there, tf.constant(np.hypot(y, x) ** p, potential.dtype))

    return functools.reduce(visit, offsets, best)
