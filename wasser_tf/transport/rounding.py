"""Rounding: makes any plan feasible without losing mass.

Only the moved mass counts, M = the off-diagonal part of Π, so rows hold by construction. Then

    1. a_j    the share of its inflow that pixel j accepts: over-full pixels refuse, and refused mass stays at home
    2. t      x̃(t) = x + t (x̃ − x) has cost t ⟨M a, C⟩ and is feasible at t = 0: the largest feasible t ≤ 1

so the feasible plan is t M_ij a_j off the diagonal. It is determined by one image and one number, and a Gibbs plan is
rounded without being built.
"""

import abc
from typing import NamedTuple

import tensorflow as tf

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.gibbs import GibbsPlan, factors, moments
from wasser_tf.transport.neighbourhood import Support
from wasser_tf.transport.plan import row_sums, transport_budget, transport_cost

# Overfilling below this is float32 rounding and is clipped; it bounds the mass that clipping can lose.
DUST = 4e-7
# Refused inflow stays at home and may over-fill its own pixel, so refusing repeats. On images it converges in about ten
# rounds (refusing more than necessary saves four rounds and costs margin). An excess left after the last round is
# removed by shrinking the whole move.
_REFUSAL_ROUNDS = 100


class Moved(abc.ABC):
    """The moved mass M_ij, of which target j accepts a share a_j in [0, 1], [B, H, W, C].

    Attributes:
      dtype: The type of shares and sums.
    """

    dtype: tf.DType

    @abc.abstractmethod
    def offered(self) -> tf.Tensor:
        """Returns Σ_i M_ij, the mass sent to each pixel, [B, H, W, C]."""

    @abc.abstractmethod
    def sent(self, accepted: tf.Tensor) -> tf.Tensor:
        """Returns Σ_j M_ij a_j, the mass that leaves each pixel, [B, H, W, C]."""

    @abc.abstractmethod
    def cost(self, accepted: tf.Tensor) -> tf.Tensor:
        """Returns Σ_ij M_ij a_j C_ij, [B]."""

    @abc.abstractmethod
    def plan(self, accepted: tf.Tensor) -> tf.Tensor:
        """Returns M_ij a_j itself, 0 on the diagonal, [B, T, H, W, C]."""


class MovedByPlan(Moved):
    """The mass moved by any tensor [B, T, H, W, C]; negative, infinite, NaN and off-image entries count as 0.

    The flows of a pixel that sends more than it has are scaled down in proportion. Sums are float64: where most of the
    mass moves, float32 sums of the accepted flows are off by more than the tolerance of feasibility.
    """

    dtype = tf.float64

    def __init__(self, plan: tf.Tensor, images: tf.Tensor, support: Support):
        sendable = support.valid & ~support.home & tf.math.is_finite(plan)
        moved = tf.where(sendable, tf.maximum(plan, 0.0), 0.0)
        moved = tf.cast(moved, self.dtype)
        present = tf.cast(images, self.dtype)
        self._moved = moved * tf.minimum(tf.math.divide_no_nan(present, row_sums(moved)), 1.0)[:, None]
        self._support = support

    def offered(self) -> tf.Tensor:
        return self._support.push_forward(self._moved)

    def sent(self, accepted: tf.Tensor) -> tf.Tensor:
        return row_sums(self._accepted(accepted))

    def cost(self, accepted: tf.Tensor) -> tf.Tensor:
        return transport_cost(self._accepted(accepted), self._support)

    def plan(self, accepted: tf.Tensor) -> tf.Tensor:
        return tf.cast(self._accepted(accepted), tf.float32)

    def _accepted(self, accepted: tf.Tensor) -> tf.Tensor:
        return self._moved * self._support.pull_back(accepted)


class MovedByGibbs(Moved):
    """The mass moved by a Gibbs plan, by sums over rings: the plan is only built on request."""

    dtype = tf.float64

    def __init__(self, gibbs: GibbsPlan, images: tf.Tensor, support: Support):
        self._support = support
        # So that M_ij = rate_i weight_j exp(−λ C_ij).
        self._rate, self._weights, self._multiplier = factors(gibbs, images, support)

    def offered(self) -> tf.Tensor:
        # Without what stays: the kernel is 1 on the diagonal.
        arriving = self._support.kernel_push_forward(self._rate, self._multiplier) - self._rate
        return self._weights * tf.maximum(arriving, 0.0)

    def sent(self, accepted: tf.Tensor) -> tf.Tensor:
        taking = self._weights * accepted
        everywhere, _, _ = moments(self._support.rings(taking), self._multiplier)
        return self._rate * tf.maximum(everywhere - taking, 0.0)

    def cost(self, accepted: tf.Tensor) -> tf.Tensor:
        _, first, _ = moments(self._support.rings(self._weights * accepted), self._multiplier)
        return tf.reduce_sum(self._rate * first, axis=[1, 2, 3])

    def plan(self, accepted: tf.Tensor) -> tf.Tensor:
        plan = self._support.kernel_plan(self._rate, self._weights * accepted, self._multiplier)
        return tf.where(self._support.home, 0.0, plan)


class Rounded(NamedTuple):
    """The feasible move that a plan was rounded to.

    Attributes:
      image: x̃, [B, H, W, C], in [0, capacity] exactly.
      accepted: The share of its inflow that each pixel accepts, [B, H, W, C], of `Moved.dtype`.
      step: t, the part of the move that is carried out, [B].
    """

    image: tf.Tensor
    accepted: tf.Tensor
    step: tf.Tensor


def moved_by(plan: tf.Tensor | GibbsPlan, images: tf.Tensor, support: Support) -> Moved:
    """Returns the mass that a plan [B, T, H, W, C], or a Gibbs plan, moves from images [B, H, W, C]."""
    kind = MovedByGibbs if isinstance(plan, GibbsPlan) else MovedByPlan
    return kind(plan, images, support)


def round_to_feasible(
    plan: tf.Tensor | GibbsPlan, images: tf.Tensor, support: Support, radius: tf.Tensor, threat_model: ThreatModel
) -> Rounded:
    """Makes any plan feasible by moving less mass: rows exact, capacity kept, cost within budget (see the module).

    Args:
      plan: Any tensor of shape [B, T, H, W, C], or a Gibbs plan.
      images: x in [0, 1], [B, H, W, C].
      support: The support the plan lives on.
      radius: Radius of each image, broadcastable to [B].
      threat_model: Gives normalisation and capacity; its epsilon is not used.

    Returns:
      The feasible image, and what `feasible_plan` needs to build the plan. Accurate to float32 rounding (1e-6).
    """
    moved = moved_by(plan, images, support)
    present = tf.cast(images, moved.dtype)
    offered, accepted = moved.offered(), tf.ones_like(present)
    if threat_model.capacity is not None:
        accepted = _refuse_inflow(moved, offered, present, threat_model.capacity)
    change = accepted * offered - moved.sent(accepted)
    # A part in a million below the budget, so that float32 sums cannot carry the cost above it.
    budget = tf.cast(transport_budget(images, radius, threat_model), moved.dtype) * (1 - 1e-6)
    step = _largest_feasible_step(moved.cost(accepted), budget, change, present, threat_model.capacity)
    target = tf.cast(present + step[:, None, None, None] * change, tf.float32)
    target = tf.clip_by_value(target, 0.0, threat_model.capacity or target.dtype.max)
    return Rounded(target, accepted, tf.cast(step, tf.float32))


def feasible_plan(plan: tf.Tensor | GibbsPlan, rounded: Rounded, images: tf.Tensor, support: Support) -> tf.Tensor:
    """Returns the feasible plan, [B, T, H, W, C], that `round_to_feasible` made of a plan."""
    step = tf.cast(rounded.step, rounded.accepted.dtype)[:, None, None, None]
    moved = moved_by(plan, images, support).plan(step * rounded.accepted)
    # In float64: the rounding of a float32 sum would be nearly all that the tolerance of columns allows.
    stays = tf.maximum(tf.cast(images, tf.float64) - row_sums(tf.cast(moved, tf.float64)), 0.0)
    return tf.where(support.home, tf.cast(stays, tf.float32)[:, None], moved)


def _refuse_inflow(moved: Moved, offered: tf.Tensor, images: tf.Tensor, capacity: float) -> tf.Tensor:
    """Returns the share of its inflow that each pixel accepts, so that no pixel is over-full.

    Refused mass stays at home, which may over-fill its own pixel. Inflows only fall, so repeating converges.
    """

    def over_full(accepted: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any(accepted * offered > room + DUST)

    def refuse(accepted: tf.Tensor, room: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        accepted = tf.minimum(accepted, tf.maximum(room, 0.0) / tf.maximum(offered, 1e-30))
        return accepted, capacity - images + moved.sent(accepted)

    everything = tf.ones_like(images)
    start = everything, capacity - images + moved.sent(everything)
    return tf.while_loop(over_full, refuse, start, maximum_iterations=_REFUSAL_ROUNDS)[0]


def _largest_feasible_step(
    cost: tf.Tensor, budget: tf.Tensor, change: tf.Tensor, images: tf.Tensor, capacity: float | None
) -> tf.Tensor:
    """Returns the largest t ≤ 1 for which x + t · change is within budget and capacity, [B]."""
    step = tf.where(cost > budget, tf.math.divide_no_nan(budget, cost), 1.0)
    if capacity is not None:
        room = capacity - images
        fits = tf.where(change > room + DUST, (room + DUST) / tf.maximum(change, DUST), 1.0)
        step = tf.minimum(step, tf.reduce_min(fits, axis=[1, 2, 3]))
    return step
