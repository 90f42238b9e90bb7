"""Clients of a TensorFlow Serving model: gRPC, and REST in rows or in columns, with the same answers.

Inputs are compared with the model's signature before they are sent, so that a wrong shape is told in the caller's
terms. A client holds one connection; threads take one client each.
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
    """No answer from the server, after all retries."""


class RequestRefused(ValueError):
    """The server, or the check before it, refuses this request: to send it again would not help."""


class Tensor(NamedTuple):
    """A tensor of a signature: its dtype, and its shape with None for what is free (None where even the rank is)."""

    dtype: tf.DType
    shape: tuple[int | None, ...] | None


class SignatureInfo(NamedTuple):
    """A signature's named inputs and outputs."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Client(abc.ABC):
    """What the clients share: the checks, the signatures and the retries.

    Attributes:
      server: Where the server listens, host:port.
      model: What the server calls the model.
      version: The version asked, or None for the server's choice, the latest.
      timeout: Seconds to wait for each answer.
      retries: How often a request that found no server is sent again.

    Raises:
      ValueError: An argument is out of its range.
    """

    def __init__(
        self, server: str, model: str, *, version: int | None = None, timeout: float = 10.0, retries: int = 3
    ) -> None:
        host, colon, port = server.removeprefix("http://").rstrip("/").rpartition(":")
        if not host or not colon or not port.isdigit() or "/" in host:
            raise ValueError(f"server must be host:port, such as localhost:8500, got {server!r}.")
        if not model:
            raise ValueError("model must be the name the server knows the model by, got an empty one.")
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
        self._signatures: dict[str, SignatureInfo] | None = None

    def predict(self, inputs: Mapping[str, Any], signature: str = "serving_default") -> dict[str, np.ndarray]:
        """Asks the model.

        Args:
          inputs: The arrays of the signature's inputs, by name.
          signature: Its name.

        Returns:
          The outputs by name; strings as Python strings, in arrays of objects.

        Raises:
          RequestRefused: The model or the signature is missing, or the inputs are not what it takes.
          ServerUnavailable: There was no answer, or none in time.
        """
        known = self.signatures()
        if signature not in known:
            raise RequestRefused(f"Model {self.model!r} has no signature {signature!r}; it has {', '.join(known)}.")
        arrays = _check(inputs, known[signature].inputs)
        return self._retried(lambda: self._predict(arrays, signature, known[signature]))

    def signatures(self) -> dict[str, SignatureInfo]:
        """Returns the model's signatures by name, asked for once."""
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
        """Ends the connection."""

    @abc.abstractmethod
    def _metadata(self) -> get_model_metadata_pb2.SignatureDefMap:
        """Asks once for the signatures."""

    @abc.abstractmethod
    def _predict(self, arrays: dict[str, np.ndarray], signature: str, info: SignatureInfo) -> dict[str, np.ndarray]:
        """Asks the model once."""

    def _retried(self, ask: Callable[[], Any]) -> Any:
        for attempt in range(self.retries + 1):
            try:
                return ask()
            except ServerUnavailable:
                if attempt == self.retries:
                    raise
                time.sleep(_FIRST_PAUSE * 2**attempt)
        raise AssertionError("The last attempt returns or raises.")

    def _away(self, reason: str) -> ServerUnavailable:
        attempts = f"{self.retries + 1} attempts" if self.retries else "1 attempt"
        return ServerUnavailable(
            f"No answer from {self.server} after {attempts} ({reason}): is the server running, and is "
            "that its port for this protocol?"
        )

    def _missing(self, reason: str) -> RequestRefused:
        version = "" if self.version is None else f", version {self.version}"
        return RequestRefused(f"The server {self.server} has no model {self.model!r}{version} ({reason}).")

    def _refused(self, reason: str) -> RequestRefused:
        return RequestRefused(f"Model {self.model!r} refuses the request: {reason}.")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class GrpcClient(Client):
    """Asks by gRPC, TensorFlow Serving's port 8500: the quickest, for arrays travel as bytes."""

    def __init__(self, server: str, model: str, **options: Any) -> None:
        super().__init__(server, model, **options)
        unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.insecure_channel(self.server, options=unlimited)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def close(self) -> None:
        """Ends the connection."""
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
                raise self._away(reason) from error
            raise (self._missing if code == grpc.StatusCode.NOT_FOUND else self._refused)(reason) from error


class RestClient(Client):
    """Asks by HTTP and JSON, TensorFlow Serving's port 8501.

    Attributes:
      columns: Whether arrays go as `inputs`, one for each name, or as `instances`, one for each image.
    """

    def __init__(self, server: str, model: str, *, columns: bool = False, **options: Any) -> None:
        super().__init__(server, model, **options)
        self.columns = columns
        self._connection = http.client.HTTPConnection(self.server, timeout=self.timeout)
        self._path = f"/v1/models/{urllib.parse.quote(model, safe='')}"
        if self.version is not None:
            self._path += f"/versions/{self.version}"

    def close(self) -> None:
        """Ends the connection."""
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
            # A single output comes without its name.
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
            self._connection.close()  # The next request opens it anew.
            raise self._away(first_line(error)) from error
        try:
            answer = json.loads(content)
        except ValueError as error:
            raise self._refused(f"HTTP {status} without JSON, so {self.server} is no REST port") from error
        if status == http.HTTPStatus.OK:
            return answer
        reason = first_line(Exception(answer.get("error", f"HTTP {status}")))
        if status in (http.HTTPStatus.SERVICE_UNAVAILABLE, http.HTTPStatus.GATEWAY_TIMEOUT):
            raise self._away(reason)
        raise (self._missing if status == http.HTTPStatus.NOT_FOUND else self._refused)(reason)


def connect(protocol: str, server: str, model: str, **options: Any) -> Client:
    """Returns the client of a protocol, one of `PROTOCOLS`; for the rest see `Client`.

    Raises:
      ValueError: There is no such protocol, or an argument is out of its range.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}.")
    if protocol == "grpc":
        return GrpcClient(server, model, **options)
    return RestClient(server, model, columns=protocol == "rest_columns", **options)


def _check(inputs: Mapping[str, Any], wanted: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Returns the inputs as arrays of the signature's dtypes, or says what is wrong with them."""
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
            # Integers as floats would be 0 to 255 where 0 to 1 is meant.
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
