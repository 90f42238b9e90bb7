"""What is measured of adversarial examples (section 7 of the paper's mathematics), from an attack's result."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from wasser_tf.attacks import AttackResult, losses
from wasser_tf.attacks.inputs import check_batch, outputs_are_logits
from wasser_tf.models.conversion import prepare_images
from wasser_tf.models.logits import as_logits_fn
from wasser_tf.transport.feasibility import Feasibility


class Predictions(NamedTuple):
    """What a classifier says of some images.

    Attributes:
      predicted: The class of the largest output, int32 [n].
      wrong: Whether that is not the label, bool [n].
      loss: Cross-entropy in nats, float32 [n].
    """

    predicted: np.ndarray
    wrong: np.ndarray
    loss: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """An attack in numbers: means over the images, and the extremes of their feasibility records.

    Attributes:
      success_rate: Share of the images that are misclassified, clean or attacked.
      robust_accuracy: 1 − success_rate.
      cross_entropy: Mean loss on the examples, in nats.
      precision_error_mean: Mean of |Σx̃ − Σx| / Σx, the paper's precision error.
      precision_error_max: The largest.
      max_cost_ratio: The largest cost / radius; above 1 an example has left its ball.
      min_pixel: The smallest pixel of any example.
      max_pixel: The largest.
      max_row_error: The largest max |Π1 − x| / m(x): mass that a plan makes or loses.
      max_column_error: The largest max |Πᵀ1 − x̃|: how far an example is from the one its plan makes.
      min_flow: The smallest entry of any plan.
      feasible_share: Share of the images whose feasibility record is valid.
    """

    success_rate: float
    robust_accuracy: float
    cross_entropy: float
    precision_error_mean: float
    precision_error_max: float
    max_cost_ratio: float
    min_pixel: float
    max_pixel: float
    max_row_error: float
    max_column_error: float
    min_flow: float
    feasible_share: float


def predict(
    classifier: Callable[..., Any],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    from_logits: bool | None = None,
    batch_size: int = 500,
) -> Predictions:
    """Asks a classifier about images.

    Args:
      classifier: A Keras model, or any callable (images, training=False) -> [n, classes].
      images: Float [n, H, W, C] in [0, 1].
      labels: Class indices [n], or one-hot.
      from_logits: Whether it returns logits; told as `is_from_logits` does by default.
      batch_size: Images at a time.

    Raises:
      ValueError: The input is not what the classifier takes.
    """
    seen = prepare_images(classifier, images, from_logits)
    classifier, from_logits = seen.classifier, seen.from_logits
    images, labels = check_batch(classifier, seen.images, labels)
    return predict_unchecked(classifier, images, labels, from_logits=from_logits, batch_size=batch_size)


def predict_unchecked(
    classifier: Callable[..., Any],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    from_logits: bool | None = None,
    batch_size: int = 500,
) -> Predictions:
    """As `predict`, for images that may be infeasible: those an attack made before they were feasible."""
    logits_fn = as_logits_fn(classifier, is_from_logits(classifier, images) if from_logits is None else from_logits)
    predicted, loss = [], []
    for start in range(0, len(images), batch_size):
        logits = logits_fn(tf.constant(images[start : start + batch_size]))
        predicted.append(tf.argmax(logits, axis=1, output_type=tf.int32).numpy())
        loss.append(losses.cross_entropy(logits, tf.constant(labels[start : start + batch_size])).numpy())
    classes = np.concatenate(predicted)
    return Predictions(classes, classes != labels, np.concatenate(loss))


def is_from_logits(classifier: Callable[..., Any], images: np.ndarray) -> bool:
    """Tells whether a classifier returns logits: by its last layer where that says it, else by its outputs.

    Args:
      classifier: Any classifier.
      images: A few images to ask about.
    """
    declared = prepare_images(classifier, images[:8]).from_logits
    return outputs_are_logits(classifier, images[:8]) if declared is None else declared


def score_feasible(result: AttackResult, clean_wrong: np.ndarray, capacity: float | None = 1.0) -> Scores:
    """Scores the feasible examples, the ones that count.

    Args:
      result: From `Attack.__call__`, for n images.
      clean_wrong: Whether each clean image is misclassified, bool [n]; those count as successes.
      capacity: That of the threat model.
    """
    return score_examples(result.success, result.loss, result.feasibility, clean_wrong, capacity)


def score_raw(result: AttackResult, clean_wrong: np.ndarray, capacity: float | None = 1.0) -> Scores:
    """As `score_certified`, for what the attack made before it was feasible: what papers score, feasible or not."""
    return score_examples(result.raw_success, result.raw_loss, result.raw_feasibility, clean_wrong, capacity)


def score_examples(
    success: np.ndarray,
    loss: np.ndarray,
    feasibility: Feasibility,
    clean_wrong: np.ndarray,
    capacity: float | None = 1.0,
) -> Scores:
    """Scores n examples by their success [n], loss [n] and feasibility record.

    Raises:
      ValueError: There are no examples.
    """
    if len(success) == 0:
        raise ValueError("There must be at least one example to score, got none.")
    success_rate = float(np.mean(success | clean_wrong))
    return Scores(
        success_rate=success_rate,
        robust_accuracy=1.0 - success_rate,
        cross_entropy=float(np.mean(loss, dtype=np.float64)),
        precision_error_mean=float(np.mean(feasibility.mass_error, dtype=np.float64)),
        precision_error_max=float(np.max(feasibility.mass_error)),
        max_cost_ratio=float(np.max(cost_ratio(feasibility))),
        min_pixel=float(np.min(feasibility.min_pixel)),
        max_pixel=float(np.max(feasibility.max_pixel)),
        max_row_error=float(np.max(feasibility.row_error)),
        max_column_error=float(np.max(feasibility.column_error)),
        min_flow=float(np.min(feasibility.min_flow)),
        feasible_share=float(np.mean(feasibility.feasible(capacity))),
    )


def cost_ratio(feasibility: Feasibility) -> np.ndarray:
    """Returns cost / radius of each image, [n]; at radius 0 it is 0 if nothing was moved, else infinite."""
    cost, radius = np.asarray(feasibility.cost, np.float64), np.asarray(feasibility.radius, np.float64)
    at_zero = np.where(cost > 0, np.inf, 0.0)
    return np.where(radius > 0, cost / np.where(radius > 0, radius, 1.0), at_zero)
