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


def test_the_guess_is_the_root_for_four_near_targets():
    # m = 2, budget 1: 4 m / (exp λ + 4) = 1 at exp λ = 4; and none where the budget does not bind.
    images = tf.constant([0.5, 1.5], shape=[1, 1, 2, 1])
    np.testing.assert_allclose(guess_multiplier(images, tf.constant([1.0])), [[[[np.log(4)]]]], rtol=1e-6)
    np.testing.assert_allclose(guess_multiplier(images, tf.constant([4.0])), [[[[0.0]]]])


def test_moments_and_their_logarithms_are_those_of_all_targets():
    for kernel_size in (3, None):
        support = make_support(ThreatModel(kernel_size=kernel_size, p=2.0), (2, 3, 1))
        potential = tf.random.stateless_normal([2, 2, 3, 1], seed=[0, 1])
        multiplier = tf.constant([0.3, 2.0], shape=[2, 1, 1, 1])
        weights = tf.where(
            support.valid, tf.exp(support.pull_back(potential) - multiplier[:, None] * support.ground_cost), 0.0
        )
        sums = [tf.reduce_sum(weights * support.ground_cost**power, axis=1) for power in (0, 1, 2)]
        for found, expected in zip(gibbs.moments(support.rings(tf.exp(potential)), multiplier), sums, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5)
        log_sum, first, second = gibbs.log_sum_and_costs(support.log_rings(potential), multiplier)
        np.testing.assert_allclose(log_sum, np.log(sums[0]), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(first, sums[1] / sums[0], rtol=1e-5)
        np.testing.assert_allclose(second, sums[2] / sums[0], rtol=1e-5)
        far = gibbs.log_sum_and_costs(support.log_rings(potential + 500.0), multiplier)
        np.testing.assert_allclose(far[0], log_sum + 500.0, rtol=1e-6)


def test_weights_are_exponentials_far_below_float32():
    potential = tf.constant([0.0, -1.0, -200.0, -690.0])
    found = gibbs.weights_of(potential)
    assert found.dtype == tf.float64
    np.testing.assert_allclose(found, np.exp(potential.numpy().astype(float)), rtol=1e-4)


def test_a_projection_keeps_the_potential_up_to_its_maximum_and_its_floor():
    support = make_support(ThreatModel(kernel_size=3), (1, 3, 1))
    potential = tf.constant([[3.0, 1.0, -2.0], [900.0, 0.0, -1e5]], shape=[2, 1, 3, 1])
    images = tf.fill([2, 1, 3, 1], 0.5)
    found = project_kl(potential, tf.ones([2, 1, 1, 1]), images, tf.constant([0.3, 0.3]), support)
    np.testing.assert_allclose(found.potential.numpy().reshape(2, 3), [[0, -2, -5], [0, -690, -690]])


def test_usual_steps_meet_the_budget_after_a_warm_start():
    # Four, from a multiplier that is off by a tenth, and fourteen from one that is off by far.
    support = make_support(ThreatModel(kernel_size=5), (5, 5, 1))
    images = tf.random.stateless_uniform([3, 5, 5, 1], seed=[0, 1])
    potential = 2.0 * tf.random.stateless_normal([3, 5, 5, 1], seed=[2, 3])
    budget = tf.constant([0.02, 0.2, 0.5]) * image_mass(images)
    root = project_kl(potential, tf.ones([3, 1, 1, 1]), images, budget, support, 60).multiplier
    for start, steps, tolerance in ((0.9 * root, 4, 1e-3), (1.1 * root, 4, 1e-3), (0 * root, 14, 1e-2)):
        found = project_kl(potential, start, images, budget, support, steps)
        np.testing.assert_allclose(found.multiplier, root, rtol=tolerance)
        np.testing.assert_allclose(transport_cost(explicit_plan(found, images, support), support), budget, rtol=1e-2)
    default = project_kl(potential, 0.9 * root, images, budget, support)
    four = project_kl(potential, 0.9 * root, images, budget, support, 4)
    np.testing.assert_array_equal(default.multiplier, four.multiplier)
