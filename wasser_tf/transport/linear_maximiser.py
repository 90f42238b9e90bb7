r"""Linear maximisation over the Wasserstein ball without its capacity, by its dual in one multiplier.

For a functional a, an image x, a budget ρ and a temperature τ ≥ 0, over plans Π ≥ 0 with Π1 = x and ⟨Π, C⟩ ≤ ρ

    max a · Πᵀ1 + τ · entropy  =  min over λ ≥ 0 of  φ(λ) = λρ + Σ_i x_i τ log Σ_j exp((a_j − λ C_ij) / τ),

up to a constant of the entropy; at τ = 0 the sum is over max_j (a_j − λ C_ij). φ is convex. Its slope is ρ − ⟨Π_λ, C⟩,
where each row of Π_λ attains its maximum. So both uses look for λ between an end of negative and one of positive slope,
by `search_multiplier`:

- The support function (support_function.py), at τ = 0: the least φ of the search bounds the maximum from above.
- Frank-Wolfe (Wu, Wang and Yu, ICML 2020), at τ > 0: `entropic_maximiser` returns the plan Π_λ.

They differ in the maximum of a row, and in the choice of the next λ. The plan of a hard maximum jumps with a, and a
soft maximum is above the hard one by up to τ log of the number of targets, so neither can replace the other. Tangents
find the kink of a piecewise linear φ in a few steps; on a smooth φ in float32, whose values cancel, halves are safer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from wasser_tf.transport.gibbs import gibbs_plan, log_sum_and_costs
from wasser_tf.transport.neighbourhood import Support


class DualPoint(NamedTuple):
    """φ at λ: the multiplier, the slope of φ and its value, all of one shape; no value, (), where none is needed."""

    multiplier: tf.Tensor
    slope: tf.Tensor
    value: Any = ()


def search_multiplier(
    dual: Callable[[tf.Tensor], DualPoint],
    propose: Callable[[tf.Tensor, DualPoint, DualPoint], tf.Tensor],
    low: DualPoint,
    high: DualPoint,
    evaluations: int,
    tolerance: float | None = None,
) -> tuple[DualPoint, DualPoint]:
    """Narrows brackets of the λ of least φ: each λ that is tried replaces the end whose slope has its sign.

    Since φ is convex, the least value of all λ that were tried is that of an end.

    Args:
      dual: λ -> φ there.
      propose: (number of the step, low, high) -> the λ that is tried next.
      low: The lower end, where the slope is negative or λ is 0.
      high: The upper end, where the slope is at least 0.
      evaluations: The maximum number of steps.
      tolerance: A bracket narrower than this does not change any more, so that none depends on the others. By default
        all steps are made.

    Returns:
      Both ends.
    """

    def step(number: tf.Tensor, low: DualPoint, high: DualPoint) -> tuple[tf.Tensor, DualPoint, DualPoint]:
        found = dual(propose(number, low, high))
        falls = found.slope < 0
        rises = ~falls
        if tolerance is not None:
            wide = high.multiplier - low.multiplier >= tolerance
            falls, rises = wide & falls, wide & rises
        return (
            number + 1,
            tf.nest.map_structure(lambda new, old: tf.where(falls, new, old), found, low),
            tf.nest.map_structure(lambda new, old: tf.where(rises, new, old), found, high),
        )

    def unfinished(number: tf.Tensor, low: DualPoint, high: DualPoint) -> tf.Tensor:
        if tolerance is None:
            return number < evaluations
        return tf.reduce_any(high.multiplier - low.multiplier >= tolerance)

    return tf.while_loop(unfinished, step, (tf.constant(0), low, high), maximum_iterations=evaluations)[1:]


def halve(number: tf.Tensor, low: DualPoint, high: DualPoint) -> tf.Tensor:
    """Returns the λ in the middle of a bracket."""
    return 0.5 * (low.multiplier + high.multiplier)


def meet_tangents(number: tf.Tensor, low: DualPoint, high: DualPoint) -> tf.Tensor:
    """Returns the λ at which the tangents of the ends meet; in every third step the middle, where one end creeps."""
    rise = low.value - high.value + high.slope * high.multiplier - low.slope * low.multiplier
    meet = tf.math.divide_no_nan(rise, high.slope - low.slope)
    inside = (meet > low.multiplier) & (meet < high.multiplier) & (number % 3 != 2)
    return tf.where(inside, meet, halve(number, low, high))


def entropic_maximiser(
    functional: tf.Tensor,
    images: tf.Tensor,
    budget: tf.Tensor,
    temperature: tf.Tensor,
    support: Support,
    evaluations: int,
    tolerance: float,
) -> tf.Tensor:
    """Returns the plan of largest a · Πᵀ1 + τ · entropy within rows and budget: the Gibbs plan of potential a / τ.

    Args:
      functional: a, [B, H, W, C].
      images: x ≥ 0, [B, H, W, C].
      budget: ρ, [B], in pixels^p × mass.
      temperature: τ > 0, [].
      support: Where mass may go.
      evaluations: The maximum number of λ that are tried.
      tolerance: λ is at most this much above the least one of ⟨Π_λ, C⟩ ≤ ρ.

    Returns:
      [B, T, H, W, C].
    """
    budget = budget[:, None, None, None]
    rings = support.log_rings(functional / temperature)

    def dual(multiplier: tf.Tensor) -> DualPoint:
        _, mean_cost, _ = log_sum_and_costs(rings, multiplier / temperature)
        return DualPoint(multiplier, budget - tf.reduce_sum(images * mean_cost, axis=[1, 2, 3], keepdims=True))

    # At the paper's upper end ⟨Π, C⟩ ≤ budget: 2 max|a| + τ log(Σ_ij x_i C_ij / budget).
    most = tf.reduce_sum(images[:, None] * tf.where(support.valid, support.ground_cost, 0.0), axis=[1, 2, 3, 4])
    excess = tf.math.log(tf.maximum(most[:, None, None, None], 1e-30) / tf.maximum(budget, 1e-30))
    end = 2.0 * tf.reduce_max(tf.abs(functional), axis=[1, 2, 3], keepdims=True) + temperature * excess
    zero = tf.zeros_like(end)
    _, high = search_multiplier(
        dual, halve, DualPoint(zero, zero), DualPoint(tf.maximum(end, 0.0), zero), evaluations, tolerance
    )
    return gibbs_plan(functional / temperature, high.multiplier / temperature, images, support)
