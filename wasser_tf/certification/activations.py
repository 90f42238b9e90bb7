"""Bounds of activation functions on intervals, and lines below and above them."""

import functools
from collections.abc import Callable

import keras
import numpy as np
import scipy.optimize
import scipy.special
import tensorflow as tf

from wasser_tf.certification import arithmetic
from wasser_tf.certification.transforms import Activation, Interval, Lines

Function = Callable[[tf.Tensor], tf.Tensor]


def leaky_relu(slope: float) -> Activation:
    """Returns max(x, slope · x), 0 ≤ slope ≤ 1; ReLU for 0.

    Where the sign is not known: above, the chord; below, the line through 0 of either slope, whichever leaves the
    smaller triangle (Zhang et al., CROWN, 2018). Float32 computes ReLU exactly, and slope · x to a rounding.
    """
    rounded = 2.0**-23 if slope else 0.0

    def function(x: tf.Tensor) -> tf.Tensor:
        return tf.maximum(x, slope * x)

    def bounds(low: tf.Tensor, high: tf.Tensor) -> Interval:
        return Interval(_below(function(low), rounded), _above(function(high), rounded))

    def lines(low: tf.Tensor, high: tf.Tensor) -> Lines:
        one, other = tf.ones_like(low), slope * tf.ones_like(low)
        positive, negative = low >= 0, high <= 0
        unstable = ~(positive | negative)
        width = tf.where(unstable, high - low, one)
        chord = tf.where(unstable, (high - slope * low) / width, one)
        # The chord's height at 0: from its ends, so that it lies above both as computed.
        over = tf.maximum(function(high) - chord * high, function(low) - chord * low)
        lost = rounded * tf.maximum(tf.abs(low), tf.abs(high))
        return Lines(
            tf.where(positive | (unstable & (high > -low)), one, other),
            -lost,
            tf.where(positive, one, tf.where(negative, other, chord)),
            tf.where(unstable, over, tf.zeros_like(over)) + lost,
        )

    return Activation(bounds, lines, exact_by_sign=True)


def increasing(function: Function, cancelled: float = 0.0) -> Activation:
    """Returns any increasing function, with constants for lines.

    Args:
      function: On tensors.
      cancelled: What float32 may lose by cancellation at any x, however small, as exp(x) − 1 does near 0.
    """

    def bounds(low: tf.Tensor, high: tf.Tensor) -> Interval:
        found = _increasing_bounds(function, low, high)
        return Interval(found.lower - cancelled, found.upper + cancelled)

    return Activation(bounds)


def elu(function: Function, scale: float) -> Activation:
    """Returns ELU or SELU, computed as scale · (exp(x) − 1) for negative x, which cancels near 0.

    Args:
      function: On tensors.
      scale: The factor before the bracket.
    """
    return increasing(function, scale * 2.0**-22)


def s_shaped(function: Function, derivative: Function) -> Activation:
    """Returns an increasing function whose slope rises to 0 and falls from there: sigmoid, tanh, softsign.

    On [l, u] the slope is at least s = min(f'(l), f'(u)), so that f(l) + s (x − l) ≤ f(x) ≤ f(u) + s (x − u).
    """

    def lines(low: tf.Tensor, high: tf.Tensor) -> Lines:
        least, most = _increasing_bounds(function, low, high)
        # A little less than the slope is right too.
        slope = (1.0 - arithmetic.ELEMENTARY) * tf.minimum(derivative(low), derivative(high))
        slope = tf.where(tf.math.is_finite(low) & tf.math.is_finite(high), slope, tf.zeros_like(slope))
        offset = slope * tf.where(slope > 0, low, 0.0), slope * tf.where(slope > 0, high, 0.0)
        return Lines(slope, least - offset[0], slope, most - offset[1])

    return Activation(functools.partial(_increasing_bounds, function), lines)


def falling_then_rising(function: Function, scalar: Callable[[float], float]) -> Activation:
    """Returns a function that falls to its one minimum and rises from there: SiLU, GELU.

    Args:
      function: On tensors.
      scalar: The same on a number, to find the minimum.
    """
    found = scipy.optimize.minimize_scalar(scalar, bounds=(-5.0, 0.0), method="bounded", options={"xatol": 1e-12})
    place, least = float(found.x), float(found.fun)

    def bounds(low: tf.Tensor, high: tf.Tensor) -> Interval:
        at_low, at_high = function(low), function(high)
        # The place is known to some 1e-8; a little around it counts as within.
        within = (low <= place + 1e-6) & (high >= place - 1e-6)
        bottom = tf.where(within, tf.minimum(tf.constant(least, low.dtype), at_low), tf.minimum(at_low, at_high))
        return _elementary(bottom, tf.maximum(at_low, at_high), low, high)

    return Activation(bounds)


def _increasing_bounds(function: Function, low: tf.Tensor, high: tf.Tensor) -> Interval:
    return _elementary(function(low), function(high), low, high)


def _elementary(bottom: tf.Tensor, top: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> Interval:
    """Widens bounds of a function by what float32 may get wrong: units in the last place of it, or of x near 0."""
    size = tf.minimum(tf.maximum(tf.abs(low), tf.abs(high)), 1.0)

    def slack(value: tf.Tensor) -> tf.Tensor:
        return arithmetic.ELEMENTARY * (tf.abs(value) + size) + arithmetic.TINY

    return Interval(bottom - slack(bottom), top + slack(top))


def _below(value: tf.Tensor, relative: float) -> tf.Tensor:
    return value - relative * tf.abs(value) if relative else value


def _above(value: tf.Tensor, relative: float) -> tf.Tensor:
    return value + relative * tf.abs(value) if relative else value


def _tanh_slope(x: tf.Tensor) -> tf.Tensor:
    return 1.0 - tf.tanh(x) ** 2


def _sigmoid_slope(x: tf.Tensor) -> tf.Tensor:
    return tf.sigmoid(x) * tf.sigmoid(-x)


def _softsign_slope(x: tf.Tensor) -> tf.Tensor:
    return 1.0 / (1.0 + tf.abs(x)) ** 2


def _gelu(x: float) -> float:
    return float(0.5 * x * (1.0 + scipy.special.erf(x / np.sqrt(2.0))))


# By the function that a layer calls. None: nothing is done. A softmax can only be the last of a network
# (network.py sees to it), which is bounded by its logits.
ACTIVATIONS: dict[Callable, Activation | None] = {
    keras.activations.softmax: None,
    keras.activations.linear: None,
    keras.activations.relu: leaky_relu(0.0),
    keras.activations.leaky_relu: leaky_relu(0.2),
    keras.activations.relu6: increasing(tf.nn.relu6),
    keras.activations.elu: elu(tf.nn.elu, 1.0),
    keras.activations.selu: elu(tf.nn.selu, 1.7581),
    keras.activations.softplus: increasing(tf.math.softplus),
    keras.activations.exponential: increasing(tf.exp),
    keras.activations.hard_sigmoid: increasing(lambda x: tf.nn.relu6(x + 3.0) / 6.0),
    keras.activations.hard_tanh: increasing(lambda x: tf.clip_by_value(x, -1.0, 1.0)),
    keras.activations.sigmoid: s_shaped(tf.sigmoid, _sigmoid_slope),
    keras.activations.tanh: s_shaped(tf.tanh, _tanh_slope),
    keras.activations.softsign: s_shaped(tf.nn.softsign, _softsign_slope),
    keras.activations.silu: falling_then_rising(tf.nn.silu, lambda x: x / (1.0 + np.exp(-x))),
    keras.activations.gelu: falling_then_rising(lambda x: tf.nn.gelu(x, approximate=False), _gelu),
}
