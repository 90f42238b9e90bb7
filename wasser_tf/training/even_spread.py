"""Numbers that are evenly spread over any run of images, for random radii that do not depend on batches or replicas."""

import tensorflow as tf

_GOLDEN_RATIO = 0.5 * (5**0.5 - 1)


def spread_evenly(index: tf.Tensor) -> tf.Tensor:
    """Returns a number in [0, 1) for each whole number [B], evenly spread over any run of them: Weyl's sequence.

    A function of the image's number alone, so that chunks, replicas and resumed runs draw the same.
    """
    return tf.cast(tf.math.floormod(tf.cast(index, tf.float64) * _GOLDEN_RATIO, 1.0), tf.float32)
