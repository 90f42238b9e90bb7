"""Checks of the images, labels and outputs of a classifier, shared by attacks, training, certification and evaluation.

Messages describe what was given, what is needed and how to fix it.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.models.description import clip_rounding
from wasser_tf.models.inspection import describe_classifier, input_spec
from wasser_tf.models.step_checks import LABELS_NEEDED, check_label_rows, require

_PIXELS = (
    "images must be finite and lie in [0, 1], but a batch has other values; scale them, as in dataset.map(lambda x, y: "
    "(x / 255, y)), and put any further normalisation inside the classifier."
)


def check_batch(classifier: Any, images: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Checks images and labels, and returns them as float32 [n, H, W, C] and int32 [n].

    Args:
      classifier: The classifier; the input shape and number of classes of a Keras model are checked too.
      images: Floats in [0, 1], channels last.
      labels: Class indices [n] or [n, 1], or one-hot [n, classes].

    Raises:
      ValueError: They are not what the classifier takes; the message is one sentence.
    """
    if not callable(classifier):
        raise ValueError(f"The classifier must be callable, as a Keras model is, got {type(classifier).__name__}.")
    images, labels = as_array("images", images), as_array("labels", labels)
    if images.ndim != 4:
        raise ValueError(f"images must have shape [n, height, width, channels], got {images.shape}.")
    if len(images) == 0:
        raise ValueError(f"images must hold at least one image, got an empty batch of shape {images.shape}.")
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"images must be floats in [0, 1], got {images.dtype}; {_as_floats(images.dtype)}.")
    _check_channels_last(classifier, images.shape)
    if not np.isfinite(images).all():
        raise ValueError("images must be finite, got NaN or Inf.")
    images = clip_rounding(images)
    low, high = images.min(), images.max()
    if low < 0 or high > 1:
        raise ValueError(
            f"images must lie in [0, 1], got values from {_in_digits(low)} to {_in_digits(high)}; scale them, put any "
            "further normalisation inside the classifier, or give the classifier's range, as in "
            "wasser_tf.Classifier(model, input_range=(0, 255))."
        )
    return images.astype(np.float32), check_labels(labels, len(images), num_classes(classifier))


def as_array(name: str, given: Any) -> np.ndarray:
    """Converts what a user gave to an array.

    Raises:
      ValueError: It is nested lists of unequal lengths.
    """
    try:
        return np.asarray(given)
    except ValueError as error:
        raise ValueError(f"{name} must be an array whose rows have equal shapes, got rows of several.") from error


def _as_floats(dtype: Any) -> str:
    """Returns how to convert images of a dtype that is none of NumPy's floats."""
    if np.issubdtype(dtype, np.integer):
        return "divide 8-bit images by 255"
    return "convert them, as by np.asarray(images).astype(np.float32)"


def _first_of(labels: np.ndarray) -> str:
    """Returns the first label that is not a whole number, for a message."""
    first = labels.flat[0]
    if np.issubdtype(labels.dtype, np.floating):
        first = labels[~np.isfinite(labels) | (labels != np.round(labels))].flat[0]
    return repr(first.item() if isinstance(first, np.generic) else first)


def check_labels(labels: np.ndarray, count: int, classes: int | None) -> np.ndarray:
    """Returns labels as int32 [count]; one-hot rows become their class.

    Raises:
      ValueError: Wrong rank, length, type or range.
    """
    if labels.ndim == 2 and labels.shape[1] == 1 and classes != 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        if classes is not None and labels.shape[1] != classes:
            raise ValueError(
                f"One-hot labels must have {classes} columns, as the classifier has classes, got {labels.shape}."
            )
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise ValueError("Labels of rank 2 must be one-hot: one 1 in each row, and 0 elsewhere.")
        labels = labels.argmax(axis=1)
    if labels.ndim != 1 or len(labels) != count:
        raise ValueError(f"labels must have shape [{count}] or be one-hot [{count}, classes], got {labels.shape}.")
    if not np.issubdtype(labels.dtype, np.integer):
        whole = np.issubdtype(labels.dtype, np.floating) and np.isfinite(labels).all()
        if not whole or not np.array_equal(labels, np.round(labels)):
            raise ValueError(
                f"labels must be whole numbers, got {labels.dtype} {_first_of(labels)}: number the classes from 0."
            )
    check_label_range(labels, classes)
    return labels.astype(np.int32)


def check_label_range(labels: np.ndarray, classes: int | None) -> None:
    """Checks that labels are those of a classifier's classes, which are None where their number is not known.

    Raises:
      ValueError: A label is negative or too large.
    """
    if labels.min() < 0 or (classes is not None and labels.max() >= classes):
        allowed = "0 or more" if classes is None else f"0 to {classes - 1}, as the classifier has {classes} classes"
        raise ValueError(f"labels must be {allowed}, got {labels.min()} to {labels.max()}.")


def check_radius(radius: Any, count: int) -> np.ndarray:
    """Returns a radius for each image, float32 [count].

    Raises:
      ValueError: Not one number or one for each image, or negative or not finite.
    """
    try:
        radius = np.asarray(radius, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"radius must be one number or one for each image, got {radius!r}.") from error
    if radius.shape not in ((), (1,), (count,)):
        raise ValueError(f"radius must be one number or one for each of the {count} images, got shape {radius.shape}.")
    if not np.isfinite(radius).all() or (radius < 0).any():
        raise ValueError(f"radius must be finite and at least 0, got {radius.min()} to {radius.max()}.")
    return np.broadcast_to(radius, [count]).astype(np.float32)


def check_arrays(classifier: keras.Model, x: Any, y: Any, loss: Any = None) -> None:
    """Checks the arguments of `fit` and `evaluate`, if they are arrays or tensors.

    Args:
      classifier: The classifier.
      x: Images [N, H, W, C], or a dataset, which is not checked.
      y: Labels [N], [N, 1] or, one-hot or soft, [N, classes].
      loss: The loss of `compile`, if there is one.

    Raises:
      ValueError: The images or labels do not suit the classifier.
    """
    if isinstance(x, (np.ndarray, tf.Tensor)) and y is None:
        raise ValueError(LABELS_NEEDED)
    if isinstance(x, (np.ndarray, tf.Tensor)) and isinstance(y, (list, tuple)):
        raise ValueError(f"y must be an array of labels, got a {type(y).__name__}: pass np.asarray(y).")
    if isinstance(x, (np.ndarray, tf.Tensor)) and isinstance(y, (np.ndarray, tf.Tensor)):
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[-1] > 1 and _takes_indices(loss):
            raise ValueError(
                f"The loss takes class indices [{len(y)}], got rows {y.shape}: pass y.argmax(axis=1), or compile with "
                "keras.losses.CategoricalCrossentropy."
            )
        if y.ndim == 2 and y.shape[-1] != 1:
            check_label_rows(y)
        if len(np.shape(x)) == 4:
            refuse_other_inputs(classifier, tuple(np.shape(x)[1:]))
        check_batch(classifier, x, y if y.ndim == 1 or y.shape[-1] == 1 else y.argmax(axis=-1))


def _takes_indices(loss: Any) -> bool:
    sparse = keras.losses.SparseCategoricalCrossentropy, keras.losses.sparse_categorical_crossentropy
    return loss in ("sparse_categorical_crossentropy", sparse[1]) or isinstance(loss, sparse[0])


def refuse_other_inputs(classifier: Any, shape: tuple[int, ...] | None = None) -> None:
    """Raises an error if a Keras model is known to take other images than those in [0, 1], channels last.

    Args:
      classifier: The model.
      shape: The shape of one image, where the model does not specify it.

    Raises:
      ValueError: The model takes pixels in another range or order.
    """
    if not isinstance(classifier, keras.Model):
        return
    if not classifier.built:
        if shape is None:
            return
        if isinstance(classifier, keras.Sequential):
            # The look at the model would build it for the batch size of the look.
            classifier.build((None, *shape))
    known = input_spec(classifier)
    if shape is None and (known is None or None in known[0][1:]):
        return
    description = describe_classifier(classifier, shape)
    if description.input_range != (0.0, 1.0) or description.data_format != "channels_last":
        low, high = description.input_range
        raise ValueError(
            f"The classifier takes pixels in [{low:g}, {high:g}], {description.data_format.replace('_', ' ')}, but "
            "training takes images in [0, 1], channels last: put the conversion inside the classifier, or wrap it for "
            f"WasserTrain as wasser_tf.Classifier(model, input_range=({low:g}, {high:g}), "
            f"data_format={description.data_format!r}), which trains the model in place."
        )


def check_images(x: Any) -> tf.Tensor:
    """Checks the images of a step.

    Args:
      x: Images [B, H, W, C], float in [0, 1].

    Returns:
      The images as float32, which depend on an assertion about their values (ignored by XLA).

    Raises:
      ValueError: The images have another rank or type, or a size that is unknown when the step is compiled.
    """
    if not isinstance(x, tf.Tensor) or x.shape.rank != 4 or None in x.shape[1:]:
        shape = getattr(x, "shape", type(x).__name__)
        raise ValueError(f"Batches must be images [B, H, W, C] with H, W and C known at compile time, got {shape}.")
    if not x.dtype.is_floating:
        raise ValueError(f"images must be floats in [0, 1], got {x.dtype.name}; {_as_floats(x.dtype.as_numpy_dtype)}.")
    x = tf.cast(x, tf.float32)
    # False for NaN.
    return require(tf.reduce_all((x >= 0) & (x <= 1)), _PIXELS, x)


def check_output_shape(shape: Any) -> None:
    """Raises an error unless the outputs of a classifier are [B, classes].

    Raises:
      ValueError: The shape is different, or there is only one class.
    """
    # With several outputs it is a list or a dict of shapes.
    one = isinstance(shape, (tuple, tf.TensorShape)) and len(shape) == 2
    if not one or (shape[1] is not None and shape[1] < 2):
        raise ValueError(f"The classifier must return [B, classes] with at least 2 classes, got {shape}.")


def num_classes(classifier: Any) -> int | None:
    """Returns the number of classes of a Keras classifier, or None where the model does not define it."""
    shape = getattr(classifier, "output_shape", None)
    return shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else None


def outputs_are_logits(classifier: Any, images: np.ndarray) -> bool:
    """Returns whether a classifier returns logits: its `from_logits` if it has one, otherwise judged by its outputs.

    Args:
      classifier: Any callable (images, training=False) -> [n, classes].
      images: A few images.

    Raises:
      ValueError: The outputs are not [n, classes] with at least two classes.
    """
    try:
        outputs = np.asarray(classifier(images, training=False), np.float64)
    except TypeError as error:
        raise ValueError(f"The classifier must take (images, training=False), but: {error}.") from error
    if outputs.ndim != 2 or len(outputs) != len(images) or outputs.shape[1] < 2:
        raise ValueError(
            f"The classifier must return [n, classes] with at least 2 classes, got {outputs.shape} for {len(images)} "
            "images."
        )
    declared = getattr(classifier, "from_logits", None)
    if declared is not None:
        return bool(declared)
    return not ((outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-2))


def _check_channels_last(classifier: Any, shape: tuple[int, ...]) -> None:
    expected = getattr(classifier, "input_shape", None)
    if isinstance(expected, tuple) and len(expected) == 4:
        if any(want is not None and want != got for want, got in zip(expected[1:], shape[1:], strict=True)):
            raise ValueError(
                f"The classifier takes images of shape {expected[1:]} (height, width, channels), got {shape[1:]}; "
                "images must be channels last."
            )
    elif shape[3] > 4 and shape[1] <= 4:
        raise ValueError(f"images must be channels last [n, height, width, channels], got {shape}; transpose them.")


def _in_digits(value: Any) -> str:
    """Returns a number in as many digits as show that it is not 0 or 1."""
    texts = [f"{value:.{digits}g}" for digits in (4, 9, 17)]
    return next((text for text in texts if text not in ("0", "1")), texts[-1])
