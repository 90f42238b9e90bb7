import json
import signal

import keras
import numpy as np
import pytest

from wasser_tf.runtime import interruption
from wasser_tf.training.checkpoint import Checkpoint


def _model():
    keras.utils.set_random_seed(1)
    image = keras.Input((4, 4, 1))
    x = keras.layers.Dense(6, activation="relu")(keras.layers.Flatten()(image))
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    model = keras.Model(image, keras.layers.Dense(3)(x))
    schedule = keras.optimizers.schedules.CosineDecay(0.05, 24)
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def _fit(path, epochs, *, until=None, stop_at=None):
    rng = np.random.default_rng(0)
    images, labels = rng.random((24, 4, 4, 1), np.float32), rng.integers(0, 3, 24)
    model = _model()
    checkpoint = Checkpoint(path, model, model, 0.5)
    done, skipped = checkpoint.epochs_done, 8 * checkpoint.steps_done
    callbacks = [
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: _stop(*stop_at, batch)),
        checkpoint,
    ]
    for start, first, last in ((skipped, done, done + 1), (0, done + 1, until or epochs)):
        if skipped:
            # The metrics' variables, which the pipeline makes by Distribution.make_variables.
            with keras.StatelessScope():
                model.compute_metrics(images[:1], labels[:1], model(images[:1], training=False))
        model.fit(
            images[start:],
            labels[start:],
            validation_data=(images, labels),
            batch_size=8,
            shuffle=False,
            initial_epoch=first,
            epochs=last,
            callbacks=callbacks if stop_at else [checkpoint],
            verbose=0,
        )
    return model, checkpoint


def _stop(signal_number, at, batch):
    if batch == at:
        signal.raise_signal(signal_number)


def test_a_resumed_run_equals_an_undisturbed_one(tmp_path):
    whole, whole_checkpoint = _fit(tmp_path / "whole.npz", 5)
    _fit(tmp_path / "parts.npz", 5, until=2)
    resumed, checkpoint = _fit(tmp_path / "parts.npz", 5)
    # Dropout's masks too: variables hold its seed's state.
    for one, two in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(whole.optimizer.variables, resumed.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    assert checkpoint.history == whole_checkpoint.history and len(checkpoint.history) == 5
    assert checkpoint.best_epoch == whole_checkpoint.best_epoch
    for one, two in zip(whole_checkpoint.best, checkpoint.best, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_batch_and_the_run_resumes_there(tmp_path, signal_number, code):
    whole, whole_checkpoint = _fit(tmp_path / "whole.npz", 3)
    before = signal.getsignal(signal_number)
    with pytest.raises(interruption.Interrupted) as stopped, interruption.watched():
        _fit(tmp_path / "parts.npz", 3, stop_at=(signal_number, 1))
    assert stopped.value.exit_code == code and signal.getsignal(signal_number) is before
    model = _model()
    saved = Checkpoint(tmp_path / "parts.npz", model, model, 0.5)
    assert (saved.epochs_done, saved.steps_done) == (0, 2)
    resumed, checkpoint = _fit(tmp_path / "parts.npz", 3)
    for one, two in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    # The mean over the epoch too, of which each process saw a part.
    assert checkpoint.history == whole_checkpoint.history


def test_a_stop_request_after_the_last_batch_finishes_the_epoch(tmp_path):
    with pytest.raises(interruption.Interrupted), interruption.watched():
        _fit(tmp_path / "parts.npz", 3, stop_at=(signal.SIGTERM, 2))
    model = _model()
    saved = Checkpoint(tmp_path / "parts.npz", model, model, 0.5)
    assert (saved.epochs_done, saved.steps_done) == (1, 0)


def test_keeps_the_best_epoch(tmp_path):
    model = _model()
    checkpoint = Checkpoint(tmp_path / "c.npz", model, model, omega=0.75)
    before = model.get_weights()
    checkpoint.restore_best()
    logs = [
        {"val_accuracy": 0.9, "val_robust_accuracy": 0.1, "val_loss": 1.0},
        {"val_accuracy": 0.6, "val_robust_accuracy": 0.4, "val_loss": 1.0},
        {"val_accuracy": 0.6, "val_robust_accuracy": 0.4, "val_loss": 0.9},
        {"val_accuracy": 0.8, "val_robust_accuracy": 0.3, "val_loss": 0.1},
    ]
    for epoch, log in enumerate(logs):
        model.set_weights([np.full_like(weight, epoch) for weight in before])
        checkpoint.on_epoch_end(epoch, {"loss": 1.0, **log})
    # 0.75 · 0.4 + 0.25 · 0.6, and of the two the one with the lower loss.
    assert checkpoint.best_epoch == 3
    again = Checkpoint(tmp_path / "c.npz", model, model, omega=0.75)
    assert (again.epochs_done, again.best_epoch) == (4, 3)
    again.restore_best()
    assert all((weight == 2).all() for weight in model.get_weights())


def test_keeps_the_last_epoch_if_set(tmp_path):
    model = _model()
    checkpoint = Checkpoint(tmp_path / "c.npz", model, model, 0.5, keep_last=True)
    for epoch, accuracy in enumerate((0.9, 0.6)):
        model.set_weights([np.full_like(weight, epoch) for weight in model.get_weights()])
        checkpoint.on_epoch_end(epoch, {"loss": 1.0, "val_accuracy": accuracy, "val_loss": 1.0})
    assert checkpoint.best_epoch == 2 and all((weight == 1).all() for weight in checkpoint.best)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_refuses_a_loss_that_is_not_finite(tmp_path, loss):
    model = _model()
    checkpoint = Checkpoint(tmp_path / "c.npz", model, model, 0.5)
    with pytest.raises(ValueError, match="in epoch 1: lower the learning rate"):
        checkpoint.on_epoch_end(0, {"loss": loss, "val_accuracy": 0.5, "val_loss": 1.0})
    assert not list(tmp_path.iterdir())


def test_refuses_broken_files_and_other_models(tmp_path):
    model = _model()
    path = tmp_path / "c.npz"
    Checkpoint(path, model, model, 0.5).on_epoch_end(0, {"loss": 1.0, "val_accuracy": 0.5, "val_loss": 1.0})
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    other.compile("adam", "mse")
    with pytest.raises(ValueError, match="another model"):
        Checkpoint(path, other, other, 0.5)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="is not a checkpoint"):
        Checkpoint(path, model, model, 0.5)


def test_saving_within_epochs_can_be_disabled_and_checks_the_metrics(tmp_path):
    model = _model()
    shared = Checkpoint(tmp_path / "shared.npz", model, model, 0.5, within_epochs=False)
    shared.set_params({"steps": 3})
    own = Checkpoint(tmp_path / "own.npz", model, model, 0.5)
    own.set_params({"steps": 3})
    for checkpoint in (shared, own):
        with pytest.raises(interruption.Interrupted), interruption.watched():
            checkpoint.on_train_batch_end(0)
            signal.raise_signal(signal.SIGTERM)
            checkpoint.on_train_batch_end(1)
    assert [path.name for path in tmp_path.iterdir()] == ["own.npz"]
    with np.load(tmp_path / "own.npz") as file:
        arrays = dict(file)
    arrays["metric_0000"] = np.zeros((5, 7))
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(ValueError, match="own.npz has the metrics of another model"):
        Checkpoint(tmp_path / "own.npz", model, model, 0.5).on_epoch_begin(0)
    # Another epoch has nothing to go on with.
    Checkpoint(tmp_path / "own.npz", model, model, 0.5).on_epoch_begin(1)


def test_the_first_of_equal_epochs_is_kept_and_natural_accuracy_replaces_a_missing_robust_one(tmp_path):
    model = _model()
    checkpoint = Checkpoint(tmp_path / "c.npz", model, model, omega=1.0)
    for epoch, accuracy in enumerate((0.5, 0.7, 0.7, 0.6)):
        checkpoint.on_epoch_end(epoch, {"loss": 1.0, "val_accuracy": accuracy, "val_loss": 1.0})
    assert checkpoint.best_epoch == 2
    # What was trained elsewhere.
    weights = [weight + 1 for weight in model.get_weights()]
    checkpoint.steps_done = 3
    checkpoint.finish([{"epoch": 1, "loss": 0.5}], weights, 1)
    again = Checkpoint(tmp_path / "c.npz", model, model, omega=1.0)
    assert (again.epochs_done, again.steps_done, again.best_epoch) == (1, 0, 1)
    assert again.history == [{"epoch": 1, "loss": 0.5}]
    again.restore_best()
    np.testing.assert_array_equal(model.get_weights()[0], weights[0])


def test_a_file_of_an_older_version_has_no_steps(tmp_path):
    model = _model()
    Checkpoint(tmp_path / "c.npz", model, model, 0.5).on_epoch_end(0, {"loss": 1.0, "val_accuracy": 1, "val_loss": 1})
    with np.load(tmp_path / "c.npz") as file:
        arrays = dict(file)
    state = json.loads(str(arrays["state"]))
    del state["steps_done"]
    np.savez(tmp_path / "c.npz", **{**arrays, "state": np.array(json.dumps(state))})
    again = Checkpoint(tmp_path / "c.npz", model, model, 0.5)
    assert (again.epochs_done, again.steps_done, again.best_epoch) == (1, 0, 1)
    np.savez(tmp_path / "c.npz", **{**arrays, "state": np.array(json.dumps({**state, "history": 3}))})
    with pytest.raises(ValueError, match="its state has the format of another program"):
        Checkpoint(tmp_path / "c.npz", model, model, 0.5)


@pytest.mark.parametrize("change", ["no state", "no history", "no best_epoch", "not JSON"])
def test_a_file_without_a_part_of_the_state_is_refused(tmp_path, change):
    model = _model()
    path = tmp_path / "c.npz"
    Checkpoint(path, model, model, 0.5).on_epoch_end(0, {"loss": 1.0, "val_accuracy": 1, "val_loss": 1})
    with np.load(path) as file:
        arrays = dict(file)
    state = json.loads(str(arrays.pop("state")))
    if change == "not JSON":
        arrays["state"] = np.array("{")
    elif change != "no state":
        del state[change.removeprefix("no ")]
        arrays["state"] = np.array(json.dumps(state))
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="c.npz is not a checkpoint .*: start again with --overwrite"):
        Checkpoint(path, model, model, 0.5)
