"""Bounds for training: against feasible images on networks with branches, and small boxes by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.certification.differentiable import DifferentiableBounds

L = keras.layers
SHAPE = (5, 5, 1)


def branched():
    inputs = keras.Input(SHAPE)
    x = L.Conv2D(2, 3, padding="same")(inputs)
    y = L.Conv2D(2, 3, padding="same")(L.ReLU()(x))
    z = L.Concatenate()([L.Add()([x, y]), inputs])
    z = L.AveragePooling2D(2)(L.ReLU()(z))
    shared = L.Dense(4)(L.Flatten()(z))
    return keras.Model(inputs, L.Dense(3)(L.Add()([shared, L.ReLU()(shared)])))


def skip_to_the_logits():
    inputs = keras.Input(SHAPE)
    flat = L.Flatten()(inputs)
    hidden = L.Dense(6, activation="tanh")(flat)
    return keras.Model(inputs, L.Add()([L.Dense(3)(hidden), L.Dense(3, use_bias=False)(flat)]))


def skip_over_a_layer():
    inputs = keras.Input(SHAPE)
    early = L.Dense(6, activation="relu")(L.Flatten()(inputs))
    late = L.Dense(6)(L.Dense(6, activation="relu")(early))
    return keras.Model(inputs, L.Dense(3)(L.Add()([late, early])))


@pytest.fixture(params=[branched, skip_to_the_logits, skip_over_a_layer], ids=lambda make: make.__name__)
def classifier(request):
    keras.utils.set_random_seed(1)
    model = request.param()
    rng = np.random.default_rng(0)
    model.set_weights(
        [rng.normal(size=weight.shape) / np.sqrt(max(1, weight.shape[0])) for weight in model.get_weights()]
    )
    return model


def relative(logits, labels):
    return logits - logits[np.arange(len(labels)), labels][:, None]


def test_bounds_hold_on_feasible_images_and_are_exact_at_radius_0(classifier, sample, ball):
    images = np.random.default_rng(2).random((2, *SHAPE)).astype(np.float32)
    labels = np.array([0, 2])
    bounds = DifferentiableBounds(classifier, ball)
    at_zero = bounds.worst_logits(images, labels, tf.zeros([2])).numpy()
    np.testing.assert_allclose(at_zero, relative(classifier(images).numpy(), labels), atol=2e-5)
    previous = at_zero
    for epsilon in (0.01, 0.1, 0.3):
        worst = bounds.worst_logits(images, labels, tf.constant(epsilon)).numpy()
        assert (worst >= previous - 1e-5).all() and not np.allclose(worst, previous)
        previous = worst
        for row, image in enumerate(images):
            logits = classifier(sample(image, ball.with_epsilon(epsilon), 100)).numpy()
            actual = relative(logits, np.full(100, labels[row])).max(axis=0)
            assert (actual <= worst[row] + 1e-4).all()


def test_each_image_has_its_own_radius(classifier, ball):
    images = np.random.default_rng(2).random((2, *SHAPE)).astype(np.float32)
    bounds = DifferentiableBounds(classifier, ball)
    both = bounds.worst_logits(images, np.array([0, 1]), tf.constant([0.0, 0.2])).numpy()
    for row, (label, epsilon) in enumerate([(0, 0.0), (1, 0.2)]):
        alone = bounds.worst_logits(images[row : row + 1], np.array([label]), tf.constant(epsilon)).numpy()
        np.testing.assert_allclose(both[row], alone[0], atol=1e-5)


def dense(kernel, bias):
    inputs = keras.Input((1, 2, 1))
    hidden = L.Dense(2, activation="relu")(L.Flatten()(inputs))
    model = keras.Model(inputs, L.Dense(2)(hidden))
    model.set_weights([kernel, bias, np.array([[1.0, 0.0], [0.0, 1.0]]), np.zeros(2)])
    return model


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.25])
def test_small_boxes_are_moved_towards_a_higher_loss(fraction, ball):
    # Units 3 − 2x₀ and 3 + x₁, of Lipschitz constants 2 and 1; the label is 0.
    model = dense(np.array([[-2.0, 0.0], [0.0, 1.0]]), np.array([3.0, 3.0]))
    image = np.array([[[[0.4], [0.6]]]], np.float32)
    worst = DifferentiableBounds(model, ball).worst_logits(image, np.array([0]), 0.1, fraction).numpy()
    # The mass is 1, so that the box has radii 0.2 and 0.1 around 2.2 and 3.6. The loss rises where unit 0 falls and
    # unit 1 rises: the corner of all boxes that reach it.
    assert worst[0, 1] == pytest.approx(3.6 + 0.1 - (2.2 - 0.2), abs=1e-5) and worst[0, 0] == pytest.approx(0, abs=1e-6)


def test_a_smaller_box_bounds_the_other_side_more_tightly(ball):
    model = dense(np.array([[-2.0, 0.0], [0.0, 1.0]]), np.array([3.0, 3.0]))
    bounds = DifferentiableBounds(model, ball)
    image, labels = tf.constant([[[[0.4], [0.6]]]]), np.array([0])
    mass = tf.ones([1])
    first = bounds._first(image, tf.constant(0.1), mass, mass)
    functional = tf.eye(2)[None] - tf.one_hot(labels, 2)[:, None]
    small = bounds._small_boxes(first, functional, labels, mass, 0.25)
    (number,) = [number for number in first if number]
    np.testing.assert_allclose(first[number][0], [[2.2, 3.6]], atol=1e-5)
    np.testing.assert_allclose(first[number][1], [[0.2, 0.1]], atol=1e-5)
    np.testing.assert_allclose(small[number][1], [[0.05, 0.025]], atol=1e-6)
    np.testing.assert_allclose(small[number][0], [[2.2 - 0.15, 3.6 + 0.075]], atol=1e-5)
