"""Datasets: loading, splits, batches, augmentation and the selection of images to attack."""

from wasser_tf.data.batching import EpochFollower, batches, epoch_order, step_seed
from wasser_tf.data.dataset import SPLITS, Dataset, Split, hold_out, no_examples, stratified_order
from wasser_tf.data.loading import load

__all__ = [
    "SPLITS",
    "Dataset",
    "EpochFollower",
    "Split",
    "batches",
    "epoch_order",
    "hold_out",
    "load",
    "no_examples",
    "step_seed",
    "stratified_order",
]
