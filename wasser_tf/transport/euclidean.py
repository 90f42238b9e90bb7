"""Euclidean projections of plans [B, T, H, W, C], exact to float32 (Wu, Wang, Yu, ICML 2020).

Rows are simplices, so a projection onto them is one threshold a row; the budget adds one multiplier an image.
"""

from typing import NamedTuple

import tensorflow as tf

from wasser_tf.transport.neighbourhood import Support
from wasser_tf.transport.plan import transport_cost

_LOWEST = -1e30


class _Search(NamedTuple):
    """The search for the multiplier λ [B]: the plan at λ, the bracket and whether it is found, all [B] but the plan."""

    multiplier: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor
    plan: tf.Tensor
    done: tf.Tensor


def project_rows(plan: tf.Tensor, images: tf.Tensor, support: Support) -> tf.Tensor:
    """argmin_Π ‖Π − plan‖² over Π ≥ 0, Π1 = x.

    Π_ij = max(v_ij − θ_i, 0) with θ_i the root of Σ_j max(v_ij − θ_i, 0) = x_i, a convex piecewise linear function:
    Newton's method from its left is monotone, exact and ends after as many steps as the active set changes, a handful
    where sorting would process the whole row.

    Args:
      plan: v, any finite numbers, [B, T, H, W, C].
      images: x, [B, H, W, C].
      support: The support of the plan.
    """
    values = tf.where(support.valid, plan, _LOWEST)

    def rise(threshold: tf.Tensor, moving: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        active = values > threshold[:, None]
        count = tf.reduce_sum(tf.cast(active, tf.float32), axis=1)
        excess = tf.reduce_sum(tf.where(active, values - threshold[:, None], 0.0), axis=1) - images
        step = tf.maximum(tf.math.divide_no_nan(excess, count), 0.0)
        return threshold + step, tf.reduce_any(threshold + step > threshold)

    start = tf.reduce_max(values, axis=1) - images
    threshold, _ = tf.while_loop(
        lambda threshold, moving: moving,
        rise,
        (start, tf.constant(True)),
        maximum_iterations=support.num_targets + 2,
    )
    return tf.maximum(values - threshold[:, None], 0.0)


def project_euclidean(
    plan: tf.Tensor, images: tf.Tensor, budget: tf.Tensor, support: Support, steps: int = 30
) -> tf.Tensor:
    """argmin_Π ‖Π − plan‖² over Π ≥ 0, Π1 = x, ⟨Π, C⟩ ≤ budget.

    Π(λ) = project_rows(plan − λ C) with the least λ ≥ 0 that keeps the budget. ⟨Π(λ), C⟩ falls, piecewise linearly, by
    Σ_i Σ_j active (C_ij − mean_i C)² a unit of λ: Newton steps, halving the bracket where they leave it. The bracket
    ends at 2 max|plan| + max x, where all mass stays at home.

    Args:
      plan: Any finite numbers, [B, T, H, W, C].
      images: x, [B, H, W, C].
      budget: [B].
      support: The support of the plan.
      steps: The maximum number of steps; five or six are usual.

    Returns:
      The plan, its cost within a millionth of the budget's scale.
    """
    ground_cost = support.ground_cost
    enough = 1e-6 * budget + 1e-9 * tf.reduce_sum(images, axis=[1, 2, 3])

    def search(now: _Search) -> tuple[_Search]:
        shifted = plan - now.multiplier[:, None, None, None, None] * ground_cost
        found = project_rows(shifted, images, support)
        cost = transport_cost(found, support)
        active = tf.where(found > 0, 1.0, 0.0)
        count = tf.reduce_sum(active, axis=1)
        mean = tf.math.divide_no_nan(tf.reduce_sum(active * ground_cost, axis=1), count)
        slope = tf.reduce_sum(active * (ground_cost - mean[:, None]) ** 2, axis=[1, 2, 3, 4])
        above = cost > budget
        low = tf.where(above, now.multiplier, now.low)
        high = tf.where(above, now.high, now.multiplier)
        newton = now.multiplier + (cost - budget) / tf.maximum(slope, 1e-30)
        following = tf.where((newton > low) & (newton < high), newton, 0.5 * (low + high))
        close = tf.abs(cost - budget) <= enough
        exhausted = ((now.multiplier == 0) | (high <= low * (1 + 1e-6))) & ~above
        done = now.done | close | exhausted
        # An image that is done keeps its multiplier, and so gets the same plan again.
        return (_Search(tf.where(done, now.multiplier, following), low, high, found, done),)

    nothing = tf.zeros_like(budget)
    most = 2.0 * tf.reduce_max(tf.abs(plan), axis=[1, 2, 3, 4]) + tf.reduce_max(images, axis=[1, 2, 3])
    first = _Search(nothing, nothing, most, plan, tf.zeros_like(budget, tf.bool))
    return tf.while_loop(lambda now: ~tf.reduce_all(now.done), search, (first,), maximum_iterations=steps)[0].plan
