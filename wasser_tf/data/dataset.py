"""Datasets in memory: splits of images and labels, and how one set is cut into them."""

from typing import NamedTuple

import numpy as np

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
