"""The gRPC client against pythie-serving, a third party's server on TensorFlow Serving's protocol.

It needs older versions of numpy and protobuf than this package, so it runs in an environment of its own, .venv-pythie,
which `make test-extras` creates. It implements Predict only, not GetModelMetadata.
"""

import json
import pathlib
import socket
import subprocess
import time

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.serving import client as serving
from wasser_tf.serving.client import RequestRefused, ServerUnavailable, SignatureInfo, Tensor

ROOT = pathlib.Path(__file__).parents[2]
PYTHON = ROOT / ".venv-pythie" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not PYTHON.parents[1].joinpath(".installed").exists(), reason="no pythie-serving: make .venv-pythie/.installed"
)

# A classifier of the digits by scikit-learn, made and served in that environment, with one input for each pixel.
MAKE = """
import cloudpickle, json, sys
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
images, labels = load_digits(return_X_y=True)
model = LogisticRegression(max_iter=30).fit(images[:500] / 16, labels[:500])
folder = sys.argv[1]
with open(folder + "/digits.pickled", "wb") as file:
    cloudpickle.dump(model, file)
json.dump({"feature_names": [f"p{place}" for place in range(64)]}, open(folder + "/metadata.json", "w"))
json.dump(model.predict(images[500:600] / 16).tolist(), open(folder + "/expected.json", "w"))
"""
CONFIG = """model_config_list { config { name: "digits" base_path: "FOLDER" model_platform: "sklearn" } }"""
PIXEL = Tensor(tf.float32, (None, 1))
SIGNATURES = {
    "serving_default": SignatureInfo(
        {f"p{place}": PIXEL for place in range(64)}, {"predictions": Tensor(tf.int32, (None,))}
    )
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("pythie")
    subprocess.run([PYTHON, "-c", MAKE, made], check=True, timeout=300, env={})
    return made


@pytest.fixture(scope="module")
def server(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "models.config").write_text(CONFIG.replace("FOLDER", str(folder)))
    command = [PYTHON, "-m", "pythie_serving.run", folder / "models.config", "--port", str(port)]
    with open(folder / "log.txt", "w") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env={})
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "log.txt").read_text()
            time.sleep(0.1)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def pixels():
    from sklearn.datasets import load_digits

    images = load_digits().data[500:600].astype(np.float32) / 16
    return {f"p{place}": images[:, place : place + 1] for place in range(64)}


def test_predictions_are_those_of_the_model(server, folder, pixels):
    with serving.connect("grpc", server, "digits", signatures=SIGNATURES) as client:
        found = client.predict(pixels)
        one = client.predict({name: values[:1] for name, values in pixels.items()})
    expected = json.loads((folder / "expected.json").read_text())
    assert list(found) == ["predictions"] and found["predictions"].dtype == np.int32
    np.testing.assert_array_equal(found["predictions"], expected)
    np.testing.assert_array_equal(one["predictions"], expected[:1])


def test_refusals(server, pixels):
    with serving.connect("grpc", server, "other", signatures=SIGNATURES) as client:
        # The server raises, which gRPC reports as an error of the application.
        with pytest.raises(RequestRefused, match="Unknown model: other"):
            client.predict(pixels)
    with serving.connect("grpc", server, "digits", signatures=SIGNATURES) as client:
        with pytest.raises(RequestRefused, match="The signature takes p0, p1, "):
            client.predict({"p0": pixels["p0"]})
        # Of unequal length, which only the server can see.
        with pytest.raises(RequestRefused, match="p1 has invalid length"):
            client.predict({**pixels, "p1": pixels["p1"][:3]})
    with serving.connect("grpc", server, "digits") as client:
        with pytest.raises(RequestRefused, match="Method not implemented"):
            client.signatures()


def test_a_stopped_server_is_unavailable(pixels):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving.connect("grpc", f"localhost:{port}", "digits", signatures=SIGNATURES, retries=1) as client:
        with pytest.raises(ServerUnavailable, match="after 2 attempts"):
            client.predict(pixels)
