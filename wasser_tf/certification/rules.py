"""What each Keras layer is to a prover: the registry `RULES`, to which a new layer is one function.

```python
@rule(MyLayer)
def _my_layer(call: Call) -> list[Transform]:
    return [Affine(…)]
```

A rule is looked up by the exact class: a subclass may compute something else. Weights are read when bounds are
computed, not when the rule is, and so are trained or exported like those of the classifier itself.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras.src.ops import numpy as keras_operations

from wasser_tf.certification.activations import ACTIVATIONS, elu, increasing, leaky_relu
from wasser_tf.certification.transforms import Affine, MaxPooling, Transform
from wasser_tf.models.potentials import TransportPotentials
from wasser_tf.threat_model import ThreatModel


class Call(NamedTuple):
    """A layer, or an operation of keras.ops, and what it is called with.

    Attributes:
      layer: It.
      shapes: Of its inputs, without the batch.
      arguments: Positional arguments; those that are symbolic are inputs, the others constants.
    """

    layer: Any
    shapes: list[tuple[int, ...]]
    arguments: tuple[Any, ...]

    def refuse(self, reason: str) -> ValueError:
        """Returns the error that says why this layer cannot be bounded."""
        kind = type(self.layer).__name__
        return ValueError(f"The layer {self.layer.name!r} ({kind}) cannot be certified: {reason}.")


Rule = Callable[[Call], list[Transform]]
RULES: dict[type, Rule] = {}


def rule(*kinds: type) -> Callable[[Rule], Rule]:
    """Registers a rule for classes of layers."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


def transforms_of(call: Call, *, any_precision: bool = False) -> list[Transform]:
    """Returns what a layer does, one after the other; `any_precision` allows layers that do not compute in float32.

    Raises:
      ValueError: There is no rule for it, or not for these settings; the message names it.
    """
    found = RULES.get(type(call.layer))
    if found is None:
        known = sorted({kind.__name__ for kind in RULES})
        raise call.refuse(
            f"there is no rule for it, only for {', '.join(known)}. Register one in wasser_tf.certification.rules.RULES"
        )
    precise = getattr(call.layer, "compute_dtype", "float32") in ("float32", "float64")
    if not precise and not any_precision:
        raise call.refuse(f"it computes in {call.layer.compute_dtype}, and float32 is needed: load it with that policy")
    if getattr(call.layer, "quantization_mode", None):
        raise call.refuse("it is quantised: certify the classifier before quantisation")
    if getattr(call.layer, "data_format", "channels_last") == "channels_first":
        raise call.refuse("it has the channels first, and images have them last")
    return found(call)


def _activation(call: Call, function: Any) -> list[Transform]:
    if function not in ACTIVATIONS:
        name = getattr(function, "__name__", function)
        known = sorted(known.__name__ for known in ACTIVATIONS)
        raise call.refuse(f"there is no rule for its activation {name}, only for {', '.join(known)}")
    found = ACTIVATIONS[function]
    return [] if found is None else [found]


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


def _copying(function: Callable[[tf.Tensor], tf.Tensor], keeps_mass: bool = False) -> Affine:
    return Affine(lambda inputs, absolute, mass: function(inputs[0]), terms=0, keeps_mass=keeps_mass)


@rule(keras.layers.Dense)
def _dense(call: Call) -> list[Transform]:
    layer = call.layer

    def linear(inputs: Sequence[tf.Tensor], absolute: bool, mass: tf.Tensor) -> tf.Tensor:
        return tf.tensordot(inputs[0], _kernel(layer.kernel, inputs[0].dtype, absolute), 1)

    return [Affine(linear, _bias(layer), terms=call.shapes[0][-1] + 1), *_activation(call, layer.activation)]


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
    return [potentials, *_activation(call, layer.activation)]


@rule(keras.layers.Conv2D)
def _conv(call: Call) -> list[Transform]:
    layer = call.layer
    if layer.groups != 1:
        raise call.refuse(f"it has {layer.groups} groups, and there is a rule for one")
    strides, padding = layer.strides, layer.padding.upper()

    def linear(inputs: Sequence[tf.Tensor], absolute: bool, mass: tf.Tensor) -> tf.Tensor:
        kernel = _dilated(_kernel(layer.kernel, inputs[0].dtype, absolute), layer.dilation_rate)
        return tf.nn.conv2d(inputs[0], kernel, strides, padding)

    terms = math.prod(layer.kernel.shape[:3]) + 1
    return [Affine(linear, _bias(layer), terms=terms), *_activation(call, layer.activation)]


@rule(keras.layers.DepthwiseConv2D)
def _depthwise(call: Call) -> list[Transform]:
    layer = call.layer
    padding, strides = layer.padding.upper(), (1, *layer.strides, 1)

    def linear(inputs: Sequence[tf.Tensor], absolute: bool, mass: tf.Tensor) -> tf.Tensor:
        kernel = _dilated(_kernel(layer.kernel, inputs[0].dtype, absolute), layer.dilation_rate)
        return tf.nn.depthwise_conv2d(inputs[0], kernel, strides, padding)

    terms = math.prod(layer.kernel.shape[:2]) + 1
    return [Affine(linear, _bias(layer), terms=terms), *_activation(call, layer.activation)]


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


@rule(keras.layers.ReLU)
def _relu(call: Call) -> list[Transform]:
    layer = call.layer
    slope = float(layer.negative_slope or 0.0)
    if layer.threshold or not 0 <= slope <= 1:
        raise call.refuse("its threshold must be 0 and its negative_slope from 0 to 1")
    if layer.max_value is None:
        return [leaky_relu(slope)]
    most = float(layer.max_value)
    return [increasing(lambda x: tf.minimum(tf.maximum(x, slope * x), most))]


@rule(keras.layers.LeakyReLU)
def _leaky_relu(call: Call) -> list[Transform]:
    if not 0 <= call.layer.negative_slope <= 1:
        raise call.refuse("its negative_slope must be from 0 to 1")
    return [leaky_relu(float(call.layer.negative_slope))]


@rule(keras.layers.ELU)
def _elu(call: Call) -> list[Transform]:
    alpha = float(call.layer.alpha)
    if alpha < 0:
        raise call.refuse("its alpha must be at least 0")
    return [elu(lambda x: tf.where(x > 0, x, alpha * tf.math.expm1(tf.minimum(x, 0.0))), alpha)]


@rule(keras.layers.Activation)
def _activation_layer(call: Call) -> list[Transform]:
    return _activation(call, call.layer.activation)


@rule(keras.layers.Softmax)
def _softmax(call: Call) -> list[Transform]:
    # `Network` sees to it that it is the last, and that the bounds are those of logits.
    if call.layer.axis != -1:
        raise call.refuse("a softmax must be over the classes, the last axis")
    return []


@rule(keras.layers.AveragePooling2D)
def _average_pooling(call: Call) -> list[Transform]:
    layer = call.layer

    def linear(inputs: Sequence[tf.Tensor], absolute: bool, mass: tf.Tensor) -> tf.Tensor:
        return tf.nn.avg_pool2d(inputs[0], layer.pool_size, layer.strides, layer.padding.upper())

    return [Affine(linear, terms=math.prod(layer.pool_size) + 2)]


@rule(keras.layers.MaxPooling2D)
def _max_pooling(call: Call) -> list[Transform]:
    layer = call.layer
    return [MaxPooling(lambda x: tf.nn.max_pool2d(x, layer.pool_size, layer.strides, layer.padding.upper()))]


@rule(keras.layers.GlobalAveragePooling2D)
def _global_average_pooling(call: Call) -> list[Transform]:
    height, width, _ = call.shapes[0]
    keep = call.layer.keepdims

    def linear(inputs: Sequence[tf.Tensor], absolute: bool, mass: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(inputs[0], [1, 2], keepdims=keep)

    return [Affine(linear, terms=height * width + 2)]


@rule(keras.layers.GlobalMaxPooling2D)
def _global_max_pooling(call: Call) -> list[Transform]:
    return [MaxPooling(lambda x: tf.reduce_max(x, [1, 2], keepdims=call.layer.keepdims))]


@rule(keras.layers.Flatten)
def _flatten(call: Call) -> list[Transform]:
    return [_copying(lambda x: tf.reshape(x, [-1, math.prod(x.shape[1:])]), keeps_mass=True)]


@rule(keras.layers.Reshape)
def _reshape(call: Call) -> list[Transform]:
    target = call.layer.compute_output_shape((None, *call.shapes[0]))[1:]
    return [_copying(lambda x: tf.reshape(x, [-1, *target]), keeps_mass=True)]


@rule(keras.layers.Permute)
def _permute(call: Call) -> list[Transform]:
    order = [0, *call.layer.dims]
    return [_copying(lambda x: tf.transpose(x, order), keeps_mass=True)]


@rule(keras.layers.ZeroPadding2D)
def _zero_padding(call: Call) -> list[Transform]:
    padding = [(0, 0), *call.layer.padding, (0, 0)]
    return [_copying(lambda x: tf.pad(x, padding), keeps_mass=True)]


@rule(keras.layers.Dropout, keras.layers.SpatialDropout2D, keras.layers.GaussianNoise, keras.layers.GaussianDropout)
def _nothing_in_inference(call: Call) -> list[Transform]:
    return []


@rule(keras.layers.Add, keras_operations.Add)
def _add(call: Call) -> list[Transform]:
    if len(call.shapes) < 2 or len(set(call.shapes)) > 1:
        raise call.refuse(f"its inputs must have one shape, got {call.shapes}")
    return [Affine(lambda inputs, absolute, mass: tf.add_n(list(inputs)), terms=len(call.shapes))]


@rule(keras.layers.Concatenate)
def _concatenate(call: Call) -> list[Transform]:
    axis = call.layer.axis
    if axis == 0:
        raise call.refuse("it concatenates batches")
    return [Affine(lambda inputs, absolute, mass: tf.concat(list(inputs), axis), terms=0)]


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
