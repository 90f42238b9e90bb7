"""Intervals of affine layers are rounded outwards: against sums in exact arithmetic."""

import math
from fractions import Fraction

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from wasser_tf.certification import arithmetic
from wasser_tf.certification.rules import Call, transforms_of
from wasser_tf.certification.transforms import Affine, Interval

MASS = tf.ones([1], tf.float64)


def affine(layer, shape):
    """Returns the transform of a layer."""
    layer.build((None, *shape))
    (found,) = transforms_of(Call(layer, [shape], ()))
    assert isinstance(found, Affine)
    return found


def magnitudes(rng, shape, low, high):
    """Returns numbers of both signs whose magnitudes are uniform in the exponent, one in eight of them 0."""
    return 10.0 ** rng.uniform(low, high, shape) * rng.choice([-1, 1], shape) * (rng.random(shape) < 0.875)


def exact(values):
    return [Fraction(float(value)) for value in np.ravel(values)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from([(-2, 2), (-30, 5), (-45, -30), (-3, 30)]))
def test_the_spread_of_a_dense_layer_is_at_least_the_exact_sum(seed, inputs, exponents):
    rng = np.random.default_rng(seed)
    layer = keras.layers.Dense(3)
    transform = affine(layer, (inputs,))
    kernel = magnitudes(rng, (inputs, 3), -8, 6).astype(np.float32)
    layer.set_weights([kernel, np.zeros(3)])
    radii = np.abs(magnitudes(rng, (1, inputs), *exponents)) + arithmetic.TINY
    found = transform._spread([tf.constant(radii)], MASS).numpy()[0]
    # What underflows is allowed for by the caller, with the largest magnitude.
    lost = Fraction(transform.terms * arithmetic.TINY * (1.0 + float(radii.max())))
    gamma = Fraction(arithmetic.gamma(transform.terms, tf.float32))
    for unit in range(3):
        true = sum(abs(w) * r for w, r in zip(exact(kernel[:, unit]), exact(radii), strict=True))
        if not math.isfinite(found[unit]):
            assert true > 1e37
            continue
        assert true <= Fraction(float(found[unit])) + lost
        # Tight too: a few times what float32 may lose.
        assert Fraction(float(found[unit])) <= true * (1 + 3 * gamma) + lost


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 3]))
def test_the_spread_of_a_convolution_is_at_least_the_exact_sum(seed, channels):
    rng = np.random.default_rng(seed)
    layer = keras.layers.Conv2D(2, 3, padding="valid")
    transform = affine(layer, (3, 3, channels))
    kernel = magnitudes(rng, (3, 3, channels, 2), -6, 6).astype(np.float32)
    layer.set_weights([kernel, np.zeros(2)])
    radii = np.abs(magnitudes(rng, (1, 3, 3, channels), -6, 6))
    found = transform._spread([tf.constant(radii)], MASS).numpy()[0, 0, 0]
    for unit in range(2):
        true = sum(abs(w) * r for w, r in zip(exact(kernel[..., unit]), exact(radii), strict=True))
        assert true <= Fraction(float(found[unit])) <= true * (1 + 3 * Fraction(arithmetic.gamma(28, tf.float32)))


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_outputs_in_float32_lie_in_the_interval_for_inputs_at_its_ends(dtype, seed):
    # The ends that make an output smallest are those by the signs of its weights.
    rng = np.random.default_rng(seed)
    layer = keras.layers.Dense(4)
    transform = affine(layer, (12,))
    kernel, bias = magnitudes(rng, (12, 4), -3, 3).astype(np.float32), magnitudes(rng, 4, -3, 3).astype(np.float32)
    layer.set_weights([kernel, bias])
    low = magnitudes(rng, (1, 12), -3, 3).astype(np.float32)
    high = low + np.abs(magnitudes(rng, (1, 12), -3, 3)).astype(np.float32)
    found = transform.interval([Interval(tf.constant(low, dtype), tf.constant(high, dtype))], tf.ones([1], dtype))
    for unit in range(4):
        least = np.where(kernel[:, unit] > 0, low, high)
        most = np.where(kernel[:, unit] > 0, high, low)
        assert found.lower[0, unit] <= layer(least).numpy()[0, unit]
        assert found.upper[0, unit] >= layer(most).numpy()[0, unit]


def test_a_radius_beyond_float32_bounds_nothing():
    layer = keras.layers.Dense(2)
    transform = affine(layer, (3,))
    layer.set_weights([np.array([[1.0, 0.0]] * 3), np.zeros(2)])
    wide = tf.constant([[1e300, 1.0, 1.0]], tf.float64)
    found = transform.interval([Interval(-wide, wide)], MASS)
    assert np.isinf(found.lower.numpy()).all() and np.isinf(found.upper.numpy()).all()
