"""Supports: the adjoint, borders, channels, and that a window as large as the image is the dense support."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.neighbourhood import make_support
from wasser_tf.transport.plan import identity_plan, row_sums, transport_cost

CASES = [(5, (6, 6, 1)), (3, (5, 7, 2)), (9, (3, 6, 1)), (5, (1, 1, 3)), (1, (4, 4, 1)), (None, (5, 7, 2))]


def support_of(kernel_size, shape, p=1.0):
    return make_support(ThreatModel(kernel_size=kernel_size, p=p), shape)


def random_feasible_plan(support, seed=0):
    values = tf.random.stateless_uniform([2, support.num_targets, *support.image_shape], seed=[seed, 1])
    return tf.where(support.valid, values, 0.0)


@pytest.mark.parametrize(("kernel_size", "shape"), CASES)
def test_pull_back_is_the_adjoint_of_push_forward(kernel_size, shape):
    support = support_of(kernel_size, shape)
    plan = tf.random.stateless_normal([2, support.num_targets, *shape], seed=[1, 2])
    image = tf.random.stateless_normal([2, *shape], seed=[3, 4])
    forward = tf.reduce_sum(support.push_forward(plan) * image, axis=[1, 2, 3])
    backward = tf.reduce_sum(plan * support.pull_back(image), axis=[1, 2, 3, 4])
    np.testing.assert_allclose(forward, backward, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("kernel_size", "shape"), CASES)
def test_mass_is_kept_and_never_leaves_its_channel(kernel_size, shape):
    support = support_of(kernel_size, shape)
    plan = random_feasible_plan(support)
    sent, arrived = tf.reduce_sum(row_sums(plan), axis=[1, 2]), tf.reduce_sum(support.push_forward(plan), axis=[1, 2])
    np.testing.assert_allclose(sent, arrived, rtol=1e-5)


@pytest.mark.parametrize(("kernel_size", "shape"), CASES)
def test_the_identity_plan_stays_and_costs_nothing(kernel_size, shape):
    support = support_of(kernel_size, shape)
    images = tf.random.stateless_uniform([2, *shape], seed=[5, 6])
    plan = identity_plan(images, support)
    np.testing.assert_array_equal(support.push_forward(plan), images)
    np.testing.assert_array_equal(transport_cost(plan, support), [0, 0])


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize(("kernel_size", "shape"), CASES)
def test_a_kernel_plan_is_source_times_values_times_kernel(kernel_size, shape, dtype):
    support = support_of(kernel_size, shape)
    source, values = tf.random.stateless_uniform([2, 2, *shape], seed=[7, 8], dtype=dtype)
    multiplier = tf.constant([0.3, 2.0], dtype)[:, None, None, None]
    plan = support.kernel_plan(source, values, multiplier)
    kernel = tf.exp(-multiplier[:, None] * tf.cast(support.ground_cost, dtype))
    assert plan.dtype == tf.float32
    np.testing.assert_allclose(plan, source[:, None] * kernel * support.pull_back(values), rtol=1e-6)
    arrived = values * support.kernel_push_forward(source, multiplier)
    np.testing.assert_allclose(support.push_forward(plan), arrived, rtol=1e-5)


def test_a_worked_example():
    support = support_of(3, (2, 2, 1), p=2.0)
    offsets = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    plan = np.zeros((1, 9, 2, 2, 1), np.float32)
    plan[0, offsets.index((1, 1)), 0, 0] = 0.5  # from the top left to the bottom right, distance² 2
    plan[0, offsets.index((0, -1)), 1, 1] = 0.25  # from the bottom right to the bottom left, distance² 1
    np.testing.assert_allclose(support.push_forward(plan)[0, :, :, 0], [[0, 0], [0.25, 0.5]])
    np.testing.assert_allclose(transport_cost(plan, support), [0.5 * 2 + 0.25])


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_a_window_as_large_as_the_image_is_the_dense_support(p):
    shape = (4, 3, 2)
    local, dense = support_of(7, shape, p), support_of(None, shape, p)
    dense_plan = random_feasible_plan(dense)
    # The same plan, indexed by offset: rows of targets t = (y, x) move to offset (y − h, x − w).
    local_plan = np.zeros((2, local.num_targets, *shape), np.float32)
    for target in range(dense.num_targets):
        for h in range(4):
            for w in range(3):
                offset = (target // 3 - h + 3) * 5 + (target % 3 - w + 2)
                local_plan[:, offset, h, w] = dense_plan[:, target, h, w]
    np.testing.assert_allclose(local.push_forward(local_plan), dense.push_forward(dense_plan), rtol=1e-5)
    np.testing.assert_allclose(transport_cost(local_plan, local), transport_cost(dense_plan, dense), rtol=1e-5)
    np.testing.assert_allclose(row_sums(local_plan), row_sums(dense_plan), rtol=1e-5)


@pytest.mark.parametrize(("kernel_size", "shape"), CASES)
@pytest.mark.parametrize("p", [1.0, 3.0])
def test_costs_borders_and_home_are_those_of_positions(kernel_size, shape, p):
    support = support_of(kernel_size, shape, p)
    height, width, _ = shape
    # What each target's position is, read off the image of positions by the support itself.
    positions = np.indices((height, width)).transpose(1, 2, 0).astype(np.float32)
    far = tf.constant(positions[None] + 1)
    read = support_of(kernel_size, (height, width, 2), p).pull_back(far)[0].numpy()
    inside = np.broadcast_to(support.valid.numpy()[..., 0], read.shape[:3])
    np.testing.assert_array_equal(inside, (read > 0).all(axis=-1))
    offsets = read - 1 - positions
    distance = np.hypot(offsets[..., 0], offsets[..., 1])
    cost = np.broadcast_to(support.ground_cost.numpy()[..., 0], distance.shape)
    np.testing.assert_allclose(cost[inside], distance[inside] ** p, rtol=1e-5)
    home = np.broadcast_to(support.home.numpy()[..., 0], distance.shape)
    np.testing.assert_array_equal(home[inside], distance[inside] == 0)
    assert home.sum() == height * width and support.max_cost == pytest.approx(cost.max(), rel=1e-6)
    reach = max(height, width) if kernel_size is None else kernel_size // 2
    largest = np.hypot(min(reach, height - 1), min(reach, width - 1))
    assert support.max_cost == pytest.approx(largest**p, rel=1e-6)
    assert support.plan_bytes_per_image == 4 * support.num_targets * height * width * shape[2]


@pytest.mark.parametrize(("kernel_size", "shape"), CASES)
def test_the_smallest_flow_is_of_all_targets_and_of_those_inside(kernel_size, shape):
    support = support_of(kernel_size, shape)
    plan = np.where(support.valid, 1.0, -5.0) * np.ones((2, support.num_targets, *shape), np.float32)
    borders = not np.all(support.valid)
    expected = 0.0 if borders else 1.0
    np.testing.assert_array_equal(support.smallest_flow(tf.constant(plan, tf.float32)), [expected, expected])
    home = np.argwhere(np.broadcast_to(support.home, plan.shape[1:]))[-1]
    plan[(1, *home)] = -0.5
    np.testing.assert_array_equal(support.smallest_flow(tf.constant(plan, tf.float32)), [expected, -0.5])


@pytest.mark.parametrize(("kernel_size", "shape"), CASES)
def test_rings_sum_targets_of_equal_cost(kernel_size, shape):
    support = support_of(kernel_size, shape, 2.0)
    values = tf.random.stateless_uniform([2, *shape], seed=[1, 2])
    read = support.pull_back(values)
    costs = np.broadcast_to(support.ground_cost, read.shape[1:])
    logarithms = tf.math.log(values) if kernel_size else values  # The dense one sums nothing, and so reads either.
    rings, log_rings = (
        sorted(made, key=lambda ring: float(tf.reduce_max(ring.cost)))
        for made in (support.rings(values), support.log_rings(logarithms))
    )
    for ring, log_ring in zip(rings, log_rings, strict=True):
        for cost in np.unique(ring.cost):
            expected = tf.reduce_sum(tf.where(costs == cost, read, 0.0), axis=1)
            where = np.broadcast_to(ring.cost, (ring.total.shape[1], *shape)) == cost
            np.testing.assert_allclose((ring.total * where).numpy().sum(axis=1), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(ring.cost, log_ring.cost)
        total = tf.exp(log_ring.total) if kernel_size else log_ring.total
        np.testing.assert_allclose(total, ring.total, rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize(("kernel_size", "shape"), CASES)
def test_weighted_rings_sum_plan_times_values_over_targets_of_equal_cost(kernel_size, shape):
    support = support_of(kernel_size, shape, 2.0)
    plan = tf.random.stateless_uniform([2, support.num_targets, *shape], seed=[1, 2])
    values = tf.random.stateless_uniform([2, *shape], seed=[3, 4])
    products = plan * support.pull_back(values)
    costs = np.broadcast_to(support.ground_cost, products.shape[1:])
    rings = support.weighted_rings(plan, values)
    assert len(rings) == (len(np.unique(support.ground_cost)) if kernel_size else 1)
    for cost in np.unique(costs):
        found = sum(
            (ring.total * (np.broadcast_to(ring.cost, (ring.total.shape[1], *shape)) == cost)).numpy().sum(axis=1)
            for ring in rings
        )
        expected = tf.reduce_sum(tf.where(costs == cost, products, 0.0), axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kernel_size", "shape"), CASES)
def test_functions_of_entries_targets_and_costs_are_0_off_the_image(kernel_size, shape):
    support = support_of(kernel_size, shape)
    plan = tf.random.stateless_normal([2, support.num_targets, *shape], seed=[1, 2])
    values = tf.random.stateless_normal([2, *shape], seed=[3, 4])
    found = support.map_targets(lambda entry, value, cost: tf.exp(entry) + value - 0.3 * cost, plan, values)
    expected = tf.exp(plan) + support.pull_back(values) - 0.3 * support.ground_cost
    np.testing.assert_allclose(found, tf.where(support.valid, expected, 0.0), rtol=1e-5, atol=1e-6)


def test_log_sums_survive_any_size():
    support = support_of(3, (3, 3, 1))
    potential = tf.constant(np.linspace(-2000, 2000, 9), tf.float32, shape=[1, 3, 3, 1])
    for ring in support.log_rings(potential):
        assert np.isfinite(ring.total).all() or (ring.total.numpy() < -1e29).any()
    around = [ring.total.numpy()[0, 0, 1, 1, 0] for ring in support.log_rings(potential)]
    # The corners, the sides and the middle: each by its largest.
    np.testing.assert_allclose(sorted(around), [0, 1500, 2000], atol=1e-3)


def test_supports_are_shared():
    assert support_of(3, (4, 4, 1)) is make_support(ThreatModel(epsilon=9.0, kernel_size=3), (4, 4, 1))
    assert support_of(3, (4, 4, 1)) is not support_of(3, (4, 4, 1), 2.0)


def test_a_large_window_that_holds_the_image_is_dense():
    dense = make_support(ThreatModel(kernel_size=None), (8, 8, 1))
    assert make_support(ThreatModel(kernel_size=15), (8, 8, 1)) is dense
    assert make_support(ThreatModel(kernel_size=101), (8, 8, 1)) is dense
    assert make_support(ThreatModel(kernel_size=13), (8, 8, 1)) is not dense
    assert make_support(ThreatModel(kernel_size=15, p=2), (8, 8, 1)) is not dense


@pytest.mark.parametrize("kernel_size", [None, 5])
def test_costs_beyond_float32_are_refused(kernel_size):
    with pytest.raises(ValueError, match="p=100 is too large: .* exceeds float32; give a smaller p"):
        support_of(kernel_size, (6, 6, 1), p=100.0)
    # No mass moves farther than one pixel.
    support_of(1, (6, 6, 1), p=100.0)
