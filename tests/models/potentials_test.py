"""TransportPotentials: Lip ≤ 1 exactly, features that feasible plans change by at most ε, saving and training."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from wasser_tf import ThreatModel, attacks
from wasser_tf.models.lipschitz import UnitLipschitz, lipschitz_constants, project
from wasser_tf.models.potentials import TransportPotentials

BALL = ThreatModel(epsilon=0.3, kernel_size=5)


def steepest_by_pairs(kernel, p, kernel_size):
    """The definition, pair by pair, in float64: the oracle."""
    height, width = kernel.shape[:2]
    kernel = np.asarray(kernel, np.float64)
    pixels = list(itertools.product(range(height), range(width)))
    half = max(height, width) if kernel_size is None else kernel_size // 2
    found = np.zeros(kernel.shape[3])
    for (a, b), (c, d) in itertools.combinations(pixels, 2):
        if max(abs(a - c), abs(b - d)) <= half:
            slopes = np.abs(kernel[a, b] - kernel[c, d]) / np.hypot(a - c, b - d) ** p
            found = np.maximum(found, slopes.max(axis=0))
    return found


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 2)),
    p=st.sampled_from([0.5, 1.0, 2.0]),
    kernel_size=st.sampled_from([3, 5, None]),
    size=st.sampled_from([1e-3, 1.0, 1e4]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_projected_potentials_have_lip_at_most_one(shape, p, kernel_size, size, seed):
    kernel = (np.random.default_rng(seed).normal(size=(*shape, 3)) * size).astype(np.float32)
    projected = project(tf.constant(kernel), p, kernel_size).numpy()
    assert (steepest_by_pairs(projected, p, kernel_size) <= 1.0).all()
    np.testing.assert_allclose(
        lipschitz_constants(tf.constant(kernel), p, kernel_size), steepest_by_pairs(kernel, p, kernel_size), rtol=1e-5
    )
    again = project(tf.constant(projected), p, kernel_size).numpy()
    # The allowance for rounding grows with the values, and all values of a potential are divided by it.
    largest = np.abs(projected).max(initial=0)
    np.testing.assert_allclose(again, projected, rtol=1e-4 + 8 * 2.0**-24 * largest, atol=1e-5 * largest)


def test_the_initial_potentials_are_distinct_steep_and_a_function_of_the_seed():
    layer, same, other = (TransportPotentials(8, BALL, seed=seed) for seed in (0, 0, 1))
    for each in (layer, same, other):
        each.build((None, 8, 8, 1))
    potentials = layer.step_scale * layer.kernel.numpy()
    steepest = steepest_by_pairs(potentials, 1.0, 5)
    assert (steepest <= 1).all() and (steepest > 0.9).all()
    np.testing.assert_array_equal(layer.kernel, same.kernel)
    assert not np.array_equal(layer.kernel, other.kernel)
    assert np.linalg.matrix_rank(potentials.reshape(-1, 8)) == 8


@pytest.mark.parametrize("normalised", [True, False])
def test_no_feasible_plan_changes_a_feature_by_more_than_the_radius(normalised):
    random = np.random.default_rng(0)
    images = random.uniform(size=(6, 8, 8, 2)).astype(np.float32)
    ball = ThreatModel(epsilon=0.3 if normalised else 9.0, normalize_mass=normalised)
    layer = TransportPotentials(12, ball, seed=0)
    clean = layer(images).numpy()
    classifier = keras.Sequential([keras.Input((8, 8, 2)), layer, keras.layers.Dense(3)])
    found = attacks.MirrorAscent(ball, iterations=5)(classifier, images, np.zeros(6, int), from_logits=True)
    change = np.abs(layer(found.adversarial).numpy() - clean)
    radius = ball.epsilon / (1 if normalised else images.sum(axis=(1, 2, 3)))
    most = np.broadcast_to(radius, 6)[:, None]
    assert (change[:, :12] <= most + 1e-5).all() and (change[:, :12] > 0.3 * most).any()
    np.testing.assert_allclose(change[:, 12:], 0, atol=1e-5)


def test_features_of_known_images():
    layer = TransportPotentials(4, ThreatModel(kernel_size=3), seed=0)
    image = np.zeros((3, 8, 8, 1), np.float32)
    image[1, 2, 5], image[2, 2, 5] = 0.25, 1.0
    found = layer(image).numpy()
    layer.bias.assign([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(layer(image)[0], [1, 2, 3, 4, 0])
    potential = layer.step_scale * layer.kernel.numpy()[2, 5, 0]
    np.testing.assert_allclose(found[1:, :4], [potential, potential], rtol=1e-6)
    np.testing.assert_allclose(found[:, 4] * 64 / 4, [0, 0.25, 1.0])


def test_adapt_divides_the_images_by_every_feature():
    images = np.random.default_rng(0).uniform(size=(64, 8, 8, 1)).astype(np.float32)
    layer = TransportPotentials(16, BALL, activation="relu", seed=0)
    layer.build((None, 8, 8, 1))
    layer.adapt(images, seed=1)
    active = (layer(images).numpy()[:, :16] > 0).mean(axis=0)
    assert (active > 0.05).all() and (active < 0.95).all() and active.std() > 0.1


def test_training_keeps_the_constants_small_and_moves_the_potentials(tmp_path):
    images = np.random.default_rng(0).uniform(size=(32, 8, 8, 1)).astype(np.float32)
    layer = TransportPotentials(8, BALL, activation="relu", seed=0)
    model = keras.Sequential([keras.Input((8, 8, 1)), layer, keras.layers.Dense(2)])
    before = layer.kernel.numpy()
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, np.arange(32) % 2, batch_size=16, verbose=0)
    assert np.abs(layer.kernel.numpy() - before).max() > 1e-3
    steepest = steepest_by_pairs(layer.step_scale * layer.kernel.numpy(), 1.0, 5)
    assert (steepest <= 1.05).all()
    layer.project()
    projected = steepest_by_pairs(layer.step_scale * layer.kernel.numpy(), 1.0, 5)
    # Not flatter than dividing by the constant would leave it.
    assert (projected <= 1).all() and (projected >= 0.99 / steepest.max()).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))
    again = loaded.layers[0]
    assert again.get_config() == layer.get_config() and again.threat_model == BALL.rules
    assert again.kernel.constraint.get_config() == UnitLipschitz(1.0, 5, 16.0).get_config()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"units": 0}, "units"),
        ({"threat_model": 0.1}, "threat_model"),
        ({"step_scale": 10.0}, "step_scale"),
        ({"step_scale": -2.0}, "step_scale"),
    ],
)
def test_arguments_out_of_range(arguments, words):
    with pytest.raises(ValueError, match=words):
        TransportPotentials(**{"units": 4, "threat_model": BALL, **arguments})


def test_large_windows_and_other_shapes_are_refused():
    layer = TransportPotentials(2, ThreatModel(kernel_size=None))
    with pytest.raises(ValueError, match="kernel_size of at most"):
        layer.build((None, 28, 28, 1))
    with pytest.raises(ValueError, match="known shape"):
        TransportPotentials(2, BALL).build((None, 64))
