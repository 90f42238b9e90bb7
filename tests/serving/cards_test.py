"""Model cards, which signature of a SavedModel is called, and the checks before an export, without an export."""

import json
import pathlib
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import wasser_tf
from wasser_tf import ThreatModel
from wasser_tf.models import saved_model
from wasser_tf.models.saved_model import SavedModelClassifier
from wasser_tf.runtime import storage
from wasser_tf.serving import export, model_card
from wasser_tf.serving.robustness import RobustnessProbe


def _record(model, **changes):
    return {
        "model": model,
        "dataset": "d test",
        "num_images": 9,
        "attack": "mirror_ascent",
        "settings": {"iterations": 3, "seed": 0},
        "threat_model": ThreatModel(epsilon=0.25).get_config(),
        "natural_accuracy": 0.75,
        "feasible": {"robust_accuracy": 0.5},
        "raw": {"robust_accuracy": 0.1},
        **changes,
    }


_MEASURED = {
    "dataset": "d test",
    "num_images": 9,
    "attack": "mirror_ascent",
    "iterations": 3,
    "threat_model": ThreatModel(epsilon=0.25).get_config(),
    "natural_accuracy": 0.75,
    "robust_accuracy": 0.5,
}


@pytest.mark.parametrize("name", ["best.keras", "best_saved_model", "standard.keras", "other.keras"])
def test_metadata_of_a_run(tmp_path, name):
    ball = ThreatModel(epsilon=0.1).get_config()
    metadata = {"config": {"dataset": "mnist", "seed": 3}, "data_dir": "sets", "threat_model": ball}
    assert model_card.of_run(tmp_path / name) == {}
    storage.write_json(tmp_path / "config.json", metadata)
    if name == "other.keras":
        assert model_card.of_run(tmp_path / name) == {}
        return
    found = {"training": metadata["config"], "dataset": "mnist", "data_dir": "sets"}
    # The standard classifier was trained in no ball.
    found |= {} if name == "standard.keras" else {"threat_model": ball}
    assert model_card.of_run(tmp_path / name) == found
    records = [_record("standard", num_images=7), _record("wasser_train")]
    storage.write_json(tmp_path / "report.json", {"records": records})
    measured = {**_MEASURED, "num_images": 7} if name == "standard.keras" else _MEASURED
    assert model_card.of_run(tmp_path / name) == {**found, "robustness_measured": [measured]}
    storage.write_json(tmp_path / "report.json", {})
    assert model_card.of_run(tmp_path / name)["robustness_measured"] == []


def _signatures():
    made = types.SimpleNamespace(
        variables=[tf.zeros([3, 400]), tf.zeros([34])], structured_outputs={"logits": 0, "x": 1}
    )
    return {"serving_default": made, "logits": types.SimpleNamespace(structured_outputs={"logits": 0})}


def test_the_card_of_a_version(tmp_path):
    probe = RobustnessProbe(threat_model=ThreatModel(epsilon=0.3, p=2.0), largest=0.5, rounds=4, iterations=7)
    made = model_card.describe("m", 3, _signatures(), (8, 9, 1), ("a", "b"), probe, {"dataset": "d"})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made.pop("created")) and "commit" in made
    made.pop("commit")
    assert made == {
        "name": "m",
        "version": 3,
        "image_shape": [8, 9, 1],
        "num_weights": 1234,
        "class_names": ["a", "b"],
        "signatures": {"serving_default": ["logits", "x"], "logits": ["logits"]},
        "robustness_signature": probe.get_config(),
        "dataset": "d",
        "threat_model": None,
        "robustness_measured": [],
        "training": None,
        "versions": {"wasser_tf": wasser_tf.__version__, "tensorflow": tf.__version__, "keras": keras.__version__},
    }
    metadata = {"threat_model": ThreatModel(epsilon=0.1).get_config(), "robustness_measured": [_MEASURED]}
    full = {**made, "created": "today", "commit": "c", **metadata}
    model_card.write_model_card(tmp_path, full)
    assert json.loads((tmp_path / "model_card.json").read_text()) == storage.through_json(full)
    text = (tmp_path / "model_card.md").read_text()
    assert text.startswith(
        "# m, version 3\n\nAn image classifier of 1,234 weights for 8×9×1 images in [0, 1]. "
        "Exported today from commit c.\n\n"
        "Classes: a, b.\n\n| signature | outputs |\n|---|---|\n| serving_default | logits, x |\n| logits | logits |\n\n"
        f"## Robustness\n\nThreat model of its training: {ThreatModel(epsilon=0.1)}.\n\n| ε | images |"
    )
    assert "\n| 0.25 | 9 of d test | mirror_ascent, 3 iterations | 75.00% | 50.00% |\n" in text
    ball = str(ThreatModel(epsilon=0.3, p=2.0)).replace("epsilon 0.3", "any radius")
    assert text.endswith(
        "\n\nThe signature `robustness` tries 4 radii up to 0.5 with 7 mirror steps each; its radius is an upper bound "
        f"on an image's minimal radius. {ball}.\n"
    )
    assert "not measured" not in text
    plain = model_card.describe("m", 1, _signatures(), (8, 9, 1), None, None, {})
    model_card.write_model_card(tmp_path, {**plain, "commit": None})
    text = (tmp_path / "model_card.md").read_text()
    assert " from commit unknown.\n\nClasses: not named." in text and "training: unknown, or none." in text
    assert text.endswith("unknown, or none.\n\nThe robust accuracy was not measured.\n") and "| ε |" not in text
    assert plain["class_names"] is None and plain["robustness_signature"] is None


class _Signature:
    """A signature of a SavedModel: what it takes and returns; it answers with its name."""

    def __init__(self, outputs, *, rank=4, dtype=tf.float32, inputs=1, value=0.0):
        shape = None if rank is None else [None, 8, 8, 1][:rank]
        specs = {f"input{number}": tf.TensorSpec(shape, dtype) for number in range(inputs)}
        self.structured_input_signature = ((), specs)
        self.structured_outputs = {name: tf.TensorSpec([None, 3], tf.float64) for name in outputs}
        self.value, self.asked = value, []

    def __call__(self, **inputs):
        self.asked.append(inputs)
        return {name: tf.fill([2, 3], tf.constant(self.value, tf.float64)) for name in self.structured_outputs}


@pytest.fixture
def load(monkeypatch, tmp_path):
    def make(**signatures):
        (tmp_path / "saved_model.pb").touch()
        monkeypatch.setattr(tf.saved_model, "load", lambda path: types.SimpleNamespace(signatures=signatures))
        return SavedModelClassifier(tmp_path)

    return make


@pytest.mark.parametrize(
    "signatures, chosen, output, from_logits",
    [
        ({"a": ["logits"], "serving_default": ["logits", "x"]}, "serving_default", "logits", True),
        ({"a": ["x", "logits"], "serving_default": ["probabilities"]}, "a", "logits", True),
        ({"a": ["x"], "b": ["probabilities", "y"]}, "b", "probabilities", False),
        ({"a": ["x", "y"], "b": ["z"]}, "b", "z", None),
        ({"a": ["x"], "serving_default": ["z"]}, "serving_default", "z", None),
    ],
)
def test_the_signature_that_is_called(load, signatures, chosen, output, from_logits):
    made = {name: _Signature(outputs, value=float(place)) for place, (name, outputs) in enumerate(signatures.items())}
    classifier = load(**made)
    answer = classifier(np.zeros([2, 8, 8, 1], np.float64), training=True)
    assert [name for name, one in made.items() if one.asked] == [chosen] and answer.dtype == tf.float32
    assert answer.numpy()[0, 0] == made[chosen].value and classifier.from_logits is from_logits
    ((key, given),) = made[chosen].asked[0].items()
    assert key == "input0" and given.dtype == tf.float32 and classifier.output == output
    assert classifier.input_shape == (None, 8, 8, 1) and classifier.output_shape == (None, 3)


def test_signatures_without_an_image_input_are_skipped(load):
    usable = _Signature(["logits"], dtype=tf.float16, rank=None)
    others = {
        "two": _Signature(["logits"], inputs=2),
        "integers": _Signature(["logits"], dtype=tf.uint8),
        "flat": _Signature(["logits"], rank=2),
    }
    classifier = load(**others, usable=usable)
    classifier(np.zeros([2, 8, 8, 1], np.float32))
    assert usable.asked[0]["input0"].dtype == tf.float16 and classifier.input_shape is None
    with pytest.raises(ValueError, match="No signature of the SavedModel .* it has integers: "):
        load(integers=others["integers"])
    assert load(flat=others["flat"]).signature == "flat"
    with pytest.raises(ValueError, match="it has none: choose"):
        load()
    with pytest.raises(ValueError, match="it has several: .*: choose"):
        load(several=_Signature(["x", "y"]))


def test_folders_of_saved_models(monkeypatch, tmp_path):
    for name in ("9", "10", "x11"):
        (tmp_path / name).mkdir()
    (tmp_path / "12").touch()
    assert saved_model._latest_version(tmp_path) == tmp_path / "10"
    assert saved_model._latest_version(tmp_path / "9") == tmp_path / "9"
    with pytest.raises(ValueError, match="10 does not contain saved_model.pb: give the path"):
        SavedModelClassifier(tmp_path)

    def broken(path):
        raise RuntimeError("It is cut.\nmore")

    monkeypatch.setattr(tf.saved_model, "load", broken)
    (tmp_path / "10" / "saved_model.pbtxt").touch()
    with pytest.raises(ValueError, match=r"10 cannot be loaded \(It is cut\): export it again"):
        SavedModelClassifier(tmp_path)


def test_exporting_prints_nothing_and_reports_the_final_path(tmp_path):
    before = saved_model.logging.get_verbosity(), tf.get_logger().level
    with pytest.raises(OSError, match="known.* cannot be written"), saved_model.exporting(tmp_path / "known"):
        assert saved_model.logging.get_verbosity() == saved_model.logging.ERROR
        assert tf.get_logger().level == 40
        raise tf.errors.PermissionDeniedError(None, None, "no")
    assert (saved_model.logging.get_verbosity(), tf.get_logger().level) == before


def test_versions(tmp_path):
    assert export.next_version(tmp_path / "m", None) == 1 and export.next_version(tmp_path / "m", 5) == 5
    for name in ("1", "3", ".hidden"):
        (tmp_path / "m" / name).mkdir(parents=True)
    assert export.next_version(tmp_path / "m", None) == 4 and export.next_version(tmp_path / "m", 2) == 2
    with pytest.raises(ValueError, match="3 already exists"):
        export.next_version(tmp_path / "m", 3)
    (tmp_path / "m" / "03").mkdir()
    with pytest.raises(ValueError, match="m contains 03, but a server accepts only versions"):
        export.next_version(tmp_path / "m", None)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file must be the folder of a model's versions"):
        export.next_version(tmp_path / "file", None)
    assert export.check_name("a-1._b") == "a-1._b"


def test_shapes_of_classifiers():
    class Own(keras.Model):
        def call(self, images):
            return images[:, 0, 0, :2]

    own = Own()
    own(np.zeros([1, 4, 5, 2], np.float32))
    assert export.check_classifier(own, [4, 5, 2]) == (4, 5, 2)
    with pytest.raises(ValueError, match="got an unknown shape: pass image_shape"):
        export.check_classifier(own)
    free = keras.Sequential([keras.Input((None, 4, 1)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match=r"of a fixed shape .*, got \(None, None, 4, 1\)"):
        export.check_classifier(free)


def _loaded(logits, names=("serving_default",)):
    def answer(image):
        return {"logits": tf.constant(logits, tf.float32)}

    return types.SimpleNamespace(signatures=dict.fromkeys(names, answer))


@pytest.mark.parametrize(
    "wanted, got, passed",
    [
        ([[100.0, 0.0]], [[100.0, 0.0]], True),
        ([[100.0, 0.0]], [[100.00005, 0.0]], True),
        ([[100.0, 0.0]], [[100.001, 0.0]], False),
        # Below 1, to a millionth.
        ([[0.01, 0.0]], [[0.0100005, 0.0]], True),
        ([[0.01, 0.0]], [[0.01001, 0.0]], False),
        ([[0.01, 0.0]], [[np.nan, 0.0]], False),
    ],
)
def test_the_export_is_compared_with_the_classifier(monkeypatch, wanted, got, passed):
    replayed = []
    monkeypatch.setattr(tf.saved_model, "load", lambda path: _loaded(got))
    monkeypatch.setattr(export.warmup, "replay_warmup", lambda *given: replayed.append(given))
    given = (pathlib.Path("x"), {"serving_default": None}, np.zeros([1, 2, 2, 1]), np.float32(wanted))
    if not passed:
        with pytest.raises(ValueError, match="logits differ from the classifier's by"):
            export._verify(*given)
    else:
        export._verify(*given)
        assert replayed[0][0] == pathlib.Path("x")
    with pytest.raises(ValueError, match="The export lost signatures: logits."):
        export._verify(given[0], {"serving_default": None, "logits": None}, *given[2:])


def test_outputs_of_classifiers():
    probes = np.zeros([2, 4, 4, 1], np.float32)
    assert export._call(lambda images: tf.ones([2, 2]), probes).tolist() == [[1, 1], [1, 1]]
    for shape in ((2,), (2, 1), (2, 2, 2)):
        with pytest.raises(ValueError, match=r"must return \[n, classes\] with at least 2 classes, got "):
            export._call(lambda images, shape=shape: tf.ones(shape), probes)

    def fails(images):
        raise TypeError("No.\nmore")

    with pytest.raises(ValueError, match=r"cannot be called with images of shape \(4, 4, 1\) \(No\)"):
        export._call(fails, probes)


def test_a_new_folder_is_removed_after_a_failure(tmp_path):
    (tmp_path / "old").mkdir()
    for name, fails in (("new", True), ("old", True), ("kept", False)):
        try:
            with export._folder(tmp_path / name):
                assert (tmp_path / name).is_dir()
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert fails
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "old"]


def test_configs_of_probes():
    probe = RobustnessProbe(threat_model=ThreatModel())
    assert (probe.largest, probe.rounds, probe.iterations) == (1.0, 6, 10)
    assert probe.get_config()["threat_model"] == ThreatModel().get_config()
    assert RobustnessProbe(threat_model=ThreatModel(), rounds=1, iterations=1).rounds == 1
