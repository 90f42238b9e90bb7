"""Arrays as messages and as JSON, compared with TensorFlow and the json module."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from wasser_tf.serving.tensors import from_proto, to_json, to_proto

_ARRAYS = [
    np.random.default_rng(0).normal(size=(2, 3, 1)).astype(np.float32),
    np.array([[1e-38, 3.4e38, -0.0, 1 / 3]], np.float32),
    np.arange(6, dtype=np.uint8).reshape(3, 2),
    np.array([-7, 2**31 - 1], np.int32),
    np.array([0.1, -2e300]),
    np.array([2**62, -1]),
]


@pytest.mark.parametrize("array", _ARRAYS, ids=lambda array: str(array.dtype))
def test_messages_and_json_give_back_the_same_array(array):
    dtype = tf.as_dtype(array.dtype)
    for proto in (to_proto(array, dtype), tf.make_tensor_proto(array)):
        got = from_proto(proto)
        assert got.dtype == array.dtype and got.flags.writeable
        np.testing.assert_array_equal(got, array)
        np.testing.assert_array_equal(got, tf.make_ndarray(proto))
    read = np.array([json.loads(row) for row in to_json(array)], array.dtype)
    np.testing.assert_array_equal(read, array)
    np.testing.assert_array_equal(np.signbit(read), np.signbit(array))


def test_values_in_fields():
    proto = tensor_pb2.TensorProto(dtype=tf.float32.as_datatype_enum, float_val=[0.1, 0.2])
    proto.tensor_shape.dim.add(size=2)
    np.testing.assert_array_equal(from_proto(proto), np.array([0.1, 0.2], np.float32))
    # One value for all of them is feasible.
    proto = tensor_pb2.TensorProto(dtype=tf.int32.as_datatype_enum, int_val=[4])
    proto.tensor_shape.dim.add(size=3)
    assert from_proto(proto).tolist() == [4, 4, 4]


def test_files_and_strings():
    files = np.array([b"\x00\xff", b'"'], object)
    assert [json.loads(row) for row in to_json(files)] == [{"b64": "AP8="}, {"b64": "Ig=="}]
    assert from_proto(to_proto(files, tf.string)).tolist() == files.tolist()


@pytest.mark.parametrize(
    "message",
    [
        {"dtype": tf.float32.as_datatype_enum, "tensor_content": b"123"},
        {"dtype": tf.float32.as_datatype_enum, "tensor_content": b"12345678"},
        {"dtype": tf.uint8.as_datatype_enum, "int_val": [300]},
    ],
)
def test_an_inconsistent_message_is_refused(message):
    with pytest.raises((ValueError, OverflowError)):
        from_proto(tensor_pb2.TensorProto(**message))
