"""WasserTrain's settings may be set at any time: the next step uses them."""

import keras
import numpy as np
import pytest

import wasser_tf
from wasser_tf import WasserTrain, attacks

BALL = wasser_tf.ThreatModel(epsilon=0.05)
# Its examples cost little to compile, and a larger radius is always worse for a linear classifier.
WEAK, STRONG = attacks.LinfPGD(BALL, iterations=1), attacks.LinfPGD(BALL.with_epsilon(0.4), iterations=1)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.random((8, 4, 4, 1), np.float32), rng.integers(0, 3, 8).astype(np.int32)


def compiled(attack=WEAK, learning_rate=0.0, **settings):
    keras.utils.set_random_seed(3)
    classifier = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model = WasserTrain(classifier, attack, **settings)
    model.compile(keras.optimizers.SGD(learning_rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def logs_of(model, data):
    """The logs of one step of training, which learns nothing, and of one of evaluation."""
    return (
        model.train_on_batch(*data, return_dict=True),
        model.evaluate(*data, batch_size=8, verbose=0, return_dict=True),
    )


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({}, {"attack": STRONG}),
        ({}, {"omega": 0.2}),
        ({}, {"trades_beta": 3.0}),
        ({}, {"matching": 9.0}),
        ({"attack": STRONG}, {"random_radius": True}),
        ({}, {"attack_chunk": 4}),
    ],
)
def test_a_setting_takes_effect_at_the_next_step(settings, change, data):
    model, expected = compiled(**settings), compiled(**{**settings, **change})
    before = logs_of(model, data)
    for name, value in change.items():
        setattr(model, name, value)
        assert getattr(model, name) == value
    after = logs_of(model, data)
    wanted = [logs_of(expected, data) for _ in range(2)][1]
    for found, right in zip(after, wanted, strict=True):
        assert found == pytest.approx(right, rel=1e-6)
    if "attack_chunk" not in change:
        assert after[0]["loss"] != pytest.approx(before[0]["loss"], rel=1e-3)
    assert model.get_config()["omega"] == model.omega


def test_a_callback_may_change_a_setting_within_fit(data):
    class Change(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.seen = [*getattr(self, "seen", []), logs["adversarial_loss"]]
            self.model.reset_metrics()
            if batch == 0:
                self.model.attack = STRONG

    change = Change()
    x, y = np.concatenate([data[0]] * 3), np.concatenate([data[1]] * 3)
    compiled().fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[change])
    weak, strong = logs_of(compiled(), data)[1], logs_of(compiled(STRONG), data)[1]
    wanted = [weak["adversarial_loss"], strong["adversarial_loss"], strong["adversarial_loss"]]
    # Random starts differ from step to step; one step reaches the corner from each.
    assert change.seen == pytest.approx(wanted, rel=1e-2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("attack", "mirror_ascent", "attack must be a wasser_tf.attacks.Attack"),
        ("omega", 1.5, "omega must be a finite number from 0 to 1"),
        ("attack_chunk", 0, "attack_chunk must be"),
        ("random_radius", 1, "random_radius must be True or False"),
        ("trades_beta", -1.0, "trades_beta must be"),
        ("matching", -1.0, "matching must be"),
    ],
)
def test_a_bad_value_is_refused_and_changes_nothing(name, value, message):
    model = compiled()
    before = getattr(model, name)
    with pytest.raises(ValueError, match=message):
        setattr(model, name, value)
    assert getattr(model, name) == before


def test_an_attack_must_suit_the_other_settings():
    model = compiled(random_radius=True)
    with pytest.raises(ValueError, match="distributional has none"):
        model.attack = attacks.Distributional(BALL)
    classifier = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model = WasserTrain(classifier, wasser_tf.MirrorAscent(BALL), warm_start=0.5, num_examples=8)
    with pytest.raises(ValueError, match="warm_start needs"):
        model.attack = WEAK


@pytest.mark.parametrize("name", ["classifier", "warm_start"])
def test_the_classifier_and_the_warm_start_cannot_be_replaced(name):
    model = compiled()
    with pytest.raises(AttributeError, match=f"{name} cannot be changed after construction: make a new WasserTrain"):
        setattr(model, name, getattr(model, name))
