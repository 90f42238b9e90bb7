"""Checks of the settings, images and labels of WasserTrain, before training and within its steps."""

import contextlib
import numbers
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.attacks import Attack
from wasser_tf.attacks.inputs import check_batch
from wasser_tf.runtime.arguments import check_bool, check_number, is_whole
from wasser_tf.training.trainable import refuse_other_inputs

_PIXELS = (
    "images must be finite and lie in [0, 1], but a batch has other values; scale them, as in dataset.map(lambda x, y: "
    "(x / 255, y)), and put any further normalisation inside the classifier."
)


def check_arrays(classifier: keras.Model, x: Any, y: Any) -> None:
    """Checks the arguments of `fit` and `evaluate`, if they are arrays or tensors.

    Args:
      classifier: The classifier.
      x: Images [N, H, W, C], or a dataset, which is not checked.
      y: Labels [N], [N, 1] or, one-hot or soft, [N, classes].

    Raises:
      ValueError: The images or labels do not suit the classifier.
    """
    if isinstance(x, (np.ndarray, tf.Tensor)) and isinstance(y, (np.ndarray, tf.Tensor)):
        y = np.asarray(y)
        if len(np.shape(x)) == 4:
            refuse_other_inputs(classifier, tuple(np.shape(x)[1:]))
        # The values of soft labels are checked by Keras.
        check_batch(classifier, x, y if y.ndim == 1 or y.shape[-1] == 1 else y.argmax(axis=-1))


def images_and_numbers(x: Any) -> tuple[Any, Any]:
    """Splits the input of a step into images and their numbers.

    Args:
      x: Images, or a dict of "image" and, optionally, "number".

    Returns:
      The images, and their numbers in the training set, integers [B], or None.

    Raises:
      ValueError: The dict has other keys.
    """
    if not isinstance(x, dict):
        return x, None
    if not {"image"} <= set(x) <= {"image", "number"}:
        raise ValueError(f'x must be images, or {{"image": images, "number": numbers}}, got the keys {sorted(x)}.')
    return x["image"], x.get("number")


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
        raise ValueError(f"images must be floats in [0, 1], got {x.dtype.name}; divide 8-bit images by 255.")
    x = tf.cast(x, tf.float32)
    # False for NaN. XLA ignores assertions.
    feasible = tf.debugging.Assert(tf.reduce_all((x >= 0) & (x <= 1)), [_PIXELS])
    # In eager execution it is None and has already raised.
    with tf.control_dependencies([] if feasible is None else [feasible]):
        return tf.identity(x)


@contextlib.contextmanager
def pixel_errors() -> Iterator[None]:
    """Turns TensorFlow's error of a failed assertion about pixels into a ValueError with its message."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if _PIXELS not in str(error):
            raise
        raise ValueError(_PIXELS) from None


def check_output_shape(shape: Any) -> None:
    """Raises an error unless the outputs of a classifier are [B, classes].

    Raises:
      ValueError: The shape is different, or there is only one class.
    """
    # With several outputs it is a list or a dict of shapes.
    one = isinstance(shape, (tuple, tf.TensorShape)) and len(shape) == 2
    if not one or (shape[1] is not None and shape[1] < 2):
        raise ValueError(f"The classifier must return [B, classes] with at least 2 classes, got {shape}.")


def check_has_radius(random_radius: bool, attack: Attack) -> None:
    """Raises an error if random radii are set for an attack without a radius.

    Raises:
      ValueError: The attack has no radius.
    """
    if random_radius and not attack.has_radius:
        raise ValueError(
            f"random_radius needs an attack that has a radius, and {attack.name} has none: leave random_radius out, or "
            "choose another attack."
        )


def check_training_settings(
    *, attack: Any, omega: Any, attack_chunk: Any, random_radius: Any, trades_beta: Any
) -> None:
    """Checks the settings of `WasserTrain` that can be changed at any time; see there for their meaning.

    Raises:
      ValueError: A setting is out of its range, or the attack does not support another setting.
    """
    if not isinstance(attack, Attack):
        raise ValueError(
            f"attack must be a wasser_tf.attacks.Attack such as WasserAttack(ThreatModel()), got {attack!r}."
        )
    check_number("omega", omega, least=0, most=1)
    if attack_chunk is not None and not is_whole(attack_chunk, 1):
        raise ValueError(f"attack_chunk must be a whole number of at least 1, or None, got {attack_chunk!r}.")
    check_bool("random_radius", random_radius)
    if random_radius and attack.schedule is not None:
        raise ValueError("random_radius needs an attack without a schedule, which sets the radius itself.")
    check_has_radius(random_radius, attack)
    check_number("trades_beta", trades_beta, least=0)


def is_real(value: Any) -> bool:
    """Returns whether a value is a real number of Python or NumPy."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def dtype_policy(classifier: keras.Model) -> Any:
    """Returns the policy of the classifier, or mixed_float16, which scales the loss, if any of its layers uses it."""
    return "mixed_float16" if "float16" in set(_compute_dtypes(classifier)) else classifier.dtype_policy


def _compute_dtypes(layer: keras.Layer) -> Iterator[str]:
    yield layer.compute_dtype
    for inner in getattr(layer, "layers", ()):
        yield from _compute_dtypes(inner)
