"""Minimal radii, compared with the exact thresholds of a linear classifier."""

import keras
import numpy as np
import pytest

import wasser_tf
from wasser_tf.evaluation.minimal_radius import minimal_radii
from wasser_tf.transport.exact import linear_optimum

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def linear():
    """A linear classifier of two classes, images, labels, and the direction that its margin grows in."""
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(64, 2)).astype(np.float32)
    direction = (weights[:, 1] - weights[:, 0]).reshape(SHAPE).astype(float)
    images = rng.uniform(size=(4, *SHAPE)).astype(np.float32)
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.set_weights([weights, np.float32([6.0, 0.0])])
    return model, images, direction


def test_radii_are_close_to_the_exact_ones_and_never_below(linear):
    model, images, direction = linear
    labels = np.asarray(model(images)).argmax(axis=1)
    labels[3] = 1 - labels[3]  # A clean mistake.
    assert (labels[:3] == 0).all()
    found = minimal_radii(wasser_tf.MirrorAscent(wasser_tf.ThreatModel()), model, images, labels, resolution=0.002)
    assert found.radius[3] == 0 and found.feasibility.feasible().all()
    for image, radius in zip(images[:3], found.radius[:3], strict=True):
        assert _margin_at(image, radius * (1 + 1e-4), direction) >= 0
        assert _margin_at(image, 0.93 * radius - 0.002, direction) < 0
    np.testing.assert_array_less(found.feasibility.cost[:3], found.radius[:3] * (1 + 1e-5))
    assert (np.asarray(model(found.adversarial)).argmax(axis=1) != labels).all()
    np.testing.assert_allclose(found.robust_accuracy([0.0, 2.0]), [0.75, 0.0])


def _margin_at(image, radius, direction):
    best, _ = linear_optimum(image, direction, wasser_tf.ThreatModel(epsilon=radius))
    return best - 6.0


def test_an_image_that_is_never_fooled_has_an_infinite_radius():
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.set_weights([np.zeros((64, 2), np.float32), np.float32([1.0, 0.0])])
    attack, images = wasser_tf.attacks.RandomPlan(wasser_tf.ThreatModel()), np.ones((2, *SHAPE), np.float32)
    with pytest.warns(UserWarning, match="2 of 2 images are flagged"):
        found = minimal_radii(attack, model, images, np.zeros(2, int))
    assert np.isinf(found.radius).all() and found.robust_accuracy([1.0]) == 1.0


def test_bad_settings_are_refused(linear):
    model, images, _ = linear
    labels = np.zeros(4, int)
    attack = wasser_tf.attacks.RandomPlan(wasser_tf.ThreatModel())
    with pytest.raises(ValueError, match="above 0"):
        minimal_radii(attack, model, images, labels, resolution=0.0)
    scheduled = wasser_tf.MirrorAscent(wasser_tf.ThreatModel(), schedule=wasser_tf.RadiusSchedule())
    with pytest.raises(ValueError, match="without a radius schedule"):
        minimal_radii(scheduled, model, images, labels)
