"""Exports: equal to Keras, loadable without Keras, complete or absent."""

import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.serving.conftest import NAMES
from wasser_tf import MirrorAscent, ThreatModel, WasserTrain, models
from wasser_tf.serving import export, warmup
from wasser_tf.serving.export import export_classifier

_FRESH = """
import sys, json
# TensorFlow imports Keras if it is there; this makes it be absent.
sys.modules["keras"] = sys.modules["wasser_tf"] = None
import numpy, tensorflow as tf
signatures = tf.saved_model.load(sys.argv[1]).signatures
got = signatures["serving_default"](image=tf.constant(numpy.load(sys.argv[2])))
json.dump([sorted(signatures), got["probabilities"].numpy().tolist()], sys.stdout)
"""


def test_served_outputs_equal_keras(exported, classifier, images, files):
    loaded = tf.saved_model.load(str(exported.path)).signatures
    logits = classifier(images, training=False).numpy()
    for signature, inputs in [
        ("serving_default", {"image": tf.constant(images)}),
        ("uint8", {"image": tf.constant(np.round(images * 255).astype(np.uint8))}),
        ("encoded", {"image_bytes": tf.constant(files)}),
    ]:
        got = {name: value.numpy() for name, value in loaded[signature](**inputs).items()}
        np.testing.assert_allclose(got["logits"], logits, atol=1e-6)
        np.testing.assert_allclose(got["probabilities"], tf.nn.softmax(logits), atol=1e-6)
        np.testing.assert_array_equal(got["class_id"], logits.argmax(axis=1))
        assert [name.decode() for name in got["label"]] == [NAMES[place] for place in logits.argmax(axis=1)]
        assert got["logits"].dtype == got["probabilities"].dtype == np.float32


def test_loads_in_a_fresh_process_without_wasser_tf_and_keras(exported, classifier, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-I", "-c", _FRESH, exported.path, tmp_path / "images.npy"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    names, probabilities = json.loads(done.stdout)
    assert names == sorted(exported.signatures)
    np.testing.assert_allclose(probabilities, tf.nn.softmax(classifier(images, training=False)), atol=1e-6)


def test_the_c_api_classifies_and_rejects(exported, c_api, images, files):
    """Calls TensorFlow Serving's loader: the graph rejects invalid images, and the session remains usable."""
    pixels = np.round(images * 255).astype(np.uint8)
    broken = images.copy()
    broken[3, 2, 1, 0] = np.nan
    bomb = files[0][:16] + b"\x00\x01\x00\x00" * 2 + files[0][24:]
    refused = [
        ("serving_default", broken, "no NaN"),
        ("serving_default", images * 255, "divide 8-bit images by 255"),
        ("serving_default", images[:0], "got an empty batch"),
        ("serving_default", np.zeros((2, 16, 16, 1), np.float32), "expected shape [?,8,8,1]"),
        ("serving_default", images.astype(np.float64), "to be float but double"),
        ("robustness", broken, "no NaN"),
        ("uint8", pixels[:0], "got an empty batch"),
        ("uint8", np.zeros((2, 8, 8, 3), np.uint8), "expected shape [?,8,8,1]"),
        ("encoded", files[:0], "got an empty batch"),
        ("encoded", np.array([b"hello"], object), "must be PNG or JPEG"),
        ("encoded", np.array([b""], object), "must be PNG or JPEG"),
        ("encoded", np.array([files[0], files[1][:50]], object), "Invalid PNG data"),
        ("encoded", np.array([b"\xff\xd8\xff" + bytes(100)], object), "JPEG"),
        ("encoded", np.array([bytes(9 * 2**20)], object), "at most 8388608 bytes"),
        ("encoded", np.array([bomb], object), "at most 16777216 pixels"),
    ]
    good = [("serving_default", images), ("uint8", pixels), ("encoded", files), ("robustness", images)]
    answers = c_api([*good, *((name, array) for name, array, _ in refused), good[0]])
    for (name, _, message), answer in zip(refused, answers[4:-1], strict=True):
        assert isinstance(answer, str) and message in answer, (name, message, answer)
    for answer in (*answers[1:3], answers[-1]):
        np.testing.assert_allclose(answer["logits"], answers[0]["logits"], atol=1e-6)
        assert answer["label"] == answers[0]["label"]
    assert np.isfinite(answers[3]["radius"]).any() and (answers[3]["margin"] >= 0).all()


def test_encoded_images_are_resized_and_jpegs_accepted(exported):
    loaded = tf.saved_model.load(str(exported.path)).signatures
    big = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    grey = tf.io.decode_png(tf.io.encode_png(big), channels=1)
    resized = tf.clip_by_value(tf.image.resize(tf.cast(grey, tf.float32) / 255, (8, 8), antialias=True), 0, 1)
    got = loaded["encoded"](image_bytes=tf.constant([tf.io.encode_png(big).numpy(), tf.io.encode_jpeg(big).numpy()]))
    wanted = loaded["serving_default"](image=resized[None])
    np.testing.assert_allclose(got["logits"][:1], wanted["logits"], atol=1e-6)
    assert np.isfinite(got["logits"]).all()


def test_the_graph_needs_no_xla(exported):
    """Without a flag, TensorFlow Serving rejects functions that must be compiled by XLA."""
    assert b"_XlaMustCompile" not in (exported.path / "saved_model.pb").read_bytes()


def test_warmup_requests_are_replayed(exported):
    requests = list(warmup.read_warmup(exported.path))
    assert {request.model_spec.signature_name for request in requests} == set(exported.signatures) - {"logits"}
    assert {request.model_spec.name for request in requests} == {"digits"} and len(requests) < 1000
    assert warmup.replay_warmup(exported.path, tf.saved_model.load(str(exported.path))) == len(requests)


def test_the_model_card_describes_the_export(exported):
    card = json.loads((exported.path / "model_card.json").read_text())
    assert card["class_names"] == list(NAMES) and card["version"] == 1 and card["image_shape"] == [8, 8, 1]
    assert card["signatures"]["robustness"] == ["class_id", "label", "margin", "radius", "flagged"]
    assert card["robustness_signature"]["threat_model"]["kernel_size"] == 3
    assert "# digits, version 1" in (exported.path / "model_card.md").read_text()


def test_attacks_run_on_an_export(exported, classifier, images):
    served = models.load_classifier(exported.path.parent)
    np.testing.assert_allclose(served(images), classifier(images, training=False), atol=1e-6)


@pytest.mark.parametrize("last", ["logits", "softmax", "mixed_float16", "wasser_train", "saved_model"])
def test_every_kind_of_classifier(last, images, tmp_path):
    image = keras.Input((8, 8, 1), name="pixels")
    policy = "mixed_float16" if last == "mixed_float16" else "float32"
    features = keras.layers.Dense(8, "relu", dtype=policy)(keras.layers.Flatten()(image))
    features = keras.layers.Dropout(0.5)(features)
    activation = "softmax" if last == "softmax" else None
    model = keras.Model(image, keras.layers.Dense(3, activation, dtype=policy)(features))
    outputs = tf.cast(model(images, training=False), tf.float32)
    given = model
    if last == "wasser_train":
        given = WasserTrain(model, MirrorAscent(ThreatModel(), iterations=1))
    if last == "saved_model":
        first = export_classifier(model, tmp_path / "first", "m")
        given = models.load_classifier(first.path)
    done = export_classifier(given, tmp_path / "served", "m")
    got = tf.saved_model.load(str(done.path)).signatures["serving_default"](image=tf.constant(images))
    probabilities = outputs if last == "softmax" else tf.nn.softmax(outputs)
    np.testing.assert_allclose(got["probabilities"], probabilities, atol=1e-6 if policy == "float32" else 2e-3)
    assert got["logits"].dtype == got["probabilities"].dtype == tf.float32 and "label" not in got


def test_versions_count_up_and_are_never_replaced(tmp_path):
    model = models.build("linear", (4, 4, 2), 2, seed=0)
    assert export_classifier(model, tmp_path, "m").version == 1
    assert export_classifier(model, tmp_path, "m", version=7).version == 7
    assert export_classifier(model, tmp_path, "m").version == 8
    kept = {path: path.read_bytes() for path in (tmp_path / "m" / "7").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="7 already exists, and versions are never replaced"):
        export_classifier(model, tmp_path, "m", version=7)
    assert {path: path.read_bytes() for path in (tmp_path / "m" / "7").rglob("*") if path.is_file()} == kept
    (tmp_path / "m" / "v9").mkdir()
    with pytest.raises(ValueError, match="contains v9, but a server accepts only versions"):
        export_classifier(model, tmp_path, "m")
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["1", "7", "8", "v9"]


def test_a_failure_leaves_nothing_behind(monkeypatch, tmp_path):
    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(export.warmup, "write_warmup", fail)
    with pytest.raises(OSError, match="the disk is full"):
        export_classifier(models.build("linear", (4, 4, 1), 2, seed=0), tmp_path / "served", "m")
    assert not (tmp_path / "served").exists()


def _with_nan():
    model = models.build("linear", (4, 4, 1), 2, seed=0)
    model.get_layer("logits").kernel.assign(np.full((16, 2), np.nan))
    return model


def _three_sigmoids():
    return keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "sigmoid")])


@pytest.mark.parametrize(
    "make, options, message",
    [
        (lambda: keras.Sequential([keras.layers.Dense(3)]), {}, "is not built"),
        (lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), {}, "flattened images of 4 numbers"),
        (lambda: models.build("linear", (4, 4, 1), 2), {"image_shape": (8, 8, 1)}, "takes images of shape .4, 4, 1."),
        (lambda: models.build("linear", (4, 4, 1), 2), {"version": 0}, "version must be a whole number"),
        (lambda: models.build("linear", (4, 4, 1), 2), {"version": "v2"}, "version must be a whole number"),
        (lambda: models.build("linear", (4, 4, 1), 2), {"class_names": ["a"]}, "must name the 2 classes"),
        (_three_sigmoids, {}, "do not add up to 1"),
        (_with_nan, {}, "is not finite"),
        (lambda: "model.keras", {}, "must be a keras.Model or a SavedModel"),
    ],
)
def test_bad_input_writes_nothing(make, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_classifier(make(), tmp_path / "served", "m", **options)
    assert not (tmp_path / "served").exists()


def test_an_invalid_folder_is_refused(tmp_path):
    model = models.build("linear", (4, 4, 1), 2, seed=0)
    for name in ("", "../m", "a b", "1"):
        with pytest.raises(ValueError, match="name must be letters"):
            export_classifier(model, tmp_path, name)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="base_dir must be a folder"):
        export_classifier(model, tmp_path / "file", "m")
    (tmp_path / "models.config").write_text("model_config_list {")
    with pytest.raises(ValueError, match="is not a valid ModelServerConfig"):
        export_classifier(model, tmp_path, "m")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "models.config"]


def test_a_truncated_saved_model_is_refused(exported, c_api, images, tmp_path):
    for file in ("saved_model.pb", "variables/variables.data-00000-of-00001"):
        copy = tmp_path / file.replace("/", "_") / "1"
        shutil.copytree(exported.path, copy)
        (copy / file).write_bytes((copy / file).read_bytes()[:1000])
        with pytest.raises(ValueError, match="cannot be loaded"):
            models.load_classifier(copy)
        assert isinstance(c_api([("serving_default", images)], copy), str)


def test_a_classifier_that_is_not_deterministic_is_refused(tmp_path):
    class Noise(keras.layers.Layer):
        def call(self, inputs):
            return inputs + tf.random.normal(tf.shape(inputs))

    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), Noise(), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="not deterministic"):
        export_classifier(model, tmp_path / "served", "m")
    assert not (tmp_path / "served").exists()


def test_signatures_share_one_classifier(exported):
    """Five signatures, one copy of the weights and of the classifier's graph."""
    parsed = saved_model_pb2.SavedModel.FromString((exported.path / "saved_model.pb").read_bytes())
    functions = parsed.meta_graphs[0].graph_def.library.function
    with_convolutions = [made for made in functions if sum(node.op == "Conv2D" for node in made.node_def) > 5]
    assert len(with_convolutions) <= 2
