"""Checks of the values of a batch within a training step, where Python cannot look at them."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

LABELS_NEEDED = "Labels are needed: pass y, or a dataset of (images, labels); predict does without."
NOT_ONE_CLASS = (
    "labels of rank 2 must be one-hot or soft rows, not negative, that add up to 1, but a batch has others: an image "
    "of several labels (multi-label) has no single class whose loss an attack could raise."
)
_TOLERANCE = 1e-2


def require(condition: tf.Tensor, sentence: str, value: tf.Tensor) -> tf.Tensor:
    """Returns a value that can be had only if a condition holds. XLA ignores the condition.

    Args:
      condition: A bool scalar.
      sentence: What is wrong if it is false, in ASCII. `failed_requirements` raises it.
      value: Any tensor.

    Raises:
      tf.errors.InvalidArgumentError: The condition is false, in eager execution. In a graph, the step raises it.
    """
    asserted = tf.debugging.Assert(condition, [f"<<{sentence}>>"])
    # In eager execution it is None and has already raised.
    with tf.control_dependencies([] if asserted is None else [asserted]):
        return tf.identity(value)


@contextlib.contextmanager
def failed_requirements() -> Iterator[None]:
    """Turns TensorFlow's error of a failed `require` into a ValueError with its sentence."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(r"<<(.+?)>>", str(error), re.DOTALL)
        if found is None:
            raise
        raise ValueError(found[1]) from None


def check_step_labels(y: Any, classes: int | None) -> tf.Tensor:
    """Checks the labels of a step.

    Args:
      y: Class indices [B] or [B, 1], or one-hot or soft rows [B, classes], which add up to 1.
      classes: The number of classes; None where it is not known.

    Returns:
      The labels, which depend on an assertion about their values (ignored by XLA).

    Raises:
      ValueError: There are none, or they have another shape.
    """
    if y is None:
        raise ValueError(LABELS_NEEDED)
    if not isinstance(y, tf.Tensor):
        raise ValueError(f"labels must be one tensor, got {type(y).__name__}.")
    shape = y.shape
    rows = shape.rank == 2 and shape[1] != 1
    if shape.rank is not None and (shape.rank not in (1, 2) or (rows and classes and shape[1] not in (None, classes))):
        raise ValueError(
            f"labels must be class indices [B], or one-hot or soft rows [B, {classes or 'classes'}], got {shape}."
        )
    if rows:
        return _check_rows(y)
    least, most = tf.cast(0, y.dtype), tf.cast((classes or 1) - 1, y.dtype)
    inside = tf.reduce_all(y >= least) if classes is None else tf.reduce_all((y >= least) & (y <= most))
    if y.dtype.is_floating:
        inside &= tf.reduce_all(y == tf.round(y))
    allowed = "0 or more" if classes is None else f"0 to {classes - 1}, as the classifier has {classes} classes"
    return require(inside, f"labels must be whole numbers, {allowed}, but a batch has others.", y)


def check_label_rows(y: np.ndarray) -> None:
    """Checks labels of rank 2 before training.

    Raises:
      ValueError: A row is negative somewhere or does not add up to 1.
    """
    if not np.issubdtype(y.dtype, np.number) or (y < 0).any() or (abs(y.sum(axis=1) - 1) > _TOLERANCE).any():
        raise ValueError(NOT_ONE_CLASS)


def _check_rows(y: tf.Tensor) -> tf.Tensor:
    values = tf.cast(y, tf.float32)
    sums = tf.reduce_sum(values, axis=1)
    one_class = tf.reduce_all(values >= 0) & tf.reduce_all(tf.abs(sums - 1) <= _TOLERANCE)
    return require(one_class, NOT_ONE_CLASS, y)
