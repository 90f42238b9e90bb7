"""Where the pixels of augmented images come from: maps of image-sized values between the two frames.

Shifts and flips move whole rows and columns, so for each image two lists describe one: pixel (i, j) of the augmented
image is pixel (rows[i], columns[j]) of the original, or a new one where either is −1. Values of the size of the image,
such as an attack's potential, are carried along in both directions.
"""

from typing import NamedTuple

import tensorflow as tf


class PixelSources(NamedTuple):
    """The row and the column of the original images that each row and column of the augmented ones comes from.

    Attributes:
      rows: Integers [B, H], −1 for rows that enter from outside.
      columns: Integers [B, W], −1 for columns that enter from outside.
    """

    rows: tf.Tensor
    columns: tf.Tensor

    def after(self, first: "PixelSources") -> "PixelSources":
        """Returns the sources of this augmentation of images that come from another one."""
        return PixelSources(*(_gather(after, before, -1) for after, before in zip(self, first, strict=True)))


def unmoved(count: tf.Tensor | int, height: int, width: int) -> PixelSources:
    """Returns the sources of `count` images that stay as they are."""
    return PixelSources(*(tf.tile(tf.range(length)[None], [count, 1]) for length in (height, width)))


def to_augmented(values: tf.Tensor, sources: PixelSources) -> tf.Tensor:
    """Returns values of the original pixels at the augmented ones, [B, H, W, C]; 0 at pixels that are new."""
    moved = _gather(sources.rows, values, 0)
    return tf.transpose(_gather(sources.columns, tf.transpose(moved, [0, 2, 1, 3]), 0), [0, 2, 1, 3])


def to_original(values: tf.Tensor, sources: PixelSources, elsewhere: tf.Tensor) -> tf.Tensor:
    """Returns values of the augmented pixels at the original ones.

    Where a reflected border shows a pixel twice, the one nearer to the centre counts, which is not the reflected one.

    Args:
      values: The values in the augmented frame, [B, H, W, C].
      sources: Where its pixels come from.
      elsewhere: The values of original pixels that the augmented image does not show, [B, H, W, C].

    Returns:
      The values in the original frame, [B, H, W, C].
    """
    targets = PixelSources(*(_inverse(one) for one in sources))
    seen = (targets.rows >= 0)[:, :, None] & (targets.columns >= 0)[:, None, :]
    return tf.where(seen[..., None], to_augmented(values, targets), elsewhere)


def _gather(positions: tf.Tensor, values: tf.Tensor, missing: int) -> tf.Tensor:
    """Returns values[b, positions[b, i], ...] for values [B, n, ...], and `missing` where a position is −1."""
    found = tf.gather(values, tf.maximum(positions, 0), batch_dims=1)
    present = tf.reshape(
        positions >= 0, tf.concat([tf.shape(positions), tf.ones([len(values.shape) - 2], tf.int32)], 0)
    )
    return tf.where(present, found, tf.cast(missing, values.dtype))


def _inverse(positions: tf.Tensor) -> tf.Tensor:
    """Returns for each original position the augmented one that shows it, int32 [B, n], −1 if there is none."""
    length = positions.shape[1]
    places = tf.range(length)
    shows = tf.cast(positions[:, None, :] == tf.cast(places, positions.dtype)[None, :, None], tf.int32)
    # At least 1, and largest at the centre.
    nearness = shows * (length - tf.abs(2 * places - (length - 1)))
    return tf.where(tf.reduce_max(nearness, axis=2) > 0, tf.argmax(nearness, axis=2, output_type=tf.int32), -1)
