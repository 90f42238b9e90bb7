"""Checks of what the parts of this room are given, with one message each."""

from typing import Any

import numpy as np
import tensorflow as tf

from wasser_tf.runtime.arguments import is_whole
from wasser_tf.threat_model import ThreatModel

METHODS = ("ibp", "crown")


def check_method(method: Any) -> None:
    """Checks the name of a method of bounds.

    Raises:
      ValueError: It is neither "ibp" nor "crown".
    """
    if method not in METHODS:
        raise ValueError(f"method must be {' or '.join(METHODS)}, got {method!r}.")


def check_ball(threat_model: Any) -> None:
    """Checks the class of a threat model.

    Raises:
      ValueError: It is not a ThreatModel.
    """
    if not isinstance(threat_model, ThreatModel):
        raise ValueError(f"threat_model must be a wasser_tf.ThreatModel, got {threat_model!r}.")


def check_precision(dtype: Any, table_entries: Any = None) -> None:
    """Checks the type of bounds and the size of their tables.

    Raises:
      ValueError: The rounding of this type is not bounded, or the size is not a whole number.
    """
    if dtype not in (tf.float32, tf.float64):
        raise ValueError(
            f"dtype must be tf.float32 or tf.float64, got {dtype!r}: the rounding of other types is not bounded."
        )
    if table_entries is not None and not is_whole(table_entries, 0):
        raise ValueError(f"table_entries must be None or a whole number of at least 0, got {table_entries!r}.")


def check_batch_size(batch_size: Any) -> None:
    """Checks the number of images at a time.

    Raises:
      ValueError: It is not a whole number of at least 1.
    """
    if not is_whole(batch_size, 1):
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}.")


def radii_of(epsilon: Any, count: int) -> np.ndarray:
    """Returns one radius for each image, float64 [count].

    Args:
      epsilon: One radius, or one for each image.
      count: The number of images.

    Raises:
      ValueError: A radius is negative or not a number, or there is another number of radii.
    """
    found = np.asarray(epsilon, np.float64)
    if found.shape not in ((), (1,), (count,)):
        raise ValueError(f"epsilon must be one radius or {count}, one for each image, got an array of {found.shape}.")
    if not (found >= 0).all():
        raise ValueError(f"epsilon must be at least 0, got {epsilon!r}.")
    return np.broadcast_to(found, [count])
