"""Datasets: splits of images and labels, and the division of a set into splits."""

from typing import NamedTuple

import numpy as np

from wasser_tf.data.streaming import is_streamed, select_images

SPLITS = ("train", "validation", "test")
# How the digest of a set begins that is read as it is needed.
STREAMED = "listing:"


class Split(NamedTuple):
    """Examples of a dataset.

    Attributes:
      images: The images, float32 [n, H, W, C] in [0, 1]: an array, or `wasser_tf.data.streaming.StreamedImages`, which
        read the images that they are indexed with.
      labels: The classes, int32 [n], from 0 to num_classes − 1.
      index: The position of each example in the split that it was read from, int32 [n], in the order of scikit-learn,
        tensorflow-datasets, the names of files, or an array. It identifies an image also if validation or test images
        are held out of train.

    Example:
    >>> from wasser_tf import data
    >>> test = data.load("digits", splits=("test",)).test
    >>> few = data.Split(*(array[:4] for array in test))
    >>> few.images.shape, few.labels
    ((4, 8, 8, 1), array([1, 3, 4, 5], dtype=int32))
    """

    images: np.ndarray
    labels: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # It hides tuple.index, which is not used.


class Dataset(NamedTuple):
    """A dataset. Splits that were not requested have no examples.

    Attributes:
      name: The name that it was loaded by.
      train: The split for training.
      validation: The split for selecting models.
      test: The split for reporting results.
      num_classes: The number of classes.
      class_names: The names of the classes, or None if the dataset has no names.
      digest: A hash of the files that were read and of how they were read, for folders and .npz files; None where the
        name identifies the dataset. With streams it depends on the names and sizes of the files, not on their contents.

    Example:
    >>> from wasser_tf import data
    >>> digits = data.load("digits")
    >>> len(digits.train.labels), len(digits.validation.labels), len(digits.test.labels), digits.image_shape
    (1197, 200, 400, (8, 8, 1))
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    class_names: tuple[str, ...] | None
    digest: str | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The height, width and number of channels of the images."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def hold_out(whole: Split, order: np.ndarray, validation_size: int, test_size: int, name: str) -> dict[str, Split]:
    """Divides examples into train, validation and test.

    Args:
      whole: All examples.
      order: Rows of `whole`, int64 [n]: first those of train, then those of validation, then those of test. Each split
        has its rows in ascending order.
      validation_size: The number of validation examples.
      test_size: The number of test examples.
      name: The name of the dataset, for messages.

    Returns:
      The splits, by name.

    Raises:
      ValueError: No examples remain for train.

    Example:
    >>> from wasser_tf import data
    >>> train = data.load("digits").train
    >>> splits = data.hold_out(train, data.stratified_order(train.labels), 100, 200, "digits")
    >>> [len(split.labels) for split in splits.values()]
    [897, 100, 200]
    """
    train_size = len(order) - validation_size - test_size
    if train_size < 1:
        raise ValueError(
            f"validation_size must leave examples to train on, got {validation_size} of the {len(order) - test_size} "
            f"in {name}: choose a smaller number."
        )
    cuts = np.split(order, [train_size, train_size + validation_size])
    return {key: _take(whole, np.sort(cut)) for key, cut in zip(SPLITS, cuts, strict=True)}


def stratified_order(labels: np.ndarray) -> np.ndarray:
    """Returns a fixed order of the rows, int64 [n], any long section of which contains the classes in proportion.

    Example:
    >>> import numpy as np
    >>> labels = np.array([0, 0, 0, 0, 1, 1])
    >>> labels[stratified_order(labels)]
    array([0, 1, 0, 0, 1, 0])
    """
    shuffled = np.random.RandomState(0).permutation(len(labels))
    quantile = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        quantile[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(quantile, kind="stable")


def no_examples(image_shape: tuple[int, int, int]) -> Split:
    """Returns a split without examples, for images of the given height, width and number of channels.

    Example:
    >>> no_examples((28, 28, 1)).images.shape
    (0, 28, 28, 1)
    """
    return Split(np.zeros((0, *image_shape), np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32))


def _take(whole: Split, rows: np.ndarray) -> Split:
    if is_streamed(whole.images):
        return Split(select_images(whole.images, rows), whole.labels[rows], whole.index[rows])
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        # Consecutive rows are a view, so that a large set is not stored twice.
        return Split(*(array[rows[0] : rows[-1] + 1] for array in whole))
    return Split(*(array[rows] for array in whole))
