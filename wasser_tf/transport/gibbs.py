"""Gibbs plans: entropic plans that an image-sized potential and one multiplier determine.

    Π_ij = x_i exp(Φ_j − λ C_ij) / Z_i,    Z_i = Σ_j exp(Φ_j − λ C_ij)

Rows hold and Π ≥ 0 by construction. Among all plans with rows x and cost ≤ budget, this is the one of largest ⟨Φ, Πᵀ1⟩
+ entropy, if λ ≥ 0 is the root of ⟨Π, C⟩ = budget (or 0). So the exact KL projection onto a budget is one root, and the
plan itself need not exist: its cost, its gradient in λ and its image are sums over windows of image-sized tensors.
"""

import functools
import math
from typing import NamedTuple

import tensorflow as tf

from wasser_tf.transport.neighbourhood import Ring, Support
from wasser_tf.transport.plan import image_mass, row_sums

# The range of the potential in an image. 100 iterations span up to 300; 200 iterations with a step of 12, the longest
# ascent here, span 520: with a floor of 340 its examples lost a third of their margin.
_POTENTIAL_RANGE = 690.0
# A projection reads about ten float64 images several times. With at most this many pixels they stay in a core's cache;
# with more, a pixel costs 1.5 times as much. A GPU does not need parts and would process them one after another.
_PIXELS_A_PART = 100_352


class GibbsPlan(NamedTuple):
    """A Gibbs plan: potential Φ [B, H, W, C], multiplier λ [B, 1, 1, 1], and its image Πᵀ1 [B, H, W, C]."""

    potential: tf.Tensor
    multiplier: tf.Tensor
    image: tf.Tensor


def guess_multiplier(images: tf.Tensor, budget: tf.Tensor) -> tf.Tensor:
    """Returns a λ [B, 1, 1, 1] to begin with where none is known, for images [B, H, W, C] and budgets [B].

    It is the root for Φ = 0 if mass goes to the four next pixels or nowhere: 4 m(x) / (exp λ + 4) = budget. From there
    six Newton steps suffice; from 0, where the cost is flat, it takes twenty.
    """
    moving = image_mass(images) / tf.maximum(budget, 1e-30)
    return tf.math.log(tf.maximum(4.0 * moving - 4.0, 1.0))[:, None, None, None]


def project_kl(
    potential: tf.Tensor,
    multiplier: tf.Tensor,
    images: tf.Tensor,
    budget: tf.Tensor,
    support: Support,
    newton_steps: tf.Tensor | int = 4,
) -> GibbsPlan:
    """Finds λ ≥ 0 with ⟨Π, C⟩ = budget, or λ = 0 if the budget does not bind, for the potential given.

    Safeguarded Newton steps on the decreasing cost(λ), with d⟨Π,C⟩/dλ = −Σ_i x_i Var_i(C), warm-started at
    `multiplier`. The targets of one pixel share a handful of costs, so a step works on sums over those rings, and the
    only exponential of an image's size is exp Φ. Sums are in float64 for its range: e^−690 does not
    underflow next to e^0.

    Args:
      potential: Φ, [B, H, W, C].
      multiplier: A guess of λ, [B, 1, 1, 1].
      images: x, [B, H, W, C].
      budget: The largest ⟨Π, C⟩, [B].
      support: Where mass may go.
      newton_steps: The number of Newton steps. A warm start needs 3 or 4, `guess_multiplier` 6.

    Returns:
      The plan. After a warm start its cost is within one per cent of the budget; `round_to_feasible` corrects the rest.
      Its potential is the given one minus its maximum, clipped at −690.
    """
    batch, *image_shape = images.shape
    in_one_go = batch is None or batch * math.prod(image_shape) <= _PIXELS_A_PART
    if in_one_go or tf.config.list_logical_devices("GPU"):
        return _project(potential, multiplier, images, budget, support, newton_steps)
    parts = -(-batch // max(_PIXELS_A_PART // math.prod(image_shape), 1))
    size = -(-batch // parts)

    def in_parts(given: tf.Tensor) -> tf.Tensor:
        # The last part is padded with black images.
        rank = given.shape.rank
        filled = tf.pad(given, [[0, parts * size - batch], *[[0, 0]] * (rank - 1)])
        return tf.reshape(filled, [parts, size, *given.shape[1:]])

    found = tf.map_fn(
        lambda given: _project(given[0], given[1], given[2], given[3], support, newton_steps),
        tuple(in_parts(given) for given in (potential, multiplier, images, budget)),
        fn_output_signature=GibbsPlan(tf.float32, tf.float32, tf.float32),
    )
    return tf.nest.map_structure(lambda given: tf.reshape(given, [-1, *given.shape[2:]])[:batch], found)


def _project(
    potential: tf.Tensor,
    multiplier: tf.Tensor,
    images: tf.Tensor,
    budget: tf.Tensor,
    support: Support,
    newton_steps: tf.Tensor | int,
) -> GibbsPlan:
    """`project_kl` on all images at once."""
    # A constant added to Φ changes no plan.
    potential = tf.maximum(potential - tf.reduce_max(potential, axis=[1, 2, 3], keepdims=True), -_POTENTIAL_RANGE)
    weights = weights_of(potential)
    rings = support.rings(weights)
    mass = tf.cast(images, tf.float64)
    budget = tf.cast(budget, tf.float64)[:, None, None, None]
    multiplier = budget_multiplier(rings, mass, budget, tf.cast(multiplier, tf.float64), newton_steps)
    partition, _, _ = moments(rings, multiplier)
    image = weights * support.kernel_push_forward(mass / partition, multiplier)
    return GibbsPlan(potential, tf.cast(multiplier, tf.float32), tf.cast(image, tf.float32))


def budget_multiplier(
    rings: list[Ring],
    mass: tf.Tensor,
    budget: tf.Tensor,
    start: tf.Tensor,
    newton_steps: tf.Tensor | int,
    least: tf.Tensor | float = 0.0,
) -> tf.Tensor:
    """Returns the λ at which Σ_i x_i Σ_j v_ij exp(−λ C_ij) C_ij / Σ_j v_ij exp(−λ C_ij) is the budget, [B, 1, 1, 1].

    Args:
      rings: The sums of v_ij over the targets j of equal cost.
      mass: x, [B, H, W, C].
      budget: [B, 1, 1, 1].
      start: Where Newton's steps begin, [B, 1, 1, 1], of the dtype of all others.
      newton_steps: How many.
      least: The smallest λ, which is returned where the cost is within the budget there.
    """

    def newton(step: tf.Tensor, multiplier: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tuple:
        partition, first, second = moments(rings, multiplier)
        mean = tf.math.divide_no_nan(first, partition)
        cost = tf.reduce_sum(mass * mean, axis=[1, 2, 3], keepdims=True)
        variance = tf.math.divide_no_nan(second, partition) - mean**2
        slope = tf.reduce_sum(mass * variance, axis=[1, 2, 3], keepdims=True)
        low = tf.where(cost > budget, multiplier, low)
        high = tf.where(cost > budget, high, multiplier)
        guess = multiplier + (cost - budget) / tf.maximum(slope, 1e-6 * budget + 1e-30)
        # The cost is flat far from its root on both sides: Newton may neither leave the bracket nor run away.
        guess = tf.maximum(tf.minimum(guess, multiplier + 3.0 * (multiplier - least) + 4.0), least)
        inside = (guess >= low) & (guess <= high)
        return step + 1, tf.where(inside, guess, 0.5 * (low + high)), low, high

    # A lower end below the least λ says that this has not been tried.
    bracket = least + tf.zeros_like(start) - 1.0, tf.fill(tf.shape(start), start.dtype.max)
    return tf.while_loop(lambda step, *_: step < newton_steps, newton, (tf.constant(0), start, *bracket))[1]


def weights_of(potential: tf.Tensor) -> tf.Tensor:
    """Returns exp Φ, float64 [B, H, W, C], of a potential that is at most 0 and at least −690."""
    # In float32, whose exponential is fast, then raised to the eighth power by squaring: XLA's power takes three times
    # as long as everything else here.
    eighth_root = tf.cast(tf.exp(potential / 8), tf.float64)
    return tf.square(tf.square(tf.square(eighth_root)))


def moments(rings: list[Ring], multiplier: tf.Tensor) -> list[tf.Tensor]:
    """Returns Σ_j v_j exp(−λ C_ij) C_ij^n for n = 0, 1, 2, all [B, H, W, C], given `Support.rings` of v."""
    exponent = -tf.expand_dims(multiplier, 1)
    weights = [ring.total * tf.exp(exponent * ring.cost) for ring in rings]
    return _sums_with_costs(weights, rings)


def log_sum_and_costs(rings: list[Ring], multiplier: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns log Σ_j exp(Φ_j − λ C_ij), and the means of C and C² under these weights, all [B, H, W, C].

    Args:
      rings: log Σ exp(Φ_j), `Support.log_rings`.
      multiplier: λ, [B, 1, 1, 1].
    """
    multiplier = tf.expand_dims(multiplier, 1)
    scores = [ring.total - multiplier * ring.cost for ring in rings]
    peak = functools.reduce(tf.maximum, [tf.reduce_max(score, axis=1, keepdims=True) for score in scores])
    weights = [tf.exp(score - peak) for score in scores]

    partition, first, second = _sums_with_costs(weights, rings)
    return peak[:, 0] + tf.math.log(partition), first / partition, second / partition


def _sums_with_costs(weights: list[tf.Tensor], rings: list[Ring]) -> list[tf.Tensor]:
    """Returns the sums of w, w C and w C² over all rings, each [B, H, W, C]."""
    costs = [ring.cost for ring in rings]
    with_cost = [weight * cost for weight, cost in zip(weights, costs, strict=True)]
    with_square = [weight * cost**2 for weight, cost in zip(weights, costs, strict=True)]
    return [tf.add_n([row_sums(term) for term in terms]) for terms in (weights, with_cost, with_square)]


def factors(plan: GibbsPlan, images: tf.Tensor, support: Support) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns s, v [B, H, W, C] and λ [B, 1, 1, 1], float64, of a plan from images: Π_ij = s_i v_j exp(−λ C_ij)."""
    weights, multiplier = weights_of(plan.potential), tf.cast(plan.multiplier, tf.float64)
    partition, _, _ = moments(support.rings(weights), multiplier)
    return tf.cast(images, tf.float64) / partition, weights, multiplier


def explicit_plan(plan: GibbsPlan, images: tf.Tensor, support: Support) -> tf.Tensor:
    """Returns the plan Π itself, [B, T, H, W, C], that a Gibbs plan from images [B, H, W, C] stands for."""
    return support.kernel_plan(*factors(plan, images, support))


def gibbs_plan(potential: tf.Tensor, multiplier: tf.Tensor, images: tf.Tensor, support: Support) -> tf.Tensor:
    """Returns the plan itself, [B, T, H, W, C], of any potential [B, H, W, C] and a multiplier [B, 1, 1, 1].

    Unlike a `GibbsPlan`'s, the potential may have any range: the exponentials are of differences, in float32.
    """
    scores = support.pull_back(potential) - multiplier[:, None] * support.ground_cost
    return images[:, None] * tf.nn.softmax(tf.where(support.valid, scores, -1e30), axis=1)
