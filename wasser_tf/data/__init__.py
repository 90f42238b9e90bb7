"""Datasets: loading, splits, batches, augmentation and the selection of images to attack."""

from wasser_tf.data.arrays import from_arrays
from wasser_tf.data.batching import EpochFollower, batches, epoch_order, step_seed
from wasser_tf.data.dataset import SPLITS, Dataset, Split, hold_out, no_examples, stratified_order
from wasser_tf.data.loading import load
from wasser_tf.data.reading import ReadingOptions

__all__ = [
    "SPLITS",
    "Dataset",
    "EpochFollower",
    "ReadingOptions",
    "Split",
    "batches",
    "epoch_order",
    "from_arrays",
    "hold_out",
    "load",
    "no_examples",
    "step_seed",
    "stratified_order",
]
