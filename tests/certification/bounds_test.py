"""Bounds against oracles: linear programs, enumeration of activation patterns, attacks, weights of all scales."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from benchmarks import enumeration
from wasser_tf.certification import arithmetic, bounds
from wasser_tf.certification.bounds import Bounds
from wasser_tf.certification.network import Network
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.exact import linear_optimum


def margin(classifier, image, label, threat_model, method, **options):
    found = Bounds(Network(classifier), threat_model, **options)
    batch = found.prepare(image[None])
    return float(found.margins(batch, tf.constant([label]), tf.constant([threat_model.epsilon]), method)[0])


def linear(shape, seed):
    rng = np.random.default_rng(seed)
    inputs = keras.Input(shape)
    classifier = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    classifier.set_weights([rng.normal(size=(np.prod(shape), 2)), rng.normal(size=2)])
    return classifier, rng


@settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(
    st.sampled_from([(5, 5, 1), (4, 6, 2), (1, 7, 3)]),
    st.integers(0, 2**31),
    st.sampled_from([None, 3, 5]),
    st.sampled_from([1.0, 2.0]),
    st.booleans(),
    st.sampled_from([0.01, 0.2, 1.5]),
)
def test_a_linear_classifier_has_the_margin_of_the_linear_program(shape, seed, kernel_size, p, normalize_mass, epsilon):
    classifier, rng = linear(shape, seed)
    image = rng.random(shape).astype(np.float32)
    threat_model = ThreatModel(
        epsilon=epsilon, kernel_size=kernel_size, p=p, normalize_mass=normalize_mass, capacity=None
    )
    kernel, bias = (weight.astype(np.float64) for weight in classifier.get_weights())
    difference = (kernel[:, 1] - kernel[:, 0]).reshape(shape)
    true = bias[0] - bias[1] - linear_optimum(image, difference, threat_model)[0]
    with pytest.MonkeyPatch.context() as exactly:
        for allowance in ("_FLOAT32_UNIT", "TINY", "BUDGET_EXCESS"):
            exactly.setattr(arithmetic, allowance, 0.0)
        scale = np.abs(difference).max() * max(1.0, image.sum())
        assert margin(classifier, image, 0, threat_model, "ibp") == pytest.approx(true, abs=1e-6 * scale)
    # With the allowance for what float32 rounds it is on the safe side, and not by much.
    budget = epsilon * (image.sum() if normalize_mass else 1.0)
    magnitude = np.abs(kernel).sum(axis=1) @ image.ravel() + np.abs(bias).sum() + 2 * budget * np.ptp(kernel)
    assert -1e-5 * magnitude <= margin(classifier, image, 0, threat_model, "ibp") - true < 0


@pytest.mark.parametrize("seed", range(20))
def test_no_bound_is_above_the_true_worst_margin(seed):
    assert min(enumeration.gaps(1000 + seed).values()) >= 0


def test_linear_bounds_are_tighter_than_intervals_on_random_networks():
    gaps = [enumeration.gaps(seed) for seed in range(6)]
    assert np.median([gap["crown"] for gap in gaps]) < np.median([gap["ibp"] for gap in gaps])


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32])
def test_weights_scaled_up_and_down_in_turns_stay_sound(dtype, sample):
    # Between the layers numbers reach 1e6 and 1e-6; what cancels there is lost in float32, and the bounds allow for it.
    threat_model = ThreatModel(epsilon=0.1, kernel_size=3, capacity=None)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        inputs = keras.Input((6, 6, 1))
        x = keras.layers.Dense(16, activation="relu")(keras.layers.Flatten()(inputs))
        x = keras.layers.Dense(16, activation="relu")(x)
        classifier = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(8)(x)))
        scales = [1e6, 1e-6, 1e6, 1e-6]
        weights = [rng.normal(size=weight.shape) for weight in classifier.get_weights()]
        for layer, scale in enumerate(scales):
            weights[2 * layer] = weights[2 * layer] * scale + (scale if layer == 2 else 0.0)
            # As large as what is added to: float32 loses the digits in which classes differ.
            weights[2 * layer + 1] = weights[2 * layer + 1] * (1e6 if scale > 1 else 1.0)
        classifier.set_weights(weights)
        image = rng.random((6, 6, 1)).astype(np.float32)
        logits = np.asarray(classifier(sample(image, threat_model, 200), training=False), np.float64)
        label = int(logits[0].argmax())
        actual = (logits[:, [label]] - np.delete(logits, label, axis=1)).min()
        for method in ("ibp", "crown"):
            assert margin(classifier, image, label, threat_model, method, dtype=dtype) <= actual


def test_rounding_of_the_classifier_itself_is_allowed_for():
    # 2^24 + 1 is no float32: the sum x + 2^24 − 2^24 is 0 or 2 where the real one is the mass, and any order may be
    # taken. A bound of real numbers would prove a margin that the classifier does not have.
    inputs = keras.Input((2, 2, 1))
    x = keras.layers.Dense(1, name="add")(keras.layers.Flatten()(inputs))
    classifier = keras.Model(inputs, keras.layers.Dense(2, name="subtract")(x))
    classifier.get_layer("add").set_weights([np.ones((4, 1)), np.array([2.0**24])])
    classifier.get_layer("subtract").set_weights([np.array([[1.0, 0.0]]), np.array([-(2.0**24), 0.0])])
    image = np.full((2, 2, 1), 0.2, np.float32)
    assert float(classifier(image[None])[0, 0]) == 0.0
    for dtype in (tf.float64, tf.float32):
        assert margin(classifier, image, 0, ThreatModel(epsilon=0.01, kernel_size=3), "ibp", dtype=dtype) < 0


def test_the_ball_of_an_image_without_mass_contains_only_the_image():
    classifier, _ = linear((4, 4, 1), 0)
    image = np.zeros((4, 4, 1), np.float32)
    logits = classifier(image[None]).numpy()[0]
    label = int(logits.argmax())
    for normalize_mass in (True, False):
        found = margin(classifier, image, label, ThreatModel(epsilon=9.0, normalize_mass=normalize_mass), "ibp")
        assert found == pytest.approx(logits[label] - logits[1 - label], rel=1e-4)


def test_bounds_fall_as_the_radius_grows():
    classifier, _, image, label, threat_model = enumeration.random_problem(3)
    for method in ("ibp", "crown"):
        found = [
            margin(classifier, image, label, threat_model.with_epsilon(epsilon), method) for epsilon in (0.0, 0.05, 0.3)
        ]
        assert found == sorted(found, reverse=True)


def test_support_functions_of_many_entries_are_compiled(monkeypatch):
    calls = []
    monkeypatch.setattr(bounds, "support_function", lambda *given: calls.append("plain"))
    monkeypatch.setattr(bounds, "_compiled_support_function", lambda *given: calls.append("compiled"))
    bounds._support_function(tf.zeros([bounds.SMALL]), "rest")
    bounds._support_function(tf.zeros([bounds.SMALL + 1]), "rest")
    assert calls == ["plain", "compiled"]
