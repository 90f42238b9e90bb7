"""Warm-up requests, which TensorFlow Serving runs on a new version before it accepts other requests.

They are stored in assets.extra/tf_serving_warmup_requests, a TFRecord file of at most 1,000 PredictionLog messages.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from wasser_tf.serving.protos import predict_pb2, prediction_log_pb2
from wasser_tf.serving.signatures import ENCODED, LOGITS, UINT8

FILE = pathlib.Path("assets.extra", "tf_serving_warmup_requests")


def write_warmup(path: pathlib.Path, name: str, signatures: dict[str, Any], images: np.ndarray) -> None:
    """Writes one request of one image and one of several for each signature.

    Args:
      path: The folder of the SavedModel.
      name: Name of the model on the server.
      signatures: The concrete functions by name.
      images: float32 [n, H, W, C] in [0, 1].
    """
    file = path / FILE
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, function in signatures.items():
            if signature == LOGITS:  # It shares its graph with the others.
                continue
            (key,) = function.structured_input_signature[1] or [function.structured_input_signature[0][0].name]
            for count in dict.fromkeys((1, len(images))):
                request = predict_pb2.PredictRequest()
                request.model_spec.name = name
                request.model_spec.signature_name = signature
                request.inputs[key].CopyFrom(tf.make_tensor_proto(_inputs(signature, images[:count])))
                log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
                writer.write(log.SerializeToString())


def read_warmup(path: pathlib.Path) -> Iterator[Any]:
    """Yields the PredictRequest messages in a SavedModel's folder."""
    for record in tf.data.TFRecordDataset(str(path / FILE)).as_numpy_iterator():
        yield prediction_log_pb2.PredictionLog.FromString(record).predict_log.request


def replay_warmup(path: pathlib.Path, loaded: Any) -> int:
    """Runs the warm-up requests through a loaded SavedModel, as the server does, and returns how many there are."""
    requests = list(read_warmup(path))
    for request in requests:
        function = loaded.signatures[request.model_spec.signature_name]
        function(**{key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()})
    return len(requests)


def _inputs(signature: str, images: np.ndarray) -> np.ndarray:
    if signature not in (UINT8, ENCODED):
        return images
    pixels = np.round(images * 255).astype(np.uint8)
    if signature == UINT8:
        return pixels
    return np.array([tf.io.encode_png(image).numpy() for image in pixels], object)
