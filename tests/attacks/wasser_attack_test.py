"""WasserAttack: its start and steps for several radii, metrics and supports."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import wasser_tf
from wasser_tf.attacks import wasser_attack
from wasser_tf.transport.exact import linear_optimum
from wasser_tf.transport.neighbourhood import make_support
from wasser_tf.transport.plan import row_sums, transport_cost

SUPPORTS = [(3, 1.0, (5, 4, 1)), (5, 2.0, (6, 6, 3)), (None, 1.0, (4, 5, 2))]


@functools.cache
def _random_images(shape):
    """One dim, one bright, one with few pixels."""
    images = np.random.default_rng(0).uniform(size=(3, *shape)).astype(np.float32)
    images[0] *= 0.05
    images[2] *= images[2] > 0.7
    return images


@pytest.mark.parametrize(("kernel_size", "p", "shape"), SUPPORTS, ids=str)
@settings(max_examples=15, deadline=None)
@given(exponent=st.floats(-4.0, -0.7))
def test_the_start_costs_a_twentieth_of_the_budget(kernel_size, p, shape, exponent):
    support = make_support(wasser_tf.ThreatModel(epsilon=1.0, kernel_size=kernel_size, p=p), shape)
    images = tf.constant(_random_images(shape))
    budget = 10.0**exponent * tf.reduce_sum(images, axis=[1, 2, 3])
    lowest = wasser_attack._lower_bound(images, budget, support)
    start = wasser_attack._start(images, budget, lowest, support)
    np.testing.assert_allclose(transport_cost(start.plan, support) / budget, 0.05, rtol=0.02)
    np.testing.assert_allclose(row_sums(start.plan), images, atol=4e-6)
    np.testing.assert_allclose(start.image, support.push_forward(start.plan), atol=1e-6)
    # What is at the bound stands for 0.
    at_bound = tf.where(support.valid & (images > 0)[:, None], lowest[:, None], 0.0)
    assert (transport_cost(at_bound, support) <= 1.1e-4 * budget).numpy().all()


@pytest.mark.parametrize(("kernel_size", "p", "shape"), SUPPORTS, ids=str)
def test_duals_are_added_to_the_variable_that_a_plan_stands_for(kernel_size, p, shape):
    support = make_support(wasser_tf.ThreatModel(epsilon=1.0, kernel_size=kernel_size, p=p), shape)
    rng = np.random.default_rng(1)
    # From next to nothing to nearly 1, and duals that nearly cancel each other.
    phi = rng.uniform(-30.0, 5.0, size=(2, support.num_targets, *shape))
    source, target = rng.uniform(-30.0, 30.0, size=(2, 2, *shape))
    multiplier = np.array([-2.0, 8.0]).reshape(2, 1, 1, 1)
    plan = tf.where(support.valid, tf.constant(1 / (1 + np.exp(-2 * phi)), tf.float32), 0.0)
    lowest = 1e-12 * np.ones(source.shape)
    found = wasser_attack._add_duals(
        plan, *[tf.constant(dual, tf.float32) for dual in (source, target, multiplier, lowest)], support
    )
    pulled = support.pull_back(tf.constant(target, tf.float32)).numpy()
    phi += 0.5 * (source[:, None] + pulled - multiplier[:, None] * support.ground_cost.numpy())
    expected = np.maximum(1 / (1 + np.exp(-2 * phi)), 1e-12)
    np.testing.assert_allclose(found, np.where(support.valid, expected, 0.0), rtol=2e-3)


@pytest.fixture(scope="module")
def linear():
    """A linear classifier of two classes, 8×8 images of strokes and greys, and the direction it is fooled in."""
    rng = np.random.default_rng(3)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    weights = rng.normal(size=(64, 2)).astype(np.float32)
    model.set_weights([weights, np.zeros(2, np.float32)])
    images = np.clip(rng.uniform(-0.5, 1.3, size=(2, 8, 8, 1)), 0, 1).astype(np.float32)
    return model, images, (weights[:, 1] - weights[:, 0]).reshape(8, 8, 1).astype(float)


RADII = (0.001, 0.03, 0.3, 1.5)


@pytest.mark.parametrize(("kernel_size", "p"), [(5, 1.0), (5, 2.0), (None, 1.0)])
def test_the_optimum_of_a_linear_classifier_is_reached_at_every_radius(linear, kernel_size, p):
    model, images, direction = linear
    count = len(images)
    ball = wasser_tf.ThreatModel(epsilon=1.0, kernel_size=kernel_size, p=p)
    radii = np.repeat(np.array(RADII, np.float32), count)
    result = wasser_tf.WasserAttack(ball, iterations=60)(
        model, np.tile(images, (len(RADII), 1, 1, 1)), np.zeros(len(radii), np.int32), radius=radii, from_logits=True
    )
    for number, radius in enumerate(RADII):
        shares = []
        for image, target in zip(images, result.adversarial[number * count :], strict=False):
            best, _ = linear_optimum(
                image, direction, wasser_tf.ThreatModel(epsilon=radius, kernel_size=kernel_size, p=p)
            )
            start = (direction * image).sum()
            shares.append(((direction * target).sum() - start) / (best - start))
        # At 1.5 nearly all is bound by capacity alone.
        assert min(shares) >= (0.95 if radius < 1 else 0.9), (radius, shares)
    # The raw examples too: rows, and so mass, to float32's rounding; the budget to a per cent.
    assert result.raw_feasibility.mass_error.max() <= 1e-5
    assert (result.raw_feasibility.cost <= 1.01 * radii).all()


def test_an_adaptive_radius_absolute_budgets_and_odd_weights_stay_feasible(linear):
    model, images, _ = linear
    labels = np.zeros(len(images), np.int32)
    schedule = wasser_tf.RadiusSchedule(start=0.001, minimum=0.001, factor=2.0, every=3)
    ball = wasser_tf.ThreatModel(epsilon=0.5, normalize_mass=False)
    for made in (
        wasser_tf.WasserAttack(ball, iterations=30, schedule=schedule),
        wasser_tf.WasserAttack(ball, iterations=5, alpha=0.0, beta=0.0, gamma=0.0, gradient_scale=None, step_size=50.0),
    ):
        result = made(model, images, labels, from_logits=True)
        assert result.feasibility.feasible().all() and np.isfinite(result.raw).all()
