"""Votes of a classifier on noisy copies of an image, and what they prove with which confidence."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import scipy.special
import tensorflow as tf

from wasser_tf.certification.flow_noise import FlowNoise
from wasser_tf.runtime.arguments import check_number, is_whole

# Noise is drawn so many samples at a time, each such block from a seed of its own, whatever the size of a batch.
_BLOCK = 64
# What the noise is for: each use has its own.
SELECTION, ESTIMATION, TRAINING, EVALUATION, PREDICTION = range(5)


def lower_confidence_bound(successes: np.ndarray, trials: int, alpha: float) -> np.ndarray:
    """Returns the one-sided Clopper–Pearson bound: a probability lies below it with a probability of at most α.

    It is the p at which so many successes or more have the probability α, the α-quantile of Beta(k, n − k + 1).

    Args:
      successes: How many of the trials succeeded, k, [n].
      trials: How many independent trials there were.
      alpha: α, above 0 and below 1.

    Returns:
      float64 [n]; 0 for no successes.
    """
    successes = np.asarray(successes, np.float64)
    bound = scipy.special.betaincinv(np.maximum(successes, 1), trials - successes + 1, alpha)
    return np.where(successes > 0, bound, 0.0)


def majority(counts: np.ndarray, alpha: float) -> np.ndarray:
    """Returns the class with the most votes, int64 [n], or −1 where another may have as large a probability.

    The test of Hung and Fithian 2019: of the two largest counts a ≥ b, a binomial test of ½ at level α.

    Args:
      counts: Votes, integers [n, classes].
      alpha: The probability of an answer that is not the most probable class, at most.
    """
    ranked = np.sort(counts, axis=1)
    first, second = ranked[:, -1], ranked[:, -2]
    # Two-sided: twice the probability of `first` heads or more of all tosses.
    p_value = np.minimum(1.0, 2 * scipy.special.betainc(np.maximum(first, 1), second + 1, 0.5))
    return np.where((first > second) & (p_value <= alpha), counts.argmax(axis=1), -1).astype(np.int64)


def check_settings(num_votes: Any, num_samples: Any, alpha: Any, seed: Any) -> None:
    """Refuses settings that are out of range.

    Raises:
      ValueError: In one sentence.
    """
    for name, value in (("num_votes", num_votes), ("num_samples", num_samples)):
        if not is_whole(value, 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
    check_number("alpha", alpha, above=0)
    if alpha >= 1:
        raise ValueError(f"alpha must lie above 0 and below 1 (0.05 means certificates at 95 %), got {alpha!r}.")
    if not is_whole(seed, 0) or seed >= 2**31:
        raise ValueError(f"seed must be a whole number from 0 to 2**31 − 1, got {seed!r}.")


def seed_for(seed: int, use: int) -> tf.Tensor:
    """Returns a seed, int32 [2], for one use of the noise."""
    return tf.random.fold_in(tf.constant([seed, 0], tf.int32), use)


class Voter:
    """Counts a classifier's votes on noisy copies of images.

    The noise of a sample is a function of the seed, the use, the image's number and the sample's number alone: batches
    change no count, up to the rounding in the classifier.
    """

    def __init__(self, classifier: Callable[..., Any], noise: FlowNoise, seed: int, batch_size: int) -> None:
        """Takes a checked classifier; batch_size is the most copies that it is given at a time, at least 64."""
        self._classify = classifier
        if isinstance(classifier, keras.Model):
            self._classify = tf.function(functools.partial(classifier, training=False), reduce_retracing=True)
        else:
            self._classify = functools.partial(classifier, training=False)
        self._noise, self._seed = noise, seed
        self._blocks = max(1, batch_size // _BLOCK)

    def counts(self, image: np.ndarray, index: int, use: int, samples: int) -> np.ndarray:
        """Returns the votes for each class, int64 [classes].

        Args:
          image: float32 [H, W, C].
          index: The image's number, on which its noise depends.
          use: `SELECTION`, `ESTIMATION` or `PREDICTION`.
          samples: How many votes.

        Raises:
          ValueError: A logit is not finite.
        """
        seed = tf.random.fold_in(seed_for(self._seed, use), index)
        blocks = -(-samples // _BLOCK)
        votes = []
        for start in range(0, blocks, self._blocks):
            count = min(self._blocks, blocks - start)
            noise = _blocks_of_noise(self._noise, image.shape)(seed, tf.constant(start), tf.constant(count))
            outputs = np.asarray(self._classify(tf.constant(image) + mass(image) * noise))
            # Beyond the last sample of the last block nothing counts.
            outputs = outputs[: samples - start * _BLOCK]
            if not np.isfinite(outputs).all():
                raise ValueError(
                    f"The classifier must return finite logits for noisy images, got NaN or Inf for image {index}: "
                    "lower the scale of the noise, or train on noisy images."
                )
            votes.append(np.bincount(outputs.argmax(axis=1), minlength=outputs.shape[1]))
        return np.sum(votes, axis=0)


def mass(image: np.ndarray) -> np.float32:
    """Returns the mass of an image over all channels, which no legal plan changes."""
    return np.float32(image.sum(dtype=np.float64))


def shares(classifier: keras.Model, noise: FlowNoise, seed: tf.Tensor, images: tf.Tensor, votes: int) -> tf.Tensor:
    """Returns the shares of the votes on noisy copies, float32 [B, classes], in a graph that any device runs.

    All images get the same noise, so that an answer does not depend on the batch that it is in.
    """
    numbers = tf.range(-(-votes // _BLOCK))

    def share(image: tf.Tensor) -> tf.Tensor:
        total = tf.cast(tf.reduce_sum(tf.cast(image, tf.float64)), tf.float32)

        def counts(number: tf.Tensor) -> tf.Tensor:
            drawn = noise.sample(tf.random.fold_in(seed, number), _BLOCK, tuple(image.shape))
            outputs = classifier(image + total * drawn, training=False)
            one_hot = tf.one_hot(tf.argmax(outputs, axis=1), outputs.shape[1])
            counted = tf.cast(number * _BLOCK + tf.range(_BLOCK) < votes, tf.float32)
            return tf.reduce_sum(one_hot * counted[:, None], axis=0)

        parts = tf.map_fn(counts, numbers, parallel_iterations=1, fn_output_signature=tf.float32)
        return tf.reduce_sum(parts, axis=0) / votes

    return tf.map_fn(share, tf.cast(images, tf.float32), parallel_iterations=1, fn_output_signature=tf.float32)


@functools.cache
def _blocks_of_noise(noise: FlowNoise, image_shape: tuple[int, int, int]) -> Callable[..., tf.Tensor]:
    """Returns the function (seed, first, count) -> noise of so many blocks, float32 [count * 64, H, W, C]."""

    @tf.function(jit_compile=True)
    def block(seed: tf.Tensor) -> tf.Tensor:
        return noise.sample(seed, _BLOCK, image_shape)

    @tf.function
    def blocks(seed: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        drawn = tf.map_fn(
            lambda number: block(tf.random.fold_in(seed, number)),
            first + tf.range(count),
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec([_BLOCK, *image_shape], tf.float32),
        )
        return tf.reshape(drawn, [-1, *image_shape])

    return blocks
