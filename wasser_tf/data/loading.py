"""Images and labels: the embedded digits, and any image classification set of tensorflow-datasets."""

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
    """Loads a dataset into memory. The same call gives the same splits on every machine: no seed enters.

    The digits are sklearn's 1,797 real 8×8 images: 1,197 to train, 200 to validate, 400 to test, each class in
    proportion. For the other names, in the order of tensorflow-datasets:
      - validation is the set's own, or the last 1/12 of train (5,000 at most: MNIST's last 5,000 of 60,000);
      - test is the set's own; without one, its validation split is the test; without either, the last 1/6 of train
        (10,000 at most). Sets that are stored unshuffled give these parts class by class in proportion instead.

    Args:
      name: "digits", or the name of an image classification set of tensorflow-datasets, "set", "set/config" or
        "set:1.2.3".
      data_dir: The folder that holds the prepared sets (the parent of mnist/). None means the default of
        tensorflow-datasets: the environment variable TFDS_DATA_DIR, or tensorflow_datasets in the home folder.
      download: Whether to fetch a set that is not there. Otherwise the network is never touched.
      splits: The splits to load; the others stay empty.
      validation_size: How many images to hold out of train for validation instead of the size above.
      image_size: Height and width to resize to (bilinear, antialiased). Needed where sizes differ within the set.

    Returns:
      The dataset, as float32 images in [0, 1].

    Raises:
      ValueError: The name is unknown, the set is missing, unreadable or not an image classification set, or an
        argument is out of its range; the message says how to mend it.
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
    from wasser_tf.data import tensorflow_datasets  # Here, for the digits do without tensorflow-datasets.

    return tensorflow_datasets.load_prepared(name, data_dir, download, splits, validation_size, image_size)


def _load_digits(splits: Sequence[str], validation_size: int, image_size: tuple[int, int] | None) -> Dataset:
    import sklearn.datasets  # Here, for it takes a second that the other datasets need not wait.

    bunch = sklearn.datasets.load_digits()
    images = (bunch.images[..., None] / 16).astype(np.float32)
    if image_size is not None:
        check_fits(4 * len(images) * image_size[0] * image_size[1], "The images", "give a smaller image_size")
        images = np.clip(tf.image.resize(images, image_size, antialias=True).numpy(), 0, 1)
    labels = bunch.target.astype(np.int32)
    whole = Split(images, labels, np.arange(len(labels), dtype=np.int32))
    parts = hold_out(whole, stratified_order(labels), validation_size, 400, "digits")
    loaded = {key: part if key in splits else no_examples(images.shape[1:]) for key, part in parts.items()}
    return Dataset("digits", **loaded, num_classes=10, class_names=tuple(str(digit) for digit in range(10)))
