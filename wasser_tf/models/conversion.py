"""Images as they are given to images in [0, 1], channels last, and back."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from wasser_tf.models.classifier import CanonicalClassifier, Classifier
from wasser_tf.models.description import Description
from wasser_tf.models.inputs import as_array
from wasser_tf.models.inspection import input_spec


class PreparedImages(NamedTuple):
    """A classifier and images as attacks take them.

    Attributes:
      classifier: A plain classifier as it was given, else a `CanonicalClassifier`.
      from_logits: Whether it returns logits.
      images: The images, [n, H, W, C] in [0, 1] (not checked).
      restore: Converts such images back to the range and the order of those that were given.
      graph_error: Why the classifier cannot be part of a graph, so that it has no gradients; empty where it can.
      unstable: How the outputs of an image vary from call to call; empty where they do not.
      num_classes: The number of classes; None where the classifier was not looked at.
    """

    classifier: Any
    from_logits: bool | None
    images: Any
    restore: Callable[[np.ndarray], np.ndarray]
    graph_error: str = ""
    unstable: str = ""
    num_classes: int | None = None


def prepare_images(classifier: Any, images: Any, from_logits: bool | None = None) -> PreparedImages:
    """Finds out what a classifier takes and returns, and converts images accordingly.

    Images of a `Classifier` are in its own range and order. Those of any other classifier may be in [0, 1] and channels
    last too, whatever it takes: which of both they are in, their values and shape show.

    Args:
      classifier: Any classifier.
      images: The images.
      from_logits: Whether it returns logits, if that is known.

    Raises:
      ValueError: Something must be given that cannot be found out, or the images do not suit the classifier.
    """
    if isinstance(classifier, CanonicalClassifier) or not callable(classifier):
        unstable = getattr(getattr(classifier, "description", None), "unstable", "")
        return PreparedImages(classifier, True, images, lambda found: found, unstable=unstable)
    array = as_array("images", images)
    spec = input_spec(getattr(classifier, "model", classifier) if isinstance(classifier, Classifier) else classifier)
    expected = {4} if spec is None else {4, len(spec[0])}
    if array.ndim not in expected or len(array) == 0 or not np.issubdtype(array.dtype, np.number):
        return PreparedImages(classifier, from_logits, images, lambda found: found)
    given = classifier if isinstance(classifier, Classifier) else None
    if given is None:
        returns = None if from_logits is None else "logits" if from_logits else "probabilities"
        given = Classifier(classifier, returns=returns)
    description = given.describe(tuple(array.shape[1:]))
    if description.plain:
        is_logits = description.returns == "logits"
        return PreparedImages(
            given.model,
            is_logits,
            images,
            lambda found: found,
            description.graph_error,
            description.unstable,
            description.num_classes,
        )
    own_order = _is_in_own_order(array, description)
    own_range = _is_in_own_range(array, description)
    steps = description if own_range else dataclasses.replace(description, input_range=(0.0, 1.0))
    steps = steps if own_order else dataclasses.replace(steps, data_format="channels_last", layout="image")
    return PreparedImages(
        CanonicalClassifier(given.model, description),
        True,
        _to_canonical(array, steps),
        lambda found: _from_canonical(found, steps),
        description.graph_error,
        description.unstable,
        description.num_classes,
    )


def _to_canonical(array: np.ndarray, steps: Description) -> np.ndarray:
    if steps.input_range != (0.0, 1.0):
        array = array.astype(np.float32)
    elif steps.own_shape == steps.image_shape or not np.issubdtype(array.dtype, np.floating):
        return array  # Integers in [0, 1] are refused by `check_batch`.
    return steps.from_own(tf.constant(array)).numpy()


def _from_canonical(images: np.ndarray, steps: Description) -> np.ndarray:
    # Rounding must not lead out of the range.
    low, high = steps.input_range
    own = steps.to_own(tf.constant(images)).numpy()
    return np.where(np.reshape((images >= 0) & (images <= 1), -1).all(), np.clip(own, low, high), own)


def _is_in_own_order(array: np.ndarray, description: Description) -> bool:
    if array.shape[1:] == description.own_shape:
        return True
    if array.shape[1:] == description.image_shape:
        return False
    raise ValueError(
        f"The classifier takes images of shape {description.own_shape}"
        + (", channels first" if description.data_format == "channels_first" else " (height, width, channels)")
        + f", got {array.shape[1:]}; images must be channels last unless data_format is channels_first."
    )


def _is_in_own_range(array: np.ndarray, description: Description) -> bool:
    low, high = description.input_range
    if description.input_range == (0.0, 1.0):
        return True
    if not np.isfinite(array.astype(np.float64)).all():
        return False  # `check_batch` refuses them.
    smallest, largest = float(array.min()), float(array.max())
    tolerance = 1e-6 * (high - low)
    if smallest < low - tolerance or largest > high + tolerance:
        unit = "" if description.range_was_given else " (or [0, 1])"
        raise ValueError(
            f"images must lie in [{low:g}, {high:g}]{unit}, the range of the classifier, got values from "
            f"{smallest:.9g} to {largest:.9g}; put any further normalisation inside the classifier."
        )
    within_unit = np.issubdtype(array.dtype, np.floating) and 0 <= smallest and 0 < largest <= 1 < high / 10
    if description.range_was_given and within_unit:
        raise ValueError(
            f"images must lie in [{low:g}, {high:g}], the range of the classifier, got values from {smallest:.9g} to "
            f"{largest:.9g}: multiply them by {high:g}."
        )
    return not within_unit


def canonical_of(classifier: Any, image_shape: tuple[int, ...], from_logits: bool | None = None) -> Any:
    """Returns a classifier that takes images [n, H, W, C] in [0, 1]: itself where it does, else a canonical one.

    Args:
      classifier: Any classifier.
      image_shape: (H, W, C).
      from_logits: Whether it returns logits, if that is known.

    Raises:
      ValueError: Something must be given that cannot be found out.

    Example:
    >>> import keras
    >>> from wasser_tf.models import Classifier, build
    >>> plain = build("linear", (8, 8, 1), 10)
    >>> canonical_of(plain, (8, 8, 1)) is plain
    True
    >>> canonical_of(Classifier(plain, input_range=(0, 255)), (8, 8, 1)).description.input_range
    (0.0, 255.0)
    """
    if isinstance(classifier, CanonicalClassifier):
        return classifier
    given = classifier if isinstance(classifier, Classifier) else None
    if given is None:
        returns = None if from_logits is None else "logits" if from_logits else "probabilities"
        given = Classifier(classifier, returns=returns)
    height, width, channels = image_shape
    shape = (height, width, channels)
    if given.image_shape is None:
        given = dataclasses.replace(given, image_shape=shape)
    description = given.describe(shape)
    return given.model if description.plain else CanonicalClassifier(given.model, description)
