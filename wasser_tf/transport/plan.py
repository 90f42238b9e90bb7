"""Marginals and cost of transport plans [B, T, H, W, C], for any support."""

import tensorflow as tf

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.neighbourhood import Support

# More would make large graphs.
_MANY_TARGETS = 64


def image_mass(images: tf.Tensor) -> tf.Tensor:
    """Returns m(x) = Σx of each image, [B]."""
    return tf.reduce_sum(images, axis=[1, 2, 3])


def row_sums(plan: tf.Tensor) -> tf.Tensor:
    """Returns the mass that each pixel sends or keeps, Π1: [B, T, H, W, C] to [B, H, W, C]."""
    if plan.shape[1] is None or plan.shape[1] > _MANY_TARGETS:
        return tf.reduce_sum(plan, axis=1)
    # XLA does not vectorise the sum of a whole plan where there are several channels, and takes ten times as long.
    return tf.add_n(tf.unstack(plan, axis=1))


def transport_cost(plan: tf.Tensor, support: Support) -> tf.Tensor:
    """Returns ⟨Π, C⟩ of each plan, [B], in pixels^p × mass."""
    return tf.reduce_sum(plan * tf.cast(support.ground_cost, plan.dtype), axis=[1, 2, 3, 4])


def transport_budget(images: tf.Tensor, radius: tf.Tensor, threat_model: ThreatModel) -> tf.Tensor:
    """Returns the largest allowed ⟨Π, C⟩, [B]: radius · m(x) if the threat model normalises, else radius."""
    radius = tf.broadcast_to(tf.cast(radius, tf.float32), tf.shape(images)[:1])
    return radius * image_mass(images) if threat_model.normalize_mass else radius


def identity_plan(images: tf.Tensor, support: Support) -> tf.Tensor:
    """Returns the plan that moves nothing, [B, T, H, W, C]."""
    return tf.where(support.home, images[:, None], 0.0)
