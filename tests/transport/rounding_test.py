"""Rounding makes any plan feasible."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.exact import wasserstein_distance
from wasser_tf.transport.feasibility import measure_feasibility
from wasser_tf.transport.gibbs import gibbs_plan, project_kl
from wasser_tf.transport.neighbourhood import make_support
from wasser_tf.transport.plan import identity_plan, image_mass, row_sums, transport_cost
from wasser_tf.transport.rounding import _largest_feasible_step, feasible_plan, round_to_feasible

# Image shape, kernel size, p, and whether mass is normalised: each is compiled, so these few and not all that combine.
GEOMETRIES = [
    ((4, 4, 1), 3, 1.0, True),
    ((4, 4, 1), None, 1.0, False),
    ((5, 3, 2), 5, 2.0, True),
    ((5, 3, 2), None, 2.0, True),
    ((1, 6, 3), 5, 1.0, False),
]


def made_feasible(plan, images, support, radius, threat_model):
    """The feasible image and plan."""
    rounded = round_to_feasible(plan, images, support, radius, threat_model)
    return rounded.image, feasible_plan(plan, rounded, images, support)


@tf.function(reduce_retracing=True, autograph=False)
def made_feasible_and_measured(plan, images, support, radius, threat_model):
    image, feasible = made_feasible(plan, images, support, radius, threat_model)
    return image, feasible, measure_feasibility(feasible, image, images, support, radius, threat_model)


@st.composite
def problems(draw):
    """A batch of images of every kind, a plan of every kind, and a threat model."""
    shape, kernel_size, p, normalize_mass = draw(st.sampled_from(GEOMETRIES))
    threat_model = ThreatModel(kernel_size=kernel_size, p=p, normalize_mass=normalize_mass).rules
    radius = draw(st.sampled_from([0.0, 1e-3, 0.1, 0.5, 3.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = {
        "uniform": rng.uniform(size=shape),
        "sparse": rng.uniform(size=shape) * (rng.uniform(size=shape) < 0.2),
        "saturated": (rng.uniform(size=shape) < 0.6).astype(float),
        "faint": rng.uniform(size=shape) * 1e-4,
        "full": np.ones(shape),
        "black": np.zeros(shape),
    }
    images = np.stack([kinds[draw(st.sampled_from(sorted(kinds)))] for _ in range(2)]).astype(np.float32)
    support = make_support(threat_model, shape)
    plan = rng.uniform(-0.2, 1.0, size=(2, support.num_targets, *shape)) * draw(st.sampled_from([0.05, 1.0, 30.0]))
    return images, plan.astype(np.float32), support, np.float32(radius), threat_model


def test_what_stays_is_rounded_once_whatever_the_order_of_sums():
    threat_model = ThreatModel(kernel_size=5).rules
    support = make_support(threat_model, (8, 8, 3))
    images = np.random.default_rng(0).uniform(0.9, 1.0, size=(1, 8, 8, 3)).astype(np.float32)
    flows = np.random.default_rng(1).uniform(0.0, 0.04, size=(1, 25, 8, 8, 3)).astype(np.float32)
    plan = made_feasible(tf.constant(flows), images, support, np.float32(9.0), threat_model)[1].numpy()
    # An entry of at most 1 is rounded by at most 2^-25.
    np.testing.assert_allclose(plan.astype(np.float64).sum(axis=1), images, rtol=0, atol=2.0**-25)


@hypothesis.given(problems())
@hypothesis.settings(max_examples=50, deadline=None)
def test_rounding_makes_any_plan_feasible_and_the_exact_distance_agrees(problem):
    images, plan, support, radius, threat_model = problem
    targets, _, feasibility = made_feasible_and_measured(plan, images, support, tf.constant(radius), threat_model)
    assert feasibility.feasible().all(), feasibility
    assert targets.numpy().min() >= 0 and targets.numpy().max() <= 1
    for image, target, cost in zip(images, targets.numpy(), feasibility.cost.numpy(), strict=True):
        assert wasserstein_distance(image, target, threat_model) <= cost * (1 + 1e-4) + 1e-6


@hypothesis.given(problems(), st.sampled_from([0.0, 1.0, 10.0, 100.0]), st.sampled_from([0.3, 1.0, 5.0]))
@hypothesis.settings(max_examples=20, deadline=None)
def test_a_gibbs_plan_is_rounded_as_the_dense_plan_it_represents(problem, scale, excess):
    images, _, support, radius, threat_model = problem
    potential = scale * tf.random.stateless_normal(images.shape, seed=[1, 2])
    # Within, at and beyond the budget that it is rounded to.
    budget = excess * radius * (image_mass(images) if threat_model.normalize_mass else tf.ones([2]))
    found = project_kl(potential, tf.zeros([2, 1, 1, 1]), images, budget, support, newton_steps=20)
    image, feasible, feasibility = made_feasible_and_measured(found, images, support, tf.constant(radius), threat_model)
    assert feasibility.feasible().all(), feasibility
    plan = gibbs_plan(found.potential, found.multiplier, images, support)
    same_image, same_feasible, _ = made_feasible_and_measured(plan, images, support, tf.constant(radius), threat_model)
    np.testing.assert_allclose(image, same_image, atol=1e-4)
    # Where no pixel has room, what float32 left over decides how long a step is made, of plans that change nothing.
    full = images.min(axis=(1, 2, 3)) == 1
    np.testing.assert_allclose(feasible[~full], same_feasible[~full], atol=1e-4)
    np.testing.assert_allclose(feasible[full], same_feasible[full], atol=0.1)


@pytest.mark.parametrize("kernel_size", [3, None])
def test_a_feasible_plan_is_left_alone(kernel_size):
    threat_model = ThreatModel(epsilon=1.0, kernel_size=kernel_size)
    support = make_support(threat_model, (4, 5, 1))
    images = np.full((1, 4, 5, 1), 0.5, np.float32)
    plan = 0.9 * identity_plan(images, support) + 0.05 * tf.roll(identity_plan(images, support), 1, axis=1)
    plan = tf.where(support.valid, plan, 0.0)
    plan += tf.where(support.home, (images - row_sums(plan))[:, None], 0.0)
    _, feasible = made_feasible(plan, images, support, threat_model.epsilon, threat_model)
    np.testing.assert_allclose(feasible, plan, atol=1e-6)


def test_the_cost_is_scaled_down_to_the_budget_and_not_further():
    threat_model = ThreatModel(epsilon=0.25, kernel_size=3)
    support = make_support(threat_model, (6, 6, 1))
    images = np.full((1, 6, 6, 1), 0.3, np.float32)
    plan = tf.where(support.home, 0.0, 0.01 * tf.ones((1, 9, 6, 6, 1)))
    _, feasible = made_feasible(plan * 10, images, support, 0.25, threat_model)
    np.testing.assert_allclose(transport_cost(feasible, support) / images.sum(), 0.25, rtol=1e-5)


def test_without_capacity_pixels_may_overflow():
    threat_model = ThreatModel(epsilon=5.0, kernel_size=3, capacity=None)
    support = make_support(threat_model, (1, 3, 1))
    images = np.ones((1, 1, 3, 1), np.float32)
    # Both outer pixels send all to the middle: targets are left, home, right.
    plan = np.zeros((1, 3, 1, 3, 1), np.float32)
    plan[0, 2, 0, 0], plan[0, 1, 0, 1], plan[0, 0, 0, 2] = 1, 1, 1
    feasible = round_to_feasible(plan, images, support, 5.0, threat_model)
    np.testing.assert_allclose(feasible.image.numpy().ravel(), [0, 3, 0], atol=1e-6)
    capped = round_to_feasible(plan, images, support, 5.0, ThreatModel(epsilon=5.0, kernel_size=3))
    np.testing.assert_array_equal(capped.image, images)


def test_what_is_not_a_number_moves_nothing():
    threat_model = ThreatModel(kernel_size=3)
    support = make_support(threat_model, (3, 3, 1))
    images = np.full((1, 3, 3, 1), 0.5, np.float32)
    for bad in (np.nan, np.inf, -np.inf):
        plan = np.full((1, 9, 3, 3, 1), bad, np.float32)
        np.testing.assert_array_equal(round_to_feasible(plan, images, support, 0.5, threat_model).image, images)


TINY = make_support(ThreatModel(kernel_size=3), (1, 3, 1))


def tiny(*flows, images, radius=9.0, **rules):
    """Rounds the plan of (target, pixel, mass) on one 1×3 image; targets are left, home, right."""
    plan = np.zeros((1, 3, 1, 3, 1), np.float32)
    for target, pixel, mass in flows:
        plan[0, target, 0, pixel, 0] += mass
    images = np.array(images, np.float32).reshape(1, 1, 3, 1)
    threat_model = ThreatModel(kernel_size=3, **rules)
    rounded = round_to_feasible(tf.constant(plan), tf.constant(images), TINY, radius, threat_model)
    feasible = feasible_plan(tf.constant(plan), rounded, tf.constant(images), TINY)
    np.testing.assert_allclose(TINY.push_forward(feasible), rounded.image, atol=1e-6)
    return rounded, feasible.numpy()[0, :, 0, :, 0]


def test_a_pixel_that_sends_more_than_it_has_sends_in_proportion():
    rounded, plan = tiny((0, 1, 3.0), (2, 1, 1.0), (1, 1, 5.0), images=[0, 0.5, 0])
    np.testing.assert_allclose(rounded.image.numpy().ravel(), [0.375, 0, 0.125], atol=1e-6)
    np.testing.assert_allclose(plan[:, 1], [0.375, 0, 0.125], atol=1e-6)


def test_what_is_negative_or_off_the_image_counts_as_nothing():
    rounded, plan = tiny((0, 1, -3.0), (2, 1, 0.25), (0, 0, 0.25), (2, 2, 0.25), images=[0.25, 0.5, 0])
    np.testing.assert_allclose(rounded.image.numpy().ravel(), [0.25, 0.25, 0.25], atol=1e-6)
    np.testing.assert_allclose(plan, [[0, 0, 0], [0.25, 0.25, 0], [0, 0.25, 0]], atol=1e-6)


def test_an_over_full_pixel_refuses_in_proportion_and_only_as_much_as_it_must():
    # The middle has room for 0.25 and is sent 0.5 and 0.25: it takes a third of each.
    rounded, plan = tiny((2, 0, 0.5), (0, 2, 0.25), images=[0.5, 0.75, 0.5])
    np.testing.assert_allclose(rounded.image.numpy().ravel(), [0.5 - 0.5 / 3, 1, 0.5 - 0.25 / 3], atol=1e-5)
    np.testing.assert_allclose(rounded.accepted.numpy().ravel()[1], 1 / 3, atol=1e-5)
    # What leaves it makes room.
    rounded, _ = tiny((2, 0, 0.5), (2, 1, 0.25), images=[0.5, 0.75, 0])
    np.testing.assert_allclose(rounded.image.numpy().ravel(), [0, 1, 0.25], atol=1e-6)
    assert rounded.step.numpy().tolist() == [1]


def test_what_is_refused_may_over_fill_its_own_pixel_and_so_is_refused_again():
    # The right is full and refuses the middle, which then has no room for the left.
    rounded, plan = tiny((2, 0, 0.5), (2, 1, 0.5), images=[0.5, 1.0, 1.0])
    np.testing.assert_allclose(rounded.image.numpy().ravel(), [0.5, 1, 1], atol=1e-6)
    np.testing.assert_allclose(plan[1], [0.5, 1, 1], atol=1e-6)


@pytest.mark.parametrize(("capacity", "expected"), [(1.5, [0.0, 1.5, 0.5]), (1.25, [0.25, 1.25, 0.5])])
def test_a_capacity_above_1_is_the_one_that_holds(capacity, expected):
    rounded, _ = tiny((2, 0, 0.5), images=[0.5, 1.0, 0.5], capacity=capacity)
    np.testing.assert_allclose(rounded.image.numpy().ravel(), expected, atol=1e-5)


@pytest.mark.parametrize(("normalize_mass", "moved"), [(True, 0.1 * 1.5), (False, 0.1)])
def test_the_whole_move_shrinks_to_the_budget(normalize_mass, moved):
    rounded, plan = tiny((2, 0, 0.5), images=[0.75, 0.25, 0.5], radius=0.1, normalize_mass=normalize_mass)
    np.testing.assert_allclose(rounded.image.numpy().ravel(), [0.75 - moved, 0.25 + moved, 0.5], atol=1e-6)
    np.testing.assert_allclose(rounded.step, [moved / 0.5], rtol=1e-5)
    assert (plan * TINY.ground_cost.numpy()[:, 0, :, 0]).sum() <= moved


def test_the_largest_feasible_step_is_by_cost_and_by_the_fullest_pixel():
    def step(cost, budget, change, capacity=1.0):
        images = tf.constant([0.5, 0.75], shape=[1, 1, 2, 1])
        change = tf.constant(change, shape=[1, 1, 2, 1])
        return float(_largest_feasible_step(tf.constant([cost]), tf.constant([budget]), change, images, capacity)[0])

    assert step(1.0, 2.0, [0.1, -0.1]) == 1 and step(2.0, 2.0, [0.1, -0.1]) == 1
    assert step(4.0, 1.0, [0.1, -0.1]) == pytest.approx(0.25) and step(0.0, 0.0, [0.0, 0.0]) == 1
    assert step(1.0, 2.0, [0.2, 0.5]) == pytest.approx(0.5, abs=1e-5)
    assert step(1.0, 2.0, [2.0, 0.5]) == pytest.approx(0.25, abs=1e-5)
    assert step(1.0, 2.0, [2.0, 0.5], capacity=None) == 1
    assert step(1.0, 0.1, [2.0, 0.5]) == pytest.approx(0.1, abs=1e-6)
