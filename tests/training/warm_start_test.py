"""Attacks that are warm-started from their result of the epoch before."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import wasser_tf
from wasser_tf import MirrorAscent, WasserTrain, data, models
from wasser_tf.data.augmentation import make_augmentation
from wasser_tf.training import warm_start
from wasser_tf.training.checkpoint import Checkpoint
from wasser_tf.transport.exact import wasserstein_distance

BALL = wasser_tf.ThreatModel(epsilon=0.4, kernel_size=3)
# So little in one step that only several of them come to the end.
ATTACK = MirrorAscent(BALL, iterations=1, step_size=2.0, loss="cross_entropy", polish=5)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((8, 5, 5, 1), np.float32) * 0.8


@pytest.fixture(scope="module")
def labels(images):
    return np.argmax(models.build("linear", images.shape[1:], 3, seed=0)(images), axis=1).astype(np.int32)


def _numbered(images):
    return {"image": images, "number": np.arange(len(images), dtype=np.int32)}


def _model(images, learning_rate=0.0, classes=3, **options):
    classifier = models.build("linear", images.shape[1:], classes, seed=0)
    model = WasserTrain(classifier, ATTACK, 1.0, warm_start=0.9, num_examples=len(images), **options)
    model.compile(keras.optimizers.SGD(learning_rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_warm_started_attacks_get_stronger_and_stay_feasible(images, labels):
    model = _model(images)
    history = model.fit(_numbered(images), labels, batch_size=4, epochs=6, shuffle=True, verbose=0).history
    losses = history["adversarial_loss"]
    # The classifier stands still, and so one iteration an epoch is an ascent of six.
    assert losses[-1] > losses[1] > losses[0]
    again = MirrorAscent(BALL, iterations=50, loss="cross_entropy")(model.classifier, images, labels)
    cold = MirrorAscent(BALL, iterations=1, step_size=2.0, loss="cross_entropy")(model.classifier, images, labels)
    assert cold.loss.mean() < losses[-1] < again.loss.mean() + 1e-3

    problem = ATTACK.problem(model.classifier, tf.constant(images), tf.constant(labels))
    potential = model.get_layer("warm_start").potentials(warm_start.Numbers(tf.range(len(images))))
    adversarial, ended = ATTACK.resume(problem, potential)
    assert ended.shape == images.shape and not np.allclose(ended, potential)
    for clean, found in zip(images, adversarial.numpy(), strict=True):
        assert 0 <= found.min() and found.max() <= 1
        assert wasserstein_distance(clean, found, BALL) <= 0.4 * (1 + 1e-5)


def test_chunks_change_nothing_and_a_saved_model_resumes(tmp_path, images, labels):
    whole, chunked = _model(images, 0.1), _model(images, 0.1, attack_chunk=3)
    for model in (whole, chunked):
        model.fit(_numbered(images), labels, batch_size=len(images), epochs=2, shuffle=False, verbose=0)
    whole.save(tmp_path / "whole.keras")
    loaded = keras.models.load_model(tmp_path / "whole.keras")
    assert loaded.warm_start == 0.9
    for model in (chunked, loaded):
        for one, other in zip(whole.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
    assert whole.get_layer("warm_start").count_params() == images.size


def test_a_resumed_run_starts_from_the_stored_potentials(tmp_path, images, labels):
    model, resumed = _model(images), _model(images)
    model.fit(_numbered(images), labels, batch_size=len(images), epochs=1, verbose=0)
    checkpoint = Checkpoint(tmp_path / "run.npz", model, model.classifier, 1.0)
    checkpoint.on_epoch_end(0, {"loss": 1.0, "val_accuracy": 1.0, "val_loss": 1.0})
    Checkpoint(tmp_path / "run.npz", resumed, resumed.classifier, 1.0)
    kept = [trained.get_layer("warm_start").get_weights()[0] for trained in (model, resumed)]
    np.testing.assert_array_equal(*kept)
    assert kept[0].any()


@pytest.mark.parametrize("augment", ["shift", "crop_flip"])
def test_the_potential_of_an_augmented_image_is_the_augmented_potential(augment):
    drawn = np.random.default_rng(1).random((8, 12, 12, 3), np.float32)
    layer = warm_start.WarmStart(16, 0.5)
    layer.build((None, 12, 12, 3))
    number, seed = tf.range(3, 11), tf.constant([3, 4], tf.int64)
    layer.keep(warm_start.Numbers(number), drawn)
    augmentation = make_augmentation(augment, (12, 12, 3))
    numbers = warm_start.Numbers(number, augmentation.sources(drawn, seed))
    moved = layer.potentials(numbers)
    np.testing.assert_allclose(moved, 0.5 * augmentation(drawn, seed), atol=1e-3)
    # Moved back, they are where they were, and what the augmented image hides is scaled as well.
    layer.keep(numbers, 10.0 * moved)
    scale = layer.potentials(warm_start.Numbers(number)).numpy() / (0.25 * drawn)
    shown = augmentation(np.arange(1.0, 145.0, dtype=np.float32).reshape(1, 12, 12, 1).repeat(8, 0), seed).numpy()
    for one, pixels in zip(scale, shown, strict=True):
        seen = np.isin(np.arange(1, 145), pixels).reshape(12, 12)
        np.testing.assert_allclose(one, np.where(seen, 10.0, 1.0)[..., None].repeat(3, 2), rtol=2e-2)
    assert not layer._potentials.value[0].numpy().any()


@pytest.mark.parametrize("augment", ["shift", "crop_flip"])
def test_warm_starts_follow_the_images_that_are_augmented(augment):
    train = data.load("digits", splits=("train",)).train
    margins, labels = [[0, 0], [4, 4], [4, 4], [0, 0]], tf.constant(train.labels[:32].astype(np.int32))
    images = tf.pad(train.images[:32], margins)
    # Whatever moves the image moves this classifier's gradient, so what was found in one epoch holds in the next.
    keras.utils.set_random_seed(0)
    convolutions = [keras.layers.Conv2D(8, 3, padding="same", activation="relu") for _ in range(2)]
    ends = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    classifier = keras.Sequential([keras.Input((16, 16, 1)), *convolutions, *ends])
    augmentation = make_augmentation(augment, (16, 16, 1))
    ascents = {"moved": warm_start.WarmStart(32, 0.9), "unmoved": warm_start.WarmStart(32, 0.9)}
    gains = {}
    for layer in ascents.values():
        layer.build((None, 16, 16, 1))
    for epoch in range(4):
        seed = data.step_seed(0, epoch, 0)
        problem = ATTACK.problem(classifier, augmentation(images, seed), labels)
        natural = problem.margin(classifier(problem.images))
        for name, layer in ascents.items():
            sources = augmentation.sources(images, seed) if name == "moved" else None
            numbers = warm_start.Numbers(tf.range(32), sources)
            adversarial, potential = ATTACK.resume(problem, layer.potentials(numbers))
            layer.keep(numbers, potential)
            gains[name, epoch] = float(tf.reduce_mean(problem.margin(classifier(adversarial)) - natural))
    assert gains["moved", 3] > 2 * gains["moved", 0] and gains["moved", 3] > 1.5 * gains["unmoved", 3], gains


def test_unsupported_warm_starts_are_refused(images, labels):
    classifier = models.build("linear", images.shape[1:], 3, seed=0)
    for attack in (wasser_tf.WasserAttack(BALL), MirrorAscent(BALL, restarts=2), MirrorAscent(BALL, gradient_noise=1)):
        with pytest.raises(ValueError, match="warm_start needs .*mirror_ascent"):
            WasserTrain(classifier, attack, warm_start=0.5, num_examples=4)
    for fade in (-0.5, 1.0, "much"):
        with pytest.raises(ValueError, match="warm_start must be"):
            WasserTrain(classifier, ATTACK, warm_start=fade, num_examples=4)
    for count in (None, 0, 2.5):
        with pytest.raises(ValueError, match="num_examples must be the number of training images"):
            WasserTrain(classifier, ATTACK, warm_start=0.5, num_examples=count)
    with pytest.raises(ValueError, match=r"potentials that warm_start keeps need about .* GiB"):
        WasserTrain(classifier, ATTACK, warm_start=0.5, num_examples=2**40)
    model = _model(images)
    with pytest.raises(ValueError, match="warm_start needs a number for each image"):
        model.fit(images, labels, verbose=0)
    with pytest.raises(ValueError, match="warm_start needs a number for each image"):
        model.fit(tf.data.Dataset.from_tensor_slices((images, labels)).batch(4), verbose=0)
    for numbers in (np.arange(len(images)) + 1, np.zeros(3, int), np.zeros(len(images))):
        with pytest.raises(ValueError, match="number must"):
            model.fit({"image": images, "number": numbers}, labels, verbose=0)
    with pytest.raises(ValueError, match="got the keys"):
        model.fit({"picture": images}, labels, verbose=0)


def test_the_memory_of_the_potentials_is_that_of_all_images(monkeypatch):
    asked = []
    monkeypatch.setattr(warm_start, "check_fits", lambda *given: asked.append(given))
    layer = warm_start.WarmStart(7, 0.5)
    layer.build((None, 4, 5, 3))
    ((size, what, remedy),) = asked
    # Two bytes a number.
    assert size == 2 * 7 * 4 * 5 * 3 == layer._potentials.shape.num_elements() * 2
    assert "warm_start" in what and "without warm_start" in remedy and layer._potentials.dtype == "float16"


@pytest.mark.parametrize("num_examples", [0, 1.5, None, True])
def test_the_number_of_images_must_be_whole(num_examples):
    with pytest.raises(ValueError, match="num_examples must be the number of training images, got .*: pass len"):
        warm_start.WarmStart(num_examples, 0.5)
