"""Scores stored adversarial examples again, without attacking."""

from typing import Any

import numpy as np

from wasser_tf.evaluation import metrics
from wasser_tf.evaluation.examples import Examples
from wasser_tf.evaluation.metrics import Predictions
from wasser_tf.transport.feasibility import Feasibility


def rescore(classifier: Any, stored: Examples) -> Examples:
    """Recomputes predictions, success, loss, and the pixel range and mass error of stored examples.

    The cost and the row, column and flow errors are kept, because they are measured on transport plans, which are not
    stored.

    Args:
      classifier: A Keras model, or any callable (images, training=False) -> [n, classes].
      stored: The examples, n images.

    Returns:
      The examples with the new values.
    """
    from_logits = metrics.is_from_logits(classifier, stored.images)

    def predict(images: np.ndarray) -> Predictions:
        return metrics.predict_unchecked(classifier, images, stored.labels, from_logits=from_logits)

    clean, feasible, raw = predict(stored.images), predict(stored.result.adversarial), predict(stored.result.raw)
    result = stored.result._replace(
        success=feasible.wrong,
        loss=feasible.loss,
        feasibility=_remeasure(stored.result.feasibility, stored.images, stored.result.adversarial),
        raw_success=raw.wrong,
        raw_loss=raw.loss,
        raw_feasibility=_remeasure(stored.result.raw_feasibility, stored.images, stored.result.raw),
    )
    return stored._replace(clean=clean, result=result)


def _remeasure(feasibility: Feasibility, images: np.ndarray, target: np.ndarray) -> Feasibility:
    """Returns the feasibility record with the pixel range and the mass error measured again."""
    pixels = (1, 2, 3)
    mass = images.sum(axis=pixels, dtype=np.float64)
    change = np.abs((target.astype(np.float64) - images).sum(axis=pixels))
    relative = np.divide(change, mass, out=np.where(change > 0, np.inf, 0.0), where=mass > 0)
    return feasibility._replace(
        min_pixel=target.min(axis=pixels), max_pixel=target.max(axis=pixels), mass_error=relative.astype(np.float32)
    )
