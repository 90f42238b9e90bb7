"""Transforms by hand: intervals, the functionals that they pull back, and the allowance for rounding."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.certification import arithmetic
from wasser_tf.certification.transforms import Activation, Affine, Interval, Lines, MaxPooling

MASS = tf.constant([2.0, 4.0], tf.float64)
KERNEL = tf.constant([[1.0, -2.0], [0.5, 0.0], [-1.0, 3.0]], tf.float64)
OFFSET = tf.constant([0.5, -0.25], tf.float64)


def interval(lower, upper):
    return Interval(tf.constant(lower, tf.float64), tf.constant(upper, tf.float64))


INPUT = interval([[0.0, 1.0, -1.0], [1.0, 1.0, 1.0]], [[1.0, 3.0, 1.0], [1.0, 1.0, 2.0]])


def affine(terms=0, divides=False, **options):
    def linear(inputs, absolute, mass):
        kernel = tf.cast(tf.abs(KERNEL) if absolute else KERNEL, inputs[0].dtype)
        found = tf.matmul(inputs[0], kernel)
        return found / mass[:, None] if divides else found

    return Affine(linear, lambda dtype: tf.cast(OFFSET, dtype), terms=terms, **options)


def test_intervals_of_an_affine_map_by_hand():
    low, high = affine().interval([INPUT], MASS)
    # Of each row: x₀ + 0.5 x₁ − x₂ + 0.5, and −2 x₀ + 3 x₂ − 0.25.
    np.testing.assert_allclose(low, [[0 + 0.5 - 1 + 0.5, -2 - 3 - 0.25], [1 + 0.5 - 2 + 0.5, -2 + 3 - 0.25]])
    np.testing.assert_allclose(high, [[1 + 1.5 + 1 + 0.5, 0 + 3 - 0.25], [1 + 0.5 - 1 + 0.5, -2 + 6 - 0.25]])
    low, high = affine(divides=True).interval([INPUT], MASS)
    np.testing.assert_allclose(high, [[3.5 / 2 + 0.5, 3 / 2 - 0.25], [0.5 / 4 + 0.5, 4 / 4 - 0.25]])


@pytest.mark.parametrize("inputs", [INPUT, Interval(-INPUT.upper, -INPUT.lower)], ids=["positive", "negative"])
@pytest.mark.parametrize("bound", [None, 10.0])
def test_roundings_widen_an_affine_map_by_the_allowance(bound, inputs):
    options = {} if bound is None else {"offset_bound": lambda dtype: tf.fill([2], tf.constant(bound, dtype))}
    terms = 5
    exact, found = affine().interval([inputs], MASS), affine(terms, **options).interval([inputs], MASS)
    # That of the classifier alone; the float32 products of the bounds add as much, and round.
    relative = arithmetic.gamma(terms, tf.float64)
    magnitude = np.array([[1.0, 3.0, 1.0], [1.0, 1.0, 2.0]]) @ np.abs(KERNEL)
    # The magnitude of an interval by its centre and radius is that of its farther end.
    wanted = relative * (magnitude + (np.abs(OFFSET) if bound is None else bound))
    for widened in (exact.lower - found.lower, found.upper - exact.upper):
        assert (widened >= wanted).numpy().all() and (widened <= 4 * wanted).numpy().all()
    error = affine(terms, **options).error([inputs], MASS)
    assert (error >= wanted).numpy().all() and (error <= 1.01 * wanted).numpy().all()
    assert affine().error([inputs], MASS) is None


def test_sums_that_may_overflow_in_float32_are_unbounded():
    huge = interval([[1e38, 0.0, 0.0]], [[1e38, 0.0, 0.0]])
    low, high = affine(5).interval([huge], MASS[:1])
    assert np.isinf(low.numpy()).tolist() == np.isinf(high.numpy()).tolist() == [[True, True]]
    low, high = affine(5).interval([interval([[1e36, 0.0, 0.0]], [[1e36, 0.0, 0.0]])], MASS[:1])
    assert np.isfinite(low).all() and np.isfinite(high).all()


def test_the_allowance_of_an_image_does_not_depend_on_its_batch():
    # Of what underflows: 1e-38 times the largest number, which only the first image has.
    mixed = interval([[1e30, 0.0, 0.0], [0.0, 0.0, 0.0]], [[1e30, 0.0, 0.0], [0.0, 0.0, 0.0]])
    alone = interval([[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]])
    together, single = affine(5).error([mixed], MASS), affine(5).error([alone], MASS[1:])
    np.testing.assert_allclose(together[1], single[0], rtol=1e-12)


@pytest.mark.parametrize("divides", [False, True])
def test_functionals_are_pulled_back_through_an_affine_map(divides):
    functional = np.random.default_rng(0).normal(size=(2, 3, 2))
    mass = MASS.numpy() if divides else np.ones(2)
    (found,), constant = affine(divides=divides).pull_back(tf.constant(functional), [INPUT], MASS)
    np.testing.assert_allclose(found, functional @ KERNEL.numpy().T / mass[:, None, None])
    np.testing.assert_allclose(constant, functional @ OFFSET.numpy())
    _, rounded = affine(5, divides=divides).pull_back(tf.constant(functional), [INPUT], MASS)
    error = affine(5, divides=divides).error([INPUT], MASS).numpy()
    # Up to the rounding of the difference.
    np.testing.assert_allclose(constant - rounded, (np.abs(functional) * error[:, None]).sum(axis=2), rtol=1e-5)
    flat = tf.reshape(functional, [-1, 2])
    (absolute,) = affine(divides=divides).pull_back_exactly(flat, [(3,)], tf.repeat(MASS, 3), absolute=True)
    wanted = functional @ np.abs(KERNEL.numpy()).T / mass[:, None, None]
    np.testing.assert_allclose(absolute, wanted.reshape(6, 3))


def test_an_input_that_is_not_read_has_the_functional_0():
    first = Affine(lambda inputs, absolute, mass: inputs[0], terms=0)
    one, other = first.pull_back_exactly(tf.ones([2, 3]), [(3,), (4,)], MASS)
    np.testing.assert_array_equal(one, np.ones((2, 3)))
    np.testing.assert_array_equal(other, np.zeros((2, 4)))


def test_apply_and_apply_absolute():
    x = INPUT.lower
    np.testing.assert_allclose(affine().apply([x], MASS), x @ KERNEL + OFFSET)
    np.testing.assert_allclose(affine().apply_absolute([tf.abs(x)], MASS), tf.abs(x) @ tf.abs(KERNEL) + tf.abs(OFFSET))
    without = Affine(lambda inputs, absolute, mass: inputs[0], terms=0)
    np.testing.assert_array_equal(without.apply([x], MASS), x)
    np.testing.assert_array_equal(without.apply_absolute([x], MASS), x)
    np.testing.assert_array_equal(INPUT.magnitude, [[1, 3, 1], [1, 1, 2]])


def test_activations_take_the_line_below_for_positive_weights_and_above_for_negative_ones():
    def lines(low, high):
        return Lines(2.0 + 0 * low, -1.0 + 0 * low, 3.0 + 0 * low, 5.0 + 0 * low)

    activation = Activation(lambda low, high: Interval(low - 1, high + 1), lines)
    functional = tf.constant([[[1.0, -2.0, 0.0]], [[-1.0, -1.0, 4.0]]], tf.float64)
    (found,), constant = activation.pull_back(functional, [INPUT], MASS)
    np.testing.assert_allclose(found, [[[2.0, -6.0, 0.0]], [[-3.0, -3.0, 8.0]]])
    np.testing.assert_allclose(constant, [[-1 - 10], [-5 - 5 - 4]])
    np.testing.assert_array_equal(activation.interval([INPUT], MASS).upper, INPUT.upper + 1)
    plain = Activation(lambda low, high: Interval(low - 1, high + 1)).lines(INPUT)
    np.testing.assert_array_equal(plain.lower_slope, 0 * INPUT.lower)
    np.testing.assert_array_equal(plain.upper_slope, 0 * INPUT.lower)
    np.testing.assert_array_equal(plain.lower_intercept, INPUT.lower - 1)
    np.testing.assert_array_equal(plain.upper_intercept, INPUT.upper + 1)


def test_maxima_take_the_unit_of_the_largest_lower_bound_or_the_largest_upper_bound():
    pooling = MaxPooling(lambda x: tf.reduce_max(x, axis=1, keepdims=True))
    low, high = pooling.interval([INPUT], MASS)
    np.testing.assert_array_equal(low, [[1], [1]])
    np.testing.assert_array_equal(high, [[3], [2]])
    functional = tf.constant([[[2.0], [-3.0]]], tf.float64)
    (found,), constant = pooling.pull_back(functional, [Interval(INPUT.lower[:1], INPUT.upper[:1])], MASS[:1])
    # The second unit is at least 1, the others are not.
    np.testing.assert_allclose(found, [[[0, 2, 0], [0, 0, 0]]])
    np.testing.assert_allclose(constant, [[0, -3 * 3]])
