"""Loading of datasets: the digits of scikit-learn, and image classification sets of tensorflow-datasets."""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from wasser_tf.data.dataset import SPLITS, Dataset, Split, hold_out, no_examples, stratified_order
from wasser_tf.runtime.arguments import check_fits, is_whole


def load(
    name: str = "digits",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    splits: Sequence[str] = SPLITS,
    validation_size: int | None = None,
    image_size: tuple[int, int] | None = None,
) -> Dataset:
    """Loads a dataset into memory. The splits are the same in every call and on every machine; they depend on no seed.

    The digits are the 1,797 images of 8×8 pixels of scikit-learn: 1,197 for training, 200 for validation and 400 for
    test, with the classes in proportion. For other names, in the order of tensorflow-datasets:

    - validation is that of the set, or the last 1/12 of train (at most 5,000: the last 5,000 of MNIST's 60,000);
    - test is that of the set, otherwise its validation split, otherwise the last 1/6 of train (at most 10,000).
      Sets that are stored unshuffled are divided with the classes in proportion instead.

    Args:
      name: "digits", or the name of an image classification set of tensorflow-datasets, "set", "set/config" or
        "set:1.2.3".
      data_dir: The folder that holds the prepared sets (the parent of mnist/). None means the default of
        tensorflow-datasets: the environment variable TFDS_DATA_DIR, or tensorflow_datasets in the home folder.
      download: Whether to download a set that is not in the folder. If False, the network is not accessed.
      splits: The splits to load; the others have no examples.
      validation_size: The number of images held out of train for validation, instead of the size above.
      image_size: The height and width to resize to (bilinear, antialiased). Required if sizes differ within the set.

    Returns:
      The dataset, with float32 images in [0, 1].

    Raises:
      ValueError: The name is unknown, the set is missing, unreadable or not an image classification set, or an
        argument is out of its range.

    Example:
    >>> from wasser_tf import data
    >>> digits = data.load("digits")
    >>> digits.train.images.shape, digits.image_shape, digits.num_classes
    ((1197, 8, 8, 1), (8, 8, 1), 10)
    """
    if not isinstance(name, str):
        raise ValueError(f"name must be a string such as 'digits' or 'mnist', got {name!r}.")
    if data_dir is not None and not isinstance(data_dir, (str, os.PathLike)):
        raise ValueError(f"data_dir must be the path of a folder, or None, got {data_dir!r}.")
    if not isinstance(splits, (tuple, list)) or not splits or not all(split in SPLITS for split in splits):
        raise ValueError(f"splits must be some of {', '.join(SPLITS)}, got {splits!r}.")
    if validation_size is not None and not is_whole(validation_size, 1):
        raise ValueError(f"validation_size must be a whole number of at least 1, got {validation_size!r}.")
    if image_size is not None:
        pair = isinstance(image_size, (tuple, list)) and len(image_size) == 2
        if not pair or not all(is_whole(side, 1) for side in image_size):
            raise ValueError(f"image_size must be two whole numbers, height and width, got {image_size!r}.")
        image_size = (int(image_size[0]), int(image_size[1]))
    if name == "digits":
        return _load_digits(splits, validation_size or 200, image_size)
    from wasser_tf.data import tensorflow_datasets  # Imported here, because the digits do not need tensorflow-datasets.

    return tensorflow_datasets.load_prepared(name, data_dir, download, splits, validation_size, image_size)


def _load_digits(splits: Sequence[str], validation_size: int, image_size: tuple[int, int] | None) -> Dataset:
    import sklearn.datasets  # Imported here, because it takes a second and other datasets do not need it.

    bunch = sklearn.datasets.load_digits()
    images = (bunch.images[..., None] / 16).astype(np.float32)
    if image_size is not None:
        check_fits(4 * len(images) * image_size[0] * image_size[1], "The images", "choose a smaller image_size")
        images = np.clip(tf.image.resize(images, image_size, antialias=True).numpy(), 0, 1)
    labels = bunch.target.astype(np.int32)
    whole = Split(images, labels, np.arange(len(labels), dtype=np.int32))
    parts = hold_out(whole, stratified_order(labels), validation_size, 400, "digits")
    loaded = {key: part if key in splits else no_examples(images.shape[1:]) for key, part in parts.items()}
    return Dataset("digits", **loaded, num_classes=10, class_names=tuple(str(digit) for digit in range(10)))
