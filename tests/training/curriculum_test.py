"""Schedules of ε and ω: values, resumption and saving."""

import dataclasses
import math
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

import wasser_tf
from wasser_tf import Cosine, LinearRamp, Staircase, WasserTrain, attacks
from wasser_tf.training.schedules import counts_epochs, parse_schedule, schedule_value

BALL = wasser_tf.ThreatModel(epsilon=0.3)
# Its examples cost little to compile.
ATTACK = attacks.LinfPGD(BALL, iterations=1)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.random((12, 4, 4, 1), np.float32), rng.integers(0, 3, 12).astype(np.int32)


def compiled(attack=ATTACK, learning_rate=0.1, **settings):
    keras.utils.set_random_seed(3)
    classifier = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model = WasserTrain(classifier, attack, **settings)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), loss, metrics=["accuracy"])
    return model


def fit(model, data, epochs=3, **options):
    """Three steps an epoch."""
    options = {"batch_size": 4, "shuffle": False, "verbose": 0, "epochs": epochs, **options}
    return model.fit(*data, **options).history


def _two_values(step):
    if step < 5:
        return 0.1
    return 0.2


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (LinearRamp(0.1, 0.5, steps=4), {0: 0.1, 1: 0.2, 4: 0.5, 2**40: 0.5}),
        (LinearRamp(0.5, 0.1, epochs=2), {0: 0.5, 3: 0.35, 8: 0.1, 9: 0.1}),
        (Cosine(0.0, 1.0, epochs=1), {0: 0.0, 1: 0.5 - math.sqrt(0.125), 2: 0.5, 4: 1.0, 9: 1.0}),
        (Staircase([0.1, 0.2, 0.4], steps=3), {0: 0.1, 2: 0.1, 3: 0.2, 6: 0.4, 2**40: 0.4}),
        (Staircase((0.1, 0.2), epochs=1.5), {5: 0.1, 6: 0.2}),
        (keras.optimizers.schedules.PolynomialDecay(0.0, 4, 0.4, power=1.0), {0: 0.0, 2: 0.2, 4: 0.4}),
        (_two_values, {4: 0.1, 5: 0.2}),
        (lambda step, steps_per_epoch: tf.cast(step / steps_per_epoch, tf.float32), {2: 0.5, 8: 2.0}),
    ],
)
def test_schedule_values(schedule, values):
    @tf.function(autograph=False)
    def in_graph(step):
        return schedule_value(schedule, step, tf.constant(4, tf.int64))

    for step, value in values.items():
        found = in_graph(tf.constant(step, tf.int64))
        assert found.dtype == tf.float32 and float(found) == pytest.approx(value, abs=1e-6)


def test_schedules_are_immutable_comparable_and_serialisable():
    for schedule in (LinearRamp(0, 0.3, epochs=10), Cosine(0.1, 0.2, steps=5), Staircase([0.1, 0.2], epochs=2)):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
        assert again == schedule == pickle.loads(pickle.dumps(schedule)) and hash(again) == hash(schedule)
        assert dataclasses.replace(schedule, epochs=3, steps=None) != schedule
        with pytest.raises(dataclasses.FrozenInstanceError):
            schedule.epochs = 3


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("linear:0:0.3:10epochs", LinearRamp(0, 0.3, epochs=10)),
        ("cosine:0.1:1e-2: 500 steps", Cosine(0.1, 0.01, steps=500)),
        ("staircase:0.1:0.2:0.3:1epoch", Staircase([0.1, 0.2, 0.3], epochs=1)),
        ("staircase:0.1:1.5epochs", Staircase([0.1], epochs=1.5)),
    ],
)
def test_reads_schedules(text, schedule):
    assert parse_schedule(text) == schedule


@pytest.mark.parametrize(
    "text",
    "|0.3|linear|linear:0:0.3|linear:0:10epochs|linear:0:0.3:10|linear:0:0.3:0epochs|linear:0:nan:3epochs|"
    "ramp:0:1:3epochs|staircase:3epochs|linear:0:0.3:-1steps|cosine:a:1:3steps".split("|"),
)
def test_refuses_malformed_schedules(text):
    with pytest.raises(ValueError, match="A schedule is given as linear:START:END:LENGTH"):
        parse_schedule(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"omega": LinearRamp(0, 1.5, epochs=1)}, "omega must be a number from 0 to 1 at every step, got 1.5"),
        ({"omega": lambda: 0.5}, "omega must be a callable of the step.* at step 0 raises TypeError"),
        ({"epsilon": lambda step: "much"}, "epsilon must be a callable of the step.* that returns one number"),
        ({"omega": lambda step: -0.1}, "omega must be a number from 0 to 1 at every step, got -0.1"),
        ({"epsilon": Staircase([0.1, -0.1], steps=1)}, "epsilon must be a finite number of at least 0 at every step"),
        ({"epsilon": -0.1}, "epsilon must be a finite number of at least 0"),
        ({"epsilon": "linear"}, "epsilon must be a finite number of at least 0"),
        ({"epsilon": 0.1, "attack": attacks.Distributional(BALL)}, "distributional has no radius"),
        (
            {"epsilon": 0.1, "attack": wasser_tf.MirrorAscent(BALL, schedule=wasser_tf.RadiusSchedule())},
            "mirror_ascent sets the radius itself",
        ),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be a whole number of at least 1, or None"),
    ],
)
def test_invalid_schedules_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        compiled(**settings)


def test_invalid_lengths_are_refused():
    for length in ({}, {"epochs": 1, "steps": 1}, {"epochs": 0}, {"steps": math.inf}):
        with pytest.raises(ValueError, match="LinearRamp"):
            LinearRamp(0.0, 1.0, **length)
    with pytest.raises(ValueError, match="at least one number"):
        Staircase([], epochs=1)
    with pytest.raises(ValueError, match="needs steps_per_epoch"):
        LinearRamp(0.0, 1.0, epochs=1).value(3)


def test_scheduled_training_equals_values_set_by_hand(data):
    """Each step is that of a WasserTrain with the numbers of the step; traced once."""
    epsilon, omega = LinearRamp(0.0, 0.4, epochs=2), Staircase([0.0, 0.25, 1.0], steps=2)
    calls = []

    class Counting(attacks.LinfPGD):
        def perturb(self, problem):
            calls.append(1)
            return super().perturb(problem)

    model = compiled(Counting(BALL, iterations=1), epsilon=epsilon, omega=omega)
    traced = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: calls.append(epoch))
    logs = fit(model, data, callbacks=[traced])
    # TensorFlow traces the function that makes the metrics' variables twice, and never again.
    assert calls == [1, 1, 0, 1, 2]
    assert logs["epsilon"] == pytest.approx([0.4 * 2 / 6, 0.4 * 5 / 6, 0.4])
    assert logs["omega"] == pytest.approx([0.25, 1.0, 1.0])
    by_hand = compiled(epsilon=0.0, omega=0.0)
    for step in range(9):
        # Set together, so that a step of ω = 0 is like one of the schedule.
        by_hand.epsilon, by_hand.omega = 0.4 * min(step / 6, 1), [0.0, 0.25, 1.0][min(step // 2, 2)]
        rows = slice(4 * (step % 3), 4 * (step % 3) + 4)
        by_hand.train_on_batch(data[0][rows], data[1][rows])
    for one, two in zip(model.classifier.get_weights(), by_hand.classifier.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_without_a_schedule_nothing_is_added(data):
    model = compiled()
    assert "epsilon" not in fit(model, data, epochs=1) and len(model.variables) == 2


def test_validation_is_at_the_radius_of_the_attack_and_shows_no_schedule(data):
    model = compiled(learning_rate=0.0, epsilon=LinearRamp(0.0, 0.1, steps=5), omega=LinearRamp(0.0, 1.0, epochs=1))
    logs = fit(model, data, epochs=2, validation_data=data)
    scores = compiled(learning_rate=0.0, omega=1.0).evaluate(*data, batch_size=4, verbose=0, return_dict=True)
    assert logs["val_adversarial_loss"] == pytest.approx([scores["adversarial_loss"]] * 2, rel=1e-5)
    assert not {"val_epsilon", "val_omega"} & set(logs)
    # The mixture is that of the last ω.
    assert logs["val_loss"][-1] == pytest.approx(scores["loss"], rel=1e-5)


def test_a_saved_model_resumes_its_curriculum(data, tmp_path):
    settings = {"epsilon": Cosine(0.0, 0.4, epochs=4), "omega": Staircase([0.2, 0.9], epochs=2)}
    whole = compiled(**settings)
    logs = fit(whole, data, epochs=4)
    part = compiled(**settings)
    fit(part, data, epochs=2)
    part.save(tmp_path / "part.keras")
    rest = keras.saving.load_model(tmp_path / "part.keras")
    assert (rest.epsilon, rest.omega) == (settings["epsilon"], settings["omega"])
    later = fit(rest, data, epochs=4, initial_epoch=2)
    assert {name: values[2:] for name, values in logs.items()} == later
    for one, two in zip(whole.get_weights(), rest.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_epochs_need_a_number_of_steps(data):
    schedule = {"omega": LinearRamp(0, 1, epochs=2)}
    unknown = tf.data.Dataset.from_tensor_slices(data).batch(4).filter(lambda *_: True)
    for use in (lambda model: model.fit(unknown, verbose=0), lambda model: model.train_on_batch(*data)):
        with pytest.raises(ValueError, match="The schedule of omega counts epochs.*pass steps_per_epoch"):
            use(compiled(**schedule))
    assert compiled(**schedule, steps_per_epoch=4).fit(unknown, verbose=0).history["omega"] == pytest.approx([0.25])
    assert counts_epochs(schedule["omega"]) and not counts_epochs(LinearRamp(0, 1, steps=2)) and not counts_epochs(0.5)


def test_a_callable_out_of_range_stops_the_training(data):
    model = compiled(omega=lambda step: 0.5 if step < 3 else 1.5)
    with pytest.raises(ValueError, match="omega must be a number from 0 to 1 at every step, got 1.5 from"):
        fit(model, data)


def test_setting_a_schedule_takes_effect_or_is_refused(data):
    model = compiled()
    with pytest.raises(ValueError, match="omega can become a schedule only in a WasserTrain that was made with one"):
        model.omega = LinearRamp(0, 1, epochs=1)
    model = compiled(omega=LinearRamp(0, 1, steps=1))
    model.epsilon = LinearRamp(0.1, 0.3, steps=2)
    assert model.train_on_batch(*data, return_dict=True)["epsilon"] == pytest.approx(0.1)
    model.epsilon, model.omega = None, 0.5
    logs = model.train_on_batch(*data, return_dict=True)
    assert not {"epsilon", "omega"} & set(logs)
    with pytest.raises(AttributeError, match="steps_per_epoch cannot be changed"):
        model.steps_per_epoch = 3
