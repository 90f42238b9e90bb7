"""Surrogate classifiers for transfer attacks."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wasser_tf import models

_BATCH = 500


def train_surrogate(
    classifier: Callable[..., Any], images: np.ndarray, *, epochs: int = 60, seed: int = 0
) -> keras.Model:
    """Trains a small multilayer perceptron to predict a classifier's decisions.

    A black-box attacker, who has no gradients of the classifier, attacks such a surrogate and transfers the examples
    (Papernot et al. 2017, "Practical black-box attacks against machine learning").

    Args:
      classifier: The classifier to imitate: any callable (images, training=False) -> [n, classes].
      images: The training images, float [n, H, W, C]; their labels are the classifier's decisions.
      epochs: Passes over the images.
      seed: Seed of the initial weights.

    Returns:
      The surrogate; it returns logits.
    """
    outputs = np.concatenate(
        [
            np.asarray(classifier(tf.constant(images[row : row + _BATCH]), training=False))
            for row in range(0, len(images), _BATCH)
        ]
    )
    surrogate = models.build("mlp", images.shape[1:], outputs.shape[1], seed=seed)
    surrogate.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    surrogate.fit(images, outputs.argmax(axis=1), epochs=epochs, batch_size=64, verbose=0)
    return surrogate
