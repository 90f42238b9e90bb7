"""What each Keras layer is to a prover: the registry `RULES`, to which a new layer is one function.

```python
@rule(MyLayer)
def _my_layer(call: Call) -> list[Transform]:
    return [Affine(…)]
```

A rule is looked up by the exact class: a subclass may compute something else. Weights are read when bounds are
computed, not when the rule is, and so are trained or exported like those of the classifier itself.

This module has the rules of activations, of maxima and of layers that copy values, and imports affine_rules.py, which
registers the others.
"""

import math
from collections.abc import Callable

import keras
import tensorflow as tf

from wasser_tf.certification import affine_rules  # noqa: F401 (it registers its rules)
from wasser_tf.certification.activations import elu, increasing, leaky_relu
from wasser_tf.certification.rule_registry import RULES, Call, Rule, activation_of, rule, transforms_of
from wasser_tf.certification.transforms import Affine, MaxPooling, Transform

__all__ = ["RULES", "Call", "Rule", "rule", "transforms_of"]


def _copying(function: Callable[[tf.Tensor], tf.Tensor], keeps_mass: bool = False) -> Affine:
    return Affine(lambda inputs, absolute, mass: function(inputs[0]), terms=0, keeps_mass=keeps_mass)


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
    return activation_of(call, call.layer.activation)


@rule(keras.layers.Softmax)
def _softmax(call: Call) -> list[Transform]:
    # `Network` sees to it that it is the last, and that the bounds are those of logits.
    if call.layer.axis != -1:
        raise call.refuse("a softmax must be over the classes, the last axis")
    return []


@rule(keras.layers.MaxPooling2D)
def _max_pooling(call: Call) -> list[Transform]:
    layer = call.layer
    return [MaxPooling(lambda x: tf.nn.max_pool2d(x, layer.pool_size, layer.strides, layer.padding.upper()))]


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


@rule(keras.layers.Concatenate)
def _concatenate(call: Call) -> list[Transform]:
    axis = call.layer.axis
    if axis == 0:
        raise call.refuse("it concatenates batches")
    return [Affine(lambda inputs, absolute, mass: tf.concat(list(inputs), axis), terms=0)]
