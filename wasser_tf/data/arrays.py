"""Datasets out of arrays: .npz files, NumPy arrays and tf.data datasets."""

import dataclasses
import hashlib
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from wasser_tf.data.dataset import SPLITS, Dataset, Split, no_examples
from wasser_tf.data.division import check_classes, divide
from wasser_tf.data.reading import ReadingOptions
from wasser_tf.data.sizing import fit_split, shape_after
from wasser_tf.runtime import storage
from wasser_tf.runtime.memory import check_available

_KEYS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
# White of whole numbers: 2^k − 1, or 2^k as in scikit-learn's digits.
_WHITES = {2**bits - less for bits in range(1, 17) for less in (0, 1)} - {1}


def from_arrays(
    train: Any = None,
    test: Any = None,
    *,
    validation: Any = None,
    name: str = "arrays",
    splits: Sequence[str] | None = None,
    validation_size: int | None = None,
    image_size: tuple[int, int] | None = None,
    crop: str = "none",
    channels: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """Makes a dataset out of arrays or tf.data datasets.

    Args:
      train: The examples of the split: a pair of images [n, H, W, C] or [n, H, W] and labels [n] or [n, 1], or a finite
        `tf.data.Dataset` of such pairs (single examples or batches). Images are uint8, uint16, or floats in [0, 1].
        Floats that are whole numbers up to 2^k or 2^k − 1 are divided by it, with a warning. Labels are whole numbers
        from 0. None if there are no such examples.
      test: Likewise.
      validation: Likewise. Missing splits are held out of train, as `wasser_tf.data.load` does.
      name: The name of the dataset.
      splits: The splits to make (default: all, or those that are given without train).
      validation_size: The number of training images held out for validation.
      image_size: The height and width to resize to.
      crop: See `ReadingOptions`, as for the next two.
      channels: The number of channels, 1 or 3.
      class_names: The names of the classes.

    Returns:
      The dataset, with float32 images in [0, 1].

    Raises:
      ValueError: The arrays do not fit together, or have values out of their range.

    Example:
    >>> import numpy as np
    >>> from wasser_tf import data
    >>> images, labels = np.zeros((24, 8, 8), np.uint8), np.arange(24) % 2
    >>> dataset = data.from_arrays((images, labels), class_names=("a", "b"))
    >>> dataset.train.images.shape, dataset.test.labels.shape
    ((18, 8, 8, 1), (4,))
    """
    reading = ReadingOptions(
        image_size=image_size,
        crop=crop,
        channels=channels,
        class_names=None if class_names is None else tuple(class_names),
    )
    given = {"train": train, "validation": validation, "test": test}
    stored = {part: _pair(value, f"{name}, {part}") for part, value in given.items() if value is not None}
    wanted = splits or (SPLITS if "train" in stored else tuple(stored))
    return _assemble(stored, name, wanted, validation_size, reading, None)


def load_npz(
    path: pathlib.Path, name: str, splits: Sequence[str], validation_size: int | None, reading: ReadingOptions
) -> Dataset:
    """Loads the x_train, y_train, x_test, y_test and so on of an .npz file; see `wasser_tf.data.load`."""
    arrays = storage.read_arrays(path)
    stored = {}
    for part, keys in _KEYS.items():
        for key in keys:
            pair = [array for letter in "xy" if (array := arrays.get(f"{letter}_{key}")) is not None]
            if len(pair) == 1:
                raise ValueError(f"{path} must hold x_{key} and y_{key}, and has only one of them: save both.")
            if pair:
                stored[part] = _pair(tuple(pair), f"{path}, {part}")
                break
    if not stored:
        raise ValueError(
            f"{path} must hold x_train and y_train or x_test and y_test, got {', '.join(arrays) or 'no named arrays'}: "
            "save them with numpy.savez."
        )
    names = arrays.get("class_names")
    if names is not None and reading.class_names is None:
        reading = dataclasses.replace(reading, class_names=tuple(str(each) for each in names.reshape(-1)))
    with open(path, "rb") as stream:
        content = hashlib.file_digest(stream, "sha256").hexdigest()
    digest = hashlib.sha256(f"{content} {sorted(reading.to_json().items())}".encode()).hexdigest()
    return _assemble(stored, name, splits, validation_size, reading, digest)


def _assemble(
    stored: Mapping[str, Split],
    name: str,
    splits: Sequence[str],
    validation_size: int | None,
    reading: ReadingOptions,
    digest: str | None,
) -> Dataset:
    """Divides stored examples into splits, and resizes them."""
    if not stored:
        raise ValueError(f"{name} has no examples: give train, validation or test.")
    shapes = {split.images.shape[1:] for split in stored.values()}
    if len(shapes) > 1:
        raise ValueError(f"The images of all splits of {name} must have the same shape, got {sorted(shapes)}.")
    largest = max(int(split.labels.max()) for split in stored.values())
    names = reading.class_names or tuple(map(str, range(max(2, largest + 1))))
    if largest >= len(names):
        raise ValueError(f"class_names must name the classes 0 to {largest} of {name}, got {len(names)} names.")
    white = _white_of(stored, name)
    labels = {part: split.labels for part, split in stored.items()}
    divided = divide(labels, splits, validation_size, name)
    check_classes(labels, divided, names, name)
    shape = shape_after(shapes.pop(), reading, name)
    parts = {key: no_examples(shape) for key in SPLITS}
    for split, (part, rows) in divided.items():
        whole = stored[part]
        chosen = whole if len(rows) == len(whole.labels) else Split(*(array[rows] for array in whole))
        parts[split] = fit_split(_as_floats(chosen, white, f"{name}, {part}"), reading, split == "train", name)
    return Dataset(name, **parts, num_classes=len(names), class_names=reading.class_names, digest=digest)


def _pair(given: Any, name: str) -> Split:
    """Returns examples as a split whose images still have their type."""
    if isinstance(given, tf.data.Dataset):
        given = _read_dataset(given, name)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ValueError(
            f"{name} must be a pair of images and labels, or a tf.data.Dataset of pairs, got {given!r:.80}."
        )
    images, labels = np.asarray(given[0]), np.asarray(given[1])
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"The images of {name} must be an array [n, height, width, channels], got {images.shape}.")
    if images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise ValueError(
            f"The images of {name} must have their channels last, got {images.shape}: pass "
            "images.transpose(0, 2, 3, 1)."
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        raise ValueError(f"The labels of {name} must be whole numbers [n], got {labels.shape}: pass labels.argmax(1).")
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"The labels of {name} must be whole numbers, one for each of the {len(images)} images, got "
            f"{labels.dtype} {labels.shape}."
        )
    if labels.min() < 0 or labels.max() >= 2**31:
        raise ValueError(f"The labels of {name} must count from 0, got {labels.min()} to {labels.max()}.")
    if images.dtype not in (np.uint8, np.uint16) and not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"The images of {name} must be uint8, uint16 or floats in [0, 1], got {images.dtype}.")
    return Split(images, labels.astype(np.int32), np.arange(len(labels), dtype=np.int32))


def _white_of(stored: Mapping[str, Split], name: str) -> float:
    """Returns the value that stands for 1 in floating-point images: 1, or that of whole numbers of a known depth.

    The largest value of all splits counts, so that a dark split is not brightened.

    Raises:
      ValueError: There are values that are below 0, not finite, or above 1 without a depth that they show.
    """
    images = [split.images for split in stored.values() if np.issubdtype(split.images.dtype, np.floating)]
    # NumPy's minimum of minima is NaN where one of them is.
    least, largest = np.min([0.0, *(each.min() for each in images)]), np.max([1.0, *(each.max() for each in images)])
    if least >= 0 and largest <= 1:
        return 1.0
    whole = least >= 0 and all((each == np.rint(each)).all() for each in images)
    if not whole or largest not in _WHITES:
        raise ValueError(
            f"The floating-point images of {name} must lie in [0, 1], got {least} to {largest}: divide them by their "
            "largest possible value, or pass uint8."
        )
    warnings.warn(
        f"The images of {name} are whole numbers from {least:g} to {largest:g}: they are divided by {largest:g}. "
        "If white is another value, divide them by it.",
        stacklevel=2,
    )
    return float(largest)


def _as_floats(split: Split, white: float, name: str) -> Split:
    images = split.images
    if np.issubdtype(images.dtype, np.floating) and white != 1:
        images = images / images.dtype.type(white)
        split = split._replace(images=images)
    if images.dtype == np.float32:
        return split
    check_available(4.0 * images.size, f"The {len(images)} images of {name}")
    if np.issubdtype(images.dtype, np.floating):
        return split._replace(images=images.astype(np.float32))
    # The same operation as for tensorflow-datasets, so that equal images are equal bit for bit.
    return split._replace(images=(images / np.float32(np.iinfo(images.dtype).max)).astype(np.float32))


def _read_dataset(dataset: tf.data.Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads a tf.data dataset of (image, label), batched or not."""
    spec = dataset.element_spec
    if not isinstance(spec, (tuple, list)) or len(spec) != 2 or not all(isinstance(s, tf.TensorSpec) for s in spec):
        raise ValueError(f"{name} must be a tf.data.Dataset of pairs (image, label), got elements {spec}.")
    if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise ValueError(f"{name} must be a finite tf.data.Dataset: leave out repeat(), or add take(n).")
    rank = spec[1].shape.rank
    batched = rank is not None and rank >= 1 and spec[0].shape.rank == 4
    pairs = list((dataset if batched else dataset.batch(1)).as_numpy_iterator())
    if not pairs:
        raise ValueError(f"{name} must have examples, got an empty tf.data.Dataset.")
    if len({image.shape[1:] for image, _ in pairs}) > 1:
        raise ValueError(f"The images of {name} must have one size: resize them in dataset.map.")
    return np.concatenate([image for image, _ in pairs]), np.concatenate([label for _, label in pairs])
