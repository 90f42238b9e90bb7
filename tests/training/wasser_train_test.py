import dataclasses
import inspect

import keras
import numpy as np
import pytest
import scipy
import tensorflow as tf

import wasser_tf
from wasser_tf import WasserTrain, attacks, models
from wasser_tf.attacks import Attack, AttackResult
from wasser_tf.models.logits import as_logits_fn

_SPARSE = keras.losses.SparseCategoricalCrossentropy
_CATEGORICAL = keras.losses.CategoricalCrossentropy


class Fast(Attack):
    """Not a Wasserstein attack, but one of the protocol that takes no time: one step along the sign of the gradient."""

    name = "fast"

    iterations: int = 1

    def perturb(self, problem):
        raise NotImplementedError

    def run(self, logits_fn, images, labels, radius=None, index=None):
        labels = tf.argmax(labels, axis=1) if labels.shape.rank == 2 else labels
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(labels, tf.int32), logits_fn(images))
        step = self.threat_model.epsilon * tf.sign(tape.gradient(loss, images))
        return AttackResult(tf.clip_by_value(images + step, 0, 1), *[None] * 9)


class Swap(Fast):
    """Swaps the columns."""

    def run(self, logits_fn, images, labels, radius=None, index=None):
        return AttackResult(tf.reverse(images, [2]), *[None] * 9)


class Noise(Fast):
    """Noise by the index."""

    def run(self, logits_fn, images, labels, radius=None, index=None):
        noise = tf.map_fn(
            lambda i: tf.random.stateless_uniform(images.shape[1:], tf.stack([0, i])),
            index,
            fn_output_signature=tf.float32,
        )
        return AttackResult(noise, *[None] * 9)


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setitem(attacks.ATTACKS, "fast", Fast)
    return Fast(wasser_tf.ThreatModel(epsilon=0.1))


def _data(count=24, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((count, 6, 5, 1), np.float32), rng.integers(0, classes, count).astype(np.int32)


def _classifier(*, softmax=False, random=False, classes=3):
    """Equal calls give equal classifiers."""
    keras.utils.set_random_seed(3)
    image = keras.Input((6, 5, 1), name="image")
    x = keras.layers.Dense(8, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01))(
        keras.layers.Flatten()(image)
    )
    if random:
        x = keras.layers.Dropout(0.4, seed=5)(keras.layers.BatchNormalization()(x))
    return keras.Model(image, keras.layers.Dense(classes, activation="softmax" if softmax else None)(x))


def _train(attack, *, classifier=None, omega=0.7, attack_chunk=None, loss=None, epochs=2, y=None, fit=None, **options):
    """Trains on three batches an epoch, and returns the model."""
    images, labels = _data()
    model = WasserTrain(_classifier() if classifier is None else classifier, attack, omega, attack_chunk=attack_chunk)
    options.setdefault("optimizer", keras.optimizers.SGD(0.2, momentum=0.9))
    model.compile(loss=_SPARSE(from_logits=True) if loss is None else loss, metrics=["accuracy"], **options)
    keras.utils.set_random_seed(1)
    model.fit(images, labels if y is None else y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, **(fit or {}))
    return model


def _assert_same_weights(model, other, atol=1e-6):
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=atol, rtol=0)


@pytest.mark.parametrize("omega", [-0.1, 1.1, float("nan"), "0.7", True, None])
def test_refuses_omega(fast, omega):
    with pytest.raises(ValueError, match="omega must be a finite number from 0 to 1"):
        WasserTrain(_classifier(), fast, omega)


@pytest.mark.parametrize("attack_chunk", [0, -1, 2.5, True, "8"])
def test_refuses_attack_chunk(fast, attack_chunk):
    with pytest.raises(ValueError, match="attack_chunk must be a whole number of at least 1, or None"):
        WasserTrain(_classifier(), fast, attack_chunk=attack_chunk)


@pytest.mark.parametrize("attack", [None, "mirror_ascent", wasser_tf.ThreatModel(), Fast])
def test_refuses_other_objects_as_attacks(attack):
    with pytest.raises(ValueError, match="attack must be a wasser_tf.attacks.Attack"):
        WasserTrain(_classifier(), attack)


def test_refuses_other_objects_as_classifiers(fast):
    with pytest.raises(ValueError, match="classifier must be a keras.Model, got Dense"):
        WasserTrain(keras.layers.Dense(3), fast)
    image = keras.Input((6, 5, 1))
    with pytest.raises(ValueError, match=r"must return \[n, classes\]"):
        WasserTrain(keras.Model(image, keras.layers.Conv2D(3, 1)(image)), fast)
    flat = keras.layers.Flatten()(image)
    with pytest.raises(ValueError, match=r"has 2 outputs: .*: choose the one with the classes"):
        WasserTrain(keras.Model(image, [keras.layers.Dense(3)(flat), keras.layers.Dense(3)(flat)]), fast)
    with pytest.raises(ValueError, match="at least 2 classes"):
        WasserTrain(keras.Model(image, keras.layers.Dense(1)(flat)), fast)
    fixed = keras.Input((6, 5, 1), batch_size=8)
    with pytest.raises(ValueError, match="without batch_size"):
        WasserTrain(keras.Model(fixed, keras.layers.Dense(3)(keras.layers.Flatten()(fixed))), fast)


def test_refuses_losses_that_do_not_suit(fast):
    with pytest.raises(ValueError, match="needs a loss"):
        WasserTrain(_classifier(), fast).compile("adam")
    for loss in ("sparse_categorical_crossentropy", _SPARSE(), keras.losses.sparse_categorical_crossentropy):
        with pytest.raises(ValueError, match="from_logits=True"):
            WasserTrain(_classifier(), fast).compile("adam", loss)
    with pytest.raises(ValueError, match="from_logits=False"):
        WasserTrain(_classifier(softmax=True), fast).compile("adam", _SPARSE(from_logits=True))
    # Where neither says anything there is nothing to contradict.
    WasserTrain(_classifier(), fast).compile("adam", lambda y, z: keras.ops.mean(z))


def test_invalid_images_are_refused(fast):
    images, labels = _data()
    model = WasserTrain(_classifier(), fast)
    model.compile("adam", _SPARSE(from_logits=True))
    for wrong, message in [
        (np.uint8(255 * images), "divide 8-bit images by 255"),
        (255 * images, r"must lie in \[0, 1\]"),
        (images * np.nan, "must be finite"),
        (images[..., 0], "must have shape"),
        (np.moveaxis(images, 3, 1), "channels last"),
    ]:
        for use in (model.fit, model.evaluate):
            for given in (wrong, tf.constant(wrong)):
                with pytest.raises(ValueError, match=message):
                    use(given, labels, verbose=0)
    with pytest.raises(ValueError, match="labels must be 0 to 2"):
        model.fit(images, labels + 1, verbose=0)
    with pytest.raises(ValueError, match="divide 8-bit images by 255"):
        model.fit(tf.data.Dataset.from_tensors((np.uint8(255 * images), labels)), verbose=0)


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}], ids=["graph", "eager"])
def test_batches_of_other_shapes_are_refused(fast, options):
    images, labels = _data()
    model = WasserTrain(_classifier(), fast)
    model.compile("adam", _SPARSE(from_logits=True), **options)
    weights = model.get_weights()
    for wrong in (255 * images, images - 0.5, np.where(images > 0.9, np.nan, images)):
        dataset = tf.data.Dataset.from_tensor_slices((wrong, labels)).batch(8)
        for use in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match=r"^images must be finite and lie in \[0, 1\]") as refused:
                use(dataset, verbose=0)
            assert "\n" not in str(refused.value)
    # Nothing was learnt from them.
    for one, two in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_refuses_metrics_that_cannot_be_copied(fast):
    class Odd(keras.metrics.Mean):
        def __init__(self, must_be_given):
            super().__init__(name="odd")

    with pytest.raises(ValueError, match="'odd' cannot be copied"):
        WasserTrain(_classifier(), fast).compile("adam", _SPARSE(from_logits=True), metrics=[Odd(1)])


def _worked(attack=None, **fit):
    # W = 0, so p = (½, ½) whatever the image, and ∂L/∂W = x ⊗ (p − e_y) = x ⊗ (−½, ½) for y = 0. Of x = (1, 0) and
    # x̃ = (0, 1) the mixture of Eq. 10 has the gradient (ω x̃ + (1 − ω) x) ⊗ (−½, ½); SGD with step 1 subtracts it:
    # W = (0.3, 0.7) ⊗ (½, −½).
    image = keras.Input((1, 2, 1))
    dense = keras.layers.Dense(2, use_bias=False, kernel_initializer="zeros")
    attack = attack or Swap(wasser_tf.ThreatModel())
    model = WasserTrain(keras.Model(image, dense(keras.layers.Flatten()(image))), attack, omega=0.7)
    model.compile(keras.optimizers.SGD(1.0), _SPARSE(from_logits=True))
    model.fit(**fit, verbose=0)
    np.testing.assert_allclose(dense.get_weights()[0], [[0.15, -0.15], [0.35, -0.35]], atol=1e-7)


def test_a_step_equals_one_computed_by_hand():
    _worked(x=np.float32([[[[1], [0]]]]), y=np.int32([0]))


def test_an_adaptive_radius_ignores_epsilon():
    attack = Swap(wasser_tf.ThreatModel(epsilon=0.0), schedule=wasser_tf.RadiusSchedule())
    _worked(attack, x=np.float32([[[[1], [0]]]]), y=np.int32([0]))


def test_sample_weights_apply_to_both_losses():
    # Keras divides by the number of examples, not by their weights: (2 · the first + 0 · the second) / 2.
    x, y = np.float32([[[[1], [0]]], [[[0.3], [0.9]]]]), np.int32([0, 1])
    _worked(x=x, y=y, sample_weight=np.float32([2, 0]))


def test_class_weights_apply_to_both_losses():
    x, y = np.float32([[[[1], [0]]], [[[0.3], [0.9]]]]), np.int32([0, 1])
    _worked(x=x, y=y, class_weight={0: 2.0, 1: 0.0})


@pytest.mark.parametrize(
    ("omega", "attack"),
    [
        (0.0, Fast(wasser_tf.ThreatModel(epsilon=0.1))),
        (0.7, Fast(wasser_tf.ThreatModel(epsilon=0.0))),
        (0.7, wasser_tf.MirrorAscent(wasser_tf.ThreatModel(epsilon=0.1), iterations=0)),
    ],
    ids=["omega 0", "epsilon 0", "iterations 0"],
)
def test_without_an_adversarial_term_training_equals_that_of_keras(omega, attack):
    images, labels = _data()
    plain = _classifier(random=True)
    plain.compile(keras.optimizers.Adam(0.01), _SPARSE(from_logits=True), metrics=["accuracy"])
    history = plain.fit(images, labels, batch_size=8, epochs=3, shuffle=False, verbose=0).history
    model = _train(
        attack, classifier=_classifier(random=True), omega=omega, optimizer=keras.optimizers.Adam(0.01), epochs=3
    )
    _assert_same_weights(model, plain)
    logs = model.history.history
    for key, equal in [("loss", "loss"), ("natural_loss", "loss"), ("accuracy", "accuracy")]:
        np.testing.assert_allclose(logs[key], history[equal], rtol=1e-6)
    # Not known with ω = 0, and not said; with x̃ = x the same as the natural ones.
    assert ("adversarial_loss" in logs) == ("adversarial_accuracy" in logs) == (omega > 0)
    if omega:
        np.testing.assert_allclose(logs["adversarial_accuracy"], history["accuracy"], rtol=1e-6)


@pytest.mark.parametrize("softmax", [False, True])
def test_the_loss_of_trades(softmax):
    images, labels = _data(8)
    classifier = _classifier(softmax=softmax)
    weights = np.linspace(0, 2, 8, dtype=np.float32)
    model = WasserTrain(classifier, Swap(wasser_tf.ThreatModel()), trades_beta=3.0)
    model.compile(keras.optimizers.SGD(0.1), _SPARSE(from_logits=not softmax))
    scores = model.evaluate(images, labels, sample_weight=weights, batch_size=8, return_dict=True, verbose=0)
    natural, swapped = (
        outputs if softmax else scipy.special.softmax(outputs, axis=1)
        for outputs in (classifier.predict(x, verbose=0) for x in (images, images[:, :, ::-1]))
    )
    divergence = scipy.special.rel_entr(natural, swapped).sum(axis=1)
    expected = scores["natural_loss"] + 3.0 * np.mean(weights * divergence)
    assert expected > 1.05 * scores["natural_loss"]
    np.testing.assert_allclose(scores["loss"], expected, rtol=1e-5)
    # And it is what is trained on.
    history = model.fit(images, labels, batch_size=8, epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]


def test_refuses_trades_beta(fast):
    with pytest.raises(ValueError, match="trades_beta must be a finite number of at least 0, got -1"):
        WasserTrain(_classifier(), fast, trades_beta=-1.0)


def test_evaluate_returns_natural_and_adversarial_metrics(fast):
    images, labels = _data()
    model = _train(fast, fit={"validation_data": (images, labels)})
    plain = keras.models.clone_model(model.classifier)
    plain.set_weights(model.classifier.get_weights())
    plain.compile(loss=_SPARSE(from_logits=True), metrics=["accuracy"])
    scores = model.evaluate(images, labels, return_dict=True, verbose=0)
    natural = plain.evaluate(images, labels, return_dict=True, verbose=0)
    logits_fn = as_logits_fn(plain, True)
    adversarial = fast.run(logits_fn, tf.constant(images), tf.constant(labels)).adversarial.numpy()
    attacked = plain.evaluate(adversarial, labels, return_dict=True, verbose=0)
    expected = {
        "loss": 0.7 * attacked["loss"] + 0.3 * natural["loss"],
        "natural_loss": natural["loss"],
        "accuracy": natural["accuracy"],
        "adversarial_loss": attacked["loss"],
        "adversarial_accuracy": attacked["accuracy"],
    }
    assert scores.keys() == expected.keys()
    for key, value in expected.items():
        assert scores[key] == pytest.approx(value, rel=1e-5), key
        assert value > 0
    assert scores["adversarial_loss"] > scores["natural_loss"]
    # fit's last validation was at the same weights.
    logs = model.history.history
    assert logs.keys() == {*expected, *(f"val_{key}" for key in expected)}
    for key, value in expected.items():
        assert logs[f"val_{key}"][-1] == pytest.approx(value, rel=1e-5), key
    # Also with ω = 0, where fit says nothing of the adversarial ones.
    model.omega = 0.0
    assert model.evaluate(images, labels, return_dict=True, verbose=0)["adversarial_loss"] == pytest.approx(
        attacked["loss"], rel=1e-5
    )


def test_fit_reports_the_metrics_of_evaluate(fast):
    images, labels = _data()
    model = WasserTrain(_classifier(), fast)
    model.compile(keras.optimizers.SGD(0.0), _SPARSE(from_logits=True), metrics=["accuracy"])
    logs = model.fit(images, labels, batch_size=8, verbose=0).history
    scores = model.evaluate(images, labels, batch_size=8, return_dict=True, verbose=0)
    assert {key: values[0] for key, values in logs.items()} == pytest.approx(scores, rel=1e-5)
    assert scores["adversarial_accuracy"] < scores["accuracy"]


def test_metric_objects_are_copied_and_weighted(fast):
    images, labels = _data()
    model = WasserTrain(_classifier(), fast)
    top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
    model.compile("sgd", _SPARSE(from_logits=True), metrics=[top], weighted_metrics=["accuracy"])
    weights = np.float32(labels == 1)
    scores = model.evaluate(images, labels, sample_weight=weights, return_dict=True, verbose=0)
    assert {"top2", "adversarial_top2", "accuracy", "adversarial_accuracy"} < scores.keys()
    predicted = model.predict(images, verbose=0).argmax(axis=1)
    assert scores["accuracy"] == pytest.approx(np.mean(predicted[labels == 1] == 1))
    # What a second evaluation says does not add to the first.
    assert model.evaluate(images, labels, sample_weight=weights, return_dict=True, verbose=0) == pytest.approx(scores)


def test_predict_is_the_classifier(fast):
    images, _ = _data()
    model = _train(fast, classifier=_classifier(random=True))
    np.testing.assert_array_equal(model.predict(images, verbose=0), model.classifier.predict(images, verbose=0))
    np.testing.assert_array_equal(model(images), model.classifier(images, training=False))


def test_the_attack_does_not_update_batch_normalisation():
    images, labels = _data(8)
    image = keras.Input((6, 5, 1))
    norm = keras.layers.BatchNormalization(momentum=0.9)
    x = keras.layers.Flatten()(norm(keras.layers.Rescaling(2.0)(image)))
    attack = Fast(wasser_tf.ThreatModel(epsilon=0.3))
    model = WasserTrain(keras.Model(image, keras.layers.Dense(3)(x)), attack)
    model.compile(keras.optimizers.SGD(0.0), _SPARSE(from_logits=True))
    logits_fn = as_logits_fn(model.classifier, True)
    adversarial = attack.run(logits_fn, tf.constant(images), tf.constant(labels)).adversarial.numpy()
    model.evaluate(images, labels, verbose=0)
    np.testing.assert_array_equal(norm.moving_mean, 0)
    model.fit(images, labels, batch_size=8, verbose=0)
    np.testing.assert_allclose(norm.moving_mean, [0.1 * 2 * np.mean([images, adversarial])], rtol=1e-5)


def test_a_step_attacks_with_new_random_starts():
    images, labels = _data(8)
    model = WasserTrain(_classifier(), Noise(wasser_tf.ThreatModel()))
    model.compile(keras.optimizers.SGD(0.0), _SPARSE(from_logits=True))
    first, second = model.fit(images, labels, batch_size=8, epochs=2, verbose=0).history["adversarial_loss"]
    assert first != second


def test_labels_may_be_one_hot_or_columns(fast):
    _, labels = _data()
    model = _train(fast)
    one_hot = keras.utils.to_categorical(labels, 3)
    _assert_same_weights(model, _train(fast, y=one_hot, loss=_CATEGORICAL(from_logits=True)))
    _assert_same_weights(model, _train(fast, y=labels[:, None]))


@pytest.mark.parametrize("loss", [_SPARSE(), "sparse_categorical_crossentropy", "crossentropy"])
def test_classifiers_may_return_probabilities(fast, loss):
    model = _train(fast, classifier=_classifier(softmax=True), loss=loss)
    _assert_same_weights(model, _train(fast), atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 2}], ids=lambda o: next(iter(o))
)
def test_steps_are_equal_in_all_execution_modes(fast, options):
    model, other = _train(fast), _train(fast, **options)
    _assert_same_weights(model, other, atol=1e-5)
    for key in ("loss", "natural_loss", "adversarial_loss"):
        np.testing.assert_allclose(other.history.history[key], model.history.history[key], rtol=1e-4)
    assert other.history.history.keys() == model.history.history.keys()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(fast, policy):
    keras.config.set_dtype_policy(policy)
    try:
        classifier = _classifier()
    finally:
        keras.config.set_dtype_policy("float32")
    seen = []

    class Seen(Fast):
        def run(self, logits_fn, images, labels, **options):
            seen.append((images.dtype, logits_fn(images).dtype))
            return super().run(logits_fn, images, labels, **options)

    model = _train(Seen(fast.threat_model), classifier=classifier)
    # The policy is the classifier's, and so float16 has its loss scaled; the attack sees float32 all the same.
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    assert set(seen) == {(tf.float32, tf.float32)}
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    _assert_same_weights(model, _train(Fast(fast.threat_model)), atol=0.02)


def test_saves_and_loads_exactly(fast, tmp_path):
    images, labels = _data()
    model = _train(fast, optimizer=keras.optimizers.Adam(0.01), classifier=_classifier(random=True))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert isinstance(loaded, WasserTrain) and loaded.omega == 0.7 and loaded.name == model.name
    assert attacks.serialize(loaded.attack) == attacks.serialize(fast)
    _assert_same_weights(model, loaded, atol=0)
    for one, two in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    scores = model.evaluate(images, labels, return_dict=True, verbose=0)
    assert loaded.evaluate(images, labels, return_dict=True, verbose=0) == scores
    classifier = models.load_classifier(tmp_path / "model.keras")
    np.testing.assert_array_equal(classifier.predict(images, verbose=0), model.predict(images, verbose=0))
    # And goes on alike.
    for trained in (model, loaded):
        # Keras does not save the states of random seeds.
        trained.classifier.layers[4].seed_generator.state.assign([5, 0])
        trained.fit(images, labels, batch_size=8, shuffle=False, verbose=0)
    _assert_same_weights(model, loaded, atol=1e-6)


def test_config_round_trip(fast):
    model = WasserTrain(_classifier(), fast, omega=0.25, trades_beta=2.0, name="robust")
    again = WasserTrain.from_config(model.get_config())
    assert again.get_config() == model.get_config() and again.omega == 0.25 and again.name == "robust"


def test_backup_and_restore(fast, tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    whole = _train(fast, epochs=4)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        _train(fast, epochs=4, fit={"callbacks": [backup, Interrupt()]})
    resumed = _train(fast, epochs=4, fit={"callbacks": [keras.callbacks.BackupAndRestore(tmp_path / "backup")]})
    assert resumed.history.epoch == [2, 3]
    _assert_same_weights(whole, resumed, atol=0)


def test_an_unbuilt_classifier_is_built(fast):
    images, labels = _data()
    classifier = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    model = WasserTrain(classifier, fast)
    assert not model.built
    model.compile("sgd", _SPARSE(from_logits=True), metrics=["accuracy"])
    model.fit(images, labels, verbose=0)
    assert classifier.built
    late = WasserTrain(keras.Sequential([keras.layers.Conv2D(3, 1)]), fast)
    late.compile("sgd", _SPARSE(from_logits=True))
    with pytest.raises(ValueError, match=r"must return \[n, classes\] with at least 2 classes"):
        late.fit(images, labels, verbose=0)


@pytest.mark.parametrize("name", list(attacks.ATTACKS))
@pytest.mark.parametrize("schedule", [None, wasser_tf.RadiusSchedule()], ids=["fixed", "adaptive"])
def test_takes_any_attack(name, schedule):
    if schedule and name == "distributional":
        pytest.skip("it has no radius")
    # Traced only: the tests of the attacks run them, compiled alike. What may fail here is a graph that Keras makes.
    settings = {"schedule": schedule} if schedule else {}
    attack = attacks.make(name, wasser_tf.ThreatModel(epsilon=0.3, kernel_size=3), iterations=2, **settings)
    model = WasserTrain(_classifier(), attack)
    model.compile("sgd", _SPARSE(from_logits=True), metrics=["accuracy"])
    batch = (tf.TensorSpec([None, 6, 5, 1]), tf.TensorSpec([None], tf.int32))
    step = model.test_step if schedule else model.train_step  # They attack by the same function.
    logs = tf.function(step, autograph=False).get_concrete_function(batch).structured_outputs
    assert {"adversarial_loss", "adversarial_accuracy"} < logs.keys()


def test_a_smaller_last_batch_counts_by_its_images(fast, monkeypatch):
    images, labels = _data(20)
    model = WasserTrain(_classifier(), fast)
    model.compile(keras.optimizers.SGD(0.0), _SPARSE(from_logits=True), metrics=["accuracy"])
    traced, run = [], Fast.run
    monkeypatch.setattr(Fast, "run", lambda *arguments, **options: traced.append(None) or run(*arguments, **options))
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    logs = model.fit(dataset, epochs=2, shuffle=False, verbose=0).history
    # Keras traces a step once, and once more to make the variables of metrics: never for a size of batch.
    assert len(traced) <= 2
    whole = model.evaluate(images, labels, batch_size=20, return_dict=True, verbose=0)
    assert {key: values[-1] for key, values in logs.items()} == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_five_lines_with_a_wasserstein_attack(jit_compile):
    images, labels = _data(16)
    attack = wasser_tf.MirrorAscent(wasser_tf.ThreatModel(epsilon=0.3, kernel_size=3), iterations=10, polish=2)
    model = wasser_tf.WasserTrain(_classifier(), attack, omega=0.7)
    model.compile("adam", _SPARSE(from_logits=True), metrics=["accuracy"], jit_compile=jit_compile)
    logs = model.fit(images, labels, batch_size=8, epochs=2, verbose=0).history
    assert logs["adversarial_loss"][-1] > logs["natural_loss"][-1] > 0
    assert logs["loss"][-1] == pytest.approx(0.7 * logs["adversarial_loss"][-1] + 0.3 * logs["natural_loss"][-1])


class Sizes(Noise):
    """Noise by the index that notes how many images it is given."""

    seen: list = dataclasses.field(default_factory=list, hash=False)

    def run(self, logits_fn, images, labels, radius=None, index=None):
        tf.py_function(lambda count: self.seen.append(int(count)), [tf.shape(images)[0]], [])
        return super().run(logits_fn, images, labels, radius, index)


@pytest.fixture(scope="module")
def whole():
    return _train(Noise(wasser_tf.ThreatModel(), iterations=1), epochs=1)


@pytest.mark.parametrize(("chunk", "sizes"), [(1, {1}), (3, {3}), (5, {4}), (100, {8})])
def test_chunks_bound_the_images_attacked_at_a_time_and_change_nothing(whole, chunk, sizes):
    attack = Sizes(wasser_tf.ThreatModel(), iterations=1)
    images, labels = _data()
    model = WasserTrain(_classifier(), attack, attack_chunk=chunk)
    model.compile(keras.optimizers.SGD(0.2, momentum=0.9), loss=_SPARSE(from_logits=True))
    keras.utils.set_random_seed(1)
    model.fit(images, labels, batch_size=8, shuffle=False, verbose=0)
    _assert_same_weights(whole, model)
    assert set(attack.seen) == sizes and max(attack.seen) <= chunk
    assert WasserTrain.from_config({**model.get_config(), "attack": attacks.serialize(_MIRROR)}).attack_chunk == chunk


_MIRROR = wasser_tf.MirrorAscent(wasser_tf.ThreatModel(epsilon=0.3, kernel_size=3), iterations=2, polish=2)


def test_chunks_compiled_by_xla(fast):
    whole, chunks = (_train(fast, epochs=1, jit_compile=True, attack_chunk=chunk) for chunk in (None, 3))
    _assert_same_weights(whole, chunks, atol=1e-5)


def test_chunks_change_nothing_in_colour_with_batch_norm(fast):
    images = np.random.default_rng(2).random((16, 6, 5, 3), np.float32)
    _, labels = _data(16)

    def trained(chunk):
        keras.utils.set_random_seed(3)
        layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.ReLU()]
        classifier = keras.Sequential([keras.Input((6, 5, 3)), *layers, keras.layers.Flatten(), keras.layers.Dense(3)])
        model = WasserTrain(classifier, fast, attack_chunk=chunk)
        model.compile(keras.optimizers.SGD(0.1), loss=_SPARSE(from_logits=True))
        model.fit(images, labels, batch_size=8, epochs=2, shuffle=False, verbose=0)
        return model

    whole, chunks = trained(None), trained(3)
    _assert_same_weights(whole, chunks, atol=1e-5)
    # What would differ if a batch norm took its statistics from a chunk did move.
    assert np.abs(whole.classifier.layers[1].moving_mean.numpy()).max() > 1e-3


class Radii(Noise):
    """Notes the radii of what it attacks."""

    seen: list = dataclasses.field(default_factory=list, hash=False)

    def run(self, logits_fn, images, labels, radius=None, index=None):
        tf.py_function(lambda radii: self.seen.append(radii.numpy()), [radius], [])
        return super().run(logits_fn, images, labels, radius, index)


def _radii(**options):
    attack = Radii(wasser_tf.ThreatModel(epsilon=0.5), iterations=1)
    model = WasserTrain(_classifier(), attack, random_radius=True, **options)
    model.compile(keras.optimizers.SGD(0.1), loss=_SPARSE(from_logits=True))
    images, labels = _data()
    model.fit(images, labels, batch_size=8, epochs=2, shuffle=False, verbose=0)
    trained = np.concatenate(attack.seen)
    attack.seen.clear()
    model.evaluate(images, labels, batch_size=8, verbose=0)
    return trained, np.concatenate(attack.seen)


def test_random_radii_are_spread_evenly_and_evaluation_has_the_whole():
    trained, evaluated = _radii()
    assert len(np.unique(trained)) == len(trained) == 48
    # Any eighth of the range has its share, by two more or less.
    counts, _ = np.histogram(trained, bins=8, range=(0, 0.5))
    assert counts.sum() == 48 and abs(counts - 6).max() <= 2
    np.testing.assert_allclose(evaluated, 0.5)
    chunked, _ = _radii(attack_chunk=4)
    np.testing.assert_array_equal(trained, chunked)


@pytest.mark.parametrize("random_radius", [1, "yes", None])
def test_refuses_random_radius(fast, random_radius):
    with pytest.raises(ValueError, match="random_radius must be True or False"):
        WasserTrain(_classifier(), fast, random_radius=random_radius)


def test_a_schedule_and_random_radii_exclude_one_another():
    attack = wasser_tf.MirrorAscent(wasser_tf.ThreatModel(), schedule=wasser_tf.RadiusSchedule())
    with pytest.raises(ValueError, match="random_radius needs an attack without a schedule"):
        WasserTrain(_classifier(), attack, random_radius=True)
    without = attacks.make("distributional", wasser_tf.ThreatModel())
    with pytest.raises(ValueError, match="an attack that has a radius, and distributional has none"):
        WasserTrain(_classifier(), without, random_radius=True)


def test_without_random_radii_every_image_is_attacked_at_epsilon():
    attack = Radii(wasser_tf.ThreatModel(epsilon=0.5), iterations=1)
    _train(attack, epochs=1)
    assert len(attack.seen) == 3 and set(np.concatenate(attack.seen)) == {np.float32(0.5)}


class Indices(Noise):
    """Notes the indices of what it attacks."""

    seen: list = dataclasses.field(default_factory=list, hash=False)

    def run(self, logits_fn, images, labels, radius=None, index=None):
        tf.py_function(lambda indices: self.seen.extend(indices.numpy().tolist()), [index], [])
        return super().run(logits_fn, images, labels, radius, index)


def test_images_of_all_steps_have_numbers_of_their_own_and_in_evaluation_those_of_their_batch():
    attack = Indices(wasser_tf.ThreatModel(epsilon=0.5), iterations=1)
    model = _train(attack, epochs=2)
    assert attack.seen == list(range(48))
    attack.seen.clear()
    images, labels = _data()
    model.evaluate(images, labels, batch_size=8, verbose=0)
    assert attack.seen == 3 * list(range(8))


@pytest.mark.parametrize("matching", [0.0, 3.0])
@pytest.mark.parametrize("beta", [0.0, 2.0])
@pytest.mark.parametrize("omega", [0.25, 1.0])
def test_the_loss_by_hand_on_a_linear_model(omega, beta, matching):
    # Logits (x1, x2) of a pixel pair, of which the attack makes (x2, x1), and the label 0.
    image = keras.Input((1, 2, 1))
    dense = keras.layers.Dense(2, use_bias=False, kernel_initializer="identity")
    model = WasserTrain(
        keras.Model(image, dense(keras.layers.Flatten()(image))),
        Swap(wasser_tf.ThreatModel()),
        omega,
        trades_beta=beta,
        matching=matching,
    )
    model.compile(keras.optimizers.SGD(0.0), _SPARSE(from_logits=True))
    x, y = np.float32([[[[0.9], [0.1]]]]), np.int32([0])
    scores = model.evaluate(x, y, return_dict=True, verbose=0)
    p = 1 / (1 + np.exp(-0.8))
    natural, adversarial = -np.log(p), -np.log(1 - p)
    divergence = p * np.log(p / (1 - p)) + (1 - p) * np.log((1 - p) / p)
    loss = natural + beta * divergence if beta else omega * adversarial + (1 - omega) * natural
    # The probabilities (p, 1 − p) and (1 − p, p).
    loss += matching * 2 * (2 * p - 1) ** 2
    expected = {"loss": loss, "natural_loss": natural, "adversarial_loss": adversarial}
    assert scores == pytest.approx(expected, rel=1e-5)
    # A second epoch starts from nothing, and shows the same.
    logs = model.fit(x, y, epochs=2, verbose=0).history
    assert {key: values[1] for key, values in logs.items()} == pytest.approx(expected, rel=1e-5)


def test_the_config_has_every_argument():
    model = WasserTrain(
        *[_classifier(), wasser_tf.MirrorAscent(wasser_tf.ThreatModel(epsilon=0.2)), 0.25],
        **{"attack_chunk": 3, "random_radius": True, "trades_beta": 2.0, "warm_start": 0.5, "num_examples": 7},
        matching=3.0,
        name="robust",
    )
    config = model.get_config()
    arguments = set(inspect.signature(WasserTrain).parameters) - {"kwargs"}
    assert arguments | {"name"} <= config.keys()
    again = WasserTrain.from_config(config)
    assert (again.omega, again.attack_chunk, again.random_radius, again.trades_beta) == (0.25, 3, True, 2.0)
    assert again.matching == 3.0
    assert (again.warm_start, again._warm_start.num_examples, again._warm_start.fade) == (0.5, 7, 0.5)
    assert again.name == "robust" and again.attack.threat_model.epsilon == 0.2
