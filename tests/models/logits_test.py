"""The view that attacks have of a classifier: inference mode, and float32 logits, also of probabilities."""

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.models import logits as attacked
from wasser_tf.models.logits import as_logits_fn


def test_logits_are_float32_and_computed_in_inference_mode():
    seen = []

    def classifier(images, training=None):
        seen.append(training)
        return tf.constant([[0.25, 0.75]], tf.float16) + 0 * tf.reduce_sum(tf.cast(images, tf.float16))

    logits = as_logits_fn(classifier, True)(tf.zeros([1, 2, 2, 1]))
    assert logits.dtype == tf.float32 and seen == [False]
    np.testing.assert_array_equal(logits, [[0.25, 0.75]])
    logs = as_logits_fn(classifier, False)(tf.zeros([1, 2, 2, 1]))
    assert logs.dtype == tf.float32
    np.testing.assert_allclose(logs, np.log([[0.25, 0.75]]), rtol=1e-3)


def test_a_probability_of_0_becomes_the_smallest_finite_logit():
    logits = as_logits_fn(lambda images, training: tf.constant([[0.0, 1.0, 1e-29]]), False)(tf.zeros([1, 2, 2, 1]))
    np.testing.assert_allclose(logits, np.log([[1e-30, 1.0, 1e-29]]), rtol=1e-5)


def test_the_logits_of_a_keras_softmax_are_those_before_it():
    inputs = keras.Input((2, 2, 1))
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(flat))
    images = np.full((1, 2, 2, 1), 300.0, np.float32)
    weights, bias = model.layers[-1].get_weights()
    expected = images.reshape(1, 4) @ weights + bias
    found = as_logits_fn(model, False)(tf.constant(images))
    # Were they taken from the probabilities, those that are 0 in float32 would be −69.
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.ptp(expected) > 80
    # Said to be logits, the outputs are taken as they are.
    np.testing.assert_allclose(as_logits_fn(model, True)(tf.constant(images)), model(images), rtol=1e-4)


def test_max_pooling_is_found_at_any_depth_and_in_any_dimension():
    def holds(*layers):
        return attacked._pools_by_max(keras.Sequential([keras.Sequential(list(layers))]))

    assert holds(keras.layers.MaxPooling1D(2)) and holds(keras.layers.MaxPooling2D(2))
    assert holds(keras.layers.Flatten(), keras.layers.MaxPooling3D(2))
    assert not holds(keras.layers.AveragePooling2D(2)) and not holds(keras.layers.Flatten())
