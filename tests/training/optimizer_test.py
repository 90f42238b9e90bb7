import keras
import numpy as np
import pytest

from wasser_tf import MirrorAscent, ThreatModel
from wasser_tf.training import optimizer
from wasser_tf.training.config import TrainConfig


def _make(steps, **fields):
    return optimizer.make_optimizer(TrainConfig(output_dir="x", attack=MirrorAscent(ThreatModel()), **fields), steps)


def _rates(made, steps):
    rates = []
    for step in range(steps + 1):
        made.iterations.assign(step)
        rates.append(float(made.learning_rate))
    return np.array(rates)


def test_the_learning_rate_falls_along_a_cosine_after_rising_evenly():
    falling = 0.5 * (1 + np.cos(np.pi * np.arange(9) / 8))
    np.testing.assert_allclose(_rates(_make(8, learning_rate=0.5), 8), 0.5 * falling, atol=1e-7)
    rates = _rates(_make(10, learning_rate=0.5, warmup=0.2), 10)
    np.testing.assert_allclose(rates, 0.5 * np.concatenate([[0, 0.5], falling]), atol=1e-7)
    np.testing.assert_allclose(
        _rates(_make(4, learning_rate=0.5, warmup=0.25), 4), [0, 0.5, 0.375, 0.125, 0], atol=1e-7
    )
    np.testing.assert_allclose(_rates(_make(2, learning_rate=0.5, warmup=0.9), 2), [0, 0.5, 0], atol=1e-7)
    np.testing.assert_allclose(_rates(_make(1, learning_rate=0.5), 1), [0.5, 0], atol=1e-7)
    # However short a training is, there is something left to fall.
    assert _rates(_make(1, warmup=0.9), 1)[0] > 0 == _make(0).iterations


def test_momentum_is_nesterov():
    made = _make(10, optimizer="SGD", momentum=0.9)
    assert made.momentum == 0.9 and made.nesterov is True and made.weight_decay is None
    plain = _make(10, optimizer="sgd")
    assert plain.momentum == 0.0 and plain.nesterov is False


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_weight_decay_applies_to_kernels_only(name):
    made = _make(1, optimizer=name, learning_rate=0.5, weight_decay=0.1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])
    for weight in model.trainable_weights:
        weight.assign(np.ones(weight.shape))
    made.apply([np.zeros(weight.shape, np.float32) for weight in model.trainable_weights], model.trainable_weights)
    for weight in model.trainable_weights:
        np.testing.assert_allclose(weight, 1 - 0.5 * 0.1 * (weight.name == "kernel"), rtol=1e-6)


def test_without_a_given_decay_adamw_keeps_its_default():
    assert _make(1, optimizer="adamw").weight_decay == keras.optimizers.AdamW().weight_decay


def test_the_learning_rate_may_fall_along_a_line():
    falling = 0.5 * np.linspace(1, 0, 9)
    np.testing.assert_allclose(_rates(_make(8, learning_rate=0.5, decay="linear"), 8), falling, atol=1e-7)
    rates = _rates(_make(10, learning_rate=0.5, warmup=0.2, decay="linear"), 12)
    np.testing.assert_allclose(rates, 0.5 * np.array([0, 0.5, *falling / 0.5, 0, 0]), atol=1e-7)
    schedule = optimizer.LinearDecay(0.0, 8, warmup_target=0.5, warmup_steps=2)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert again.get_config() == schedule.get_config()
