"""Resizing and cropping of images, and their conversion between greyscale and colour."""

from typing import Any

import numpy as np
import tensorflow as tf

from wasser_tf.data.dataset import Split
from wasser_tf.data.reading import ReadingOptions
from wasser_tf.runtime.memory import check_available

# Luma of ITU-R BT.601, as in Pillow and tf.image.rgb_to_grayscale.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Images resized at a time, to bound the memory of the intermediate results.
_BATCH = 1000
CENTER = (0.5, 0.5)


def fit(images: Any, size: tuple[int, int], crop: str = "none", place: Any = CENTER) -> tf.Tensor:
    """Resizes images to a size, bilinear and antialiased, and crops them if asked to.

    Args:
      images: An image [h, w, C] or images [n, h, w, C], numbers of any type.
      size: The height and width H, W of the result.
      crop: "none" to change the aspect ratio; otherwise the images are resized to cover H×W, and cropped.
      place: The place of the window, vertical and horizontal, from 0 (top, left) to 1 (bottom, right).

    Returns:
      The images, float32 [..., H, W, C], in the same scale. Interpolation may exceed the range by rounding.
    """
    if crop == "none":
        return tf.image.resize(images, size, antialias=True)
    given = tf.cast(tf.shape(images)[-3:-1], tf.float64)
    wanted = tf.constant(size, tf.float64)
    covering = tf.maximum(tf.cast(tf.round(given * tf.reduce_max(wanted / given)), tf.int32), size)
    resized = tf.image.resize(images, covering, antialias=True)
    offset = tf.cast(tf.round(tf.cast(place, tf.float64) * tf.cast(covering - size, tf.float64)), tf.int32)
    return resized[..., offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1], :]


def places_of(count: int, crop: str) -> np.ndarray:
    """Returns the place of the window of each training image, float64 [n, 2], a pure function of the arguments."""
    if crop != "random":
        return np.full((count, 2), CENTER)
    return np.random.RandomState(0).uniform(size=(count, 2))


def with_channels(images: np.ndarray, channels: int | None) -> np.ndarray:
    """Returns images [..., C] with the given number of channels, 1 or 3; None keeps them.

    Colours become their luma; greyscale becomes three equal channels.
    """
    if channels is None or images.shape[-1] == channels:
        return images
    return images @ _LUMA[:, None] if channels == 1 else np.repeat(images, 3, axis=-1)


def fit_split(split: Split, reading: ReadingOptions, training: bool, name: str) -> Split:
    """Returns a split in memory with its images resized, cropped and converted.

    Args:
      split: The examples.
      reading: The size, crop and channels.
      training: Whether these are training images, of which crop="random" takes random windows.
      name: The name of the dataset, for messages.

    Raises:
      ValueError: The result does not fit into memory, or the images are neither greyscale nor RGB.
    """
    images = split.images
    shape = shape_after(images.shape[1:], reading, name)
    if shape == images.shape[1:]:
        return split
    check_available(4 * len(images) * int(np.prod(shape, dtype=np.float64)), f"The {len(images)} images of {name}")
    fitted = np.empty((len(images), *shape), np.float32)
    places = places_of(len(images), reading.crop if training else "none")
    one_place = reading.crop != "random" or not training
    for start in range(0, len(images), _BATCH if one_place else 1):
        rows = slice(start, start + (_BATCH if one_place else 1))
        part: Any = images[rows]
        if reading.image_size is not None and shape[:2] != images.shape[1:3]:
            part = np.clip(fit(part, reading.image_size, reading.crop, places[start]).numpy(), 0, 1)
        fitted[rows] = with_channels(np.asarray(part), reading.channels)
    return split._replace(images=fitted)


def shape_after(shape: tuple[int, ...], reading: ReadingOptions, name: str) -> tuple[int, int, int]:
    """Returns the shape (H, W, C) that images of a shape have after reading.

    Raises:
      ValueError: Channels are to be converted, and there are neither 1 nor 3.
    """
    height, width, channels = shape
    if reading.channels is not None and channels not in (1, 3):
        raise ValueError(
            f"channels={reading.channels} converts between greyscale and RGB, and the images of {name} have {channels} "
            "channels: leave channels out."
        )
    if reading.image_size is not None:
        height, width = reading.image_size
    return height, width, reading.channels or channels
