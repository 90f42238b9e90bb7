"""Clients of TensorFlow Serving: gRPC, and REST in row or column format. All return the same answers.

A client compares its inputs with the model's signature before it sends them, so that the message about a wrong shape
names the caller's array. A client holds one connection and is not thread-safe: use one client per thread.
"""

import abc
import http.client
import json
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import grpc  # type: ignore[import-untyped]
import numpy as np
import tensorflow as tf
from google.protobuf import json_format  # type: ignore[import-untyped]

from wasser_tf.runtime.arguments import first_line, is_whole
from wasser_tf.serving.protos import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc
from wasser_tf.serving.tensors import from_proto, to_json, to_proto

PROTOCOLS = ("grpc", "rest_rows", "rest_columns")

_FIRST_PAUSE = 0.1  # Seconds before the first retry; each further pause is twice as long.


class ServerUnavailable(ConnectionError):
    """The server did not answer after all retries."""


class RequestRefused(ValueError):
    """The server or the client's checks refuse the request; sending it again would not help."""


class Tensor(NamedTuple):
    """A tensor of a signature.

    Attributes:
      dtype: Its dtype.
      shape: Its shape, with None for free dimensions; None if the rank is unknown.
    """

    dtype: tf.DType
    shape: tuple[int | None, ...] | None


class SignatureInfo(NamedTuple):
    """The named inputs and outputs of a signature."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Client(abc.ABC):
    """Base class of the clients: input checks, signatures and retries.

    `connect` makes a client of a protocol. A client is a context manager that closes its connection.

    Attributes:
      server: Address of the server, host:port.
      model: Name of the model on the server.
      version: Version to call; None for the server's default, the latest.
      timeout: Seconds to wait for each answer, > 0.
      retries: How many times a request is sent again if the server is unavailable, ≥ 0. The first pause is 0.1 s; each
        further pause is twice as long.

    Raises:
      ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        server: str,
        model: str,
        *,
        version: int | None = None,
        timeout: float = 10.0,
        retries: int = 3,
        signatures: Mapping[str, SignatureInfo] | None = None,
    ) -> None:
        host, colon, port = server.removeprefix("http://").rstrip("/").rpartition(":")
        if not host or not colon or not port.isdigit() or "/" in host:
            raise ValueError(f"server must be host:port, such as localhost:8500, got {server!r}.")
        if not model:
            raise ValueError("model must be the name of the model on the server, got an empty string.")
        if version is not None and not is_whole(version, 0):
            raise ValueError(f"version must be a whole number, or None for the latest, got {version!r}.")
        if not timeout > 0 or not is_whole(retries, 0):
            raise ValueError(
                f"timeout must be above 0 and retries a whole number of at least 0, got {timeout!r}, {retries!r}."
            )
        self.server = f"{host}:{port}"
        self.model = model
        self.version = version
        self.timeout = timeout
        self.retries = retries
        self._signatures = None if signatures is None else dict(signatures)

    def predict(self, inputs: Mapping[str, Any], signature: str = "serving_default") -> dict[str, np.ndarray]:
        """Calls a signature of the model.

        Args:
          inputs: The signature's inputs by name, such as {"image": float32 [n, H, W, C] in [0, 1]}.
          signature: The name of the signature, such as "serving_default" or "robustness"; see
            `wasser_tf.serving.signatures.make_signatures`.

        Returns:
          The outputs by name, such as "probabilities" [n, classes]. Strings are in arrays of dtype object.

        Raises:
          RequestRefused: The model or the signature does not exist, or the inputs do not match the signature.
          ServerUnavailable: The server did not answer within the timeout, after all retries.
        """
        known = self.signatures()
        if signature not in known:
            raise RequestRefused(f"Model {self.model!r} has no signature {signature!r}; it has {', '.join(known)}.")
        arrays = _check(inputs, known[signature].inputs)
        return self._retried(lambda: self._predict(arrays, signature, known[signature]))

    def signatures(self) -> dict[str, SignatureInfo]:
        """Returns the model's signatures by name. The server is asked once; the answer is kept.

        Raises:
          RequestRefused: The model does not exist.
          ServerUnavailable: The server did not answer within the timeout, after all retries.
        """
        if self._signatures is None:
            found = self._retried(self._metadata)
            self._signatures = {
                name: SignatureInfo(_tensors(definition.inputs), _tensors(definition.outputs))
                for name, definition in sorted(found.signature_def.items())
                if not name.startswith("__")
            }
        return self._signatures

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the connection."""

    @abc.abstractmethod
    def _metadata(self) -> get_model_metadata_pb2.SignatureDefMap:
        """Requests the signatures once, without retries."""

    @abc.abstractmethod
    def _predict(self, arrays: dict[str, np.ndarray], signature: str, info: SignatureInfo) -> dict[str, np.ndarray]:
        """Calls the model once, without retries."""

    def _retried(self, request: Callable[[], Any]) -> Any:
        for attempt in range(self.retries + 1):
            try:
                return request()
            except ServerUnavailable:
                if attempt == self.retries:
                    raise
                time.sleep(_FIRST_PAUSE * 2**attempt)
        raise AssertionError("The last attempt returns or raises.")

    def _unavailable(self, reason: str) -> ServerUnavailable:
        attempts = f"{self.retries + 1} attempts" if self.retries else "1 attempt"
        return ServerUnavailable(
            f"No answer from {self.server} after {attempts} ({reason}). Check that the server is running and that the "
            "port is the one of this protocol (by default 8500 for gRPC, 8501 for REST)."
        )

    def _not_found(self, reason: str) -> RequestRefused:
        version = "" if self.version is None else f", version {self.version}"
        return RequestRefused(f"The server {self.server} has no model {self.model!r}{version} ({reason}).")

    def _refused(self, reason: str) -> RequestRefused:
        return RequestRefused(f"Model {self.model!r} refuses the request: {reason}.")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class GrpcClient(Client):
    """Client of the gRPC API (TensorFlow Serving's port 8500). The fastest protocol: arrays are sent as bytes."""

    def __init__(self, server: str, model: str, **options: Any) -> None:
        super().__init__(server, model, **options)
        unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.insecure_channel(self.server, options=unlimited)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _metadata(self) -> get_model_metadata_pb2.SignatureDefMap:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._address(request)
        found = get_model_metadata_pb2.SignatureDefMap()
        self._call(self._stub.GetModelMetadata, request).metadata["signature_def"].Unpack(found)
        return found

    def _predict(self, arrays: dict[str, np.ndarray], signature: str, info: SignatureInfo) -> dict[str, np.ndarray]:
        request = predict_pb2.PredictRequest()
        self._address(request)
        request.model_spec.signature_name = signature
        for name, array in arrays.items():
            request.inputs[name].CopyFrom(to_proto(array, info.inputs[name].dtype))
        response = self._call(self._stub.Predict, request)
        return {name: _readable(from_proto(value)) for name, value in response.outputs.items()}

    def _address(self, request: Any) -> None:
        request.model_spec.name = self.model
        if self.version is not None:
            request.model_spec.version.value = self.version

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self.timeout)
        except grpc.RpcError as error:
            code, reason = error.code(), first_line(Exception(error.details()))
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise self._unavailable(reason) from error
            raise (self._not_found if code == grpc.StatusCode.NOT_FOUND else self._refused)(reason) from error


class RestClient(Client):
    """Client of the REST API (TensorFlow Serving's port 8501).

    Attributes:
      columns: True to send `inputs`, one array per name; False to send `instances`, one object per image.
    """

    def __init__(self, server: str, model: str, *, columns: bool = False, **options: Any) -> None:
        super().__init__(server, model, **options)
        self.columns = columns
        self._connection = http.client.HTTPConnection(self.server, timeout=self.timeout)
        self._path = f"/v1/models/{urllib.parse.quote(model, safe='')}"
        if self.version is not None:
            self._path += f"/versions/{self.version}"

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def _metadata(self) -> get_model_metadata_pb2.SignatureDefMap:
        answer = self._call("GET", f"{self._path}/metadata")
        return json_format.ParseDict(
            answer["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap(), ignore_unknown_fields=True
        )

    def _predict(self, arrays: dict[str, np.ndarray], signature: str, info: SignatureInfo) -> dict[str, np.ndarray]:
        columns = {name: to_json(array) for name, array in arrays.items()}
        if self.columns:
            body = ", ".join(f"{json.dumps(name)}: [{','.join(rows)}]" for name, rows in columns.items())
            body = f'"inputs": {{{body}}}'
        else:
            keys = [json.dumps(name) for name in columns]
            instances = (
                ", ".join(f"{key}: {value}" for key, value in zip(keys, row, strict=True))
                for row in zip(*columns.values(), strict=True)
            )
            body = f'"instances": [{{{"}, {".join(instances)}}}]'
        answer = self._call("POST", f"{self._path}:predict", f'{{"signature_name": {json.dumps(signature)}, {body}}}')
        got = answer["outputs"] if self.columns else answer["predictions"]
        if len(info.outputs) == 1:
            # A single output is returned without its name.
            got = {next(iter(info.outputs)): got}
        elif not self.columns:
            got = {name: [row[name] for row in got] for name in info.outputs}
        return {
            name: np.asarray(got[name], object if tensor.dtype == tf.string else tensor.dtype.as_numpy_dtype)
            for name, tensor in info.outputs.items()
        }

    def _call(self, method: str, path: str, body: str | None = None) -> Any:
        try:
            self._connection.request(method, path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            status, content = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # The next request opens a new one.
            raise self._unavailable(first_line(error)) from error
        try:
            answer = json.loads(content)
        except ValueError as error:
            raise self._refused(f"HTTP {status} without JSON, so {self.server} is not a REST port") from error
        if status == http.HTTPStatus.OK:
            return answer
        reason = first_line(Exception(answer.get("error", f"HTTP {status}")))
        if status in (http.HTTPStatus.SERVICE_UNAVAILABLE, http.HTTPStatus.GATEWAY_TIMEOUT):
            raise self._unavailable(reason)
        raise (self._not_found if status == http.HTTPStatus.NOT_FOUND else self._refused)(reason)


def connect(protocol: str, server: str, model: str, **options: Any) -> Client:
    """Makes a client of a served model.

    Args:
      protocol: "grpc", "rest_rows" or "rest_columns".
      server: Address of the server, host:port.
      model: Name of the model on the server.
      **options: `version`, `timeout` and `retries`, see `Client`; `signatures` of the model by name (`SignatureInfo`),
        for a server that implements predictions only. By default the server is asked for them.

    Returns:
      The client. It connects with its first request.

    Raises:
      ValueError: The protocol is unknown, or an argument is out of its range.

    Example (with a server that serves `export_classifier`'s base_dir):

    ```python
    with connect("grpc", "localhost:8500", "digits") as client:
        answer = client.predict({"image": images})  # float32 [n, 8, 8, 1] in [0, 1]
        answer["class_id"]  # int32 [n]
        client.predict({"image": images}, "robustness")["radius"]  # float32 [n]
    ```
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}.")
    if protocol == "grpc":
        return GrpcClient(server, model, **options)
    return RestClient(server, model, columns=protocol == "rest_columns", **options)


def _check(inputs: Mapping[str, Any], wanted: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Returns the inputs as arrays of the signature's dtypes; raises RequestRefused if they do not match it."""
    if set(inputs) != set(wanted):
        raise RequestRefused(f"The signature takes {', '.join(sorted(wanted))}, got {', '.join(sorted(inputs))}.")
    arrays = {}
    for name, (dtype, shape) in wanted.items():
        given = np.asarray(inputs[name], object if dtype == tf.string else None)
        wants = f"{name} must be {dtype.name} {_shown(shape)}"
        if shape is not None and (
            given.ndim != len(shape)
            or any(side not in (None, got) for side, got in zip(shape, given.shape, strict=True))
        ):
            raise RequestRefused(f"{wants}, got the shape {_shown(given.shape)}.")
        if dtype != tf.string and not (
            given.dtype == dtype.as_numpy_dtype or (given.dtype.kind == "f" and dtype.is_floating)
        ):
            # Integers are not cast to float: they would be 0 to 255, where 0 to 1 is expected.
            raise RequestRefused(f"{wants}, got {given.dtype}.")
        if given.ndim and not len(given):
            raise RequestRefused(f"{wants}, got an empty batch.")
        if given.dtype.kind == "f" and not np.isfinite(given).all():
            raise RequestRefused(f"{name} must hold finite numbers, got NaN or infinity.")
        arrays[name] = given if dtype == tf.string else np.ascontiguousarray(given, dtype.as_numpy_dtype)
    return arrays


def _tensors(infos: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        name: Tensor(
            tf.as_dtype(info.dtype),
            None
            if info.tensor_shape.unknown_rank
            else tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim),
        )
        for name, info in infos.items()
    }


def _shown(shape: tuple[int | None, ...] | None) -> str:
    return "of any shape" if shape is None else f"[{', '.join('n' if side is None else str(side) for side in shape)}]"


def _readable(array: np.ndarray) -> np.ndarray:
    if array.dtype != object:
        return array
    return np.array([item.decode() for item in array.ravel()], object).reshape(array.shape)
