"""Bounds and lines of each activation against its values in float32."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.certification import activations, arithmetic
from wasser_tf.certification.activations import ACTIVATIONS, leaky_relu
from wasser_tf.certification.rules import Call, _elu
from wasser_tf.certification.transforms import Interval

_NAMED = {function.__name__: (function, rule) for function, rule in ACTIVATIONS.items() if rule is not None}
_SLOPES = {
    f"leaky relu {slope}": (lambda x, slope=slope: keras.activations.leaky_relu(x, slope), leaky_relu(slope))
    for slope in (0.0, 0.1, 0.3, 1.0)
}
_ELU = {"elu of 0.7": (keras.layers.ELU(0.7), _elu(Call(keras.layers.ELU(0.7), [(1,)], ()))[0])}
CASES = _NAMED | _SLOPES | _ELU


def intervals(count=200):
    """Float64 ends of intervals of all signs and widths, [count] each, those of width 0 included."""
    rng = np.random.default_rng(0)
    ends = np.float32(rng.normal(size=(2, count)) * 10.0 ** rng.uniform(-3, 1, (2, count)))
    low, high = np.minimum(*ends), np.maximum(*ends)
    low[: count // 8] = high[: count // 8]
    return tf.constant(low, tf.float64), tf.constant(high, tf.float64)


def inside(low, high, count=64):
    """Float32 values within the intervals, the ends included, [count, intervals]."""
    share = np.random.default_rng(1).random((count, 1))
    share[0], share[1] = 0, 1
    low, high = low.numpy(), high.numpy()
    return np.clip(np.float32(low + share * (high - low)), np.float32(low), np.float32(high))


@pytest.mark.parametrize(("function", "rule"), CASES.values(), ids=CASES)
def test_bounds_and_lines_hold_for_float32(function, rule):
    low, high = intervals()
    x = inside(low, high)
    values = np.asarray(function(tf.constant(x)), np.float64)
    found = rule.bounds(low, high)
    assert (found.lower.numpy() <= values).all() and (values <= found.upper.numpy()).all()
    lines = rule.lines(Interval(low, high))
    below = lines.lower_slope.numpy() * x.astype(np.float64) + lines.lower_intercept.numpy()
    above = lines.upper_slope.numpy() * x.astype(np.float64) + lines.upper_intercept.numpy()
    assert (below <= values).all() and (values <= above).all()


@pytest.mark.parametrize("slope", [0.1, 0.3])
def test_leaky_relu_allows_for_its_rounding_and_not_for_more(slope):
    low, high = tf.constant([-3.0, 1.0, -2.0], tf.float64), tf.constant([-1.0, 2.0, 4.0], tf.float64)
    lines = leaky_relu(slope).lines(Interval(low, high))
    lost = 2.0**-23 * np.array([3, 2, 4])
    np.testing.assert_allclose(lines.lower_intercept, -lost, rtol=1e-9)
    np.testing.assert_allclose(lines.upper_intercept[:2], lost[:2], rtol=1e-9)
    # The chord from (−2, −2 slope) to (4, 4) at 0.
    assert float(lines.upper_intercept[2]) == pytest.approx(4 - 4 * (4 + 2 * slope) / 6, rel=1e-5)


def test_relu_is_computed_exactly():
    low, high = tf.constant([-3.0, 1.0, -2.0, -4.0], tf.float64), tf.constant([-1.0, 2.0, 4.0, 2.0], tf.float64)
    lines = leaky_relu(0.0).lines(Interval(low, high))
    np.testing.assert_array_equal(lines.lower_intercept, 0)
    # The line below has the slope that leaves the smaller triangle.
    np.testing.assert_array_equal(lines.lower_slope, [0, 1, 1, 0])
    np.testing.assert_allclose(lines.upper_slope, [0, 1, 4 / 6, 2 / 6])
    np.testing.assert_allclose(lines.upper_intercept, [0, 0, 4 / 3, 4 / 3])


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softsign", "silu", "gelu", "softplus", "elu"])
def test_bounds_of_elementary_functions_are_tight(name):
    function, rule = _NAMED[name]
    low, high = intervals()
    grid = np.linspace(low.numpy(), high.numpy(), 2001)
    values = np.asarray(function(tf.constant(grid)), np.float64)
    found = rule.bounds(low, high)
    np.testing.assert_allclose(found.lower, values.min(axis=0), atol=1e-4)
    np.testing.assert_allclose(found.upper, values.max(axis=0), atol=1e-4)


def test_the_allowance_goes_with_the_farther_end_of_the_input():
    # ELU and SELU cancel near 0: what float32 loses there goes with the size of x, on either side of it.
    for low, high in ((0.0, 0.5), (-0.5, 0.0), (-0.5, 0.1), (-0.1, 0.5)):
        zero = tf.zeros([1], tf.float64)
        ends = (tf.constant([end], tf.float64) for end in (low, high))
        found = activations._elementary(zero, zero, *ends)
        for width in (zero - found.lower, found.upper - zero):
            assert float(width[0]) == pytest.approx(0.5 * arithmetic.ELEMENTARY, rel=1e-6)
