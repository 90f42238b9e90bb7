"""Arrays as gRPC and JSON carry them. TensorFlow's own conversions take longer than a small classifier."""

import base64
import functools
import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

# The field that holds the values of a message without tensor_content, and their dtype, by the message's dtype. Others,
# such as uint8, share a field of a wider dtype, which must not be cut off.
_FIELDS = {types_pb2.DT_FLOAT: ("float_val", np.float32), types_pb2.DT_INT32: ("int_val", np.int32)}


def to_proto(array: np.ndarray, dtype: tf.DType) -> tensor_pb2.TensorProto:
    """Returns an array of a signature's dtype as the message gRPC sends."""
    if dtype == tf.string:
        return tf.make_tensor_proto(array, dtype)
    # As tf.make_tensor_proto, in a fifth of its time.
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum, tensor_content=array.tobytes())
    for side in array.shape:
        proto.tensor_shape.dim.add(size=side)
    return proto


def from_proto(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Returns the array of a message, as tf.make_ndarray does, in a quarter of its time for float32 and int32.

    Raises:
      ValueError, TypeError, OverflowError: The message does not hold what it says.
    """
    if proto.dtype in _FIELDS:
        field, dtype = _FIELDS[proto.dtype]
        content = proto.tensor_content
        # TensorFlow Serving answers in the fields; clients send bytes.
        values = np.frombuffer(content, dtype).copy() if content else np.array(getattr(proto, field), dtype)
        shape = [dim.size for dim in proto.tensor_shape.dim]
        if values.size == math.prod(shape):
            return values.reshape(shape)
    return tf.make_ndarray(proto)


def to_json(array: np.ndarray) -> list[str]:
    """Returns each row of an array [n, ...] as JSON: numbers that read back as the same ones, or files in base64."""
    if array.dtype == object:
        return [f'{{"b64": "{base64.b64encode(item).decode()}"}}' for item in array]
    # Nine digits name every float32; what Python writes for the float64 has twice as many and takes four times as long.
    # With an exponent, so that no float looks like an integer, which a server may find too large to be a float.
    number = "%d" if array.dtype.kind in "iub" else "%.8e" if array.dtype == np.float32 else "%.16e"
    template = _nested(array.shape[1:], number)
    return [template % tuple(row) for row in array.reshape(len(array), -1).tolist()]


@functools.lru_cache(maxsize=16)
def _nested(shape: tuple[int, ...], item: str) -> str:
    """Returns nested JSON lists of a shape, all of them of one item."""
    for side in reversed(shape):
        item = f"[{','.join([item] * side)}]"
    return item
