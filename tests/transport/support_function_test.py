"""The support function equals the linear program's optimum, and bounds it from above with any number of evaluations."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.exact import linear_optimum
from wasser_tf.transport.support_function import c_transform, largest_cost, lipschitz, support_function


def optimum(image, weights, threat_model):
    return linear_optimum(image, weights, threat_model)[0] - (weights * image).sum()


def bound(image, weights, threat_model, **options):
    budget = threat_model.epsilon * (image.sum() if threat_model.normalize_mass else 1.0)
    found = support_function(
        weights[None, None], image[None], tf.constant([budget], tf.float64), threat_model, **options
    )
    return float(found.numpy().item())


@st.composite
def problems(draw):
    height, width, channels = draw(st.sampled_from([(1, 1, 1), (1, 6, 2), (4, 5, 1), (6, 4, 3), (5, 5, 2)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    image = rng.random((height, width, channels)) * (rng.random((height, width, channels)) < draw(st.floats(0.2, 1)))
    weights = rng.normal(size=image.shape) * 10.0 ** draw(st.integers(-3, 3))
    threat_model = ThreatModel(
        epsilon=draw(st.sampled_from([0.0, 0.01, 0.3, 1.0, 5.0])),
        p=draw(st.sampled_from([0.5, 1.0, 2.0])),
        kernel_size=draw(st.sampled_from([None, 1, 3, 5, 13])),
        normalize_mass=draw(st.booleans()),
        capacity=None,
    )
    return image, weights, threat_model


@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(problems())
def test_it_is_the_optimum_of_the_linear_program(problem):
    image, weights, threat_model = problem
    scale = np.abs(weights).max() * max(1.0, image.sum())
    assert bound(*problem) == pytest.approx(optimum(*problem), abs=1e-6 * scale, rel=1e-6)


@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(problems(), st.integers(0, 3))
def test_a_search_cut_short_bounds_it_from_above(problem, evaluations):
    image, weights, _ = problem
    scale = np.abs(weights).max() * max(1.0, image.sum())
    assert bound(*problem, evaluations=evaluations) >= optimum(*problem) - 1e-7 * scale


def test_it_is_at_most_the_budget_times_the_lipschitz_constant():
    rng = np.random.default_rng(0)
    image, weights = rng.random((6, 6, 1)), rng.normal(size=(6, 6, 1))
    for kernel_size in (3, None):
        threat_model = ThreatModel(epsilon=0.2, kernel_size=kernel_size)
        steepest = float(lipschitz(tf.constant(weights[None]), threat_model)[0])
        assert bound(image, weights, threat_model) <= 0.2 * image.sum() * steepest * (1 + 1e-12)


def test_mass_of_a_channel_cannot_be_attacked():
    image = np.random.default_rng(1).random((5, 5, 2))
    assert bound(image, np.broadcast_to([3.0, -2.0], (5, 5, 2)).copy(), ThreatModel(epsilon=2.0)) == 0


def test_a_window_as_large_as_the_image_is_the_dense_support():
    rng = np.random.default_rng(2)
    potential, multiplier = tf.constant(rng.normal(size=(3, 6, 7, 2))), tf.constant(rng.random(3))
    dense, window = ThreatModel(kernel_size=None), ThreatModel(kernel_size=15)
    for found, wanted in zip(
        c_transform(potential, multiplier, dense), c_transform(potential, multiplier, window), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-14)
    np.testing.assert_allclose(lipschitz(potential, dense), lipschitz(potential, window), rtol=1e-14)
    assert largest_cost(dense, (6, 7, 2)) == largest_cost(window, (6, 7, 2)) == pytest.approx(np.hypot(5, 6))


def test_a_large_window_smaller_than_the_image_is_the_linear_program():
    # 11×13 targets are too many to be unrolled, and do not reach from one end of a row to the other.
    rng = np.random.default_rng(4)
    image, weights = rng.random((6, 14, 1)), rng.normal(size=(6, 14, 1))
    threat_model = ThreatModel(epsilon=2.5, kernel_size=13, capacity=None)
    traced = tf.function(lambda: support_function(weights[None, None], image[None], budget, threat_model))
    budget = tf.constant([2.5 * image.sum()], tf.float64)
    assert float(traced()[0, 0]) == pytest.approx(optimum(image, weights, threat_model), rel=1e-6)


def test_every_channel_and_border_by_hand():
    # One unit of mass in a corner; the functional is 1 two pixels to the right, which costs 2.
    image, weights = np.zeros((3, 3, 1)), np.zeros((3, 3, 1))
    image[0, 0], weights[0, 2] = 1.0, 1.0
    assert bound(image, weights, ThreatModel(epsilon=0.5)) == pytest.approx(0.25)
    assert bound(image, weights, ThreatModel(epsilon=0.5, kernel_size=3)) == 0
    assert bound(image, weights, ThreatModel(epsilon=0.5, p=2.0)) == pytest.approx(0.125)


def test_images_and_functionals_of_a_batch_are_independent():
    rng = np.random.default_rng(3)
    images, weights = rng.random((2, 4, 5, 1)), rng.normal(size=(2, 3, 4, 5, 1))
    threat_model = ThreatModel(epsilon=0.3, kernel_size=3, normalize_mass=False)
    budget = tf.constant([0.3, 0.3], tf.float64)
    found = support_function(tf.constant(weights), tf.constant(images), budget, threat_model).numpy()
    alone = [[bound(image, one, threat_model) for one in each] for image, each in zip(images, weights, strict=True)]
    np.testing.assert_allclose(found, alone, rtol=1e-6)
    assert len(np.unique(found.round(6))) == 6
