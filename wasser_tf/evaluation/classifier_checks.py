"""The sanity checks of a classifier alone: an attack by gradients is meaningful only if they pass."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from wasser_tf.attacks.losses import margin
from wasser_tf.attacks.scoring import is_blind
from wasser_tf.evaluation import metrics
from wasser_tf.evaluation.check import Check
from wasser_tf.models.conversion import prepare_images
from wasser_tf.models.inputs import check_batch
from wasser_tf.models.logits import as_logits_fn
from wasser_tf.runtime.formatting import percent


class ClassifierChecker:
    """Checks that a classifier is deterministic, treats images separately and has gradients.

    Attributes:
      classifier: The classifier.
      images: Float32 [n, H, W, C] in [0, 1].
      labels: Class indices, int32 [n].
      from_logits: Whether the classifier returns logits.
    """

    def __init__(self, classifier: Callable[..., Any], images: np.ndarray, labels: np.ndarray):
        """Initialises the checker.

        Args:
          classifier: A Keras model, or any callable (images, training=False) -> [n, classes].
          images: Float [n, H, W, C] in [0, 1].
          labels: Class indices [n], or one-hot.

        Raises:
          ValueError: The classifier does not accept the images.
        """
        seen = prepare_images(classifier, images)
        self.classifier = seen.classifier
        self.images, self.labels = check_batch(seen.classifier, seen.images, labels)
        self.from_logits = metrics.is_from_logits(seen.classifier, self.images)

    def deterministic(self) -> Check:
        """Checks that the classifier returns the same outputs for the same images."""
        first, second = self._outputs(self.images), self._outputs(self.images)
        difference, scale = float(np.abs(first - second).max()), float(np.abs(first).max())
        return Check(
            name="the classifier is deterministic",
            passed=difference <= 1e-4 * max(scale, 1e-6),
            measured=f"outputs of the same images differ by up to {difference:.2g} (largest output {scale:.2g})",
            needed="at most 1e-4 of the largest output",
            masking=True,
        )

    def independent_of_batch(self) -> Check:
        """Checks that an image alone has the same outputs as in a batch; batch statistics would change them."""
        count = min(4, len(self.images))
        together = self._outputs(self.images)[:count]
        alone = np.concatenate([self._outputs(self.images[row : row + 1]) for row in range(count)])
        difference, scale = float(np.abs(together - alone).max()), float(np.abs(together).max())
        return Check(
            name="outputs do not depend on the batch",
            passed=difference <= 1e-3 * max(scale, 1e-6),
            measured=f"outputs differ by up to {difference:.2g} (largest output {scale:.2g})",
            needed="at most 1e-3 of the largest output",
            masking=True,
        )

    def gradients(self) -> Check:
        """Checks that the margin has a gradient at the images."""
        margins, gradient = self._margin_gradient
        name = "the margin has a gradient"
        needed = "at most 5 % of the images without a finite gradient above rounding error"
        if gradient is None:
            return Check(
                name=name,
                passed=False,
                measured="the outputs are not differentiable",
                needed=needed,
                masking=True,
            )
        useless = float(np.mean(is_blind(gradient, margins)))
        return Check(
            name=name,
            passed=useless <= 0.05,
            measured=f"{percent(useless, 1)} of the images have no gradient",
            needed=needed,
            masking=True,
        )

    def _outputs(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.classifier(tf.constant(images), training=False), np.float64)

    @functools.cached_property
    def _margin_gradient(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The margin [n] at the images and its gradient [n, H, W, C], or None if the outputs are not differentiable."""
        logits_fn = as_logits_fn(self.classifier, self.from_logits)
        images = tf.constant(self.images)
        with tf.GradientTape() as tape:
            tape.watch(images)
            value = margin(logits_fn(images), tf.constant(self.labels))
        return value, tape.gradient(value, images)
