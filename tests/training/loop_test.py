"""Training loops on forty digits: selection of the epoch, and exact resumption."""

import json
import signal
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import MirrorAscent, ThreatModel, data
from wasser_tf.data import augmentation
from wasser_tf.runs import train
from wasser_tf.runtime import interruption
from wasser_tf.training import loop
from wasser_tf.training.callbacks import EpochTable
from wasser_tf.training.config import TrainConfig
from wasser_tf.training.distribution import Distribution


class _Cheap(MirrorAscent):
    """Of mirror ascent the protocol alone: what is attacked is darker the longer it was attacked."""

    def run(self, logits_fn, images, labels, radius=None, index=None):
        return types.SimpleNamespace(adversarial=images * (1 - radius[:, None, None, None]))

    def problem(self, logits_fn, images, labels, radius=None, index=None):
        return images, radius

    def resume(self, problem, potential):
        images, radius = problem
        return images / (1 + radius[:, None, None, None] + potential), potential + images


_ATTACK = _Cheap(ThreatModel(epsilon=0.3))


def _config(folder, **fields):
    usual = {"attack": _ATTACK, "model": "linear", "batch_size": 10, "learning_rate": 0.05}
    return TrainConfig(**{"output_dir": str(folder), **usual, **fields})


@pytest.fixture(scope="module")
def digits():
    dataset = data.load("digits")
    return dataset._replace(train=data.Split(*(array[:40] for array in dataset.train)))


@pytest.fixture(autouse=True)
def cheap_validation(monkeypatch):
    """Validation images are attacked as cheaply: what is bright is right, whatever the classifier."""

    def attack(classifier, images, labels, *, radius, **options):
        logits = classifier(images * (1 - radius), training=False).numpy()
        return types.SimpleNamespace(success=logits.argmax(axis=1) != labels)

    monkeypatch.setattr(loop, "validation_attack", lambda config: attack)


def _context(config, dataset, folder=None):
    return loop.TrainingContext(config=config, dataset=dataset, folder=folder)


def _train(name, folder, dataset, config):
    """One phase of a run; returns its classifier and the epoch that was kept."""
    first, robust = train.build_models(config, dataset, Distribution())
    trained, classifier = {"standard": (first, first), "wasser_train": (robust, robust.classifier)}[name]
    return classifier, loop.train(_context(config, dataset, folder), name, trained)


def _checkpoint(folder, name):
    with np.load(folder / "checkpoints" / f"{name}.npz") as file:
        return dict(file)


def _same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def _poisoned(dataset, split, classifier):
    """Labels the images of a split with what the classifier takes them least for."""
    part = getattr(dataset, split)
    labels = classifier(part.images, training=False).numpy().argmin(axis=1).astype(np.int32)
    return dataset._replace(**{split: part._replace(labels=labels)})


@pytest.mark.parametrize("name", ["standard", "wasser_train"])
def test_validation_images_and_not_test_images_choose_the_epoch(digits, tmp_path, name):
    config = _config(tmp_path, epochs=3, standard_epochs=3)
    classifier, best_epoch = _train(name, tmp_path / "usual", digits, config)
    again, again_epoch = _train(name, tmp_path / "test", _poisoned(digits, "test", classifier), config)
    assert again_epoch == best_epoch and _same(again.get_weights(), classifier.get_weights())
    assert _checkpoint(tmp_path / "usual", name)["state"] == _checkpoint(tmp_path / "test", name)["state"]
    # The more is learnt, the less likely are these labels.
    other, other_epoch = _train(name, tmp_path / "validation", _poisoned(digits, "validation", classifier), config)
    assert other_epoch == 1 < best_epoch and not _same(other.get_weights(), classifier.get_weights())
    # What was trained is the same all the same.
    usual, poisoned = (_checkpoint(tmp_path / folder, name) for folder in ("usual", "validation"))
    assert _same(*([part[key] for key in usual if key.startswith("variable_")] for part in (usual, poisoned)))


def _whole_and_in_parts(name, folder, dataset, config, monkeypatch, capsys):
    """A phase that nothing disturbed, and one that was stopped within its second epoch: classifiers, checkpoints."""

    class Stopping(EpochTable):
        def on_train_batch_end(self, batch, logs=None):
            if (self._epoch, batch) == (1, 1):
                signal.raise_signal(signal.SIGTERM)

    whole, _ = _train(name, folder / "whole", dataset, config)
    with monkeypatch.context() as patch, pytest.raises(interruption.Interrupted), interruption.watched():
        patch.setattr(loop, "EpochTable", Stopping)
        _train(name, folder / "parts", dataset, config)
    capsys.readouterr()
    resumed, best_epoch = _train(name, folder / "parts", dataset, config)
    epochs = config.epochs if name == "wasser_train" else config.standard_epochs
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == f"{name}: {epochs} epochs, of which 1 were done before, and 2 steps"
    assert lines[-1] == f"{name}: epoch {best_epoch} is kept, which is the best on the validation split"
    saved = [_checkpoint(folder / part, name) for part in ("whole", "parts")]
    assert saved[0].keys() == saved[1].keys()
    for key, array in saved[0].items():
        np.testing.assert_array_equal(array, saved[1][key], err_msg=key)
    assert _same(whole.get_weights(), resumed.get_weights())
    # Once more: nothing is left to do.
    again, again_epoch = _train(name, folder / "parts", dataset, config)
    assert again_epoch == best_epoch and _same(again.get_weights(), whole.get_weights())
    assert f"of which {epochs} were done before" in capsys.readouterr().out
    return whole, saved[0]


def test_a_resumed_run_has_the_same_augmentation_and_averages(digits, tmp_path, monkeypatch, capsys):
    config = _config(
        tmp_path,
        model="mlp",
        standard_epochs=3,
        augment="shift",
        ema_momentum=0.8,
        optimizer="sgd",
        momentum=0.9,
        weight_decay=1e-3,
        warmup=0.3,
    )
    whole, saved = _whole_and_in_parts("standard", tmp_path, digits, config, monkeypatch, capsys)
    # What is left is the average that was best, not the weights that were trained.
    best = [array for key, array in sorted(saved.items()) if key.startswith("best_")]
    assert _same(whole.get_weights(), best) and not np.array_equal(best[0], saved["variable_0000"])


def test_a_resumed_run_continues_its_warm_started_attacks(digits, tmp_path, monkeypatch, capsys):
    config = _config(tmp_path, epochs=2, warm_start=0.75)
    _, saved = _whole_and_in_parts("wasser_train", tmp_path, digits, config, monkeypatch, capsys)
    # A potential of each image: that of two epochs, of which the first has faded once.
    (potentials,) = (array for array in saved.values() if array.shape == (40, 8, 8, 1))
    np.testing.assert_allclose(potentials, 1.75 * digits.train.images, rtol=2e-3)


def test_a_resumed_run_continues_its_curricula(digits, tmp_path, monkeypatch, capsys):
    schedules = {"epsilon_schedule": "linear:0:0.3:2epochs", "omega_schedule": "staircase:0.2:0.6:5steps"}
    for seed in (0, 1):
        config = _config(tmp_path, epochs=2, seed=seed, **schedules)
        _, saved = _whole_and_in_parts("wasser_train", tmp_path / str(seed), digits, config, monkeypatch, capsys)
        rows = json.loads(str(saved["state"]))["history"]
        # Of four steps each, the values of the last.
        assert [row["epsilon"] for row in rows] == pytest.approx([0.3 * 3 / 8, 0.3 * 7 / 8])
        assert [row["omega"] for row in rows] == pytest.approx([0.2, 0.6])
        assert 8 in [int(array) for array in saved.values() if array.dtype == np.int64 and array.ndim == 0]


def test_training_steps_equal_those_of_keras(digits, tmp_path):
    """Averages, augments and smooths: against a loop that has none of the callbacks."""
    config = _config(tmp_path, standard_epochs=2, augment="shift", ema_momentum=0.5, label_smoothing=0.1, seed=3)
    classifier, _ = _train("standard", tmp_path, digits, config)
    model, _ = train.build_models(config, digits, Distribution())
    mean = model.get_weights()
    best = []
    optimizer = keras.optimizers.Adam()
    change = augmentation.make_augmentation("shift", (8, 8, 1))
    for epoch in range(2):
        order = np.random.RandomState([3, epoch]).permutation(40)
        for step in range(4):
            done = 4 * epoch + step
            optimizer.learning_rate = 0.05 * 0.5 * (1 + np.cos(np.pi * done / 8))
            rows = order[10 * step : 10 * step + 10]
            images = change(tf.constant(digits.train.images[rows]), data.step_seed(3, epoch, step))
            labels = 0.9 * np.eye(10, dtype=np.float32)[digits.train.labels[rows]] + 0.01
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels, model(images, training=True)))
            optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)
            keep = min(0.5, (2 + done) / (11 + done))
            mean = [keep * old + (1 - keep) * new for old, new in zip(mean, model.get_weights(), strict=True)]
        best.append(mean)
    saved = _checkpoint(tmp_path, "standard")
    trained = [saved[key] for key in sorted(saved) if key.startswith("variable_")][:2]
    for found, expected in zip(trained, model.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    averages = [any(np.allclose(classifier.get_weights()[0], mean[0], atol=1e-4) for mean in best)]
    assert averages == [True]


@pytest.mark.parametrize(("epochs", "keep"), [(0, "best"), (2, "last")])
def test_without_selection_the_initial_or_last_weights_are_kept(digits, tmp_path, capsys, epochs, keep):
    config = _config(tmp_path, standard_epochs=epochs, keep=keep)
    trained = loop.classifier_of(config, digits)
    initial = trained.get_weights()
    classifier, best_epoch = _train("standard", tmp_path, _poisoned(digits, "validation", trained), config)
    assert best_epoch == epochs and _same(classifier.get_weights(), initial) == (not epochs)
    said = capsys.readouterr().out
    assert said.startswith(f"\nstandard: {epochs} epochs\n")
    assert said.endswith("standard: epoch 2 is kept, which is the last\n") == (epochs == 2)


def test_a_worker_that_is_not_the_chief_saves_nothing_and_stops_when_asked(digits, tmp_path):
    config = _config(tmp_path, standard_epochs=2)
    first, _ = train.build_models(config, digits, Distribution())
    assert loop.train(_context(config, digits), "standard", first) == 0
    chief, _ = _train("standard", tmp_path / "chief", digits, _config(tmp_path, standard_epochs=2, keep="last"))
    assert _same(first.get_weights(), chief.get_weights())
    with pytest.raises(interruption.Interrupted), interruption.watched():
        signal.raise_signal(signal.SIGINT)
        loop.train(_context(config, digits), "standard", first)


def test_history_has_a_line_for_each_epoch_of_each_phase(digits, tmp_path):
    config = _config(tmp_path, standard_epochs=1, epochs=2)
    context = _context(config, digits, tmp_path)
    first, robust = train.build_models(config, digits, Distribution())
    loop.train(context, "standard", first)
    loop.train(context, "wasser_train", robust, title="far")
    history = context.history
    lines = [line.split(",") for line in (tmp_path / "history.csv").read_text().splitlines()]
    assert [line[:2] for line in lines] == [
        ["phase", "epoch"],
        ["standard", "1"],
        ["wasser_train", "1"],
        ["wasser_train", "2"],
    ]
    assert [{name: str(row.get(name, "")) for name in lines[0]} for row in history] == [
        dict(zip(lines[0], line, strict=True)) for line in lines[1:]
    ]
    assert "val_robust_accuracy" not in history[0] and history[1]["val_robust_accuracy"] > 0


def test_the_batch_that_was_not_finite_is_the_augmented_one(digits, tmp_path):
    config = _config(tmp_path, augment="shift", seed=3)
    change = augmentation.make_augmentation("shift", digits.image_shape)
    batches = data.batches(digits.train, 10, shuffle=True, seed=3, epoch=2, drop_remainder=True, augment=change)
    images, labels = list(batches.take(3))[-1]
    found = loop._nan_guard(_context(config, digits, tmp_path), "standard", change, 0)._batch(2, 2)
    np.testing.assert_array_equal(found["image"], images)
    np.testing.assert_array_equal(found["label"], labels)
    assert found["phase"] == "standard"
    rows = np.searchsorted(digits.train.index, found["index"])
    assert not np.array_equal(found["image"], digits.train.images[rows])


def test_a_run_stops_at_a_batch_that_is_not_finite(digits, tmp_path):
    config = _config(tmp_path, optimizer="sgd", learning_rate=1e38)
    with pytest.raises(ValueError, match="After step .* of epoch 1 .*not_finite.npz"):
        _train("standard", tmp_path, digits, config)
    with np.load(tmp_path / "not_finite.npz") as found:
        rows = data.epoch_order(40, 0, 0)[10 * (found["step"] - 1) : 10 * found["step"]]
        np.testing.assert_array_equal(found["image"], digits.train.images[rows])
        np.testing.assert_array_equal(found["index"], digits.train.index[rows])
