import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from wasser_tf import ThreatModel
from wasser_tf.certification.flow_noise import FlowNoise, divergence, flow_per_cost

SEED = tf.constant([1, 2])
NOISES = [FlowNoise(kind="laplace", scale=0.3), FlowNoise(kind="uniform", scale=0.3)]


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.kind)
def test_each_flow_has_the_named_distribution(noise):
    # Of two pixels the first has the only flow.
    pixels = noise.sample(SEED, 20_000, (1, 2, 1)).numpy().reshape(-1, 2)
    np.testing.assert_array_equal(pixels[:, 0], -pixels[:, 1])
    named = {"laplace": scipy.stats.laplace(scale=0.3 / math.sqrt(2)), "uniform": scipy.stats.uniform(-0.3, 0.6)}
    assert scipy.stats.kstest(pixels[:, 0], named[noise.kind].cdf).pvalue > 0.01
    variance = {"laplace": 0.3**2, "uniform": 0.3**2 / 3}[noise.kind]
    assert np.var(pixels[:, 0]) == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.kind)
def test_flows_are_independent_and_keep_the_mass_of_every_channel(noise):
    drawn = noise.sample(SEED, 4000, (3, 4, 2)).numpy().astype(np.float64)
    assert np.abs(drawn.sum(axis=(1, 2))).max() < 1e-5
    # A pixel's variance is that of its edges: 2 at corners, 3 at sides, 4 inside.
    edges = np.array([[2, 3, 3, 2], [3, 4, 4, 3], [2, 3, 3, 2]])
    variance = noise.scale**2 / (3 if noise.kind == "uniform" else 1)
    np.testing.assert_allclose(drawn.var(axis=0), variance * np.stack([edges, edges], axis=2), rtol=0.15)
    # Two neighbours share an edge, others share none.
    assert np.mean(drawn[:, 0, 0, 0] * drawn[:, 0, 1, 0]) == pytest.approx(-variance, rel=0.2)
    for other in (drawn[:, 0, 2, 0], drawn[:, 1, 1, 0], drawn[:, 0, 1, 1]):
        assert np.mean(drawn[:, 0, 0, 0] * other) == pytest.approx(0, abs=0.15 * variance)


def test_the_tail_of_laplace_noise_exceeds_that_of_one_uniform_float():
    drawn = FlowNoise(kind="laplace", scale=math.sqrt(2)).sample(SEED, 2_000_000, (1, 2, 1)).numpy()
    assert np.isfinite(drawn).all()
    # Of two million magnitudes the largest is ln(2 · 10⁶) = 14.5, within a few.
    assert 11 < np.abs(drawn).max() < 22


def test_mass_is_kept_exactly_where_sums_are_exact():
    rng = np.random.default_rng(0)
    horizontal = rng.integers(-9, 9, [5, 4, 2, 3]).astype(np.float32)
    vertical = rng.integers(-9, 9, [5, 3, 3, 3]).astype(np.float32)
    changed = divergence(tf.constant(horizontal), tf.constant(vertical)).numpy()
    assert changed.any()
    np.testing.assert_array_equal(changed.sum(axis=(1, 2)), 0)


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_a_shift_of_mass_between_neighbours_is_an_offset_of_one_flow(data):
    height, width, channels = (data.draw(st.integers(1, 4)) for _ in range(3))
    shapes = [(1, height, width - 1, channels), (1, height - 1, width, channels)]
    axis = data.draw(st.sampled_from([axis for axis in (0, 1) if np.prod(shapes[axis])] or [None]))
    if axis is None:
        return
    edge = tuple(data.draw(st.integers(0, side - 1)) for side in shapes[axis])
    flows = [np.random.default_rng(0).normal(size=shape).astype(np.float32) for shape in shapes]
    moved = [flow.copy() for flow in flows]
    moved[axis][edge] += 0.5
    change = (divergence(*map(tf.constant, moved)) - divergence(*map(tf.constant, flows))).numpy()[0]
    _, row, column, channel = edge
    wanted = np.zeros((height, width, channels))
    wanted[row, column, channel] = 0.5
    wanted[row + axis, column + 1 - axis, channel] = -0.5
    np.testing.assert_allclose(change, wanted, atol=1e-6)


def _least_flow(change):
    """The smallest ℓ1 norm of flows [H, W] whose divergence is the change, by linear programming."""
    height, width = change.shape
    columns = []
    for row in range(height):
        for column in range(width):
            for other in ((row, column + 1), (row + 1, column)):
                if other[0] < height and other[1] < width:
                    edge = np.zeros((height, width))
                    edge[row, column], edge[other] = 1, -1
                    columns.append(edge.ravel())
    matrix = np.array(columns).T
    solved = scipy.optimize.linprog(
        np.ones(2 * matrix.shape[1]), A_eq=np.hstack([matrix, -matrix]), b_eq=change.ravel(), bounds=(0, None)
    )
    assert solved.status == 0
    return solved.fun


@given(st.integers(1, 4), st.integers(2, 5), st.sampled_from([3, 5, None]), st.sampled_from([0.5, 1, 2, 3]), st.data())
@settings(max_examples=25, deadline=None)
def test_no_feasible_plan_needs_more_flow_than_its_cost_times_kappa(height, width, kernel_size, p, data):
    threat_model = ThreatModel(p=p, kernel_size=kernel_size)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    places = np.array([(row, column) for row in range(height) for column in range(width)])
    offset = np.abs(places[:, None] - places[None])
    allowed = offset.max(axis=2) <= (99 if kernel_size is None else kernel_size // 2)
    plan = rng.uniform(size=allowed.shape) * allowed * (rng.uniform(size=allowed.shape) < 0.2)
    cost = np.sum(plan * (offset**2).sum(axis=2) ** (p / 2))
    change = (plan.sum(axis=0) - plan.sum(axis=1)).reshape(height, width)
    assert _least_flow(change) <= flow_per_cost(threat_model, (height, width, 1)) * cost + 1e-9


def test_kappa_is_attained_and_known():
    shape = (6, 6, 1)
    assert flow_per_cost(ThreatModel(p=1), shape) == pytest.approx(math.sqrt(2))
    assert flow_per_cost(ThreatModel(p=2), shape) == pytest.approx(1)
    assert flow_per_cost(ThreatModel(p=3), shape) == pytest.approx(1)
    assert flow_per_cost(ThreatModel(p=1), (1, 6, 3)) == pytest.approx(1)
    assert flow_per_cost(ThreatModel(p=0.5, kernel_size=5), shape) == pytest.approx(4 / 8**0.25)
    assert flow_per_cost(ThreatModel(p=0.5, kernel_size=None), shape) == pytest.approx(10 / 50**0.25)
    assert flow_per_cost(ThreatModel(kernel_size=1), shape) == 0
    # A diagonal step of cost √2 is a flow of 2.
    diagonal = np.zeros((2, 2))
    diagonal[0, 0], diagonal[1, 1] = -1, 1
    assert _least_flow(diagonal) == pytest.approx(flow_per_cost(ThreatModel(p=1), shape) * math.sqrt(2))


@pytest.mark.parametrize("distance", [0.05, 0.2, 0.35])
def test_radius_and_probability_are_exact_for_a_threshold_on_one_flow(distance):
    # Class A where z > −distance: at 0 its probability is known, and it is ½ after a shift by the distance, no earlier.
    named = {"laplace": scipy.stats.laplace(scale=0.4 / math.sqrt(2)), "uniform": scipy.stats.uniform(-0.4, 0.8)}
    for kind, distribution in named.items():
        noise = FlowNoise(kind=kind, scale=0.4)
        probability = distribution.cdf(distance)
        assert noise.radius(probability) == pytest.approx(distance, rel=1e-9)
        for part in (0.0, 0.3, 0.9):
            after = noise.probability_after(probability, part * distance)
            assert after == pytest.approx(distribution.cdf((1 - part) * distance), rel=1e-9)
        assert noise.probability_after(probability, noise.radius(probability)) == pytest.approx(0.5)


def test_the_radius_is_0_up_to_one_half_and_grows_with_the_probability():
    probability = np.linspace(0, 1 - 1e-6, 500)
    for noise in NOISES:
        radius = noise.radius(probability)
        assert (radius[probability <= 0.5] == 0).all()
        assert (np.diff(radius[probability > 0.5]) > 0).all()
    # Never below the paper's σ / 2^{3/2} · ln(p / (1 − p)), which weighs both classes.
    above = probability[probability > 0.5]
    assert (NOISES[0].radius(above) >= 0.3 / 2**1.5 * np.log(above / (1 - above))).all()


@pytest.mark.parametrize("kind", ["laplace", "uniform"])
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_the_shifted_probability_is_a_bound_for_any_set(kind, seed):
    # Random sets of two flows on a grid; their probabilities by quadrature.
    noise = FlowNoise(kind=kind, scale=0.5)
    distribution = {"laplace": scipy.stats.laplace(scale=0.5 / math.sqrt(2)), "uniform": scipy.stats.uniform(-0.5, 1)}
    rng = np.random.default_rng(seed)
    edges = np.linspace(-4, 4, 81)
    member = rng.uniform(size=(80, 80)) < rng.uniform(0.5, 1)
    shift = rng.uniform(-0.3, 0.3, size=2)

    def probability(shift):
        one, two = (np.diff(distribution[kind].cdf(edges - part)) for part in shift)
        return one @ member @ two

    bound = noise.probability_after(probability([0, 0]), np.abs(shift).sum())
    # What lies beyond the grid is no member.
    assert probability(shift) >= bound - 1e-9


@pytest.mark.parametrize(
    "given_, told",
    [({"kind": "gaussian"}, "laplace, uniform"), ({"scale": 0}, "above 0"), ({"scale": math.inf}, "finite")],
)
def test_bad_noise_is_refused(given_, told):
    with pytest.raises(ValueError, match=told):
        FlowNoise(**given_)
