"""The problem of one batch, the perturbation that an attack returns for it, and gradients of its loss."""

from typing import Any, NamedTuple

import tensorflow as tf

from wasser_tf.attacks import losses
from wasser_tf.models.logits import LogitsFn
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.gibbs import GibbsPlan
from wasser_tf.transport.neighbourhood import Support
from wasser_tf.transport.plan import transport_budget


class Problem(NamedTuple):
    """One batch to attack.

    Attributes:
      logits_fn: The classifier in inference mode, [B, H, W, C] to float32 logits [B, classes].
      images: x, float32 in [0, 1], [B, H, W, C].
      labels: y, int32 [B].
      radius: The radius of each image, float32 [B].
      index: A number for each image, int32 [B]; random starts depend on it and not on the position in the batch.
      support: The targets to which mass may move.
      threat_model: The rules (`ThreatModel.rules`), without the radius.
      targets: The target class of each image, int32 [B], or None for any wrong class.
    """

    logits_fn: LogitsFn
    images: tf.Tensor
    labels: tf.Tensor
    radius: tf.Tensor
    index: tf.Tensor
    support: Support
    threat_model: ThreatModel
    targets: tf.Tensor | None = None

    def fooled(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns whether the attacker has reached the goal, bool [B]: a wrong class, or the target."""
        predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
        return predicted != self.labels if self.targets is None else predicted == self.targets

    def margin(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns the margin towards the attacker's goal, [B]: above 0 where `fooled`."""
        return losses.margin(logits, self.labels) if self.targets is None else -losses.margin(logits, self.targets)

    def budget(self, radius: tf.Tensor) -> tf.Tensor:
        """Returns the largest ⟨Π, C⟩ of each image at a radius, [B]."""
        return transport_budget(self.images, radius, self.threat_model)


class Perturbation(NamedTuple):
    """The result of `Attack.perturb`.

    Attributes:
      plan: The plan found, [B, T, H, W, C], or a Gibbs plan; it need not be feasible. None for an attack that does not
        move mass.
      raw: The image as the attack's paper returns it, [B, H, W, C].
      radius: The radius of each image, [B].
      iterations: Iterations used by each image, int32 [B].
    """

    plan: tf.Tensor | GibbsPlan | None
    raw: tf.Tensor
    radius: tf.Tensor
    iterations: tf.Tensor


class Gradient(NamedTuple):
    """The loss at a batch of images, its gradient [B, H, W, C] (non-finite entries are 0), and which are fooled [B]."""

    loss: tf.Tensor
    image_gradient: tf.Tensor
    fooled: tf.Tensor


def image_gradient(problem: Problem, images: tf.Tensor, loss: losses.AttackLoss) -> Gradient:
    """Returns the loss at images [B, H, W, C], its gradient, and which images are fooled."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = problem.logits_fn(images)
        # Towards a target, the loss of that class is minimised.
        value = loss(logits, problem.labels) if problem.targets is None else -loss(logits, problem.targets)
    gradient = tape.gradient(value, images)
    if gradient is None:
        raise ValueError("The classifier's output does not depend on its input by differentiable operations.")
    return Gradient(
        loss=value,
        image_gradient=tf.where(tf.math.is_finite(gradient), gradient, 0.0),
        fooled=problem.fooled(logits),
    )


def where_image(condition: tf.Tensor, chosen: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns tf.where for a condition on whole images, [B] against [B, …]."""
    return tf.where(tf.reshape(condition, [-1] + [1] * (chosen.shape.rank - 1)), chosen, other)


def choose(condition: tf.Tensor, chosen: Any, other: Any) -> Any:
    """Returns `where_image` on every tensor of two equal structures."""
    return tf.nest.map_structure(lambda new, old: where_image(condition, new, old), chosen, other)
