import numpy as np
import pytest
import scipy.optimize
import scipy.special
import tensorflow as tf

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport import sinkhorn
from wasser_tf.transport.gibbs import gibbs_plan
from wasser_tf.transport.neighbourhood import make_support
from wasser_tf.transport.plan import transport_cost
from wasser_tf.transport.sinkhorn import initial_duals, sinkhorn_projection, wright_omega

SHAPE = (1, 4, 1)
SUPPORT = make_support(ThreatModel(kernel_size=3), SHAPE)
_project = tf.function(sinkhorn_projection, jit_compile=True, autograph=False)


def project(targets, images, radius, regularization, capacity=None):
    images = tf.constant(images, tf.float32)
    return _project(
        tf.constant(targets, tf.float32),
        images,
        radius * tf.reduce_sum(images, axis=[1, 2, 3]),
        initial_duals(images),
        SUPPORT,
        regularization=tf.constant(regularization, tf.float32),
        sweeps=2000,
        capacity=capacity,
        tolerance=-1.0,  # Never settles: all the sweeps.
    )


def random_images(count, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 1.0, (count, *SHAPE)).astype("float32")


def oracle(image, target, radius, regularization, capacity):
    """The primal problem, in float64: min ½ λ ‖z − y‖² + Σ Π log Π."""
    x, y = image.ravel().astype(float), target.ravel().astype(float)
    x, y, capacity = x / x.sum(), y / x.sum(), np.inf if capacity is None else capacity / x.sum()
    pairs = [(i, j) for i in range(4) for j in range(4) if abs(i - j) <= 1]
    rows = np.array([[i == r for i, _ in pairs] for r in range(4)], float)
    columns = np.array([[j == r for _, j in pairs] for r in range(4)], float)
    cost = np.array([abs(i - j) for i, j in pairs], float)
    constraints = [
        {"type": "eq", "fun": lambda plan: rows @ plan - x},
        {"type": "ineq", "fun": lambda plan: radius - cost @ plan},
        {"type": "ineq", "fun": lambda plan: np.minimum(capacity, 9.0) - columns @ plan},
    ]
    solution = scipy.optimize.minimize(
        lambda plan: 0.5 * regularization * np.sum((columns @ plan - y) ** 2) + np.sum(plan * np.log(plan)),
        rows.T @ x / 3,
        bounds=[(1e-12, None)] * len(pairs),
        constraints=constraints,
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-10},
    )
    return (columns @ solution.x).reshape(SHAPE) * image.sum()


@pytest.mark.parametrize("capacity", [None, 1.0])
def test_projection_solves_the_entropic_problem(capacity):
    images = random_images(4)
    targets = images + np.random.default_rng(1).normal(size=images.shape).astype("float32")
    found = project(targets, images, 0.2, 30.0, capacity)
    for image, target, projected in zip(images, targets, found.image.numpy(), strict=True):
        np.testing.assert_allclose(projected, oracle(image, target, 0.2, 30.0, capacity), atol=1e-3)


def test_duals_make_the_plan_of_the_projection():
    images = random_images(4)
    found = project(images + 0.5 * random_images(4, seed=1), images, 0.2, 30.0, 1.0)
    plan = gibbs_plan(found.duals.potential, found.duals.multiplier, tf.constant(images), SUPPORT)
    np.testing.assert_allclose(SUPPORT.push_forward(plan), found.image, atol=1e-4)
    np.testing.assert_allclose(transport_cost(plan, SUPPORT) / images.sum(axis=(1, 2, 3)), 0.2, atol=1e-4)


@pytest.mark.parametrize("regularization", [1e-6, 1.0, 1e9])
@pytest.mark.parametrize("size", [0.1, 1e6])
def test_no_regularization_or_target_overflows(regularization, size):
    images = random_images(4)
    images[0] = 0.0
    images[1] = 1.0
    images[2, 0, 1:] = 0.0
    targets = images + size * np.random.default_rng(1).normal(size=images.shape).astype("float32")
    for capacity in (None, 1.0):
        found = project(targets, images, 0.2, regularization, capacity)
        for value in tf.nest.flatten(found):
            assert np.isfinite(value.numpy()).all()
        assert (found.image.numpy()[0] == 0).all()
        assert (found.image.numpy() >= 0).all()
        if capacity is not None:
            assert found.image.numpy().max() <= 1 + 1e-6


def test_results_do_not_depend_on_the_other_images_of_the_batch():
    images, others = random_images(4), random_images(4, seed=7)
    others[0] = images[0]
    targets = images + 0.3
    alone = project(targets, images, 0.2, 30.0)
    together = project(np.concatenate([targets[:1], 5 * others[1:]]), others, 0.2, 30.0)
    np.testing.assert_array_equal(alone.image[0], together.image[0])
    assert alone.sweeps[0] == together.sweeps[0]


def test_wright_omega_against_scipy():
    arguments = np.concatenate([np.linspace(-60, 60, 2001), [-1e30, -1e4, 1e3, 1e6, 1e30]])
    expected = scipy.special.wrightomega(arguments.astype("float32").astype(float))
    np.testing.assert_allclose(wright_omega(tf.constant(arguments, tf.float32)), expected, rtol=1e-5, atol=1e-30)


def test_it_starts_from_uniform_columns_and_a_multiplier_of_1():
    duals = initial_duals(tf.zeros([3, 2, 4, 1]))
    np.testing.assert_allclose(duals.potential, np.full((3, 2, 4, 1), np.log(8)), rtol=1e-6)
    np.testing.assert_array_equal(duals.multiplier, np.ones((3, 1, 1, 1)))


def settle(sweeps=50, **settings):
    images = tf.constant(random_images(4))
    targets = images + 0.5 * random_images(4, seed=1)
    budget = 0.2 * tf.reduce_sum(images, axis=[1, 2, 3])
    return sinkhorn_projection(
        targets,
        images,
        budget,
        initial_duals(images),
        SUPPORT,
        regularization=tf.constant(3.0),
        **{"sweeps": sweeps, "capacity": 1.0, **settings},
    )


def test_an_image_stops_when_its_objective_settles_and_not_before():
    loose, usual, tight = (settle(tolerance=tolerance).sweeps.numpy() for tolerance in (1e-1, 1e-4, 1e-6))
    assert (loose >= 2).all() and (loose < usual).all() and (usual <= tight).all() and usual.max() < 50
    np.testing.assert_array_equal(settle().sweeps, usual)
    assert settle(tolerance=-1.0, sweeps=3).sweeps.numpy().tolist() == [3] * 4


def test_it_iterates_until_mass_and_cost_are_right_up_to_five_times_the_sweeps():
    # Neither can be met: five times the sweeps.
    for impossible in ({"mass_tolerance": -1.0}, {"cost_tolerance": -9.0}):
        assert settle(sweeps=3, **impossible).sweeps.numpy().tolist() == [15] * 4
    images = random_images(4)
    found = settle(sweeps=1, tolerance=1.0, mass_tolerance=1e-3, cost_tolerance=1e-3)
    total = images.sum(axis=(1, 2, 3))
    reached = found.sweeps.numpy() < 5
    assert (np.abs(found.image.numpy().sum(axis=(1, 2, 3)) / total - 1)[reached] <= 1e-3).all()
    assert (settle(sweeps=1, tolerance=1.0).sweeps.numpy() == 1).all()


def test_quick_sums_are_the_sums_of_logarithms():
    potential = tf.random.stateless_normal([2, *SHAPE], seed=[0, 1]) * 5 + 40
    multiplier = tf.constant([0.5, 3.0], shape=[2, 1, 1, 1])
    for quick, sure in zip(
        sinkhorn._quick_sums(potential, multiplier, SUPPORT),
        sinkhorn._log_sums(potential, multiplier, SUPPORT),
        strict=True,
    ):
        np.testing.assert_allclose(quick, sure, rtol=1e-4, atol=1e-6)


def test_the_span_leaves_out_log_zeros():
    potential = tf.constant([[3.0, -4.0, -1e30, 1.0], [-1e30, 2.0, 2.0, 2.0]], shape=[2, *SHAPE])
    np.testing.assert_array_equal(sinkhorn._span(potential), [7, 0])


@pytest.mark.parametrize("steep", [1.0, 400.0])
def test_potentials_of_any_span_give_the_same_projection_by_either_sum(monkeypatch, steep):
    images = random_images(4)
    targets = images + steep * np.random.default_rng(1).normal(size=images.shape).astype("float32")

    def once():
        given = tf.constant(images)
        budget = 0.2 * tf.reduce_sum(given, axis=[1, 2, 3])
        return sinkhorn_projection(
            tf.constant(targets),
            given,
            budget,
            initial_duals(given),
            SUPPORT,
            regularization=tf.constant(3.0),
            sweeps=20,
        )

    usual = once()
    monkeypatch.setattr(sinkhorn, "_quick_sums", sinkhorn._log_sums)
    np.testing.assert_allclose(usual.image, once().image, atol=1e-3)
