"""TensorFlow Serving's messages and services, imported in one place because they are an optional dependency."""

try:
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_log_pb2,
        prediction_service_pb2_grpc,
    )
    from tensorflow_serving.config import model_server_config_pb2
except ImportError as error:
    raise ImportError(
        "Serving needs the package tensorflow-serving-api. Install it with `pip install '.[serving]'` in the clone of "
        "wasser_tf."
    ) from error

__all__ = [
    "get_model_metadata_pb2",
    "model_server_config_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2_grpc",
]
