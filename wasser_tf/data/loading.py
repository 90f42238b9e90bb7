"""Images and labels: the embedded digits, and any image classification set of tensorflow-datasets."""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.data.augmentation import Augmentation
from wasser_tf.runtime.arguments import check_fits, is_whole

SPLITS = ("train", "validation", "test")


class Split(NamedTuple):
    """Some examples of a dataset.

    Attributes:
      images: float32 [n, H, W, C] in [0, 1].
      labels: int32 [n], each from 0 to num_classes − 1.
      index: int32 [n], the position of each example in the split it was read from (sklearn's or tensorflow-datasets'
        order), so that an image keeps its number when validation or test images were held out of train.
    """

    images: np.ndarray
    labels: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # It hides tuple.index, which no one needs here.


class Dataset(NamedTuple):
    """A dataset in memory. Splits that were not asked for hold no examples.

    Attributes:
      name: The name it was loaded by.
      train: What to learn from.
      validation: What to choose by.
      test: What to report.
      num_classes: The number of classes.
      class_names: Their names, num_classes of them, or None when the dataset does not name them.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    class_names: tuple[str, ...] | None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


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


class EpochFollower(keras.callbacks.Callback):
    """Tells `batches` which epoch Keras is in; goes into `fit(callbacks=...)`.

    With it, the order of the batches is a function of the seed and Keras' own epoch number, whatever process asks: a
    run resumed by `initial_epoch` or `keras.callbacks.BackupAndRestore` sees what the uninterrupted run saw.

    Attributes:
      epoch: The epoch that is running, from 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the epoch, before Keras asks for its first batch."""
        del logs
        self.epoch = epoch


def batches(
    split: Split,
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int | EpochFollower = 0,
    drop_remainder: bool = False,
    augment: Augmentation | None = None,
    numbered: bool = False,
) -> tf.data.Dataset:
    """Makes batches of (images float32 [b, H, W, C], labels int32 [b]); a pass over them is an epoch.

    Args:
      split: The examples.
      batch_size: Examples a batch; the last batch of a pass may be smaller.
      shuffle: Whether each pass comes in an order of its own, a pure function of (seed, epoch).
      seed: Chooses the orders, 0 to 2**32 − 1.
      epoch: The epoch of the first pass; each further pass counts one up. Give `fit` an `EpochFollower`, and the
        same one here, to follow Keras' own count instead: that is what makes a resumed run exact.
      drop_remainder: Whether to leave a smaller last batch out, which makes all shapes static.
      augment: What changes the images of shuffled batches: a pure function of (seed, epoch, step) too.
      numbered: Whether images come as {"image": images, "number": their rows in the split, int32 [b]}, as
        `WasserTrain` with warm_start takes them.

    Returns:
      The batches, with a known cardinality.

    Raises:
      ValueError: The split is empty or an argument is out of its range.
    """
    if not isinstance(split, Split):
        raise ValueError(f"split must be a wasser_tf.data.Split, got a {type(split).__name__}.")
    count = len(split.labels)
    if not count:
        raise ValueError("The split has no examples: name it in splits=... when loading the dataset.")
    if not is_whole(batch_size, 1):
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}.")
    if drop_remainder and batch_size > count:
        raise ValueError(f"batch_size must be at most the {count} examples with drop_remainder, got {batch_size}.")
    if not is_whole(seed, 0) or seed >= 2**32:
        raise ValueError(f"seed must be a whole number from 0 to 2**32 - 1, got {seed!r}.")
    if not isinstance(epoch, EpochFollower) and not (is_whole(epoch, 0) and epoch < 2**32):
        raise ValueError(f"epoch must be an EpochFollower or a whole number from 0 to 2**32 - 1, got {epoch!r}.")
    if augment is not None and not shuffle:
        raise ValueError("augment needs shuffle=True: only training images are changed.")
    # A larger batch is the whole split too, and TensorFlow counts to 2**63.
    batch_size = min(batch_size, count)
    if not shuffle:
        number = np.arange(count, dtype=np.int32)
        images = {"image": split.images, "number": number} if numbered else split.images
        plain = tf.data.Dataset.from_tensor_slices((images, split.labels))
        return plain.batch(batch_size, drop_remainder=drop_remainder).prefetch(2)

    passes = itertools.count(0 if isinstance(epoch, EpochFollower) else epoch)

    def orders() -> Iterator[tuple[np.ndarray, int]]:
        current = epoch.epoch if isinstance(epoch, EpochFollower) else next(passes)
        yield epoch_order(count, seed, current), current

    # A dataset that is asked for its order when a pass begins, not a keras PyDataset: `fit` shuffles the batches of
    # those once more, from the global random state, unless told not to.
    order = tf.data.Dataset.from_generator(
        orders, output_signature=(tf.TensorSpec([count], tf.int64), tf.TensorSpec([], tf.int64))
    )
    with tf.device("CPU:0"):
        images, labels = tf.constant(split.images), tf.constant(split.labels)

    def one_pass(rows: tf.Tensor, current: tf.Tensor) -> tf.data.Dataset:
        parts = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size, drop_remainder=drop_remainder)
        return parts.enumerate().map(lambda step, rows: batch(rows, current, step))

    def batch(rows: tf.Tensor, current: tf.Tensor, step: tf.Tensor) -> tuple[Any, tf.Tensor]:
        chosen = tf.gather(images, rows)
        if augment is not None:
            chosen = augment(chosen, step_seed(seed, current, step))
        if numbered:
            chosen = {"image": chosen, "number": tf.cast(rows, tf.int32)}
        return chosen, tf.gather(labels, rows)

    shuffled = order.flat_map(one_pass)
    steps = count // batch_size if drop_remainder else -(-count // batch_size)
    options = tf.data.Options()
    # A generator has no files to share out; said here, a strategy does not warn about it.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return shuffled.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2).with_options(options)


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the rows of so many examples in the order of an epoch (from 0) of shuffled `batches`, int64 [count]."""
    # RandomState, because NumPy keeps its stream for ever: an order outlives the version that drew it.
    return np.random.RandomState([seed, epoch]).permutation(count).astype(np.int64)


def step_seed(seed: int, epoch: int | tf.Tensor, step: int | tf.Tensor) -> tf.Tensor:
    """Returns the seed, int64 [2], from which a step (from 0) of an epoch of `batches` augments its images."""
    # int64 all of it, for the type of what is folded in decides which number comes out.
    return tf.random.fold_in(tf.stack([tf.cast(value, tf.int64) for value in (seed, epoch)]), tf.cast(step, tf.int64))


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


def hold_out(whole: Split, order: np.ndarray, validation_size: int, test_size: int, name: str) -> dict[str, Split]:
    """Cuts the rows, in the given order, into train, validation and test; each keeps its rows in rising order."""
    train_size = len(order) - validation_size - test_size
    if train_size < 1:
        raise ValueError(
            f"validation_size must leave examples to train on, got {validation_size} of the {len(order) - test_size} "
            f"in {name}."
        )
    cuts = np.split(order, [train_size, train_size + validation_size])
    return {key: _take(whole, np.sort(cut)) for key, cut in zip(SPLITS, cuts, strict=True)}


def stratified_order(labels: np.ndarray) -> np.ndarray:
    """Returns an order of the rows, always the same, of which every long run holds each class in proportion."""
    shuffled = np.random.RandomState(0).permutation(len(labels))
    quantile = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        quantile[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(quantile, kind="stable")


def no_examples(image_shape: tuple[int, int, int]) -> Split:
    """Returns the split that was not asked for: no examples, of the right shape."""
    return Split(np.zeros((0, *image_shape), np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32))


def _take(whole: Split, rows: np.ndarray) -> Split:
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        # A run of rows is a view: a large set is not held twice.
        return Split(*(array[rows[0] : rows[-1] + 1] for array in whole))
    return Split(*(array[rows] for array in whole))
