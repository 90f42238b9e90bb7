"""Gibbs plans: entropic plans that an image-sized potential and one multiplier determine.

    Π_ij = x_i exp(Φ_j − λ C_ij) / Z_i,    Z_i = Σ_j exp(Φ_j − λ C_ij)

Rows hold and Π ≥ 0 by construction. Among all plans with rows x and cost ≤ budget, this is the one of largest ⟨Φ, Πᵀ1⟩
+ entropy, if λ ≥ 0 is the root of ⟨Π, C⟩ = budget (or 0). So the exact KL projection onto a budget is one root, and the
plan itself need not exist: its cost, its gradient in λ and its image are sums over windows of image-sized tensors.
"""

from typing import NamedTuple

import tensorflow as tf

from wasser_tf.transport.neighbourhood import Ring, Support


class GibbsPlan(NamedTuple):
    """A Gibbs plan: potential Φ [B, H, W, C], multiplier λ [B, 1, 1, 1], and its image Πᵀ1 [B, H, W, C]."""

    potential: tf.Tensor
    multiplier: tf.Tensor
    image: tf.Tensor


def project_to_budget(
    potential: tf.Tensor,
    multiplier: tf.Tensor,
    images: tf.Tensor,
    budget: tf.Tensor,
    support: Support,
    newton_steps: int = 4,
) -> GibbsPlan:
    """Finds λ ≥ 0 with ⟨Π, C⟩ = budget, or λ = 0 if the budget does not bind, for the potential given.

    Safeguarded Newton steps on the decreasing cost(λ), with d⟨Π,C⟩/dλ = −Σ_i x_i Var_i(C), warm-started at
    `multiplier`. The targets of one pixel share a handful of costs, so a step works on sums over those rings and takes
    no exponential of a plan.

    Args:
      potential: Φ, [B, H, W, C].
      multiplier: A guess of λ, [B, 1, 1, 1].
      images: x, [B, H, W, C].
      budget: The largest ⟨Π, C⟩, [B].
      support: Where mass may go.
      newton_steps: How many. A warm start needs 3 or 4.

    Returns:
      The plan. Its cost is within a per cent of the budget after a warm start, and `round_to_legal` mends the rest.
    """
    rings, peak = support.rings(potential, multiplier)
    budget = budget[:, None, None, None]
    # λ ≥ 0, and falls by no more than float32 can follow from the peaks of the warm start.
    floor = tf.maximum(-multiplier, -60.0 / max(support.max_cost, 1e-6))

    def newton(step: tf.Tensor, change: tf.Tensor, low: tf.Tensor, high: tf.Tensor, _: tf.Tensor) -> tuple:
        _, mean, square = ring_moments(rings, change)
        cost = tf.reduce_sum(images * mean, axis=[1, 2, 3], keepdims=True)
        slope = tf.reduce_sum(images * (square - mean**2), axis=[1, 2, 3], keepdims=True)
        low = tf.where(cost > budget, change, low)
        high = tf.where(cost > budget, high, change)
        guess = tf.maximum(change + (cost - budget) / tf.maximum(slope, 1e-6 * budget + 1e-30), floor)
        # Where Newton leaves the bracket: halve it, or while it is still open above, double the multiplier.
        inside = (guess >= low) & (guess <= high)
        middle = tf.where(high < tf.float32.max, 0.5 * (low + high), 2.0 * change + multiplier + 1.0)
        change = tf.where(inside, guess, middle)
        source = tf.math.log(tf.maximum(images, 1e-38)) - tf.math.log(ring_moments(rings, change)[0]) - peak
        return step + 1, change, low, high, source

    start = (tf.constant(0), tf.zeros_like(multiplier), floor, tf.fill(tf.shape(multiplier), tf.float32.max), images)
    _, change, _, _, source = tf.while_loop(lambda step, *_: step < newton_steps, newton, start)
    multiplier += change
    return GibbsPlan(potential, multiplier, support.gibbs_push_forward(source, potential, multiplier))


def ring_moments(rings: list[Ring], change: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns Z, and the mean of C and of C² over each pixel's targets, [B, H, W, C], λ changed by [B, 1, 1, 1]."""
    weights = [ring.total * tf.exp(-change[:, None] * ring.cost) for ring in rings]

    def total(power: int) -> tf.Tensor:
        terms = zip(rings, weights, strict=True)
        return tf.add_n([tf.reduce_sum(weight * ring.cost**power, axis=1) for ring, weight in terms])

    # Far-off potentials underflow to empty sums; such a pixel's mass would go nowhere, and rounding keeps it at home.
    partition = tf.maximum(total(0), 1e-37)
    return partition, total(1) / partition, total(2) / partition


def gibbs_plan(potential: tf.Tensor, multiplier: tf.Tensor, images: tf.Tensor, support: Support) -> tf.Tensor:
    """Returns the plan itself, [B, T, H, W, C], of a potential [B, H, W, C] and a multiplier [B, 1, 1, 1]."""
    scores = support.pull_back(potential) - multiplier[:, None] * support.ground_cost
    return images[:, None] * tf.nn.softmax(tf.where(support.valid, scores, -1e30), axis=1)
