"""Marginals, cost and rounding of transport plans [B, T, H, W, C], whatever their support."""

from typing import NamedTuple

import tensorflow as tf

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.neighbourhood import Support

# Overfilling below this is rounding dust of float32 and clipped away; it bounds the mass that clipping can lose.
DUST = 4e-7
# Refused inflow stays home and may over-fill its own pixel, so refusing repeats. It converges in a few rounds on
# images; what is left after the last round is paid for by shrinking the whole move.
_REFUSAL_ROUNDS = 100


class LegalPlan(NamedTuple):
    """A plan that satisfies a threat model, [B, T, H, W, C], and the image it makes, [B, H, W, C]."""

    plan: tf.Tensor
    image: tf.Tensor


def image_mass(images: tf.Tensor) -> tf.Tensor:
    """Returns m(x) = Σx of each image, [B]."""
    return tf.reduce_sum(images, axis=[1, 2, 3])


def row_sums(plan: tf.Tensor) -> tf.Tensor:
    """Returns the mass that each pixel sends or keeps, Π1: [B, T, H, W, C] to [B, H, W, C]."""
    return tf.reduce_sum(plan, axis=1)


def transport_cost(plan: tf.Tensor, support: Support) -> tf.Tensor:
    """Returns ⟨Π, C⟩ of each plan, [B], in pixels^p × mass."""
    return tf.reduce_sum(plan * support.ground_cost, axis=[1, 2, 3, 4])


def transport_budget(images: tf.Tensor, radius: tf.Tensor, threat_model: ThreatModel) -> tf.Tensor:
    """Returns what ⟨Π, C⟩ may be for each image, [B]: radius · m(x) if the threat model normalises, else radius."""
    radius = tf.broadcast_to(tf.cast(radius, tf.float32), tf.shape(images)[:1])
    return radius * image_mass(images) if threat_model.normalize_mass else radius


def identity_plan(images: tf.Tensor, support: Support) -> tf.Tensor:
    """Returns the plan that moves nothing, [B, T, H, W, C]."""
    return tf.where(support.home, images[:, None], 0.0)


def round_to_legal(
    plan: tf.Tensor, images: tf.Tensor, support: Support, radius: tf.Tensor, threat_model: ThreatModel
) -> LegalPlan:
    """Makes any plan legal by moving less mass: rows exact, capacity kept, cost within budget.

    1. Rows: only the mass moved counts, M = off-diagonal part of Π, clipped at 0; a pixel that sends more than it has
       sends in proportion. What is not sent stays, so rows hold by construction.
    2. Capacity: inflow of an over-full pixel is scaled by clip((capacity − x_j + out_j) / in_j, 0, 1); what is refused
       stays home. Inflows only fall, so repeating converges.
    3. What is left: x̃(t) = x + t (x̃ − x) has cost t ⟨M, C⟩ and is legal at t = 0; the largest legal t ≤ 1 is taken.

    Args:
      plan: Anything of shape [B, T, H, W, C]; negative, infinite and NaN entries count as 0.
      images: x in [0, 1], [B, H, W, C].
      support: The support the plan lives on.
      radius: Radius of each image, broadcastable to [B].
      threat_model: Gives normalisation and capacity; its epsilon is not used.

    Returns:
      The legal plan and its image. The image is in [0, capacity] exactly, all else to float32 rounding (1e-6).
    """
    sendable = support.valid & ~support.home & tf.math.is_finite(plan)
    moved = tf.where(sendable, tf.maximum(plan, 0.0), 0.0)
    moved *= tf.minimum(tf.math.divide_no_nan(images, row_sums(moved)), 1.0)[:, None]
    if threat_model.capacity is not None:
        moved = _refuse_inflow(moved, images, support, threat_model.capacity)

    change = support.push_forward(moved) - row_sums(moved)
    shrink = _largest_legal_step(moved, change, images, support, radius, threat_model)
    moved *= shrink[:, None]
    target = images + shrink * change
    target = tf.clip_by_value(target, 0.0, threat_model.capacity or target.dtype.max)
    kept = tf.maximum(images - row_sums(moved), 0.0)
    return LegalPlan(moved + identity_plan(kept, support), target)


def _refuse_inflow(moved: tf.Tensor, images: tf.Tensor, support: Support, capacity: float) -> tf.Tensor:
    """Scales the inflow of over-full pixels until none is (step 2 of `round_to_legal`).

    A pixel accepts the same share of all that is sent to it, so the rounds are on that share, an image, and read the
    plan once each for what is still sent.
    """
    offered = support.push_forward(moved)

    def sent(accepted: tf.Tensor) -> tf.Tensor:
        return row_sums(moved * support.pull_back(accepted))

    def over_full(accepted: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any(accepted * offered > room + DUST)

    def refuse(accepted: tf.Tensor, room: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        accepted = tf.minimum(accepted, tf.maximum(room, 0.0) / tf.maximum(offered, 1e-30))
        return accepted, capacity - images + sent(accepted)

    start = tf.ones_like(images), capacity - images + row_sums(moved)
    accepted, _ = tf.while_loop(over_full, refuse, start, maximum_iterations=_REFUSAL_ROUNDS)
    return moved * support.pull_back(accepted)


def _largest_legal_step(
    moved: tf.Tensor,
    change: tf.Tensor,
    images: tf.Tensor,
    support: Support,
    radius: tf.Tensor,
    threat_model: ThreatModel,
) -> tf.Tensor:
    """Returns the largest t ≤ 1 for which x + t · change is within budget and capacity, [B, 1, 1, 1]."""
    cost = transport_cost(moved, support)
    # A part in a million below the budget, so that float32 sums cannot carry the cost above it.
    budget = transport_budget(images, radius, threat_model) * (1 - 1e-6)
    step = tf.where(cost > budget, tf.math.divide_no_nan(budget, cost), 1.0)
    if threat_model.capacity is not None:
        room = threat_model.capacity - images
        fits = tf.where(change > room + DUST, (room + DUST) / tf.maximum(change, DUST), 1.0)
        step = tf.minimum(step, tf.reduce_min(fits, axis=[1, 2, 3]))
    return step[:, None, None, None]
