"""Metrics of adversarial examples: success, loss, precision error, cost and feasibility (section 7 of the paper)."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from wasser_tf.attacks import AttackResult, losses
from wasser_tf.models.conversion import prepare_images
from wasser_tf.models.inputs import check_batch, check_label_range, outputs_are_logits
from wasser_tf.models.logits import as_logits_fn
from wasser_tf.transport.feasibility import Feasibility


class Predictions(NamedTuple):
    """A classifier's predictions on n images.

    Attributes:
      predicted: The predicted classes, int32 [n].
      wrong: Whether the prediction differs from the label, bool [n].
      loss: Cross-entropy in nats, float32 [n].
    """

    predicted: np.ndarray
    wrong: np.ndarray
    loss: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of an attack: means over the images, and extremes over their feasibility records.

    Attributes:
      success_rate: Share of the images that are misclassified, clean or attacked.
      robust_accuracy: 1 − success_rate.
      cross_entropy: Mean loss on the examples, in nats.
      precision_error_mean: Mean of |Σx̃ − Σx| / Σx, the paper's precision error.
      precision_error_max: The largest precision error.
      max_cost_ratio: The largest cost / radius; above 1, an example lies outside its ball.
      min_pixel: The smallest pixel of any example.
      max_pixel: The largest pixel of any example.
      max_row_error: The largest max |Π1 − x| / m(x): mass that a plan creates or loses.
      max_column_error: The largest max |Πᵀ1 − x̃|: the distance of an example from the image that its plan produces.
      min_flow: The smallest entry of any plan.
      feasible_share: Share of the images whose example is feasible.
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
    """Evaluates a classifier on images.

    Args:
      classifier: A Keras model, or any callable (images, training=False) -> [n, classes].
      images: Float [n, H, W, C] in [0, 1].
      labels: Class indices [n], or one-hot.
      from_logits: Whether the classifier returns logits; detected by default, see `is_from_logits`.
      batch_size: Images at a time.

    Returns:
      The predictions.

    Raises:
      ValueError: The classifier does not accept the images or the labels.
    """
    seen = prepare_images(classifier, images, from_logits)
    classifier, from_logits = seen.classifier, seen.from_logits
    images, labels = check_batch(classifier, seen.images, labels)
    check_label_range(labels, seen.num_classes)
    return predict_unchecked(classifier, images, labels, from_logits=from_logits, batch_size=batch_size)


def predict_unchecked(
    classifier: Callable[..., Any],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    from_logits: bool | None = None,
    batch_size: int = 500,
) -> Predictions:
    """Evaluates a classifier on images whose pixels may lie outside [0, 1], such as raw examples.

    Like `predict`, but without validating the images.

    Args:
      classifier: A Keras model, or any callable (images, training=False) -> [n, classes].
      images: Float [n, H, W, C].
      labels: Class indices, int32 [n].
      from_logits: Whether the classifier returns logits; detected by default, see `is_from_logits`.
      batch_size: Images at a time.

    Returns:
      The predictions.
    """
    logits_fn = as_logits_fn(classifier, is_from_logits(classifier, images) if from_logits is None else from_logits)
    predicted, loss = [], []
    for start in range(0, len(images), batch_size):
        logits = logits_fn(tf.constant(images[start : start + batch_size]))
        predicted.append(tf.argmax(logits, axis=1, output_type=tf.int32).numpy())
        loss.append(losses.cross_entropy(logits, tf.constant(labels[start : start + batch_size])).numpy())
    classes = np.concatenate(predicted)
    return Predictions(classes, classes != labels, np.concatenate(loss))


def top_accuracy(classifier: Callable[..., Any], images: np.ndarray, labels: np.ndarray, count: int = 5) -> float:
    """Returns the share of the images whose class is among the `count` most probable ones.

    Args:
      classifier: A Keras model, or any callable (images, training=False) -> [n, classes].
      images: Float [n, H, W, C] in [0, 1].
      labels: Class indices, int32 [n].
      count: The number of classes.
    """
    return float(np.mean(ranks(classifier, images, labels, from_logits=is_from_logits(classifier, images)) < count))


def ranks(
    classifier: Callable[..., Any], images: np.ndarray, labels: np.ndarray, *, from_logits: bool, batch_size: int = 500
) -> np.ndarray:
    """Returns the number of classes that are more probable than the right one, int32 [n].

    Args:
      classifier: A Keras model, or any callable (images, training=False) -> [n, classes].
      images: Float [n, H, W, C] in [0, 1].
      labels: Class indices, int32 [n].
      from_logits: Whether the classifier returns logits.
      batch_size: Images at a time.
    """
    logits_fn = as_logits_fn(classifier, from_logits)
    found = []
    for start in range(0, len(images), batch_size):
        logits = logits_fn(tf.constant(images[start : start + batch_size])).numpy()
        right = np.take_along_axis(logits, labels[start : start + batch_size, None].astype(np.int64), axis=1)
        found.append((logits > right).sum(axis=1, dtype=np.int32))
    return np.concatenate(found)


def has_many_classes(classifier: Any) -> bool:
    """Returns whether top-5 accuracies are of interest: a Keras model with more than 10 classes."""
    shape = getattr(classifier, "output_shape", None)
    return isinstance(shape, tuple) and bool(shape[-1]) and shape[-1] > 10


def is_from_logits(classifier: Callable[..., Any], images: np.ndarray) -> bool:
    """Returns whether a classifier returns logits: from its last layer if that is conclusive, else from its outputs.

    Args:
      classifier: A Keras model, or any callable (images, training=False) -> [n, classes].
      images: Images to evaluate the classifier on, float [n, H, W, C]; at most 8 are used.
    """
    declared = prepare_images(classifier, images[:8]).from_logits
    return outputs_are_logits(classifier, images[:8]) if declared is None else declared


def score_feasible(result: AttackResult, clean_wrong: np.ndarray, capacity: float | None = 1.0) -> Scores:
    """Scores the feasible examples of an attack.

    Args:
      result: The result of the attack on n images.
      clean_wrong: Whether each clean image is misclassified, bool [n]; such images count as successes.
      capacity: The threat model's capacity.

    Returns:
      The scores.

    Raises:
      ValueError: There are no examples.
    """
    return score_examples(result.success, result.loss, result.feasibility, clean_wrong, capacity)


def score_raw(result: AttackResult, clean_wrong: np.ndarray, capacity: float | None = 1.0) -> Scores:
    """Scores the raw examples of an attack, before rounding to feasible ones; published results are usually raw.

    Args:
      result: The result of the attack on n images.
      clean_wrong: Whether each clean image is misclassified, bool [n]; such images count as successes.
      capacity: The threat model's capacity.

    Returns:
      The scores.

    Raises:
      ValueError: There are no examples.
    """
    return score_examples(result.raw_success, result.raw_loss, result.raw_feasibility, clean_wrong, capacity)


def score_examples(
    success: np.ndarray,
    loss: np.ndarray,
    feasibility: Feasibility,
    clean_wrong: np.ndarray,
    capacity: float | None = 1.0,
) -> Scores:
    """Scores n examples.

    Args:
      success: Whether each example is misclassified, bool [n].
      loss: Cross-entropy in nats, float [n].
      feasibility: The feasibility record, fields [n].
      clean_wrong: Whether each clean image is misclassified, bool [n]; such images count as successes.
      capacity: The threat model's capacity.

    Returns:
      The scores.

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
    """Returns cost / radius of each image, float64 [n]; at radius 0 it is 0 if no mass was moved, else infinite."""
    cost, radius = np.asarray(feasibility.cost, np.float64), np.asarray(feasibility.radius, np.float64)
    at_zero = np.where(cost > 0, np.inf, 0.0)
    return np.where(radius > 0, cost / np.where(radius > 0, radius, 1.0), at_zero)
