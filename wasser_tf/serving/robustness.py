"""The robustness probe: the smallest radius at which a few mirror steps fool the classifier, as a graph.

The graph has only dense operations and a free batch dimension, so that a server runs it like any other signature.
"""

import dataclasses
import math
from typing import Any

import tensorflow as tf

from wasser_tf.attacks import MirrorAscent, losses
from wasser_tf.attacks.scoring import is_blind
from wasser_tf.models.logits import LogitsFn
from wasser_tf.runtime.arguments import check_number, is_whole
from wasser_tf.threat_model import ThreatModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobustnessProbe:
    """Settings of the signature `robustness`.

    Attributes:
      threat_model: The rules of the ball; its epsilon is not used.
      largest: The first radius, > 0, in units of the threat model's epsilon. Images that survive it get the radius inf.
      rounds: Number of radii, by bisection. Each costs one attack, so the time of a request is proportional to it.
      iterations: Mirror steps at each radius.

    Raises:
      ValueError: A field is out of its range.

    Example:
    >>> from wasser_tf import ThreatModel
    >>> RobustnessProbe(threat_model=ThreatModel(p=2.0), largest=0.5).get_config()["largest"]
    0.5
    """

    threat_model: ThreatModel
    largest: float = 1.0
    rounds: int = 6
    iterations: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.threat_model, ThreatModel):
            raise ValueError(f"threat_model must be a wasser_tf.ThreatModel, got {self.threat_model!r}.")
        check_number("largest", self.largest, above=0)
        for name in ("rounds", "iterations"):
            if not is_whole(getattr(self, name), 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {getattr(self, name)!r}.")

    def get_config(self) -> dict[str, Any]:
        """Returns the fields as plain Python values."""
        return dataclasses.asdict(self)


def smallest_radius(
    probe: RobustnessProbe, logits_fn: LogitsFn, images: tf.Tensor, logits: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Bisects the radius of each image, with one short attack at each radius.

    Args:
      probe: The settings.
      logits_fn: The classifier, [n, H, W, C] to logits [n, classes].
      images: float32 [n, H, W, C] in [0, 1].
      logits: float32 [n, classes], the classifier's logits. The attack changes the predicted class, right or wrong.

    Returns:
      The margin of the largest logit over the next, [n], at least 0; and the smallest radius at which the classifier
      was fooled, [n]: an upper bound of the image's minimal radius, inf where it never was;
      and whether the classifier has no usable gradient at the image (zero, not finite, or of saturated probabilities),
      so that the radius is not a sign of robustness, bool [n].
    """
    # polish=0: dual steps cost more than a short ascent, and rounding makes its plans feasible.
    attack = MirrorAscent(probe.threat_model, iterations=probe.iterations, polish=0)
    labels = tf.argmax(logits, axis=1, output_type=tf.int32)

    def attempt(count: tf.Tensor, low: tf.Tensor, high: tf.Tensor, tried: tf.Tensor) -> tuple[tf.Tensor, ...]:
        found = attack.run(logits_fn, images, labels, radius=tried)
        # The cost of an example may be smaller than the radius.
        high = tf.where(found.success, tf.minimum(high, tf.minimum(tried, found.feasibility.cost)), high)
        low = tf.minimum(tf.where(found.success, low, tried), high)
        # Images that survived the largest radius are attacked there again, without effect.
        return count + 1, low, high, tf.where(tf.math.is_finite(high), 0.5 * (low + high), tried)

    def unfinished(count: tf.Tensor, low: tf.Tensor, high: tf.Tensor, tried: tf.Tensor) -> tf.Tensor:
        return (count < probe.rounds) & ((count == 0) | tf.reduce_any(tf.math.is_finite(high)))

    zero = tf.zeros_like(logits[:, 0])
    start = (tf.constant(0), zero, zero + math.inf, zero + probe.largest)
    _, _, radius, _ = tf.while_loop(unfinished, attempt, start)
    with tf.GradientTape() as tape:
        tape.watch(images)
        margin = losses.margin(logits_fn(images), labels)
    flagged = is_blind(tape.gradient(margin, images), margin)
    return -losses.margin(logits, labels), radius, flagged
