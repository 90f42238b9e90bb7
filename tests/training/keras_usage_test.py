"""WasserTrain used as any Keras model: its callbacks, frozen classifiers, labels and datasets of all kinds."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import wasser_tf
from wasser_tf import WasserTrain, attacks

# Its examples cost little to compile.
ATTACK = attacks.LinfPGD(wasser_tf.ThreatModel(epsilon=0.2), iterations=1)
_SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
_CATEGORICAL = keras.losses.CategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.random((12, 4, 4, 1), np.float32), rng.integers(0, 3, 12).astype(np.int32)


def compiled(loss=_SPARSE, learning_rate=0.1, classifier=None, metrics=("accuracy",), **options):
    keras.utils.set_random_seed(3)
    classifier = classifier or keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model = WasserTrain(classifier, ATTACK)
    model.compile(keras.optimizers.SGD(learning_rate), loss, metrics=list(metrics), **options)
    return model


class _Scripted(keras.callbacks.Callback):
    """Gives a metric the values of a script, at the end of each epoch."""

    def __init__(self, monitor, values):
        super().__init__()
        self.monitored, self.values = monitor, values

    def on_epoch_end(self, epoch, logs=None):
        assert self.monitored in logs
        logs[self.monitored] = self.values[epoch]


_RISES, _FALLS = [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]
_METRICS = ("accuracy", keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="nats"))
_BETTER = {
    "adversarial_accuracy": _RISES,
    "val_adversarial_accuracy": _RISES,
    "val_accuracy": _RISES,
    "adversarial_loss": _FALLS,
    "val_adversarial_loss": _FALLS,
    "val_natural_loss": _FALLS,
    "val_loss": _FALLS,
    "val_adversarial_nats": _FALLS,
    "val_nats": _FALLS,
}


@pytest.fixture(scope="module")
def measured():
    """One model for all, which does not learn: what it would be worth is scripted."""
    return compiled(learning_rate=1e-9, metrics=_METRICS)


@pytest.mark.parametrize("monitor", _BETTER)
def test_callbacks_know_the_direction_of_every_metric(measured, data, monitor, tmp_path):
    """EarlyStopping, ModelCheckpoint and ReduceLROnPlateau with mode="auto", where the metric gets better and worse."""
    for values in (_BETTER[monitor], _BETTER[monitor][::-1]):
        better = values == _BETTER[monitor]
        path = tmp_path / f"{better}-{{epoch}}.weights.h5"
        measured.optimizer.learning_rate = 1e-9
        callbacks = [
            _Scripted(monitor, values),
            keras.callbacks.ModelCheckpoint(path, monitor, save_best_only=True, save_weights_only=True),
            keras.callbacks.ReduceLROnPlateau(monitor, patience=1, factor=0.5),
            keras.callbacks.EarlyStopping(monitor, patience=2),
        ]
        history = measured.fit(
            *data, validation_data=data, batch_size=12, epochs=3, verbose=0, callbacks=callbacks
        ).history
        assert len(list(tmp_path.glob(f"{better}-*"))) == (3 if better else 1)
        assert (float(measured.optimizer.learning_rate) == pytest.approx(1e-9)) == better
        assert len(history["loss"]) == 3 and (callbacks[3].stopped_epoch == 2) == (not better)
        assert {one.monitor_op.__name__ for one in callbacks[1:]} == {"greater" if "accuracy" in monitor else "less"}


def test_early_stopping_on_adversarial_accuracy_ends_a_training(data):
    stopping = keras.callbacks.EarlyStopping("val_adversarial_accuracy", patience=0, restore_best_weights=True)
    model = compiled(learning_rate=0.0)
    history = model.fit(*data, validation_data=data, epochs=5, verbose=0, callbacks=stopping).history
    # The second epoch is no better than the first.
    assert len(history["val_adversarial_accuracy"]) == 2 and stopping.mode == "max"


def test_callbacks_within_an_epoch_and_callback_lists_are_supported(data, tmp_path):
    model = compiled()
    saving = keras.callbacks.ModelCheckpoint(
        tmp_path / "{batch}.weights.h5",
        "adversarial_accuracy",
        save_best_only=True,
        save_weights_only=True,
        save_freq=2,
    )
    listed = keras.callbacks.CallbackList([saving], add_history=True, model=model, epochs=1, steps=3)
    model.fit(*data, batch_size=4, verbose=0, callbacks=listed)
    assert saving.mode == "max" and len(list(tmp_path.iterdir())) == 1


def test_metrics_of_unknown_direction_behave_as_in_keras(data):
    def odd(y, z):
        return keras.ops.mean(z, axis=-1)

    model = compiled(metrics=(odd,))
    stopping = keras.callbacks.EarlyStopping("val_adversarial_odd")
    plain = compiled().classifier
    plain.compile("sgd", _SPARSE, metrics=[odd])
    natural = keras.callbacks.EarlyStopping("val_odd")
    for one, callback in ((model, stopping), (plain, natural)):
        try:
            one.fit(*data, validation_data=data, verbose=0, callbacks=[callback])
            outcome = callback.monitor_op.__name__
        except ValueError as error:
            outcome = str(error).replace("adversarial_", "")
        expected = outcome if one is model else expected  # noqa: F821
        assert outcome == expected


def test_tensorboard_gets_every_metric(data, tmp_path, monkeypatch):
    written = []
    pytest.importorskip("tensorboard")
    board = keras.callbacks.TensorBoard(tmp_path)
    monkeypatch.setattr(board.summary, "scalar", lambda name, *_, **__: written.append(name))
    compiled().fit(*data, validation_data=data, verbose=0, callbacks=[board])
    assert {"epoch_adversarial_accuracy", "epoch_adversarial_loss", "epoch_natural_loss"} <= set(written)


def test_a_frozen_classifier_is_attacked_and_measured_with_a_warning(data):
    model = compiled(learning_rate=1.0)
    model.classifier.trainable = False
    weights = model.classifier.get_weights()
    with pytest.warns(UserWarning, match="has no trainable weights"):
        logs = model.fit(*data, batch_size=12, verbose=0).history
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = model.evaluate(*data, batch_size=12, verbose=0, return_dict=True)
    assert logs["loss"][0] == pytest.approx(scores["loss"], rel=1e-5)
    for one, two in zip(weights, model.classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    # And on again.
    model.classifier.trainable = True
    model.compile(keras.optimizers.SGD(1.0), _SPARSE)
    model.fit(*data, batch_size=12, verbose=0)
    assert not np.array_equal(weights[0], model.classifier.get_weights()[0])


@pytest.mark.parametrize("use", ["fit", "evaluate"])
def test_labels_are_needed(data, use):
    images = data[0]
    for x in (images, tf.constant(images), tf.data.Dataset.from_tensor_slices(images).batch(4)):
        with pytest.raises(ValueError, match="^Labels are needed: pass y, or a dataset"):
            getattr(compiled(), use)(x, verbose=0)
    assert compiled().predict(images, verbose=0).shape == (12, 3)


def _subclassed():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(3)

        def call(self, images):
            return self.dense(self.flatten(images))

    return Subclassed()


@pytest.mark.parametrize(
    ("options", "use"),
    [
        ({}, "fit"),
        ({"run_eagerly": True}, "evaluate"),
        ({"jit_compile": True}, "fit"),
        ({"jit_compile": True}, "validation"),
    ],
    ids=["graph", "eager", "xla", "xla-validation"],
)
def test_labels_out_of_range_are_refused_in_the_first_step(data, options, use):
    images, labels = data
    model = compiled(**options)
    weights = model.get_weights()
    wrong = tf.data.Dataset.from_tensor_slices((images, labels - 1)).batch(4)
    with pytest.raises(ValueError, match="^labels must be whole numbers, 0 to 2, as the classifier has 3 classes") as e:
        if use == "validation":
            model.optimizer.learning_rate = 0.0
            model.fit(images, labels, validation_data=wrong, batch_size=4, verbose=0)
        else:
            getattr(model, use)(wrong, verbose=0)
    assert "\n" not in str(e.value)
    for one, two in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("labels", "loss", "message"),
    [
        (np.int64([0, 1, 3, 2]), _SPARSE, "labels must be whole numbers, 0 to 2"),
        (np.int64([[0], [1], [-1], [2]]), _SPARSE, "labels must be whole numbers, 0 to 2"),
        (np.float32([0, 1, 0.5, 2]), _SPARSE, "labels must be whole numbers, 0 to 2"),
        (np.float32([0, 1, np.nan, 2]), _SPARSE, "labels must be whole numbers, 0 to 2"),
        (np.int64([[1, 0, 1]] * 4), _CATEGORICAL, "multi-label"),
        (np.float32([[0.4, 0.8, 0.9]] * 4), keras.losses.BinaryCrossentropy(from_logits=True), "multi-label"),
        (np.float32([[-1, 2, 0]] * 4), _CATEGORICAL, "not negative"),
        (np.int64([[1, 0]] * 4), _CATEGORICAL, r"soft rows \[B, 3\]"),
    ],
)
def test_refuses_labels_of_datasets_and_arrays(data, labels, loss, message):
    images = data[0][:4]
    with pytest.raises(ValueError, match=message):
        compiled(loss, run_eagerly=True).fit(tf.data.Dataset.from_tensors((images, labels)), verbose=0)
    with pytest.raises(ValueError, match="labels"):
        compiled(loss).fit(images, labels, verbose=0)


def test_refuses_labels_of_a_subclassed_classifier(data):
    wrong = tf.data.Dataset.from_tensors((data[0], data[1] + 1))
    with pytest.raises(ValueError, match="^labels must be whole numbers, 0 to 2, as the classifier has 3 classes"):
        compiled(classifier=_subclassed()).fit(wrong, verbose=0)


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}], ids=["graph", "xla"])
def test_good_datasets_of_all_forms_train_alike(data, options):
    images, labels = data
    expected = None
    for element in (
        (images, labels),
        (images, labels[:, None]),
        (images, np.float32(labels)),
        (images, labels, np.ones(12, np.float32)),
        ({"image": images}, labels),
    )[:: 4 if options else 1]:
        model = compiled(**options)
        model.fit(tf.data.Dataset.from_tensors(element), verbose=0)
        expected = model.get_weights() if expected is None else expected
        for one, two in zip(expected, model.get_weights(), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)


def test_soft_labels_train(data):
    soft = 0.9 * np.eye(3, dtype=np.float32)[data[1]] + 0.1 / 3
    assert np.isfinite(compiled(_CATEGORICAL).fit(data[0], soft, verbose=0).history["loss"][0])


@pytest.mark.parametrize("outside", ["classifier", "both"])
def test_a_classifier_built_outside_the_strategy_scope_is_refused(outside):
    """Plain Keras raises an AssertionError without a message in its first step."""
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])

    def made():
        return keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])

    classifier = made()
    model = WasserTrain(classifier, ATTACK)
    with strategy.scope(), pytest.raises(ValueError, match="made outside the scope of the MirroredStrategy.*build or"):
        (model if outside == "both" else WasserTrain(classifier, ATTACK)).compile("sgd", _SPARSE)
    with strategy.scope():
        WasserTrain(made(), ATTACK).compile("sgd", _SPARSE)
