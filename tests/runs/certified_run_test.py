"""A training run with --certified: its files, the bracket, settings that reach the training, and resumption."""

import json
import signal

import keras
import numpy as np
import pytest

from wasser_tf import LinearRamp, MirrorAscent, Staircase, ThreatModel, data
from wasser_tf.models.potentials import TransportPotentials
from wasser_tf.runs import certified_report, train
from wasser_tf.runtime import interruption
from wasser_tf.training import run_folder
from wasser_tf.training.certified_phase import build_certified, certified_classifier_of, certified_schedule
from wasser_tf.training.config import TrainConfig
from wasser_tf.training.distribution import Distribution
from wasser_tf.training.loop import TrainingContext

_SMALL = {
    "certified": True,
    "epochs": 0,
    "standard_epochs": 0,
    "certified_epochs": 2,
    "potentials": 16,
    "hidden_units": 16,
    "model": "linear",
    "batch_size": 256,
    "report_iterations": 2,
    "num_attack_examples": 16,
    "radii": (0.02, 0.1),
}


def _config(folder, **fields):
    attack = MirrorAscent(ThreatModel(epsilon=0.1, kernel_size=3), iterations=2)
    return TrainConfig(**{"output_dir": str(folder), "attack": attack, **_SMALL, **fields})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certified")
    config = _config(folder)
    keras.utils.set_random_seed(config.seed)
    return folder, config, train.run_training(config)


def test_the_folder_holds_the_certified_classifier_and_the_bracket(finished):
    folder, _, result = finished
    names = {path.name for path in folder.iterdir()}
    assert {"certified.keras", "bracket.png", "best.keras", "report.md", "checkpoints", "history.csv"} <= names
    loaded = keras.saving.load_model(folder / "certified.keras")
    assert isinstance(loaded.layers[1], TransportPotentials)
    best = keras.saving.load_model(folder / "best.keras")
    for one, two in zip(loaded.get_weights(), best.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert "certified to not fooled" in result.bracket and result.bracket in (folder / "report.md").read_text()
    brackets = json.loads((folder / "report.json").read_text())["brackets"]
    assert set(brackets) == {"standard", "certified"}
    for rows in brackets.values():
        assert [row["epsilon"] for row in rows] == [0.02, 0.1]
        assert all(0 <= row["certified"] <= row["not_fooled"] <= 1 for row in rows)


def test_the_bracket_has_no_contradictions_and_starts_at_the_natural_accuracy(finished):
    _, config, result = finished
    brackets = certified_report.brackets_of(result.compared, config.threat_model, lambda line: None)
    for name, one in brackets.items():
        assert one.contradictions() == 0
        natural = result.compared.evaluations[name][0].record.natural_accuracy
        assert one.not_fooled_share(0.0) == pytest.approx(natural)


def test_an_interrupted_run_resumes_to_the_same_weights(finished, tmp_path, monkeypatch):
    folder, _, _ = finished
    calls = []

    def stop_once():
        calls.append(None)
        if len(calls) == 3:
            raise interruption.Interrupted(signal.SIGINT)

    keras.utils.set_random_seed(0)
    monkeypatch.setattr("wasser_tf.training.checkpoint.interruption.raise_if_requested", stop_once)
    with pytest.raises(interruption.Interrupted):
        train.run_training(_config(tmp_path))
    keras.utils.set_random_seed(1)
    train.run_training(_config(tmp_path, resume=True))
    one, two = (keras.saving.load_model(path / "certified.keras") for path in (folder, tmp_path))
    for first, second in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-7)


def test_settings_reach_the_training(tmp_path):
    dataset = data.load("digits")
    config = _config(tmp_path, certified_epsilon=0.2, kappa=0.3, certified_random_radius=True, box_fraction=0.5)
    model = build_certified(config, dataset, Distribution())
    assert model.epsilon == LinearRamp(0.0, 0.2, epochs=1.0) and model.kappa == LinearRamp(1.0, 0.3, epochs=1.0)
    assert model.random_radius and model.box_fraction == 0.5 and model.threat_model == config.threat_model
    assert [layer.units for layer in model.classifier.layers[1:]] == [16, 16, 16, 10]
    context = TrainingContext(config=config, dataset=dataset)
    assert context.epochs_of(model) == 2 and model.steps_per_epoch == context.steps_per_epoch
    given = _config(tmp_path, certified_schedule="staircase:0.1:0.2:1epochs", kappa_schedule="linear:1:0:5steps")
    assert certified_schedule(given, "epsilon") == Staircase((0.1, 0.2), epochs=1.0)
    assert certified_schedule(given, "kappa") == LinearRamp(1.0, 0.0, steps=5.0)
    assert build_certified(_config(tmp_path, certified=False, epochs=1), dataset, Distribution()) is None
    other = certified_classifier_of(_config(tmp_path, seed=1), dataset)
    assert not np.array_equal(other.get_weights()[0], model.classifier.get_weights()[0])
    assert run_folder.CERTIFIED == "certified.keras"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"certified": False}, "epochs must be at least 1"),
        ({"kappa": 2.0}, "kappa"),
        ({"certified_epsilon": 0.0}, "certified_epsilon"),
        ({"box_fraction": 0.0}, "box_fraction"),
        ({"kappa_schedule": "linear:2:0:1epochs"}, "kappa"),
        ({"potentials": 0}, "potentials"),
    ],
)
def test_fields_out_of_range(tmp_path, fields, words):
    with pytest.raises(ValueError, match=words):
        _config(tmp_path, **fields)
