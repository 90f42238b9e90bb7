"""The classifiers of keras.applications by name, with images in [0, 1] and logits, as all classifiers here."""

import inspect
import pathlib
import random
import types
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from wasser_tf.runtime.arguments import first_line

PREFIX = "keras:"
_WEIGHTS = "weights="
# What keras.applications builds unless it is given another size.
_CLASSES, _SIDE = 1000, {"InceptionV3": 299, "InceptionResNetV2": 299, "Xception": 299, "NASNetLarge": 331}


def is_application(name: Any) -> bool:
    """Returns whether a name is that of a classifier of keras.applications, such as "keras:MobileNetV2"."""
    return isinstance(name, str) and name.startswith(PREFIX)


def application_names() -> list[str]:
    """Returns the names of the classifiers of keras.applications."""
    return sorted(name for name in vars(keras.applications) if name[0].isupper())


def parse_application(text: str) -> tuple[str, pathlib.Path | None]:
    """Returns the name and the weights file of "keras:NAME" or "keras:NAME:weights=FILE".

    Args:
      text: The text.

    Returns:
      The name in keras.applications, and the path of the file or None.

    Raises:
      ValueError: The text is of another form, or the name is unknown.

    Example:
    >>> from wasser_tf.models.applications import parse_application
    >>> parse_application("keras:MobileNetV2")
    ('MobileNetV2', None)
    """
    name, colon, setting = text.removeprefix(PREFIX).partition(":")
    if name not in application_names():
        raise ValueError(
            f"keras.applications has no classifier {name!r}: pass {PREFIX} and one of {', '.join(application_names())}."
        )
    if colon and (not setting.startswith(_WEIGHTS) or setting == _WEIGHTS):
        raise ValueError(f"After {PREFIX}{name} there may be :weights=FILE, got {setting!r}.")
    return name, pathlib.Path(setting.removeprefix(_WEIGHTS)).expanduser() if colon else None


def weights_file(text: str) -> pathlib.Path:
    """Returns the weights file of "keras:NAME:weights=FILE".

    Raises:
      ValueError: No file is given, or there is none.
    """
    name, weights = parse_application(text)
    if weights is None:
        raise ValueError(f"{text} has random weights: give the file of its weights, {PREFIX}{name}:weights=FILE.")
    if not weights.is_file():
        raise ValueError(f"There is no file {weights}: give the weights of {name}, which model.save_weights wrote.")
    return weights


def load_application(text: str) -> keras.Model:
    """Loads "keras:NAME:weights=FILE" with its usual size and 1,000 classes.

    Args:
      text: The name and the file of the weights (.weights.h5 of `save_weights`, or an .h5 file of keras.applications).

    Returns:
      The classifier, from images [n, H, W, 3] in [0, 1] to logits [n, 1000].

    Raises:
      ValueError: The name is unknown, or the file is missing or has other weights.
    """
    weights_file(text)
    name, _ = parse_application(text)
    side = _SIDE.get(name, 224)
    return build_application(text, (side, side, 3), _CLASSES)


def build_application(
    text: str, image_shape: tuple[int, int, int], num_classes: int, *, seed: int | None = None, width: float = 1
) -> keras.Model:
    """Builds a classifier of keras.applications.

    Args:
      text: "keras:NAME" for random weights, or "keras:NAME:weights=FILE".
      image_shape: The height, width and number of channels of the images, whose values lie in [0, 1].
      num_classes: The number of classes.
      seed: The seed of random weights; None draws them from the global random state.
      width: The factor on the number of channels, for those that have one (`alpha`).

    Returns:
      A functional model from the input "image" to logits, with the conversion that the weights need in front.

    Raises:
      ValueError: The name is unknown, the images are too small, or the weights do not fit.
    """
    name, weights = parse_application(text)
    make = getattr(keras.applications, name)
    options: dict[str, Any] = {"input_shape": image_shape, "classes": num_classes, "classifier_activation": None}
    if width != 1:
        if "alpha" not in inspect.signature(make).parameters:
            raise ValueError(f"{name} has no width, got {width}: leave width out, or choose another classifier.")
        options["alpha"] = width
    if weights is not None:
        weights_file(text)
    state = random.getstate()
    try:
        if seed is not None:
            # Initializers without a seed draw one from it.
            random.seed(seed)
        inner = make(weights=None, **options)
    except ValueError as error:
        raise ValueError(
            f"{name} cannot be built for images of {'×'.join(map(str, image_shape))} ({first_line(error)}): choose "
            "another image_size, or another classifier."
        ) from error
    finally:
        if seed is not None:
            random.setstate(state)
    if weights is not None:
        try:
            inner.load_weights(weights)
        except Exception as error:  # Keras and h5py raise many types for a file that does not fit.
            raise ValueError(
                f"{weights} does not hold the weights of {name} for {num_classes} classes ({first_line(error)})."
            ) from error
    image = keras.Input(image_shape, name="image")
    return keras.Model(image, inner(_converted(image, name)), name=name.lower())


def _converted(image: Any, name: str) -> Any:
    """Returns images in [0, 1] as the classifier takes them, by layers that are stored with it."""
    flipped, scale, offset = _conversion(name, image.shape[-1])
    if flipped:
        image = image[..., ::-1]
    if np.ptp(scale) == np.ptp(offset) == 0:
        return keras.layers.Rescaling(float(scale[0]), float(offset[0]))(image)
    return keras.layers.Normalization(mean=(-offset / scale).tolist(), variance=(1 / scale**2).tolist())(image)


def _conversion(name: str, channels: int) -> tuple[bool, np.ndarray, np.ndarray]:
    """Returns whether the classifier takes BGR, and the scale and offset of each channel of images in [0, 1]."""
    modules = [module for module in vars(keras.applications).values() if isinstance(module, types.ModuleType)]
    module = next(module for module in modules if hasattr(module, name))
    preprocess: Callable[[np.ndarray], np.ndarray] = module.preprocess_input
    # It is an affine function of the pixel, possibly with another order of the channels.
    black = np.asarray(preprocess(np.zeros((1, 1, 1, 3), np.float32)), np.float64)[0, 0, 0]
    colours = np.asarray(preprocess(255 * np.eye(3, dtype=np.float32)[None]), np.float64)[0]
    flipped = abs(colours[0, 2] - black[2]) > abs(colours[0, 0] - black[0])
    scale = np.diag(colours[::-1] if flipped else colours) - black
    if channels != 3:
        if np.ptp(scale) or np.ptp(black):
            raise ValueError(f"{name} takes images of 3 channels, got {channels}: pass --channels=3 (channels=3).")
        return False, scale[:1], black[:1]
    return flipped, scale, black
