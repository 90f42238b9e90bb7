"""Functionals of the image, and of the image divided by its mass."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.certification.image_functionals import ImageFunctionals
from wasser_tf.certification.network import Network
from wasser_tf.models.potentials import TransportPotentials
from wasser_tf.threat_model import ThreatModel

BALL = ThreatModel(epsilon=0.2, kernel_size=3)


@pytest.mark.parametrize("divided", [True, False])
def test_only_functionals_of_the_divided_image_ignore_its_mass(divided):
    inputs = keras.Input((4, 5, 1))
    first = TransportPotentials(3, BALL, seed=0) if divided else keras.layers.Dense(3)
    features = first(inputs if divided else keras.layers.Flatten()(inputs))
    network = Network(keras.Model(inputs, keras.layers.Dense(2)(features)))
    node = network.output
    assert network.nodes[node].divided is divided
    functionals = ImageFunctionals(network, node, BALL, tf.float64)
    images = tf.constant(np.random.default_rng(0).random((2, 4, 5, 1)))
    mass = tf.reduce_sum(images, [1, 2, 3])
    whole, half = functionals.prepare(images, mass), functionals.prepare(0.5 * images, 0.5 * mass)
    np.testing.assert_allclose(half.sums, whole.sums * (1.0 if divided else 0.5), rtol=1e-12)
