"""One tiny linear classifier and a few images for the tests of all attacks, which so share compiled functions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

SHAPE = (8, 8, 1)
CLASSES = 3


@pytest.fixture(scope="session")
def linear_classifier():
    """Linear logits of 8×8 images with fixed random weights."""
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=(64, CLASSES)).astype(np.float32), np.zeros(CLASSES, np.float32)])
    return model


@pytest.fixture(scope="session")
def images():
    """Eight images [8, 8, 8, 1]: six random, one saturated in part, one black."""
    rng = np.random.default_rng(1)
    values = rng.uniform(size=(8, *SHAPE)).astype(np.float32)
    values[6] = values[6] > 0.5
    values[7] = 0
    return values


@pytest.fixture(scope="session")
def labels(linear_classifier, images):
    """What the classifier says of them, so that every success is the attack's."""
    return linear_classifier.predict(images, verbose=0).argmax(axis=1).astype(np.int32)


@pytest.fixture
def eagerly():
    """Compiled functions run as they are written: cheaper for a few iterations on a few pixels than compiling them."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
