"""Images that are read from files as they are needed, for sets that do not fit into memory."""

import contextlib
import functools
import multiprocessing.pool
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from wasser_tf.data.reading import ReadingOptions
from wasser_tf.runtime import memory

# The share of the available memory that a set may take. A training holds its split twice.
_SHARE = 0.5
# Images read at a time where all of them are passed through.
CHUNK = 256


class StreamedImages:
    """Images that are read when they are indexed, in parallel: `images[rows]` is an array, as for an array in memory.

    It has the shape, type and length of an array [n, H, W, C], and is indexed along the first axis only. Nothing is
    cached, so that memory does not grow with the number of images.

    Attributes:
      rows: The numbers that `read` takes, int64 [n].
      shape: n, height, width and channels.
      failure: The error of the image that a tf.data pipeline could not read, or None.
    """

    dtype = np.dtype(np.float32)
    ndim = 4

    def __init__(self, read: Callable[[int], np.ndarray], rows: np.ndarray, image_shape: tuple[int, int, int]):
        """Initialises the images; nothing is read.

        Args:
          read: Returns the image of a number, float32 [H, W, C] in [0, 1], always the same. Several threads call it.
          rows: The numbers of the images, in their order.
          image_shape: Height, width and channels.
        """
        self._read = read
        self.failure: Exception | None = None
        self.rows = np.asarray(rows, np.int64)
        self.shape = (len(self.rows), *image_shape)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """The number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, key: Any) -> np.ndarray:
        """Returns an image [H, W, C] for a number, and images [m, H, W, C] for a slice, numbers [m] or a mask [n]."""
        chosen = self.rows[key]
        if chosen.ndim == 0:
            return self._read(int(chosen))
        images = np.empty((len(chosen), *self.shape[1:]), np.float32)

        def fill(place: int) -> None:
            images[place] = self._read(int(chosen[place]))

        _pool().map(fill, range(len(chosen)))
        return images

    def take(self, rows: np.ndarray) -> "StreamedImages":
        """Returns the images at some positions, which are not read either."""
        return StreamedImages(self._read, self.rows[rows], self.shape[1:])

    def read_in_pipeline(self, rows: np.ndarray) -> np.ndarray:
        """Returns the images at some positions; an error is kept for `report_unreadable`."""
        try:
            return self[rows]
        except Exception as error:
            self.failure = error
            raise

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Reads all images.

        Raises:
          ValueError: They do not fit into memory.
        """
        memory.check_available(4.0 * self.size, f"The {len(self)} images", "index some of them")
        return self[:] if dtype is None else self[:].astype(dtype)


def is_streamed(images: Any) -> bool:
    """Returns whether images are read as they are needed."""
    return isinstance(images, StreamedImages)


def select_images(images: Any, rows: np.ndarray) -> Any:
    """Returns the images at some positions: an array for an array, `StreamedImages` for those."""
    return images.take(rows) if is_streamed(images) else images[rows]


def in_chunks(images: Any, size: int = CHUNK) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields the images with their rows; an array in memory at once, `StreamedImages` `size` at a time."""
    step = size if is_streamed(images) else max(1, len(images))
    for start in range(0, len(images), step):
        rows = slice(start, min(start + step, len(images)))
        yield rows, images[rows]


def checkable(images: Any, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns what a classifier can be checked with: all images in memory; of a stream the one of the last class."""
    if not is_streamed(images):
        return images, labels
    rows = np.array([int(np.argmax(labels))])
    return images[rows], labels[rows]


def read_rows(images: Any, rows: tf.Tensor) -> tf.Tensor:
    """Returns images in a tf.data pipeline, float32 [b, H, W, C].

    Args:
      images: `StreamedImages`.
      rows: Their positions, int64 [b].
    """
    found = tf.numpy_function(images.read_in_pipeline, [rows], tf.float32)
    return tf.ensure_shape(found, [rows.shape[0], *images.shape[1:]])


@contextlib.contextmanager
def report_unreadable(images: Any) -> Iterator[None]:
    """Turns the error of a tf.data pipeline in which an image of a stream could not be read into that of the image.

    Raises:
      ValueError: The image cannot be read.
    """
    try:
        yield
    except tf.errors.OpError as error:
        raise (getattr(images, "failure", None) or error) from None


def is_to_stream(needed: float, reading: ReadingOptions, what: str) -> bool:
    """Returns whether images are to be read as they are needed.

    Args:
      needed: The bytes that they take in memory.
      reading: The options, of which `streaming` decides.
      what: The name of the images, in the plural.

    Raises:
      ValueError: They are to be held in memory, and do not fit.
    """
    if reading.streaming == "never":
        memory.check_available(needed, what, "choose a smaller image_size or fewer images, or leave out streaming")
    available = memory.available_memory()
    too_large = available is not None and needed > _SHARE * available
    return reading.streaming == "always" or (reading.streaming == "auto" and too_large)


@functools.cache
def _pool() -> multiprocessing.pool.ThreadPool:
    # Pillow and TensorFlow release the interpreter lock while they decode and resize. The executors of
    # concurrent.futures share one lock. If garbage collection frees the iterator of a pipeline while a thread holds
    # it, the thread waits for the pipeline, which waits for the lock.
    return multiprocessing.pool.ThreadPool(min(32, 2 * (os.cpu_count() or 1)))
