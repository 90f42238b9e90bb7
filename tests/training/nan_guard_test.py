import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.training.nan_guard import StopWhenNotFinite

_SHAPE = (3, 2, 1)


def _batch(epoch, step):
    return {"image": np.full((1, *_SHAPE), 10 * epoch + step, np.float32)}


def _fit(path, *, weight=0.1, poison=(), learning_rate=0.1, first_step=0, activation=None):
    """Trains for two epochs of three steps; `poison` are the rows whose loss is weighed by NaN."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input(_SHAPE), keras.layers.Flatten(), keras.layers.Dense(2, activation=activation)]
    model = keras.Sequential(layers)
    model.layers[-1].set_weights([np.full((6, 2), weight, np.float32), np.zeros(2, np.float32)])
    model.compile(keras.optimizers.SGD(learning_rate), "mse")
    weights = np.ones(12, np.float32)
    weights[list(poison)] = np.nan
    callback = StopWhenNotFinite(path, _batch, first_step=first_step)
    x, y = np.ones((12, *_SHAPE), np.float32), np.zeros((12, 2), np.float32)
    model.fit(x, y, sample_weight=weights, batch_size=4, epochs=2, shuffle=False, callbacks=[callback], verbose=0)


def test_finite_numbers_pass(tmp_path):
    _fit(tmp_path / "batch.npz")
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_nan_stops_with_its_batch(tmp_path):
    with pytest.raises(ValueError, match="After step 2 of epoch 1 the loss is nan and 2 of 2 weights are not finite"):
        _fit(tmp_path / "batch.npz", poison=[5])
    with np.load(tmp_path / "batch.npz") as saved:
        assert (saved["epoch"], saved["step"], saved["image"].max()) == (1, 2, 1)


def test_steps_of_an_earlier_process_are_counted(tmp_path):
    with pytest.raises(ValueError, match="After step 7 of epoch 1"):
        _fit(tmp_path / "batch.npz", poison=[5], first_step=5)


def test_infinite_weights_stop_though_the_loss_is_finite(tmp_path):
    # The step itself overflows: gradients of 1e3 times a learning rate of 1e37.
    with pytest.raises(ValueError, match="After step 1 of epoch 1 2 of 2 weights are not finite"):
        _fit(tmp_path / "batch.npz", weight=100.0, learning_rate=1e37)


def test_a_gradient_that_is_nan_stops(tmp_path):
    @tf.custom_gradient
    def broken(x):
        return x, lambda upstream: upstream * np.nan

    # The loss of this step is a number.
    with pytest.raises(ValueError, match="After step 1 of epoch 1 2 of 2 weights are not finite, the first"):
        _fit(tmp_path / "batch.npz", activation=broken)


def _fit_scaled(path, *, initial_scale, activation=None):
    """Trains in float16 with a scaled loss, from outputs of 600: five epochs of three steps."""
    keras.utils.set_random_seed(0)
    image = keras.Input(_SHAPE)
    dense = keras.layers.Dense(2, activation=activation, dtype="mixed_float16")
    model = keras.Model(image, dense(keras.layers.Flatten(dtype="mixed_float16")(image)))
    dense.set_weights([np.full((6, 2), 100.0, np.float32), np.zeros(2, np.float32)])
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-3), initial_scale=initial_scale)
    model.compile(optimizer, "mse")
    x, y = np.ones((12, *_SHAPE), np.float32), np.zeros((12, 2), np.float32)
    callback = StopWhenNotFinite(path, _batch)
    model.fit(x, y, batch_size=4, epochs=5, shuffle=False, callbacks=[callback], verbose=0)
    return dense, optimizer


def test_steps_that_loss_scaling_leaves_out_pass(tmp_path):
    # The gradient is 600; times a scale above 109 it is none of float16's numbers.
    dense, optimizer = _fit_scaled(tmp_path / "batch.npz", initial_scale=2.0**15)
    assert float(optimizer.dynamic_scale) == 64 and int(optimizer.iterations) == 15 - 9
    assert (dense.get_weights()[0] < 100).all() and not list(tmp_path.iterdir())


def test_a_gradient_that_is_finite_at_no_scale_stops_the_training(tmp_path):
    @tf.custom_gradient
    def broken(x):
        return x, lambda upstream: upstream * np.nan

    # At the scales 4, 2 and 1.
    with pytest.raises(ValueError, match="After step 3 of epoch 1 the gradient is not finite, though the loss is not"):
        _fit_scaled(tmp_path / "batch.npz", initial_scale=4.0, activation=broken)
    with np.load(tmp_path / "batch.npz") as saved:
        assert (saved["epoch"], saved["step"], saved["image"].max()) == (1, 3, 2)
