"""A stand-in for TensorFlow Serving on loopback: the published gRPC services and the REST API, on SavedModels.

The services, the messages and the codes of errors are TensorFlow Serving's; the graphs run in a
session of the TensorFlow at hand.

  python -m tests.serving.model_server BASE_DIR     prints the two ports, and serves until standard input ends
"""

import base64
import concurrent.futures
import http.server
import json
import pathlib
import sys
import threading

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from wasser_tf.serving.tensors import from_proto

_HTTP = {"NOT_FOUND": 404, "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "INTERNAL": 500}
_JSON = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}


class Refused(Exception):
    """A request that is answered with a gRPC status."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class _Version:
    def __init__(self, path):
        self.number = int(path.name)
        # A session, as the server has it: what it is fed goes to the graph as it is.
        with tf.Graph().as_default():
            # One request's operations run in its own thread, as with --tensorflow_inter_op_parallelism=-1: requests
            # run side by side already.
            config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=-1)
            self._session = tf.compat.v1.Session(config=config)
            meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
            self.signatures = {
                name: made for name, made in meta_graph.signature_def.items() if not name.startswith("__")
            }
            self._dtypes = {
                signature: {name: tf.as_dtype(info.dtype) for name, info in made.inputs.items()}
                for signature, made in self.signatures.items()
            }
            # What is public, Session.run, compares shapes itself and takes as long as a small model does to do so.
            self._run = {
                name: self._session._make_callable_from_options(
                    config_pb2.CallableOptions(
                        feed=[info.name for info in made.inputs.values()],
                        fetch=[info.name for info in made.outputs.values()],
                    )
                )
                for name, made in self.signatures.items()
            }

    def run(self, signature, feeds):
        """Answers protos, or what JSON holds, by name with arrays by name."""
        if signature not in self.signatures:
            raise Refused("FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.')
        dtypes = self._dtypes[signature]
        if set(feeds) != set(dtypes):
            raise Refused(
                "INVALID_ARGUMENT", f"Inputs do not match the signature: sent {sorted(feeds)}, wanted {sorted(dtypes)}"
            )
        arrays = [_to_array(name, feeds[name], dtype) for name, dtype in dtypes.items()]
        try:
            got = self._run[signature](*arrays)
        except tf.errors.OpError as error:
            raise Refused("INVALID_ARGUMENT", _message(error)) from error
        return dict(zip(self.signatures[signature].outputs, got, strict=True))


def _to_array(name, value, dtype):
    """Returns what was sent as an array of the signature's dtype, or refuses it as the server does."""
    try:
        if hasattr(value, "tensor_shape"):
            array = from_proto(value)
        else:
            array = np.asarray(value, object if dtype == tf.string else dtype.as_numpy_dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise Refused("INVALID_ARGUMENT", f"tensor parsing error: {name}: {error}") from error
    if array.dtype != dtype.as_numpy_dtype:
        raise Refused("INVALID_ARGUMENT", f"{name} is expected to be {dtype.name} but {array.dtype} is provided")
    return array


class ModelServer:
    """Serves the newest version of every model below a folder. A context manager.

    Attributes:
      grpc: Where gRPC listens, host:port.
      rest: Where REST listens, host:port.
    """

    def __init__(self, base_dir, grpc_port=0, rest_port=0):
        self._base_dir = pathlib.Path(base_dir)
        self._models = {}
        self.reload()
        self.grpc = f"127.0.0.1:{self._start_grpc(grpc_port)}"
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", rest_port), _handler(self))
        self.rest = f"127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def _start_grpc(self, port):
        # Threads, not asyncio, where an empty call is a fifth slower and one of 200 kB two thirds.
        options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        self._grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(16), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_PredictionService(self), self._grpc)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(self), self._grpc)
        port = self._grpc.add_insecure_port(f"127.0.0.1:{port}")
        self._grpc.start()
        return port

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(None).wait()

    def reload(self):
        """Looks for new versions, as the server does while it runs; one that cannot be loaded leaves the old ones."""
        failed = []
        for folder in filter(pathlib.Path.is_dir, self._base_dir.iterdir()):
            versions = self._models.setdefault(folder.name, {})
            for path in folder.iterdir():
                if path.name.isdigit() and int(path.name) not in versions:
                    try:
                        versions[int(path.name)] = _Version(path)
                    except Exception:  # Each part of the loader has its own for a broken file.
                        failed.append(path)
        return failed

    def version(self, model, number=None):
        versions = self._models.get(model)
        if not versions or (number is not None and number not in versions):
            asked = f"Latest({model})" if number is None else f"Specific({model}, {number})"
            raise Refused("NOT_FOUND", f"Servable not found for request: {asked}")
        return versions[max(versions) if number is None else number]

    def of(self, spec):
        return self.version(spec.name, spec.version.value if spec.HasField("version") else None)

    def status(self, model):
        self.version(model)
        response = get_model_status_pb2.GetModelStatusResponse()
        for number in self._models[model]:
            state = response.model_version_status.add(version=number)
            state.state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        return response

    def metadata(self, version, model):
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = model
        response.model_spec.version.value = version.number
        found = get_model_metadata_pb2.SignatureDefMap(signature_def=version.signatures)
        response.metadata["signature_def"].Pack(found)
        return response


def _answered(method):
    """Turns what a method raises into a gRPC status."""

    def call(self, request, context):
        try:
            return method(self, request)
        except Refused as refused:
            context.abort(grpc.StatusCode[refused.code], str(refused))

    return call


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server):
        self._server = server

    @_answered
    def Predict(self, request):  # noqa: N802
        version = self._server.of(request.model_spec)
        signature = request.model_spec.signature_name or "serving_default"
        response = predict_pb2.PredictResponse()
        response.model_spec.name, response.model_spec.signature_name = request.model_spec.name, signature
        response.model_spec.version.value = version.number
        for name, array in version.run(signature, dict(request.inputs)).items():
            response.outputs[name].CopyFrom(_to_proto(array))
        return response

    @_answered
    def GetModelMetadata(self, request):  # noqa: N802
        if list(request.metadata_field) != ["signature_def"]:
            raise Refused("INVALID_ARGUMENT", f"Metadata field {list(request.metadata_field)} is not supported")
        return self._server.metadata(self._server.of(request.model_spec), request.model_spec.name)


def _to_proto(array):
    """The values in the message's fields, as the server answers, not in tensor_content, as clients send."""
    if array.dtype == object:
        return tf.make_tensor_proto(array)
    field = {np.dtype(np.float32): "float_val", np.dtype(bool): "bool_val"}.get(array.dtype, "int_val")
    dtype = tf.as_dtype(array.dtype).as_datatype_enum
    proto = tensor_pb2.TensorProto(dtype=dtype, **{field: array.ravel().tolist()})
    for side in array.shape:
        proto.tensor_shape.dim.add(size=side)
    return proto


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, server):
        self._server = server

    @_answered
    def GetModelStatus(self, request):  # noqa: N802
        return self._server.status(request.model_spec.name)


def _handler(server):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Else the head waits for the acknowledgement of nothing before the body goes.
        disable_nagle_algorithm = True
        wbufsize = -1

        def log_message(self, *_):
            pass

        def do_GET(self):  # noqa: N802
            self._answer(lambda model, number, verb: _get(server, model, number, verb))

        def do_POST(self):  # noqa: N802
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(lambda model, number, verb: _post(server, model, number, verb, body))

        def _answer(self, answer):
            try:
                status, content = 200, answer(*_parse(self.path))
            except Refused as refused:
                status, content = _HTTP[refused.code], {"error": str(refused)}
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    return Handler


def _parse(path):
    """Splits /v1/models/NAME[/versions/N][/metadata|:predict]."""
    path, _, verb = path.partition(":")
    parts = path.strip("/").split("/")
    if parts[-1] == "metadata":
        verb = parts.pop()
    numbered = len(parts) == 5 and parts[3] == "versions" and parts[4].isdigit()
    if parts[:2] != ["v1", "models"] or not (len(parts) == 3 or numbered):
        raise Refused("INVALID_ARGUMENT", f"Malformed request: {path}")
    return parts[2], int(parts[4]) if numbered else None, verb


def _get(server, model, number, verb):
    version = server.version(model, number)
    if verb != "metadata":
        return json_format.MessageToDict(server.status(model), **_JSON)
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=version.signatures)
    spec = {"name": model, "signature_name": "", "version": str(version.number)}
    return {
        "model_spec": spec,
        "metadata": {
            "signature_def": {
                "@type": "type.googleapis.com/tensorflow.serving.SignatureDefMap",
                **json_format.MessageToDict(signatures, **_JSON),
            }
        },
    }


def _post(server, model, number, verb, body):
    version = server.version(model, number)
    if verb != "predict":
        raise Refused("INVALID_ARGUMENT", f"Malformed request: POST {verb}")
    try:
        request = json.loads(body)
        signature = request.get("signature_name", "serving_default")
    except (ValueError, AttributeError) as error:
        raise Refused("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
    if not isinstance(signature, str):
        raise Refused("INVALID_ARGUMENT", "'signature_name' key must be a string value.")
    if ("instances" in request) == ("inputs" in request):
        raise Refused("INVALID_ARGUMENT", "Request must have either 'instances' or 'inputs', and not both")
    names = list(version.signatures[signature].inputs) if signature in version.signatures else [""]
    if "inputs" in request:
        columns = request["inputs"] if _is_named(request["inputs"]) else {names[0]: request["inputs"]}
    else:
        rows = request["instances"]
        if not isinstance(rows, list) or not rows:
            raise Refused("INVALID_ARGUMENT", "'instances' must be a list of at least one value")
        rows = [row if _is_named(row) else {names[0]: row} for row in rows]
        if any(row.keys() != rows[0].keys() for row in rows):
            raise Refused("INVALID_ARGUMENT", "Every instance must name the same inputs")
        columns = {name: [row[name] for row in rows] for name in rows[0]}
    got = version.run(signature, {name: _from_json(value) for name, value in columns.items()})
    columns = {name: _to_json(array) for name, array in got.items()}
    if "inputs" in request:
        return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {"predictions": rows if len(columns) > 1 else next(iter(columns.values()))}


def _is_named(value):
    return isinstance(value, dict) and set(value) != {"b64"}


def _from_json(value):
    if isinstance(value, dict) and set(value) == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (ValueError, TypeError) as error:
            raise Refused("INVALID_ARGUMENT", f"JSON Value: {value} is no base64: {error}") from error
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_from_json(item) for item in value]
    return value


def _to_json(array):
    return [item.decode() for item in array] if array.dtype == object else array.tolist()


def _message(error):
    """The graph's own sentence, as C++ has it: Python puts words about its stack before it."""
    around = ("Graph execution error", "Detected at node", "<stack traces", "[[")
    return next(line for line in error.message.splitlines() if line.strip() and not line.strip().startswith(around))


def main():
    with ModelServer(sys.argv[1]) as server:
        print(server.grpc, server.rest, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
