"""What the graph of a classifier shows: the arithmetic on its images first, and the activation of its outputs last.

Both are read from the operations of a traced function, so that layers, subclassed models, functions and SavedModels are
understood alike.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

# Operations that pass values on as they are; the first input is what is passed on.
_PASSING = ("Identity", "StopGradient", "PreventGradient", "EnsureShape", "CheckNumerics", "Snapshot")
_RESHAPING = ("Reshape", "Squeeze", "ExpandDims")
# Operations that are affine in each pixel, where all other inputs are constants.
_ARITHMETIC = ("Mul", "RealDiv", "Div", "Sub", "Add", "AddV2", "BiasAdd", "Neg")
_MOVING = ("Transpose", "ReverseV2", "StridedSlice", "GatherV2", "Pack", "Unpack", "ConcatV2", "Split", "SplitV")
_AFFINE = (*_PASSING, *_RESHAPING, "Cast", *_ARITHMETIC, *_MOVING)
_CONVOLUTIONS = ("Conv2D", "MaxPool", "AvgPool", "DepthwiseConv2dNative", "FusedBatchNormV3")
_SHAPES = ("Shape", "Size", "Rank")
_ACTIVATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "LogSoftmax": "log_softmax"}
# Larger SavedModels are not rewritten, because a graph with all weights in it is limited to 2 GB.
_LARGEST_WEIGHTS = 512 * 2**20


class FirstStep(NamedTuple):
    """What a graph does to each pixel before anything else.

    Attributes:
      tensor: The images after the affine operations, as they come.
      channels_first: Whether an operation takes the images as [n, C, H, W]; None where none depends on the order.
    """

    tensor: Any
    channels_first: bool | None


def first_step(images: tf.Tensor) -> FirstStep:
    """Finds what the images become by operations that are affine in each pixel, before any other operation."""
    affine, channels_first = {id(images): images}, None
    # In the order in which operations were made, inputs come before what uses them.
    for operation in images.graph.get_operations():
        if not any(id(value) in affine for value in operation.inputs):
            continue
        if operation.type == "Transpose":
            order = tf.get_static_value(operation.inputs[1])
            if order is not None and list(order) == [0, 2, 3, 1]:
                channels_first = True
        if operation.type in _CONVOLUTIONS and channels_first is None:
            channels_first = operation.get_attr("data_format") == b"NCHW"
        if _is_affine(operation, affine):
            affine.update((id(value), value) for value in operation.outputs)
    edge = [
        value
        for value in affine.values()
        if any(user.type not in _SHAPES and id(user.outputs[0]) not in affine for user in value.consumers())
    ]
    # Used in several ways, the images may mean several things.
    return FirstStep(edge[0] if len(edge) == 1 else images, channels_first)


def _is_affine(operation: Any, affine: dict[int, tf.Tensor]) -> bool:
    """Returns whether an operation is affine in each pixel, with constants that were not trained."""
    if not all(value.dtype.is_floating for value in operation.outputs):
        return False
    from_images = [id(value) in affine for value in operation.inputs]
    if not all(known or _is_constant(value) for known, value in zip(from_images, operation.inputs, strict=True)):
        return False
    if operation.type in ("Mul", "RealDiv", "Div"):
        return from_images == [True, False] or (operation.type == "Mul" and from_images == [False, True])
    return operation.type in _AFFINE


def _is_constant(tensor: tf.Tensor, depth: int = 0) -> bool:
    """Returns whether a tensor is made of constants alone, and not of variables."""
    operation = tensor.op
    # Where the variables of a graph became constants, the operation that read one keeps its name.
    if "ReadVariableOp" in (operation.type, operation.name.rpartition("/")[2].split("_")[0]) or depth > 8:
        return False
    if operation.type == "Const":
        return True
    if operation.type == "Placeholder":
        # An array that the traced function holds; resources are variables.
        return tensor.dtype != tf.resource and any(tensor is inner for _, inner in tensor.graph.captures)
    return bool(operation.inputs) and all(_is_constant(value, depth + 1) for value in operation.inputs)


def last_activation(outputs: tf.Tensor) -> str | None:
    """Returns which activation outputs [n, classes] or [n] come from: "softmax", "sigmoid", "log_softmax" or None."""
    operation = _activation_operation(outputs)
    return None if operation is None else _ACTIVATIONS[operation.type]


def before_activation(outputs: tf.Tensor) -> tf.Tensor | None:
    """Returns the input of the softmax or sigmoid that outputs come from, in their shape, or None without one."""
    operation = _activation_operation(outputs)
    if operation is None or operation.type == "LogSoftmax":
        return None
    return tf.reshape(operation.inputs[0], tf.shape(outputs))


def _activation_operation(outputs: Any) -> Any:
    operation = _last(outputs)
    # A softmax over another axis is none over classes.
    found = operation.type in _ACTIVATIONS and _row_size(operation.outputs[0]) == _row_size(outputs)
    return operation if found else None


def _row_size(tensor: tf.Tensor) -> int | None:
    shape = tensor.shape
    return None if shape.rank is None else 1 if shape.rank < 2 else shape[-1]


def last_operation(outputs: tf.Tensor) -> str:
    """Returns the type of the operation that outputs come from, such as "BiasAdd"."""
    return _last(outputs).type


def _last(outputs: Any) -> Any:
    operation = outputs.op
    while operation.type in (*_PASSING, *_RESHAPING, "Cast"):
        operation = operation.inputs[0].op
    return operation


def inlined(function: Any) -> Any | None:
    """Returns a concrete function whose graph holds all functions that it calls, and its variables as constants.

    Args:
      function: Of one tensor, to a structure of tensors; its variables must not change any more.

    Returns:
      The function, or None where TensorFlow cannot make it.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if sum(int(np.prod(value.shape)) * value.dtype.size for value in function.variables) > _LARGEST_WEIGHTS:
        return None
    try:
        return convert_variables_to_constants_v2(function, lower_control_flow=False)
    except Exception:  # Tables, control flow and other things that only the original graph can hold.
        return None
