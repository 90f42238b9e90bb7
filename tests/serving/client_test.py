"""The clients against a server that speaks TensorFlow Serving's gRPC and REST on loopback."""

import concurrent.futures
import http.client
import json
import shutil
import socket

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc, predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc as services

from tests.serving.model_server import ModelServer
from wasser_tf.serving import client as clients
from wasser_tf.serving.client import PROTOCOLS, RequestRefused, ServerUnavailable, connect


def _connect(protocol, server, model="digits", **options):
    # Long, for a busy machine; timeouts have a test of their own.
    address = server.grpc if protocol == "grpc" else server.rest
    return connect(protocol, address, model, retries=0, timeout=120, **options)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_returns_the_classifiers_outputs(server, classifier, images, files, protocol):
    logits = classifier(images, training=False).numpy()
    with _connect(protocol, server) as client:
        assert set(client.signatures()) == {"serving_default", "uint8", "encoded", "robustness", "logits"}
        for signature, inputs in [
            ("serving_default", {"image": images}),
            ("uint8", {"image": np.round(images * 255).astype(np.uint8)}),
            ("encoded", {"image_bytes": files}),
        ]:
            got = client.predict(inputs, signature)
            np.testing.assert_allclose(got["logits"], logits, atol=1e-5)
            np.testing.assert_array_equal(got["class_id"], logits.argmax(axis=1))
            assert got["label"][0] == ("zero", "one", "two")[logits[0].argmax()]
            assert got["probabilities"].dtype == np.float32 and got["class_id"].dtype == np.int32
        robustness = client.predict({"image": images[:2]}, "robustness")
        assert set(robustness) == {"class_id", "label", "margin", "radius", "flagged"}
        # One output comes without its name in REST.
        assert client.predict({"image": images}, "logits")["logits"].shape == (8, 3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_invalid_requests_are_refused_before_they_are_sent(server, images, protocol):
    with _connect(protocol, server) as client:
        for inputs, message in [
            ({"image": images[:, :4]}, r"image must be float32 \[n, 8, 8, 1\], got the shape \[8, 4, 8, 1\]"),
            ({"image": images[0]}, "got the shape"),
            ({"image": np.round(images * 255).astype(np.uint8)}, "got uint8"),
            ({"image": images[:0]}, "got an empty batch"),
            ({"image": images * np.nan}, "finite numbers"),
            ({"pixels": images}, "takes image, got pixels"),
        ]:
            with pytest.raises(RequestRefused, match=message):
                client.predict(inputs)
        with pytest.raises(RequestRefused, match="no signature 'classify'; it has encoded"):
            client.predict({"image": images}, "classify")
        with pytest.raises(RequestRefused, match=r"Model 'digits' refuses the request: .*divide 8-bit images by 255"):
            client.predict({"image": images * 255})
        with pytest.raises(RequestRefused, match="must be PNG or JPEG"):
            client.predict({"image_bytes": np.array([b"no image"], object)}, "encoded")
        assert len(client.predict({"image": images})["label"]) == 8


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_missing_model_or_version(server, protocol):
    with _connect(protocol, server, "faces") as client:
        with pytest.raises(RequestRefused, match="has no model 'faces'"):
            client.signatures()
    with _connect(protocol, server, version=9) as client:
        with pytest.raises(RequestRefused, match="no model 'digits', version 9"):
            client.signatures()
    with _connect(protocol, server, version=1) as client:
        assert client.signatures()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_is_unavailable_or_slow(monkeypatch, protocol):
    pauses = []
    monkeypatch.setattr(clients.time, "sleep", pauses.append)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with connect(protocol, address, "digits", retries=2, timeout=0.5) as client:
            with pytest.raises(ServerUnavailable, match=rf"No answer from {address} after 3 attempts"):
                client.signatures()
        assert pauses == [0.1, 0.2]
        silent.listen()
        with connect(protocol, address, "digits", retries=0, timeout=0.2) as client:
            with pytest.raises(ServerUnavailable, match="after 1 attempt "):
                client.signatures()


def test_a_client_reconnects_after_a_restart(exported, base_dir, images):
    with ModelServer(base_dir) as first:
        over_grpc = connect("grpc", first.grpc, "digits", retries=6, timeout=60)
        over_rest = connect("rest_rows", first.rest, "digits", retries=6, timeout=60)
        wanted = [client.predict({"image": images})["label"].tolist() for client in (over_grpc, over_rest)]
        ports = [int(address.rpartition(":")[2]) for address in (first.grpc, first.rest)]
    with ModelServer(base_dir, *ports), over_grpc, over_rest:
        assert [client.predict({"image": images})["label"].tolist() for client in (over_grpc, over_rest)] == wanted


@pytest.mark.parametrize(
    "arguments, options",
    [
        (("soap", "a:1", "m"), {}),
        (("grpc", "localhost", "m"), {}),
        (("grpc", "a:b", "m"), {}),
        (("grpc", "a:1", ""), {}),
        (("grpc", "a:1", "m"), {"version": -1}),
        (("grpc", "a:1", "m"), {"timeout": 0}),
        (("rest_rows", "a:1", "m"), {"retries": -1}),
    ],
)
def test_bad_arguments(arguments, options):
    with pytest.raises(ValueError, match="must be"):
        connect(*arguments, **options)


def test_rest_as_others_write_it(server, images):
    """Requests as curl would send them: both forms, bare values, and what the API forbids."""

    def post(body, path="/v1/models/digits:predict"):
        connection = http.client.HTTPConnection(server.rest)
        connection.request("POST", path, body if isinstance(body, str) else json.dumps(body))
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        return response.status, answer

    pixels = images[:2].tolist()
    status, rows = post({"instances": pixels})
    assert status == 200 and set(rows["predictions"][0]) == {"class_id", "label", "logits", "probabilities"}
    status, columns = post({"inputs": pixels})
    assert columns["outputs"]["logits"] == [row["logits"] for row in rows["predictions"]]
    assert post({"instances": pixels}, "/v1/models/digits/versions/1:predict") == (200, rows)
    for body in (
        "{",
        "[]",
        {},
        {"instances": pixels, "inputs": pixels},
        {"instances": [[1, 2], [3]]},
        {"instances": []},
        {"instances": [[[[0.5]]]]},
        {"inputs": [[0.5]]},
        {"inputs": None},
        {"instances": [0.5, {"image": 0.5}]},
        {"signature_name": [], "inputs": pixels},
        {"signature_name": "encoded", "instances": [{"b64": 5}]},
        {"signature_name": "encoded", "instances": [{"b64": "%"}]},
        {"signature_name": "encoded", "instances": ["text"]},
    ):
        status, answer = post(body)
        assert status == 400 and set(answer) == {"error"}
    assert post({"instances": pixels}, "/v1/models/digits/versions/7:predict")[0] == 404
    connection = http.client.HTTPConnection(server.rest)
    connection.request("GET", "/v1/models/digits")
    assert json.loads(connection.getresponse().read())["model_version_status"][0]["state"] == "AVAILABLE"
    connection.close()


def test_grpc_as_others_write_it(server, images):
    with grpc.insecure_channel(server.grpc) as channel:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "digits"
        short = tf.make_tensor_proto(images)
        short.tensor_content = short.tensor_content[:-2]
        wrong = [tf.make_tensor_proto(given) for given in (images.astype(np.float64), images[:, :4], images[0], 0.5)]
        for given in (*wrong, short):
            request.inputs["image"].CopyFrom(given)
            with pytest.raises(grpc.RpcError) as refused:
                services.PredictionServiceStub(channel).Predict(request)
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        asked = get_model_status_pb2.GetModelStatusRequest()
        asked.model_spec.name = "digits"
        status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(asked)
        assert [state.version for state in status.model_version_status] == [1]


def test_a_broken_new_version_leaves_the_old_one_serving(exported, images, tmp_path):
    shutil.copytree(exported.path, tmp_path / "digits" / "1")
    with ModelServer(tmp_path) as server, _connect("grpc", server) as client:
        wanted = client.predict({"image": images})["logits"]
        (tmp_path / "digits" / "2").mkdir()
        (tmp_path / "digits" / "2" / "saved_model.pb").write_bytes(b"cut short")
        assert [path.name for path in server.reload()] == ["2"]
        np.testing.assert_array_equal(client.predict({"image": images})["logits"], wanted)


def test_many_clients_at_once_and_malformed_requests_between(server, images):
    """The same with 10,000 requests is benchmarks/serving.py."""
    with _connect("grpc", server) as client:
        wanted = client.predict({"image": images})["logits"]

    def ask(worker):
        good = refused = 0
        with _connect(PROTOCOLS[worker % 3], server) as client:
            for place in range(20):
                if place % 4 == 3:
                    with pytest.raises(RequestRefused):
                        client.predict({"image": images * 2})
                    refused += 1
                else:
                    got = client.predict({"image": images[place % 8 : place % 8 + 1]})["logits"][0]
                    np.testing.assert_allclose(got, wanted[place % 8], atol=1e-5)
                    good += 1
        return good, refused

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(16))) == [(15, 5)] * 16
