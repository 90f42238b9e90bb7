import io
import sys
import types

import keras
import numpy as np
import pytest

from wasser_tf import ThreatModel, models
from wasser_tf.attacks import RandomPlan
from wasser_tf.data import Split
from wasser_tf.data.streaming import StreamedImages
from wasser_tf.training import callbacks
from wasser_tf.training.callbacks import EpochTable, RobustValidation


def _split(count=12):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count).astype(np.int32)
    return Split(rng.random((count, 6, 5, 1), np.float32), labels, np.arange(count, dtype=np.int32))


def test_without_an_attack_only_natural_accuracy_is_measured():
    split, model = _split(), models.build("linear", (6, 5, 1), 3, seed=0)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    expected = model.evaluate(split.images, split.labels, return_dict=True, verbose=0)
    logs = {"loss": 1.0}
    RobustValidation(model, split).on_epoch_end(0, logs)
    assert logs.keys() == {"loss", "val_loss", "val_accuracy"}
    assert logs["val_loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert logs["val_accuracy"] == pytest.approx(expected["accuracy"])


def test_robust_accuracy_is_measured_on_the_current_weights():
    split, model = _split(), models.build("linear", (6, 5, 1), 3, seed=0)
    attack = RandomPlan(ThreatModel(epsilon=0.3, kernel_size=3))
    for radius in (None, 0.9):
        validation = RobustValidation(model, split, attack, radius=radius, num_attack_examples=8, batch_size=8)
        logs = {}
        validation.on_epoch_end(0, logs)
        result = attack(model, split.images[:8], split.labels[:8], radius=radius)
        assert logs["val_robust_accuracy"] == pytest.approx(1 - result.success.mean())
        model.set_weights([-weight for weight in model.get_weights()])


def test_settings_are_passed_to_the_attack_and_scores_computed_in_parts(monkeypatch):
    split, model = _split(), models.build("linear", (6, 5, 1), 3, seed=0)
    whole, parts, calls = {}, {}, []
    RobustValidation(model, split).on_epoch_end(0, whole)
    monkeypatch.setattr(callbacks, "_PREDICT_BATCH", 5)

    def attack(*given, **options):
        calls.append((given, options))
        return types.SimpleNamespace(success=np.array([True, False, False, False]))

    settings = {"radius": 0.25, "from_logits": True, "batch_size": 7}
    RobustValidation(model, split, attack, num_attack_examples=4, **settings).on_epoch_end(0, parts)
    assert parts.pop("val_robust_accuracy") == 0.75 and parts == pytest.approx(whole)
    (((classifier, images, labels), options),) = calls
    assert options.pop("index").tolist() == [0, 1, 2, 3]
    assert classifier is model and options == {**settings, "verbose": False}
    np.testing.assert_array_equal(images, split.images[:4])
    np.testing.assert_array_equal(labels, split.labels[:4])
    # All of them by default, a batch of 128 at a time, at the attack's own radius.
    RobustValidation(model, split, attack).on_epoch_end(0, {})
    assert len(calls[1][0][1]) == 12 and len(calls[1][1].pop("index")) == 12
    assert calls[1][1] == {"radius": None, "from_logits": True, "batch_size": 128, "verbose": False}


def test_images_of_a_stream_are_attacked_in_parts():
    split, calls = _split(), []
    images = StreamedImages(lambda row: split.images[row], np.arange(12), (6, 5, 1))
    streamed = split._replace(images=images)

    def attack(classifier, images, labels, *, index, **options):
        np.testing.assert_array_equal(images, split.images[index])
        np.testing.assert_array_equal(labels, split.labels[index])
        calls.append(index.tolist())
        return types.SimpleNamespace(success=index % 5 == 0)

    model = models.build("linear", (6, 5, 1), 3, seed=0)
    whole, parts = {}, {}
    RobustValidation(model, split).on_epoch_end(0, whole)
    RobustValidation(model, streamed, attack, num_attack_examples=10, batch_size=2).on_epoch_end(0, parts)
    assert calls == [list(range(8)), [8, 9]]
    assert parts.pop("val_robust_accuracy") == pytest.approx(0.8) and parts == pytest.approx(whole)


def test_probabilities_are_scored_without_a_softmax():
    split = _split()
    model = keras.Sequential([keras.Input((6, 5, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    logs = {}
    RobustValidation(model, split, from_logits=False).on_epoch_end(0, logs)
    chosen = model(split.images).numpy()[np.arange(12), split.labels]
    assert logs["val_loss"] == pytest.approx(-np.log(chosen).mean(), rel=1e-5)


@pytest.mark.parametrize(("terminal", "seconds"), [(True, -1.0), (False, -1.0), (False, 300.0)])
def test_prints_a_line_for_each_epoch(monkeypatch, terminal, seconds):
    out = io.StringIO()
    out.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(callbacks, "_SECONDS_BETWEEN", seconds)
    table = EpochTable(10)
    # As while the rest of an epoch is trained.
    table.set_params({"epochs": 9, "steps": 3})
    for epoch in (8, 9):
        table.on_epoch_begin(epoch)
        table.on_train_batch_end(0)
        logs = {"accuracy": 0.9, "loss": 1.25, "adversarial_accuracy": 0.5, "val_accuracy": 1.0, "val_loss": 1.0}
        table.on_epoch_end(epoch, {**logs, "val_robust_accuracy": 0.055})
    table.on_train_end()
    # The bar is drawn over itself, and then removed.
    lines = out.getvalue().splitlines() if not terminal else out.getvalue().replace("\r", "\n").splitlines()
    table = [line for line in lines if line.strip() and "step" not in line]
    assert table[0].split() == ["epoch", "loss", "accuracy", "attacked", "validation", "attacked", "seconds"]
    assert table[1].split()[:-1] == ["9/10", "1.2500", "90.0", "%", "50.0", "%", "100.0", "%", "5.5", "%"]
    assert len(table) == 3 and len({len(line) for line in table}) == 1 and len(table[0]) < 80
    assert ("\r" in out.getvalue()) == terminal
    assert any("1 of 3 steps, " in line for line in lines) == (seconds < 0 and not terminal)
    assert any("| 1/3 steps, " in line for line in lines) == terminal
