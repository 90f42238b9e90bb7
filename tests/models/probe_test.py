"""Probing a classifier by its graph or, if it cannot be traced, by a call."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.models import probe
from wasser_tf.models.probe import look_at

KERNEL = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)


def eager(images, training=False):
    """Cannot be traced."""
    assert training is False
    return np.asarray(images).reshape(len(images), 9) @ KERNEL


def eager_graph(images, training=False):
    return tf.reshape(images, [-1, 9]) @ KERNEL


def test_a_classifier_without_a_graph_is_called():
    found = look_at(eager, (3, 3, 1), None)
    (one,) = found.outputs
    assert (one.key, one.name, one.activation, one.operation, one.has_keras_logits) == (None, "output", None, "", False)
    assert one.values.shape == (8, 2)
    # The first two images are black and white.
    np.testing.assert_allclose(one.values[0], 0)
    np.testing.assert_allclose(one.values[1], KERNEL.sum(axis=0), rtol=1e-5)
    assert (found.steps, found.channels_first, found.unstable) == ((), None, "")
    assert not found.inline and found.differentiable


@pytest.mark.parametrize("batch_size", [3, 16])
def test_a_graph_of_a_fixed_batch_size_gives_each_image_its_output(batch_size):
    # The last batch is filled up, for a graph as for a function.
    free, fixed = (look_at(eager_graph, (3, 3, 1), size).outputs[0].values for size in (None, batch_size))
    np.testing.assert_allclose(fixed[: len(free)], free, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [3, 16])
def test_a_fixed_batch_size_is_kept(batch_size):
    sizes = []

    def classifier(images, training=False):
        sizes.append(len(images))
        return eager(images)

    look_at(classifier, (3, 3, 1), batch_size)
    assert set(sizes) == {batch_size}


def test_the_graph_shows_scale_offset_activation_and_gradients():
    def classifier(images, training=False):
        logits = tf.reshape(2.0 * images - 0.5, [-1, 9]) @ KERNEL
        return {"a": tf.nn.softmax(logits), "b": logits}

    found = look_at(classifier, (3, 3, 1), None)
    assert found.inline and found.differentiable
    (step,) = found.steps
    assert step == pytest.approx((2, -0.5))
    assert [(one.key, one.name, one.activation) for one in found.outputs] == [("a", "a", "softmax"), ("b", "b", None)]
    assert found.outputs[1].operation == "MatMul"
    np.testing.assert_allclose(found.outputs[1].values[0], -0.5 * KERNEL.sum(axis=0), rtol=1e-5)


def test_a_fixed_batch_without_gradients_is_not_differentiable():
    def classifier(images, training=False):
        return tf.stop_gradient(tf.reshape(images, [-1, 9])) @ KERNEL

    assert not look_at(classifier, (3, 3, 1), 2).differentiable
    assert look_at(lambda images, training=False: tf.reshape(images, [-1, 9]) @ KERNEL, (3, 3, 1), 2).differentiable


def test_a_list_of_outputs_has_places_or_the_models_names():
    image = keras.Input((3, 3, 1))
    flat = keras.layers.Flatten()(image)
    model = keras.Model(image, [keras.layers.Dense(2, name="x")(flat), keras.layers.Dense(3, name="y")(flat)])
    assert [(one.key, one.name) for one in look_at(model, (3, 3, 1), None).outputs] == [(0, "x"), (1, "y")]

    def listed(images, training=False):
        return [tf.reshape(images, [-1, 9]) @ KERNEL] * 2

    assert [(one.key, one.name) for one in look_at(listed, (3, 3, 1), None).outputs] == [(0, "0"), (1, "1")]


def test_a_look_is_kept_until_the_structure_changes(monkeypatch):
    looks = []
    look = probe._look
    monkeypatch.setattr(probe, "_look", lambda *given: looks.append(given[1:]) or look(*given))
    model = keras.Sequential([keras.Input((3, 3, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    for _ in range(2):
        look_at(model, (3, 3, 1), None)
    assert len(looks) == 1
    look_at(model, (3, 3, 1), 4)
    assert looks == [((3, 3, 1), None), ((3, 3, 1), 4)]
    model.add(keras.layers.Softmax())
    look_at(model, (3, 3, 1), None)
    assert len(looks) == 3


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        (lambda images: images, r"must take \(images, training=False\), but: .*training"),
        (lambda images, training=False: np.asarray(images) @ np.zeros((5, 2)), r"cannot be called .*\(8, 3, 3, 1\)"),
    ],
)
def test_classifiers_that_cannot_be_called_are_refused(classifier, message):
    with pytest.raises(ValueError, match=message):
        look_at(classifier, (3, 3, 1), None)
