"""Rules of layers that are affine in their inputs: products with weights, scaling, averages and sums."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.ops import numpy as keras_operations

from wasser_tf.certification.rule_registry import Call, activation_of, rule
from wasser_tf.certification.transforms import Affine, Transform
from wasser_tf.models.potentials import TransportPotentials
from wasser_tf.threat_model import ThreatModel


def _kernel(weight: Any, dtype: tf.DType, absolute: bool) -> tf.Tensor:
    value = tf.cast(tf.convert_to_tensor(weight), dtype)
    return tf.abs(value) if absolute else value


def _dilated(kernel: tf.Tensor, rates: Sequence[int]) -> tf.Tensor:
    """Puts zeros between the entries of a kernel [h, w, …]: TensorFlow has no gradient of dilation on a CPU."""
    for axis, rate in enumerate(rates):
        if rate > 1:
            length, rest = kernel.shape[axis], kernel.shape.as_list()
            apart = [[0, 0]] * (axis + 1) + [[0, rate - 1]] + [[0, 0]] * (len(rest) - axis - 1)
            rest[axis] = length * rate
            kernel = tf.reshape(tf.pad(tf.expand_dims(kernel, axis + 1), apart), rest)
            kernel = tf.gather(kernel, tf.range((length - 1) * rate + 1), axis=axis)
    return kernel


def _bias(layer: Any) -> Callable[[tf.DType], tf.Tensor] | None:
    return (lambda dtype: _kernel(layer.bias, dtype, False)) if layer.use_bias else None


def _scaled(
    scale: Callable[[tf.DType], tf.Tensor], shift: Callable[[tf.DType], tf.Tensor], bound: Any, terms: int
) -> Affine:
    """Returns x · scale + shift, unit by unit."""

    def linear(inputs: Sequence[tf.Tensor], absolute: bool, mass: tf.Tensor) -> tf.Tensor:
        factor = scale(inputs[0].dtype)
        return inputs[0] * (tf.abs(factor) if absolute else factor)

    return Affine(linear, shift, bound, terms=terms)


@rule(keras.layers.Dense)
def _dense(call: Call) -> list[Transform]:
    layer = call.layer

    def linear(inputs: Sequence[tf.Tensor], absolute: bool, mass: tf.Tensor) -> tf.Tensor:
        return tf.tensordot(inputs[0], _kernel(layer.kernel, inputs[0].dtype, absolute), 1)

    return [Affine(linear, _bias(layer), terms=call.shapes[0][-1] + 1), *activation_of(call, layer.activation)]


@rule(TransportPotentials)
def _transport_potentials(call: Call) -> list[Transform]:
    layer = call.layer
    pixels, channels = math.prod(call.shapes[0]), call.shapes[0][-1]

    def linear(inputs: Sequence[tf.Tensor], absolute: bool, mass: tf.Tensor) -> tf.Tensor:
        image = inputs[0]
        share = tf.reshape(image / mass[:, None, None, None], [-1, pixels])
        kernel = layer.step_scale * _kernel(layer.flat_kernel, image.dtype, absolute)
        masses = tf.reduce_sum(image, axis=[1, 2]) * tf.constant(layer.mass_scale, image.dtype)
        return tf.concat([tf.matmul(share, kernel), masses], axis=1)

    def offset(dtype: tf.DType) -> tf.Tensor:
        return tf.concat([_kernel(layer.bias, dtype, False), tf.zeros([channels], dtype)], axis=0)

    def known(threat_model: ThreatModel, dtype: tf.DType) -> tf.Tensor | None:
        own = layer.threat_model
        if (own.p, own.kernel_size) != (threat_model.p, threat_model.kernel_size):
            return None
        return tf.concat([tf.ones([layer.units], dtype), tf.zeros([channels], dtype)], axis=0)

    # The sums of the mass and of the product, and the quotient, the scale of the masses and the bias.
    potentials = Affine(linear, offset, terms=2 * pixels + 4, divides_by_mass=True, lipschitz=known)
    return [potentials, *activation_of(call, layer.activation)]


@rule(keras.layers.Conv2D)
def _conv(call: Call) -> list[Transform]:
    if call.layer.groups != 1:
        raise call.refuse(f"it has {call.layer.groups} groups, and there is a rule for one")
    return _convolution(call, tf.nn.conv2d, call.layer.strides, math.prod(call.layer.kernel.shape[:3]))


@rule(keras.layers.DepthwiseConv2D)
def _depthwise(call: Call) -> list[Transform]:
    products = math.prod(call.layer.kernel.shape[:2])
    return _convolution(call, tf.nn.depthwise_conv2d, (1, *call.layer.strides, 1), products)


def _convolution(
    call: Call, convolve: Callable[..., tf.Tensor], strides: tuple[int, ...], products: int
) -> list[Transform]:
    """Returns a convolution, each output of which is the sum of some products and the bias, and its activation."""
    layer = call.layer

    def linear(inputs: Sequence[tf.Tensor], absolute: bool, mass: tf.Tensor) -> tf.Tensor:
        kernel = _dilated(_kernel(layer.kernel, inputs[0].dtype, absolute), layer.dilation_rate)
        return convolve(inputs[0], kernel, strides, layer.padding.upper())

    return [Affine(linear, _bias(layer), terms=products + 1), *activation_of(call, layer.activation)]


@rule(keras.layers.BatchNormalization)
def _batch_normalization(call: Call) -> list[Transform]:
    layer, rank = call.layer, len(call.shapes[0])
    if layer.axis not in (-1, rank):
        raise call.refuse(f"it normalises along axis {layer.axis}, and there is a rule for the last")

    def scale(dtype: tf.DType) -> tf.Tensor:
        factor = tf.math.rsqrt(_kernel(layer.moving_variance, dtype, False) + layer.epsilon)
        return factor * _kernel(layer.gamma, dtype, False) if layer.scale else factor

    def shift(dtype: tf.DType) -> tf.Tensor:
        shifted = -_kernel(layer.moving_mean, dtype, False) * scale(dtype)
        return shifted + _kernel(layer.beta, dtype, False) if layer.center else shifted

    def bound(dtype: tf.DType) -> tf.Tensor:
        shifted = tf.abs(_kernel(layer.moving_mean, dtype, False) * scale(dtype))
        return shifted + _kernel(layer.beta, dtype, True) if layer.center else shifted

    # A dozen roundings, whichever way it is computed: variance + ε, its root, and the products and sums.
    return [_scaled(scale, shift, bound, terms=16)]


@rule(keras.layers.Rescaling)
def _rescaling(call: Call) -> list[Transform]:
    layer = call.layer
    scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    return [_scaled(lambda dtype: tf.constant(scale, dtype), lambda dtype: tf.constant(offset, dtype), None, terms=4)]


@rule(keras.layers.Normalization)
def _normalization(call: Call) -> list[Transform]:
    layer = call.layer
    mean, variance = (np.asarray(keras.ops.convert_to_numpy(part), np.float64) for part in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    scale, shift = (deviation, mean) if layer.invert else (1.0 / deviation, -mean / deviation)
    # With a batch of one in front, as Keras has them.
    return [_scaled(lambda dtype: tf.constant(scale, dtype), lambda dtype: tf.constant(shift, dtype), None, terms=8)]


@rule(keras.layers.AveragePooling2D)
def _average_pooling(call: Call) -> list[Transform]:
    layer = call.layer

    def linear(inputs: Sequence[tf.Tensor], absolute: bool, mass: tf.Tensor) -> tf.Tensor:
        return tf.nn.avg_pool2d(inputs[0], layer.pool_size, layer.strides, layer.padding.upper())

    return [Affine(linear, terms=math.prod(layer.pool_size) + 2)]


@rule(keras.layers.GlobalAveragePooling2D)
def _global_average_pooling(call: Call) -> list[Transform]:
    height, width, _ = call.shapes[0]
    keep = call.layer.keepdims

    def linear(inputs: Sequence[tf.Tensor], absolute: bool, mass: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(inputs[0], [1, 2], keepdims=keep)

    return [Affine(linear, terms=height * width + 2)]


@rule(keras.layers.Add, keras_operations.Add)
def _add(call: Call) -> list[Transform]:
    _check_same_shapes(call)
    return [Affine(lambda inputs, absolute, mass: tf.add_n(list(inputs)), terms=len(call.shapes))]


@rule(keras.layers.Average)
def _average(call: Call) -> list[Transform]:
    _check_same_shapes(call)
    count = len(call.shapes)
    return [Affine(lambda inputs, absolute, mass: tf.add_n(list(inputs)) / count, terms=count + 2)]


def _check_same_shapes(call: Call) -> None:
    if len(call.shapes) < 2 or len(set(call.shapes)) > 1:
        raise call.refuse(f"it needs two inputs or more, all of one shape, got {call.shapes}")


@rule(keras_operations.Einsum)
def _einsum(call: Call) -> list[Transform]:
    # Such as the package's blur: linear, for all but one of its operands are constants.
    if len(call.shapes) != 1:
        raise call.refuse("products of two inputs have no rule")
    place = next(number for number, each in enumerate(call.arguments) if isinstance(each, keras.KerasTensor))
    constants = [None if number == place else np.asarray(each) for number, each in enumerate(call.arguments)]
    subscripts = call.layer.subscripts
    sources, arrow, target = subscripts.replace(" ", "").partition("->")
    if not arrow or "." in subscripts:
        raise call.refuse(f"its subscripts must name every axis on both sides of ->, got {subscripts}")
    sizes: dict[str, int] = {}
    for operand, constant in zip(sources.split(","), constants, strict=True):
        shape = (1, *call.shapes[0]) if constant is None else constant.shape
        sizes.update(zip(operand, shape, strict=True))

    def linear(inputs: Sequence[tf.Tensor], absolute: bool, mass: tf.Tensor) -> tf.Tensor:
        operands = [
            inputs[0] if each is None else _kernel(each.astype(np.float32), inputs[0].dtype, absolute)
            for each in constants
        ]
        return tf.einsum(subscripts, *operands)

    summed = math.prod(size for letter, size in sizes.items() if letter not in target)
    return [Affine(linear, terms=summed + len(constants))]
