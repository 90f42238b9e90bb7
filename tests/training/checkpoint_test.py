import keras
import numpy as np
import pytest

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


def _fit(path, epochs, *, until=None):
    rng = np.random.default_rng(0)
    images, labels = rng.random((24, 4, 4, 1), np.float32), rng.integers(0, 3, 24)
    model = _model()
    checkpoint = Checkpoint(path, model, model, 0.5)
    model.fit(
        images,
        labels,
        validation_data=(images, labels),
        batch_size=8,
        shuffle=False,
        initial_epoch=checkpoint.epochs_done,
        epochs=until or epochs,
        callbacks=[checkpoint],
        verbose=0,
    )
    return model, checkpoint


def test_goes_on_as_if_it_had_not_stopped(tmp_path):
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
    with pytest.raises(ValueError, match="is no checkpoint"):
        Checkpoint(path, model, model, 0.5)
