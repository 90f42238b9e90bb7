"""Feasibility: how well an example and its plan satisfy the threat model, in numbers."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.neighbourhood import Support
from wasser_tf.transport.plan import image_mass, row_sums, transport_cost


class Feasibility(NamedTuple):
    """Measurements of a plan Π from x and of the image x̃ returned with it; every field is float32 [B].

    Attributes:
      cost: The radius the plan needs: ⟨Π, C⟩ / m(x), or ⟨Π, C⟩ if the threat model does not normalise. Infinite where
        no plan is known.
      radius: The allowed radius.
      min_flow: min Π, 0 or more for a feasible plan.
      row_error: max |Π1 − x| / m(x).
      column_error: max |Πᵀ1 − x̃|, in pixel values: how far the image is from the one its plan makes.
      min_pixel: min x̃.
      max_pixel: max x̃.
      mass_error: |Σx̃ − Σx| / Σx, the paper's precision error.

    Example:
    >>> from wasser_tf import ThreatModel, attacks, data, models
    >>> test = data.load("digits", splits=("test",)).test
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> attack = attacks.make("random_plan", ThreatModel(epsilon=0.1))
    >>> feasibility = attack(classifier, test.images[:4], test.labels[:4]).feasibility
    >>> feasibility.feasible(), bool((feasibility.cost <= 0.1 * (1 + 1e-5)).all())
    (array([ True,  True,  True,  True]), True)
    """

    cost: Any
    radius: Any
    min_flow: Any
    row_error: Any
    column_error: Any
    min_pixel: Any
    max_pixel: Any
    mass_error: Any

    def __repr__(self) -> str:
        # A summary instead of every number.
        if not isinstance(self.cost, np.ndarray):
            return f"<{type(self).__name__}>"
        count = self.feasible().sum()
        return f"<{type(self).__name__} of {len(self.cost)}: {count} feasible, cost to {self.cost.max():.4g}>"

    def feasible(self, capacity: float | None = 1.0) -> Any:
        """Returns whether each example is feasible up to float32 rounding, bool [B].

        The tolerances: cost ≤ radius · (1 + 1e-5); rows, columns and mass to 1e-6; pixels in [0, capacity] exactly.
        """
        return (
            np.isfinite(self.cost)
            & (np.asarray(self.cost) <= np.asarray(self.radius) * (1 + 1e-5))
            & (np.asarray(self.min_flow) >= 0)
            & (np.asarray(self.row_error) <= 1e-6)
            & (np.asarray(self.column_error) <= 1e-6)
            & (np.asarray(self.mass_error) <= 1e-6)
            & (np.asarray(self.min_pixel) >= 0)
            & (np.asarray(self.max_pixel) <= (np.inf if capacity is None else capacity))
        )


def measure_feasibility(
    plan: tf.Tensor,
    target: tf.Tensor,
    images: tf.Tensor,
    support: Support,
    radius: tf.Tensor,
    threat_model: ThreatModel,
) -> Feasibility:
    """Measures a plan and the image returned with it against the threat model.

    Args:
      plan: Π, [B, T, H, W, C].
      target: x̃, [B, H, W, C], as returned to the user.
      images: The clean x, [B, H, W, C].
      support: The support the plan lives on.
      radius: The radius allowed, broadcastable to [B].
      threat_model: Gives the normalisation; its epsilon is not used.

    Returns:
      The measurements. For an image without mass, relative fields are 0 if the image is unchanged and
      infinite otherwise.
    """
    mass = image_mass(images)
    cost = transport_cost(plan, support)
    pixels = [1, 2, 3]
    return Feasibility(
        cost=_relative(cost, mass) if threat_model.normalize_mass else cost,
        radius=tf.broadcast_to(tf.cast(radius, tf.float32), tf.shape(mass)),
        min_flow=support.smallest_flow(plan),
        row_error=_relative(tf.reduce_max(tf.abs(row_sums(plan) - images), axis=pixels), mass),
        column_error=tf.reduce_max(tf.abs(support.push_forward(plan) - target), axis=pixels),
        min_pixel=tf.reduce_min(target, axis=pixels),
        max_pixel=tf.reduce_max(target, axis=pixels),
        # The sum of differences, not the difference of sums: it keeps its digits in float32.
        mass_error=_relative(tf.abs(tf.reduce_sum(target - images, axis=pixels)), mass),
    )


def measure_feasibility_without_plan(target: tf.Tensor, images: tf.Tensor, radius: tf.Tensor) -> Feasibility:
    """Measures an image without a known plan, using the plan that moves nothing.

    column_error is then max |x̃ − x|, the ℓ∞ distance in pixel values; the cost is 0 where that is 0 and infinite
    elsewhere. Only x itself is feasible.

    Args:
      target: x̃, [B, H, W, C], as returned to the user.
      images: The clean x, [B, H, W, C].
      radius: The allowed radius, in the units of its own ball, broadcastable to [B].

    Returns:
      The measurements.
    """
    mass, pixels = image_mass(images), [1, 2, 3]
    change = tf.reduce_max(tf.abs(target - images), axis=pixels)
    return Feasibility(
        cost=tf.where(change > 0, float("inf"), 0.0),
        radius=tf.broadcast_to(tf.cast(radius, tf.float32), tf.shape(mass)),
        min_flow=tf.zeros_like(mass),
        row_error=tf.zeros_like(mass),
        column_error=change,
        min_pixel=tf.reduce_min(target, axis=pixels),
        max_pixel=tf.reduce_max(target, axis=pixels),
        mass_error=_relative(tf.abs(tf.reduce_sum(target - images, axis=pixels)), mass),
    )


def _relative(value: tf.Tensor, mass: tf.Tensor) -> tf.Tensor:
    return tf.where(mass > 0, tf.math.divide_no_nan(value, mass), tf.where(value > 0, float("inf"), 0.0))
