"""One exported classifier and one server of it for all tests of serving."""

import base64
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.serving.model_server import ModelServer
from wasser_tf import ThreatModel, models
from wasser_tf.serving.export import export_classifier
from wasser_tf.serving.robustness import RobustnessProbe

PROBE = RobustnessProbe(threat_model=ThreatModel(kernel_size=3), largest=2.0, rounds=4, iterations=5)
NAMES = ("zero", "one", "two")


@pytest.fixture(scope="package")
def classifier():
    # Of a seed that leaves some images near an edge; without dense layers, so that images of any size pass through it.
    model = models.build("resnet_small", (8, 8, 1), 3, seed=4, width=0.25)
    # Logits of trained size, about 1: float32 rounds untrained ones of 12 by more than the tests allow.
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([0.1 * kernel, bias])
    return model


@pytest.fixture(scope="package")
def base_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="package")
def exported(classifier, base_dir):
    return export_classifier(classifier, base_dir, "digits", class_names=NAMES, robustness=PROBE)


@pytest.fixture(scope="package")
def server(exported, base_dir):
    with ModelServer(base_dir) as running:
        yield running


@pytest.fixture(scope="package")
def images():
    """Eight images whose pixels are multiples of 1/255, so that all signatures can be given the same ones."""
    return np.random.default_rng(1).integers(0, 256, (8, 8, 8, 1)).astype(np.float32) / 255


@pytest.fixture(scope="package")
def files(images):
    return np.array([tf.io.encode_png(pixels).numpy() for pixels in np.round(images * 255).astype(np.uint8)], object)


@pytest.fixture(scope="package")
def c_api(exported):
    """Runs (signature, array) pairs through TensorFlow's C API in a process of its own; a result or an error each."""
    parsed = saved_model_pb2.SavedModel.FromString((exported.path / "saved_model.pb").read_bytes())
    signatures = parsed.meta_graphs[0].signature_def

    def run(calls, path=exported.path):
        request = []
        for name, array in calls:
            (info,) = signatures[name].inputs.values()
            content = [base64.b64encode(item).decode() for item in array] if array.dtype == object else None
            content = base64.b64encode(array.tobytes()).decode() if content is None else content
            dtype = 7 if array.dtype == object else tf.as_dtype(array.dtype).as_datatype_enum
            outputs = [output.name for output in signatures[name].outputs.values()]
            request.append({"inputs": [[info.name, dtype, list(array.shape), content]], "outputs": outputs})
        done = subprocess.run(
            [
                sys.executable,
                "-I",
                pathlib.Path(__file__).with_name("c_api.py"),
                pathlib.Path(tf.__file__).parent,
                path,
            ],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        answered = json.loads(done.stdout)
        if "error" in answered:
            return answered["error"]
        assert answered["modules"] == []
        return [
            answer.get("error") or _arrays(list(signatures[name].outputs), answer["outputs"])
            for (name, _), answer in zip(calls, answered["answers"], strict=True)
        ]

    return run


def _arrays(names, outputs):
    def array(dtype, shape, content):
        if dtype == 7:
            return [base64.b64decode(item).decode() for item in content]
        return np.frombuffer(base64.b64decode(content), tf.as_dtype(dtype).as_numpy_dtype).reshape(shape)

    return {name: array(*output) for name, output in zip(names, outputs, strict=True)}
