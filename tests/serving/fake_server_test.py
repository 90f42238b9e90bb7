"""The clients, with given answers instead of a server."""

import base64
import json
import types

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from wasser_tf.data.selection import ImageSource, Selection
from wasser_tf.runs import predict
from wasser_tf.runs.predict import PredictRun, ServedPredictions
from wasser_tf.serving import client as clients
from wasser_tf.serving.client import (
    GrpcClient,
    RequestRefused,
    RestClient,
    ServerUnavailable,
    SignatureInfo,
    Tensor,
    connect,
)

_IMAGE = Tensor(tf.float32, (None, 2, 2, 1))


def _definitions():
    """Three signatures, one of them TensorFlow's own."""

    def info(dtype, shape):
        made = meta_graph_pb2.TensorInfo(dtype=dtype.as_datatype_enum)
        if shape is None:
            made.tensor_shape.unknown_rank = True
        else:
            for side in shape:
                made.tensor_shape.dim.add(size=side)
        return made

    found = get_model_metadata_pb2.SignatureDefMap()
    both = {"class_id": info(tf.int32, [-1]), "label": info(tf.string, [-1])}
    for name, inputs, outputs in (
        ("two", {"image": info(tf.float32, [-1, 2, 2, 1])}, both),
        ("one", {"image": info(tf.float32, None)}, {"logits": info(tf.float32, [-1, 3])}),
        ("__saved_model_init_op", {}, {}),
    ):
        for side, tensors in (("inputs", inputs), ("outputs", outputs)):
            for key, tensor in tensors.items():
                getattr(found.signature_def[name], side)[key].CopyFrom(tensor)
        found.signature_def[name].method_name = "m"
    return found


_SIGNATURES = {
    "one": SignatureInfo({"image": Tensor(tf.float32, None)}, {"logits": Tensor(tf.float32, (None, 3))}),
    "two": SignatureInfo(
        {"image": _IMAGE}, {"class_id": Tensor(tf.int32, (None,)), "label": Tensor(tf.string, (None,))}
    ),
}


class _Connection:
    """An HTTP connection with prepared answers, which records the requests."""

    def __init__(self):
        self.answers, self.asked, self.closed = [], [], 0

    def request(self, method, path, body, headers):
        assert headers == {"Content-Type": "application/json"}
        self.asked.append((method, path, body))

    def getresponse(self):
        status, content = self.answers.pop(0)
        if isinstance(content, Exception):
            raise content
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        return types.SimpleNamespace(status=status, read=lambda: text)

    def close(self):
        self.closed += 1


@pytest.fixture
def rest(monkeypatch):
    monkeypatch.setattr(clients.time, "sleep", lambda seconds: None)

    def make(columns=False, known=True, **options):
        client = RestClient("http://h:1/", "the model", columns=columns, **options)
        client._connection = _Connection()
        client._signatures = dict(_SIGNATURES) if known else None
        return client

    return make


_IMAGES = np.float32([0.25, 0.5])[:, None, None, None] * np.ones([1, 2, 2, 1], np.float32)


def _nested(value):
    return [[[value], [value]], [[value], [value]]]


def test_rest_requests_the_signatures_once(rest):
    client = rest(known=False, version=3)
    values = json_format.MessageToDict(_definitions(), preserving_proto_field_name=True)
    client._connection.answers = [(200, {"metadata": {"signature_def": {**values, "unknown": 1}}})]
    assert client.signatures() == _SIGNATURES and list(client.signatures()) == ["one", "two"]
    assert client._connection.asked == [("GET", "/v1/models/the%20model/versions/3/metadata", None)]
    assert client.server == "h:1" and (client.timeout, client.retries, client.version) == (10.0, 3, 3)


def test_rest_rows(rest):
    client = rest()
    rows = [{"class_id": 4, "label": "four"}, {"class_id": 5, "label": "five"}]
    client._connection.answers = [(200, {"predictions": rows}), (200, {"predictions": [[1, 2, 3], [4, 5, 6]]})]
    got = client.predict({"image": _IMAGES}, "two")
    assert got["class_id"].tolist() == [4, 5] and got["class_id"].dtype == np.int32
    assert got["label"].tolist() == ["four", "five"] and got["label"].dtype == object
    method, path, body = client._connection.asked[0]
    assert (method, path) == ("POST", "/v1/models/the%20model:predict")
    instances = [{"image": _nested(0.25)}, {"image": _nested(0.5)}]
    assert json.loads(body) == {"signature_name": "two", "instances": instances}
    got = client.predict({"image": _IMAGES}, "one")
    assert got["logits"].tolist() == [[1, 2, 3], [4, 5, 6]] and got["logits"].dtype == np.float32


def test_rest_columns(rest):
    client = rest(columns=True)
    client._connection.answers = [
        (200, {"outputs": {"class_id": [4, 5], "label": ["four", "five"]}}),
        (200, {"outputs": [[1, 2, 3], [4, 5, 6]]}),
    ]
    got = client.predict({"image": _IMAGES}, "two")
    assert got["class_id"].tolist() == [4, 5] and got["label"].tolist() == ["four", "five"]
    inputs = {"image": [_nested(0.25), _nested(0.5)]}
    assert json.loads(client._connection.asked[0][2]) == {"signature_name": "two", "inputs": inputs}
    assert client.predict({"image": _IMAGES}, "one")["logits"].tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    "status, content, kind, message",
    [
        (400, {"error": "no image\nmore"}, RequestRefused, "Model 'the model' refuses the request: no image."),
        (400, {}, RequestRefused, "refuses the request: HTTP 400."),
        (404, {"error": "gone"}, RequestRefused, "The server h:1 has no model 'the model' (gone)."),
        (200, b"<html>", RequestRefused, "HTTP 200 without JSON, so h:1 is not a REST port"),
        (503, {"error": "busy"}, ServerUnavailable, "No answer from h:1 after 1 attempt (busy). Check that"),
        (504, {"error": "late"}, ServerUnavailable, "No answer from h:1 after 1 attempt (late)"),
        (0, OSError("cut"), ServerUnavailable, "No answer from h:1 after 1 attempt (cut)"),
    ],
)
def test_rest_refusals(rest, status, content, kind, message):
    client = rest(retries=0)
    client._connection.answers = [(status, content)]
    with pytest.raises(kind) as raised:
        client.predict({"image": _IMAGES}, "two")
    assert message in str(raised.value)
    assert client._connection.closed == (status == 0)


def test_requests_are_retried_the_given_number_of_times(rest, monkeypatch):
    pauses = []
    monkeypatch.setattr(clients.time, "sleep", pauses.append)
    client = rest(retries=3)
    client._connection.answers = [(503, {"error": "busy"})] * 3 + [(200, {"predictions": [[1, 2, 3]] * 2})]
    assert client.predict({"image": _IMAGES}, "one")["logits"].shape == (2, 3)
    assert pauses == [0.1, 0.2, 0.4] and len(client._connection.asked) == 4
    client._connection.answers = [(503, {"error": "busy"})] * 9
    with pytest.raises(ServerUnavailable, match="after 4 attempts"):
        client.predict({"image": _IMAGES}, "one")
    # Refused requests are not sent again.
    client._connection.answers, client._connection.asked = [(400, {"error": "no"})] * 2, []
    with pytest.raises(RequestRefused):
        client.predict({"image": _IMAGES}, "one")
    assert len(client._connection.asked) == 1


class _Error(grpc.RpcError):
    def __init__(self, code):
        self.code, self.details = (lambda: code), (lambda: "the reason\nmore")


@pytest.fixture
def over_grpc(monkeypatch):
    """A gRPC client whose stub is a function of the method and the request."""
    monkeypatch.setattr(clients.time, "sleep", lambda seconds: None)

    def make(answer, **options):
        client = GrpcClient("h:1", "m", timeout=7.0, **options)
        asked = []

        def method(name):
            def call(request, timeout):
                asked.append((name, request, timeout))
                return answer(name, request)

            return call

        client._stub = types.SimpleNamespace(GetModelMetadata=method("metadata"), Predict=method("predict"))
        client.asked = asked
        return client

    return make


def _grpc_answer(name, request):
    if name == "metadata":
        assert list(request.metadata_field) == ["signature_def"]
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(_definitions())
        return response
    response = predict_pb2.PredictResponse()
    response.outputs["class_id"].CopyFrom(tf.make_tensor_proto(np.int32([4, 5])))
    response.outputs["label"].CopyFrom(tf.make_tensor_proto([b"four", "fünf".encode()]))
    return response


@pytest.mark.parametrize("version", [None, 3])
def test_grpc(over_grpc, version):
    client = over_grpc(_grpc_answer, version=version)
    assert client.signatures() == _SIGNATURES
    got = client.predict({"image": _IMAGES.astype(np.float64)}, "two")
    assert got["class_id"].tolist() == [4, 5] and got["label"].tolist() == ["four", "fünf"]
    (_, metadata, _), (name, request, timeout) = client.asked
    for one in (metadata, request):
        assert one.model_spec.name == "m" and one.model_spec.version.value == (version or 0)
        assert one.model_spec.HasField("version") == (version is not None)
    assert name == "predict" and timeout == 7.0 and request.model_spec.signature_name == "two"
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["image"]), _IMAGES)


@pytest.mark.parametrize(
    "code, kind, message",
    [
        ("UNAVAILABLE", ServerUnavailable, "No answer from h:1 after 2 attempts .the reason."),
        ("DEADLINE_EXCEEDED", ServerUnavailable, "No answer from h:1 after 2 attempts .the reason."),
        ("NOT_FOUND", RequestRefused, "The server h:1 has no model 'm', version 2 .the reason."),
        ("INVALID_ARGUMENT", RequestRefused, "Model 'm' refuses the request: the reason"),
    ],
)
def test_grpc_refusals(over_grpc, code, kind, message):
    def answer(name, request):
        raise _Error(getattr(grpc.StatusCode, code))

    client = over_grpc(answer, retries=1, version=2)
    with pytest.raises(kind, match=message):
        client.signatures()
    assert len(client.asked) == (2 if kind is ServerUnavailable else 1)


def test_connecting(monkeypatch):
    for protocol, kind, columns in (
        ("grpc", GrpcClient, None),
        ("rest_rows", RestClient, False),
        ("rest_columns", RestClient, True),
    ):
        with connect(protocol, "h:1", "m", version=0, timeout=2.5, retries=0) as client:
            assert type(client) is kind and getattr(client, "columns", None) is columns
            assert (client.version, client.timeout, client.retries, client.model) == (0, 2.5, 0, "m")
            if columns is not None:
                assert client._connection.timeout == 2.5 and (client._connection.host, client._connection.port) == (
                    "h",
                    1,
                )
            closed = []
            monkeypatch.setattr(client, "close", lambda closed=closed: closed.append(True))
        assert closed == [True]
    for server in ("a/b:1", "a", ":1", "a:", "a:b"):
        with pytest.raises(ValueError, match=f"server must be host:port, such as localhost:8500, got '{server}'"):
            connect("grpc", server, "m")
    for options in ({"version": -1}, {"timeout": 0}, {"retries": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}.* whole number"):
            connect("rest_rows", "a:1", "m", **options)
    assert connect("rest_rows", "a:1", "a/b", timeout=0.5)._path == "/v1/models/a%2Fb"


def test_an_unknown_signature(rest):
    with pytest.raises(RequestRefused, match="Model 'the model' has no signature 'x'; it has one, two."):
        rest().predict({"image": _IMAGES}, "x")
    with pytest.raises(RequestRefused, match="The signature takes image, got a, b."):
        rest().predict({"b": _IMAGES, "a": _IMAGES}, "two")


@pytest.mark.parametrize(
    "dtype, shape, given, message",
    [
        (tf.float32, (None, 2), np.zeros([2, 3], np.float32), r"x must be float32 \[n, 2\], got the shape \[2, 3\]"),
        (tf.float32, (None, 2), np.zeros([2], np.float32), r"got the shape \[2\]"),
        (tf.float32, None, np.zeros([2], np.int32), "x must be float32 of any shape, got int32"),
        (tf.uint8, (None,), np.zeros([2], np.float32), "got float32"),
        (tf.float32, (None,), np.zeros([0], np.float32), "got an empty batch"),
        (tf.float32, (None,), np.float32([1, np.inf]), "must hold finite numbers"),
        (tf.float32, (None, 2), np.zeros([2, 2], np.float16), None),
        (tf.float32, None, np.float64(3.0), None),
        (tf.uint8, (None,), np.zeros([2], np.uint8), None),
        (tf.string, (None,), [b"a", b"b"], None),
    ],
)
def test_inputs_are_checked(dtype, shape, given, message):
    wanted = {"x": Tensor(dtype, shape)}
    if message:
        with pytest.raises(RequestRefused, match=message):
            clients._check({"x": given}, wanted)
        return
    array = clients._check({"x": given}, wanted)["x"]
    assert array.dtype == (object if dtype == tf.string else dtype.as_numpy_dtype)
    np.testing.assert_array_equal(array, given)


def _answered(**changes):
    outputs = {
        "radius": np.float32([0.125, np.inf]), "margin": np.float32([1.5, 2]),
        "probabilities": np.array([[0.25, 0.75], [1, 0]]),
        "class_id": np.array([1, 0]), "label": np.array(["one", "zero"], object), "logits": np.zeros([2, 2]),
    }  # fmt: skip
    fields = {"names": ["a", "b"], "outputs": outputs, "truth": np.array([1, 1]), "seconds": np.array([0.5, 1.5])}
    return ServedPredictions(**{**fields, **changes})


def test_outputs_of_a_run():
    found = _answered()
    assert found.accuracy == 0.5 and _answered(truth=None).accuracy is None
    assert _answered(truth=np.array([1, 0])).accuracy == 1 and _answered(truth=np.array([0, 1])).accuracy == 0
    heading, rows = found.rows()
    assert heading == ["image", "label", "class_id", "probability", "margin", "radius", "truth"]
    assert rows == [["a", "one", 1, "0.75", "1.5", "0.125", 1], ["b", "zero", 0, "1", "2", "inf", 1]]
    assert _answered(truth=None, outputs={"class_id": [3, 4]}).rows() == (["image", "class_id"], [["a", 3], ["b", 4]])
    assert found.summary() == (
        "accuracy 50.00%\n2 images in 2 requests: p50 1000.0 ms, p90 1400.0 ms, p99 1490.0 ms, 1 images/s"
    )
    assert (
        _answered(truth=None, seconds=np.array([0.25]))
        .summary()
        .endswith("in 1 requests: p50 250.0 ms, p90 250.0 ms, p99 250.0 ms, 8 images/s")
    )


class _Client:
    """Classifies an image by its first pixel, and records the requests."""

    def __init__(self, signatures):
        self.known, self.asked = signatures, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.asked.append("closed")

    def signatures(self):
        return self.known

    def predict(self, inputs, signature):
        ((key, arrays),) = inputs.items()
        self.asked.append((key, signature, len(arrays)))
        if arrays.dtype == object:
            arrays = np.stack([tf.io.decode_png(file).numpy() / 255 for file in arrays])
        return {"class_id": np.round(arrays[:, 0, 0, 0] * 100).astype(int)}


@pytest.fixture
def served(monkeypatch):
    def make(names=("serving_default", "encoded")):
        client, connected = _Client({name: SignatureInfo({"image": _IMAGE}, {}) for name in names}), []
        monkeypatch.setattr(predict, "connect", lambda *given, **options: connected.append((given, options)) or client)
        client.connected = connected
        return client

    return make


def test_a_run_over_a_dataset(served, monkeypatch):
    client = served()
    images = np.float32([0.1, 0.21, 0.3, 0.4, 0.5])[:, None, None, None] * np.ones([1, 2, 2, 1], np.float32)
    selection = Selection("d", np.array([7, 1, 2, 3, 4]), images, np.array([10, 21, 30, 40, 51]), None)
    monkeypatch.setattr(ImageSource, "load", lambda self: selection)
    config = PredictRun(
        server="h:1", model="m", source=ImageSource(), batch_size=2, version=4, timeout=3.0, retries=1, protocol="grpc"
    )
    found = predict.run_predict(config)
    assert client.connected == [(("grpc", "h:1", "m"), {"version": 4, "timeout": 3.0, "retries": 1})]
    assert client.asked == [("image", "serving_default", 2)] * 2 + [("image", "serving_default", 1), "closed"]
    assert found.names == ["7", "1", "2", "3", "4"] and len(found.seconds) == 3 and found.accuracy == 0.8
    assert found.outputs["class_id"].tolist() == [10, 21, 30, 40, 50]


def test_a_run_over_files(served, tmp_path):
    eight_bits = np.full([3, 2, 2, 1], 51, np.uint8)
    np.save(tmp_path / "a.npy", eight_bits)
    (tmp_path / "b.PNG").write_bytes(tf.io.encode_png(eight_bits[0]).numpy())
    (tmp_path / "c.jpeg").write_bytes((tmp_path / "b.PNG").read_bytes())
    paths = [str(tmp_path / name) for name in ("a.npy", "b.PNG", "c.jpeg")]
    client = served()
    found = predict.run_predict(PredictRun(server="h:1", model="m", images=paths))
    # Encoded ones come first.
    assert found.names == [paths[1], paths[2], *(f"{paths[0]}[{place}]" for place in range(3))]
    assert client.asked == [("image_bytes", "encoded", 2), ("image", "uint8", 3), "closed"] and found.truth is None
    client.asked.clear()
    predict.run_predict(PredictRun(server="h:1", model="m", images=paths, signature="mine"))
    assert client.asked[:2] == [("image_bytes", "mine", 2), ("image", "mine", 3)]


@pytest.mark.parametrize(
    "protocol, signature, pixels, names, asked",
    [
        ("rest_rows", None, np.full([1, 2, 2, 1], 51, np.uint8), None, ("image_bytes", "encoded", 1)),
        ("rest_columns", None, np.full([1, 2, 2, 1], 0.2, np.float32), None, ("image_bytes", "encoded", 1)),
        # Not of 8 bits, not of this size, not images, or no one to decode them.
        ("rest_rows", None, np.full([1, 2, 2, 1], 0.201, np.float32), None, ("image", "serving_default", 1)),
        ("rest_rows", None, np.full([1, 2, 3, 1], 51, np.uint8), None, ("image", "uint8", 1)),
        ("rest_rows", None, np.full([1, 2, 2, 1], 1.2, np.float32), None, ("image", "serving_default", 1)),
        ("rest_rows", None, np.full([1, 2, 2, 1], -0.2, np.float32), None, ("image", "serving_default", 1)),
        ("rest_rows", None, np.full([1, 2, 2, 1], 1, np.int32), None, ("image", "serving_default", 1)),
        ("rest_rows", None, np.full([1, 2, 2, 1], 51, np.uint8), ["serving_default"], ("image", "uint8", 1)),
        ("rest_rows", None, np.full([1, 2, 2, 1], 51, np.uint8), ["encoded"], ("image", "uint8", 1)),
        # As asked for.
        ("rest_rows", "uint8", np.full([1, 2, 2, 1], 51, np.uint8), None, ("image", "uint8", 1)),
        ("grpc", None, np.full([1, 2, 2, 1], 51, np.uint8), None, ("image", "uint8", 1)),
    ],
)
def test_images_that_are_sent_as_png(served, tmp_path, protocol, signature, pixels, names, asked):
    np.save(tmp_path / "a.npy", pixels)
    client = served(names or ("serving_default", "encoded"))
    options = {"protocol": protocol, "signature": signature, "images": [str(tmp_path / "a.npy")]}
    predict.run_predict(PredictRun(server="h:1", model="m", **options))
    assert client.asked[0] == asked


@pytest.mark.parametrize("shape", [(2, 2, 1), (0, 2, 2, 1)])
def test_arrays_that_are_not_images_are_refused(served, tmp_path, shape):
    served()
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(ValueError, match=r"must hold images \[n, height, width, channels\], got"):
        predict.run_predict(PredictRun(server="h:1", model="m", images=[str(tmp_path / "a.npy")]))


def test_strings_travel_as_base64(rest):
    client = rest(columns=True)
    client._signatures = {
        "encoded": SignatureInfo({"image_bytes": Tensor(tf.string, (None,))}, {"x": Tensor(tf.int32, (None,))})
    }
    client._connection.answers = [(200, {"outputs": [1]})]
    client.predict({"image_bytes": np.array([b"\xff\x00"], object)}, "encoded")
    sent = json.loads(client._connection.asked[0][2])["inputs"]["image_bytes"]
    assert base64.b64decode(sent[0]["b64"]) == b"\xff\x00"
