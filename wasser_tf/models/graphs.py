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
_MOVING = (
    "Transpose",
    "ReverseV2",
    "StridedSlice",
    "Slice",
    "GatherV2",
    "Pack",
    "Unpack",
    "ConcatV2",
    "Split",
    "SplitV",
)
_REARRANGING = (
    "ExtractImagePatches",
    "SpaceToDepth",
    "DepthToSpace",
    "Tile",
    "BroadcastTo",
    "Pad",
    "PadV2",
    "MirrorPad",
)
# Means of pixels, of weights that add up to 1.
_AVERAGING = (
    *("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea", "ScaleAndTranslate", "CropAndResize"),
    *("AvgPool", "Mean"),
)
_AFFINE = (*_PASSING, *_RESHAPING, "Cast", *_ARITHMETIC, *_MOVING, *_REARRANGING, *_AVERAGING)
# Operations that change no value from 0 to 1, and the inputs that decide it: lower limits of at most 0, upper of at
# least 1.
_CLIPPING: dict[str, tuple[str, ...]] = {
    "Relu": (),
    "MaxPool": (),
    "Maximum": ("lower",),
    "Minimum": ("upper",),
    "ClipByValue": ("lower", "upper"),
}
# Operations that mix values by constant weights.
_WEIGHTED = {"MatMul": (0,), "Conv2D": (0, 1, 2), "DepthwiseConv2dNative": (0, 1)}
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# Operations of functions that are not looked into.
_HIDING = (*_CALLS, "If", "StatelessIf", "Case", "StatelessCase")
# Constants made of more operations are not followed.
_LONGEST = 256
# Operations of which probabilities, or parts of them, are put together.
_MIXING = (*_PASSING, *_RESHAPING, "Cast", *_ARITHMETIC, *_MOVING, "AddN", "Mean", "Sum")
_CONVOLUTIONS = ("Conv2D", "MaxPool", "AvgPool", "DepthwiseConv2dNative", "FusedBatchNormV3")
_SHAPES = ("Shape", "Size", "Rank")
_ACTIVATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "LogSoftmax": "log_softmax"}
# Larger SavedModels are not rewritten, because a graph with all weights in it is limited to 2 GB.
_LARGEST_WEIGHTS = 512 * 2**20


class FirstSteps(NamedTuple):
    """What a graph does to each pixel before anything else.

    Attributes:
      tensors: The images after the affine operations, as they come; several where the graph uses them in several ways.
      channels_first: Whether an operation takes the images as [n, C, H, W]; None where none depends on the order.
      hidden: Whether the graph uses them in a branch or a function that cannot be looked into.
    """

    tensors: list[tf.Tensor]
    channels_first: bool | None
    hidden: bool


def first_steps(images: tf.Tensor) -> FirstSteps:
    """Finds what the images become by operations that are affine in each pixel, before any other operation.

    Means of pixels, as of a resize, and limits that no pixel exceeds count as such operations.
    """
    affine, channels_first = {id(images): images}, None
    # Those whose pixels are still the images' own.
    unscaled = {id(images)}
    # In the order in which operations were made, inputs come before what uses them.
    for operation in images.graph.get_operations():
        if not any(id(value) in affine for value in operation.inputs):
            continue
        if operation.type == "Transpose":
            order = tf.get_static_value(operation.inputs[1])
            shown: dict[tuple[int, ...], bool] = {(0, 2, 3, 1): True, (0, 3, 1, 2): False}
            if channels_first is None and order is not None:
                channels_first = shown.get(tuple(int(axis) for axis in order))
        if operation.type in _CONVOLUTIONS and channels_first is None:
            channels_first = operation.get_attr("data_format") == b"NCHW"
        clips = all(id(value) in unscaled or _is_constant(value) for value in operation.inputs) and _clips(operation)
        if clips or _is_affine(operation, affine):
            affine.update((id(value), value) for value in operation.outputs)
            if clips or (operation.type not in _ARITHMETIC and operation.type not in _WEIGHTED):
                unscaled.update(id(value) for value in operation.outputs if _any_of(unscaled, operation))
    edges = [value for value in affine.values() if any(_uses(user, affine) for user in value.consumers())]
    hidden = any(user.type in _HIDING for value in edges for user in value.consumers())
    return FirstSteps(edges or [images], channels_first, hidden)


def _any_of(tensors: set[int], operation: Any) -> bool:
    return any(id(value) in tensors for value in operation.inputs)


def _uses(operation: Any, affine: dict[int, tf.Tensor]) -> bool:
    """Returns whether an operation computes something of its inputs, and is none of the affine ones."""
    if operation.type in _SHAPES or not operation.outputs or id(operation.outputs[0]) in affine:
        return False
    # Assertions compare pixels.
    return any(value.dtype != tf.bool for value in operation.outputs)


def _is_affine(operation: Any, affine: dict[int, tf.Tensor]) -> bool:
    """Returns whether an operation is affine in each pixel, with constants that were not trained."""
    if not all(value.dtype.is_floating for value in operation.outputs):
        return False
    from_images = [id(value) in affine for value in operation.inputs]
    if not all(known or _is_constant(value) for known, value in zip(from_images, operation.inputs, strict=True)):
        return False
    if operation.type in ("Mul", "RealDiv", "Div"):
        return from_images == [True, False] or (operation.type == "Mul" and from_images == [False, True])
    if operation.type in _WEIGHTED:
        return from_images == [True, False] and _is_mean(operation)
    return operation.type in _AFFINE and not _moves_images(operation)


def _moves_images(operation: Any) -> bool:
    """Returns whether the first axis of an operation's output is another than that of its input, the images."""
    if operation.type == "Transpose":
        order = tf.get_static_value(operation.inputs[1])
        return order is None or order[0] != 0
    if operation.type in ("Pack", "Unpack"):
        return operation.get_attr("axis") == 0
    if operation.type in ("ConcatV2", "Mean", "ReverseV2", "Split", "SplitV", "GatherV2"):
        place = {"ConcatV2": -1, "Split": 0, "SplitV": 2, "GatherV2": 2}.get(operation.type, 1)
        axes = tf.get_static_value(operation.inputs[place])
        return axes is None or 0 in np.ravel(axes)
    return False


def _is_mean(operation: Any) -> bool:
    """Returns whether an operation takes means, times one factor: its weights are positive, with equal sums."""
    weights = _static(operation.inputs[1])
    if weights is None or (operation.type == "MatMul" and operation.get_attr("transpose_b")):
        return False
    sums = np.asarray(weights, np.float64).sum(axis=_WEIGHTED[operation.type])
    return bool((weights >= 0).all() and sums.min() > 0 and np.allclose(sums, sums.flat[0], rtol=1e-2))


def _clips(operation: Any) -> bool:
    """Returns whether an operation limits values to a range that holds 0 to 1, or takes the largest of several."""
    if operation.type not in _CLIPPING:
        return False
    limits = [tf.get_static_value(value) for value in operation.inputs]
    limits = [limit for limit in limits if limit is not None]
    kinds = _CLIPPING[operation.type]
    return len(limits) == len(kinds) and all(
        np.all(limit <= 0) if kind == "lower" else np.all(limit >= 1) for kind, limit in zip(kinds, limits, strict=True)
    )


def _is_constant(tensor: tf.Tensor) -> bool:
    """Returns whether a tensor is made of constants and shapes alone, and not of variables."""
    waiting, seen = [tensor], set()
    while waiting:
        value = waiting.pop()
        operation = value.op
        if id(operation) in seen or operation.type in ("Const", *_SHAPES):
            continue
        seen.add(id(operation))
        if operation.type == "Placeholder":
            # An array that the traced function holds; resources are variables.
            if value.dtype == tf.resource or not any(value is inner for _, inner in value.graph.captures):
                return False
            continue
        # Where the variables of a graph became constants, the operation that read one keeps its name.
        if "ReadVariableOp" in (operation.type, operation.name.rpartition("/")[2].split("_")[0]):
            return False
        if not operation.inputs or len(seen) > _LONGEST:
            return False
        waiting.extend(operation.inputs)
    return True


def _static(tensor: tf.Tensor) -> np.ndarray | None:
    """Returns the values of a constant, also of a reshaped one, or None."""
    operation = tensor.op
    if operation.type in _RESHAPING and tensor.shape.is_fully_defined():
        value = _static(operation.inputs[0])
        return None if value is None else np.reshape(value, tensor.shape)
    return tf.get_static_value(tensor)


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


def mixes_activations(outputs: tf.Tensor) -> bool:
    """Returns whether outputs are put together of those of softmaxes or sigmoids, as the mean of an ensemble is."""
    waiting, seen = [_last(outputs)], set()
    while waiting:
        operation = waiting.pop()
        if operation.type in ("Softmax", "Sigmoid"):
            return True
        if operation.type in _MIXING and id(operation) not in seen:
            seen.add(id(operation))
            waiting.extend(value.op for value in operation.inputs)
    return False


def opened(function: Any) -> Any | None:
    """Returns a concrete function with the operations of all functions that it calls, or None if it calls none."""
    if not any(operation.type in _CALLS for operation in function.graph.get_operations()):
        return None
    return inlined(function)


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
