import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.euclidean import project_euclidean, project_rows
from wasser_tf.transport.neighbourhood import make_support
from wasser_tf.transport.plan import identity_plan, row_sums, transport_cost

SUPPORTS = {
    "local": make_support(ThreatModel(kernel_size=3), (4, 3, 2)),
    "dense": make_support(ThreatModel(kernel_size=None, p=2.0), (4, 3, 2)),
}
_rows = tf.function(project_rows, jit_compile=True, autograph=False)
_budget = tf.function(project_euclidean, jit_compile=True, autograph=False)


def problem(support, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.uniform(size=(4, *support.image_shape)) * rng.integers(0, 2, (4, *support.image_shape))
    images = images.astype("float32")
    images[3] = 0.0
    noise = rng.normal(size=(4, support.num_targets, *support.image_shape)).astype("float32")
    return tf.constant(images), identity_plan(tf.constant(images), support) + scale * noise


def sorted_simplex(values, mass):
    """Projects one row onto {Π ≥ 0, ΣΠ = mass} by sorting, in float64."""
    descending = np.sort(values)[::-1]
    thresholds = (np.cumsum(descending) - mass) / np.arange(1, len(values) + 1)
    return np.maximum(values - thresholds[np.nonzero(descending > thresholds)[0][-1]], 0) if mass > 0 else 0 * values


def project_rows_by_sorting(plan, images, support):
    valid = np.broadcast_to(support.valid.numpy(), plan.shape[1:])
    found = np.zeros(plan.shape)
    for b, h, w, c in np.ndindex(*images.shape):
        targets = valid[:, h, w, c]
        found[b, targets, h, w, c] = sorted_simplex(plan[b, targets, h, w, c].astype(float), float(images[b, h, w, c]))
    return found


@pytest.mark.parametrize("kind", SUPPORTS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_rows_against_sorting(kind, scale):
    support = SUPPORTS[kind]
    images, plan = problem(support, scale)
    expected = project_rows_by_sorting(plan.numpy(), images.numpy(), support)
    np.testing.assert_allclose(_rows(plan, images, support), expected, atol=1e-6 * max(scale, 1))


@pytest.mark.parametrize("kind", SUPPORTS)
def test_budget_against_bisection(kind):
    support = SUPPORTS[kind]
    images, plan = problem(support)
    budget = 0.3 * tf.reduce_sum(images, axis=[1, 2, 3])
    found = _budget(plan, images, budget, support)
    low, high = np.zeros(4), np.full(4, 100.0)
    for _ in range(60):
        middle = (low + high) / 2
        shifted = plan.numpy() - middle[:, None, None, None, None] * support.ground_cost.numpy()
        expected = project_rows_by_sorting(shifted, images.numpy(), support)
        above = transport_cost(tf.constant(expected, tf.float32), support).numpy() > budget.numpy()
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(row_sums(found), images, atol=1e-6)
    assert (transport_cost(found, support).numpy() <= budget.numpy() * (1 + 2e-6)).all()


def test_budget_against_a_quadratic_program():
    support = make_support(ThreatModel(kernel_size=3), (1, 3, 1))
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(4, 1, 3, 1)).astype("float32")
    plan = rng.normal(size=(4, 3, 1, 3, 1)).astype("float32")
    budget = 0.2 * images.sum(axis=(1, 2, 3))
    found = _budget(tf.constant(plan), tf.constant(images), tf.constant(budget), support).numpy()
    valid = support.valid.numpy()[:, 0, :, 0].ravel()
    cost = np.broadcast_to(support.ground_cost.numpy()[:, 0, :, 0], (3, 3)).ravel()
    rows = np.tile(np.eye(3), (1, 3))
    for b in range(4):
        values, mass, allowed = plan[b, :, 0, :, 0].ravel(), images[b].ravel(), budget[b]
        solution = scipy.optimize.minimize(
            lambda entries, values=values: np.sum(np.where(valid, entries - values, 0) ** 2),
            np.zeros(9),
            bounds=[(0, None if inside else 0) for inside in valid],
            constraints=[
                {"type": "eq", "fun": lambda entries, mass=mass: rows @ entries - mass},
                {"type": "ineq", "fun": lambda entries, allowed=allowed: allowed - cost @ entries},
            ],
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-12},
        )
        np.testing.assert_allclose(found[b].ravel(), solution.x, atol=1e-4)


def test_a_plan_within_everything_stays():
    support = SUPPORTS["local"]
    images, _ = problem(support)
    plan = identity_plan(images, support)
    np.testing.assert_allclose(_budget(plan, images, tf.zeros(4), support), plan, atol=1e-6)


def test_no_budget_brings_everything_home():
    support = SUPPORTS["dense"]
    images, plan = problem(support, 10.0)
    np.testing.assert_allclose(_budget(plan, images, tf.zeros(4), support), identity_plan(images, support), atol=1e-4)


def test_results_do_not_depend_on_the_other_images_of_the_batch():
    support = SUPPORTS["local"]
    images, plan = problem(support)
    others, other_plan = problem(support, 30.0, seed=3)
    others, other_plan = tf.concat([images[:1], others[1:]], 0), tf.concat([plan[:1], other_plan[1:]], 0)
    budget = tf.ones(4)
    np.testing.assert_array_equal(
        _budget(plan, images, budget, support)[0], _budget(other_plan, others, budget, support)[0]
    )


@pytest.mark.parametrize("kind", SUPPORTS)
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_a_handful_of_steps_finds_the_multiplier_to_a_millionth(kind, share):
    # Bisection alone would need twenty: these are Newton's.
    support = SUPPORTS[kind]
    images, plan = problem(support, 0.3)
    budget = share * tf.reduce_sum(images, axis=[1, 2, 3])
    found = _budget(plan, images, budget, support, steps=9)
    np.testing.assert_allclose(_budget(plan, images, budget, support, steps=60), found, atol=2e-6)
    cost = transport_cost(found, support).numpy()
    np.testing.assert_allclose(cost[:3], budget[:3], rtol=3e-6)


def test_the_multiplier_is_found_whatever_the_sign_of_the_plan():
    # All entries negative or all of one size: the bracket's upper end is by the absolute largest of the image's own.
    support = make_support(ThreatModel(kernel_size=3), (1, 3, 1))
    images = tf.constant([[0.5, 0.0, 0.25], [0.0, 0.25, 0.0]], shape=[2, 1, 3, 1])
    plan = np.full((2, 3, 1, 3, 1), -40.0, np.float32)
    plan[:, 1] = -100.0  # Home is 60 below the others.
    plan[1] *= 0.01
    budget = tf.constant([0.1, 0.05])
    found = _budget(tf.constant(plan), images, budget, support)
    np.testing.assert_allclose(transport_cost(found, support), budget, rtol=1e-4)
    np.testing.assert_allclose(row_sums(found), images, atol=1e-5)


def test_a_budget_that_does_not_bind_changes_nothing():
    support = SUPPORTS["local"]
    images, plan = problem(support)
    np.testing.assert_allclose(
        _budget(plan, images, tf.fill([4], 1e3), support), _rows(plan, images, support), atol=1e-6
    )
