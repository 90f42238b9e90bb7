"""Batches of examples, in an order that is a pure function of seed and epoch."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.data.augmentation import Augmentation
from wasser_tf.data.dataset import Split
from wasser_tf.data.pixel_sources import PixelSources
from wasser_tf.data.streaming import is_streamed, read_rows
from wasser_tf.runtime.arguments import is_whole


class EpochFollower(keras.callbacks.Callback):
    """A callback that passes the epoch number of Keras to `batches`; add it to `fit(callbacks=...)`.

    The order of the batches is then a function of the seed and the epoch number. A run resumed with `initial_epoch` or
    `keras.callbacks.BackupAndRestore` has the same batches as an uninterrupted run.

    Attributes:
      epoch: The current epoch, from 0.

    Example:
    >>> import keras
    >>> from wasser_tf import data, models
    >>> digits = data.load("digits")
    >>> follower = data.EpochFollower()
    >>> batches = data.batches(digits.train, 256, shuffle=True, epoch=follower)
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> classifier.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> history = classifier.fit(batches, epochs=2, callbacks=[follower], verbose=0)
    >>> follower.epoch
    1
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the epoch, before Keras requests its first batch."""
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
    first_step: int = 0,
    share: tuple[int, int, int] | None = None,
) -> tf.data.Dataset:
    """Returns batches of (images float32 [b, H, W, C], labels int32 [b]). Each pass over them is an epoch.

    Args:
      split: The examples.
      batch_size: The number of examples in a batch. The last batch of a pass may be smaller.
      shuffle: Whether each pass has a different order, a pure function of (seed, epoch).
      seed: The seed of the orders, from 0 to 2**32 − 1.
      epoch: The epoch of the first pass, which increases by 1 with each pass. Alternatively an `EpochFollower` that is
        also a callback of `fit`, to use the epoch number of Keras, which makes resumed runs exact.
      drop_remainder: Whether to omit a smaller last batch, which makes all shapes static.
      augment: An augmentation of the images of shuffled batches, a pure function of (seed, epoch, step).
      numbered: Whether images are {"image": images, "number": their rows in the split, int32 [b]}, for `WasserTrain`
        with warm_start. Augmented ones have "rows" [b, H] and "columns" [b, W] too, where their pixels come from (see
        `wasser_tf.data.pixel_sources`).
      first_step: The step with which each pass over shuffled batches begins, to continue an interrupted epoch.
      share: Of each shuffled batch, divided into `total` equal parts: (first, last, total) for the parts from `first`
        to below `last`, one after another. A worker of a distributed training thus reads its own images only.

    Returns:
      The batches, with a known cardinality. Those of `StreamedImages` are read and decoded while others are used.

    Raises:
      ValueError: The split is empty, or an argument is out of its range.

    Example:
    >>> from wasser_tf import data
    >>> digits = data.load("digits")
    >>> batches = data.batches(digits.train, 64, shuffle=True, seed=1)
    >>> images, labels = next(iter(batches))
    >>> len(batches), images.shape, labels.shape
    (19, TensorShape([64, 8, 8, 1]), TensorShape([64]))
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
        raise ValueError("augment needs shuffle=True, because only training images are augmented: leave augment out.")
    # A larger batch is the whole split as well; TensorFlow refuses numbers from 2**63.
    batch_size = min(batch_size, count)
    streamed = is_streamed(split.images)
    if share is not None and (batch_size % share[2] or not drop_remainder or not shuffle):
        raise ValueError(
            f"share needs shuffle, drop_remainder and a batch_size that is a multiple of the {share[2]} parts, got "
            f"shuffle={shuffle}, drop_remainder={drop_remainder} and {batch_size}."
        )
    if not shuffle and streamed:
        pairs = tf.data.Dataset.from_tensor_slices((np.arange(count, dtype=np.int64), split.labels))
        read = pairs.batch(batch_size, drop_remainder=drop_remainder).map(
            lambda rows, labels: (_numbered(read_rows(split.images, rows), rows, numbered), labels)
        )
        return read.prefetch(2)
    if not shuffle:
        number = np.arange(count, dtype=np.int32)
        images = {"image": split.images, "number": number} if numbered else split.images
        plain = tf.data.Dataset.from_tensor_slices((images, split.labels))
        return plain.batch(batch_size, drop_remainder=drop_remainder).prefetch(2)

    passes = itertools.count(0 if isinstance(epoch, EpochFollower) else epoch)

    def orders() -> Iterator[tuple[np.ndarray, int]]:
        current = epoch.epoch if isinstance(epoch, EpochFollower) else next(passes)
        yield epoch_order(count, seed, current), current

    # A generator, which is called when a pass begins. A keras PyDataset would be shuffled again by `fit`, from the
    # global random state, unless shuffle=False is passed.
    order = tf.data.Dataset.from_generator(
        orders, output_signature=(tf.TensorSpec([count], tf.int64), tf.TensorSpec([], tf.int64))
    )
    with tf.device("CPU:0"):
        images = split.images if streamed else tf.constant(split.images)
        labels = tf.constant(split.labels)

    def one_pass(rows: tf.Tensor, current: tf.Tensor) -> tf.data.Dataset:
        parts = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size, drop_remainder=drop_remainder)
        parts = parts.enumerate().skip(first_step)
        if share is None:
            return parts.map(lambda step, rows: batch(rows, current, step))
        return _pieces(parts, batch_size, share).map(lambda step, start, rows: batch(rows, current, step, start))

    def batch(
        rows: tf.Tensor, current: tf.Tensor, step: tf.Tensor, start: tf.Tensor | None = None
    ) -> tuple[Any, tf.Tensor]:
        chosen = read_rows(images, rows) if streamed else tf.gather(images, rows)
        sources = None
        if augment is not None:
            own_seed = step_seed(seed, current, step)
            if numbered:
                sources = PixelSources(*_part(augment.sources, chosen, own_seed, batch_size, start))
            chosen = _part(augment, chosen, own_seed, batch_size, start)
        return _numbered(chosen, rows, numbered, sources), tf.gather(labels, rows)

    shuffled = order.flat_map(one_pass)
    steps = count // batch_size if drop_remainder else -(-count // batch_size)
    steps = (steps - first_step) * (1 if share is None else share[1] - share[0])
    options = tf.data.Options()
    # A generator has no files to shard; without this option a strategy warns about it.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return shuffled.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2).with_options(options)


def _pieces(parts: tf.data.Dataset, batch_size: int, share: tuple[int, int, int]) -> tf.data.Dataset:
    """Returns (step, place of the first row in its batch, rows) for each piece of a share, from (step, rows)."""
    first, last, total = share
    size = batch_size // total
    return parts.flat_map(
        lambda step, rows: tf.data.Dataset.range(first, last).map(
            lambda piece: (step, piece * size, tf.ensure_shape(rows[piece * size : (piece + 1) * size], [size]))
        )
    )


def _part(
    augment: Callable[[tf.Tensor, tf.Tensor], Any],
    chosen: tf.Tensor,
    own_seed: tf.Tensor,
    batch_size: int,
    start: tf.Tensor | None,
) -> Any:
    """Returns a function's results for a batch, or for the piece of it that begins at `start`."""
    if start is None:
        return augment(chosen, own_seed)
    # Random numbers are drawn for the whole batch, so that they do not depend on the number of shares.
    size = chosen.shape[0]
    whole = tf.pad(chosen, [[start, batch_size - start - size], [0, 0], [0, 0], [0, 0]])
    whole = augment(tf.ensure_shape(whole, [batch_size, *chosen.shape[1:]]), own_seed)
    return tf.nest.map_structure(
        lambda values: tf.ensure_shape(values[start : start + size], [size, *values.shape[1:]]), whole
    )


def _numbered(images: tf.Tensor, rows: tf.Tensor, numbered: bool, sources: PixelSources | None = None) -> Any:
    if not numbered:
        return images
    return {"image": images, "number": tf.cast(rows, tf.int32), **({} if sources is None else sources._asdict())}


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of the examples in an epoch of shuffled `batches`.

    Args:
      count: The number of examples.
      seed: The seed of `batches`.
      epoch: The epoch, from 0.

    Returns:
      The rows in the split, int64 [count].

    Example:
    >>> sorted(epoch_order(4, seed=1, epoch=0).tolist())
    [0, 1, 2, 3]
    """
    # RandomState, because its stream is the same in all versions of NumPy.
    return np.random.RandomState([seed, epoch]).permutation(count).astype(np.int64)


def step_seed(seed: int, epoch: int | tf.Tensor, step: int | tf.Tensor) -> tf.Tensor:
    """Returns the seed with which a step of `batches` augments its images.

    Args:
      seed: The seed of `batches`.
      epoch: The epoch, from 0.
      step: The step within the epoch, from 0.

    Returns:
      The seed of the step, int64 [2].

    Example:
    >>> bool((step_seed(1, 0, 5) == step_seed(1, 0, 5)).numpy().all())
    True
    """
    # int64 throughout, because the result of fold_in depends on the type.
    return tf.random.fold_in(tf.stack([tf.cast(value, tf.int64) for value in (seed, epoch)]), tf.cast(step, tf.int64))
