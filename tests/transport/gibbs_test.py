"""Gibbs plans: the image and the root found without a plan are those of the plan itself."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport import gibbs
from wasser_tf.transport.gibbs import explicit_plan, gibbs_plan, guess_multiplier, project_kl
from wasser_tf.transport.neighbourhood import make_support
from wasser_tf.transport.plan import image_mass, row_sums, transport_cost

CASES = [(5, (6, 6, 1), 1.0), (3, (5, 7, 2), 2.0), (None, (5, 4, 2), 1.0)]


@pytest.mark.parametrize(("kernel_size", "shape", "p"), CASES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 110.0])
def test_the_projection_meets_the_budget_and_gives_the_image_of_its_plan(kernel_size, shape, p, scale):
    support = make_support(ThreatModel(kernel_size=kernel_size, p=p), shape)
    images = tf.random.stateless_uniform([3, *shape], seed=[0, 1])
    potential = scale * tf.random.stateless_normal([3, *shape], seed=[2, 3])
    budget = 0.3 * image_mass(images)
    cold = tf.zeros([3, 1, 1, 1])
    found = project_kl(potential, cold, images, budget, support, newton_steps=10)
    # Far from the warm start sums underflow; each projection starts where the last one ended, as in an attack.
    for _ in range(10):
        found = project_kl(potential, found.multiplier, images, budget, support, newton_steps=10)
    plan = gibbs_plan(potential, found.multiplier, images, support)
    np.testing.assert_allclose(row_sums(plan), images, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(support.push_forward(plan), found.image, rtol=1e-3, atol=1e-4)
    cost = transport_cost(plan, support).numpy()
    assert (found.multiplier.numpy() >= 0).all()
    binds = found.multiplier.numpy().ravel() > 0
    assert (cost <= budget.numpy() * 1.01).all()
    np.testing.assert_allclose(cost[binds], budget.numpy()[binds], rtol=1e-2)


@pytest.mark.parametrize(("kernel_size", "shape", "p"), CASES)
@pytest.mark.parametrize("radius", [1e-4, 0.005, 0.05, 0.3])
def test_from_a_guess_few_steps_find_the_budget(kernel_size, shape, p, radius):
    support = make_support(ThreatModel(kernel_size=kernel_size, p=p), shape)
    images = tf.random.stateless_uniform([3, *shape], seed=[0, 1])
    budget = radius * image_mass(images)
    for scale in (0.0, 1.0):
        potential = scale * tf.random.stateless_normal([3, *shape], seed=[2, 3])
        found = project_kl(potential, guess_multiplier(images, budget), images, budget, support, newton_steps=6)
        np.testing.assert_allclose(transport_cost(explicit_plan(found, images, support), support), budget, rtol=1e-3)


def test_a_guess_for_no_budget_and_for_no_mass_is_finite():
    support = make_support(ThreatModel(kernel_size=3), (4, 4, 1))
    images = tf.stack([tf.ones([4, 4, 1]), tf.zeros([4, 4, 1])])
    guess = guess_multiplier(images, tf.zeros([2]))
    found = project_kl(tf.zeros_like(images), guess, images, tf.zeros([2]), support, 6)
    np.testing.assert_array_equal(found.image, images)


def test_a_budget_that_does_not_bind_has_no_multiplier():
    support = make_support(ThreatModel(kernel_size=3), (4, 4, 1))
    images = tf.ones([1, 4, 4, 1])
    found = project_kl(tf.zeros([1, 4, 4, 1]), tf.ones([1, 1, 1, 1]), images, tf.constant([1e3]), support, 30)
    np.testing.assert_allclose(found.multiplier, [[[[0.0]]]], atol=1e-6)


def test_an_image_without_mass_stays_black():
    support = make_support(ThreatModel(kernel_size=3), (4, 4, 1))
    nothing = tf.zeros([1, 4, 4, 1])
    found = project_kl(nothing, tf.zeros([1, 1, 1, 1]), nothing, tf.zeros([1]), support, 10)
    assert np.isfinite(found.multiplier).all()
    np.testing.assert_allclose(found.image, nothing, atol=1e-30)


@pytest.mark.parametrize("pixels", [40, 90, 200])
def test_images_are_projected_alike_in_parts_of_any_size(monkeypatch, pixels):
    support = make_support(ThreatModel(kernel_size=3), (6, 6, 1))
    images = tf.random.stateless_uniform([7, 6, 6, 1], seed=[0, 1])
    given = tf.random.stateless_normal(images.shape, seed=[2, 3]), tf.ones([7, 1, 1, 1]), images
    whole = project_kl(*given, 0.2 * image_mass(images), support)
    monkeypatch.setattr(gibbs, "_PIXELS_A_PART", pixels)
    parts = project_kl(*given, 0.2 * image_mass(images), support)
    for one, other in zip(whole, parts, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
