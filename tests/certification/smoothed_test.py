import keras
import numpy as np
import pytest
import tensorflow as tf

import wasser_tf
from wasser_tf import Smoothed, ThreatModel, data, models
from wasser_tf.certification import votes
from wasser_tf.runtime import storage


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def _fresh(**options):
    return Smoothed(models.build("mlp", (8, 8, 1), 10, seed=0), scale=0.02, num_samples=500, **options)


def _fit(model, digits, epochs=4):
    model.compile(
        keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    return model.fit(digits.train.images, digits.train.labels, batch_size=64, epochs=epochs, shuffle=False, verbose=0)


@pytest.fixture(scope="module")
def trained(digits):
    keras.utils.set_random_seed(0)
    model = _fresh()
    model.history_of_fit = _fit(model, digits).history
    return model


def test_fit_learns_from_noisy_images(trained, digits):
    loss = trained.history_of_fit["loss"]
    assert loss[-1] < 0.8 * loss[0]
    # Trained without noise, the same network is worse under noise.
    plain = models.build("mlp", (8, 8, 1), 10, seed=0)
    plain.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    plain.fit(digits.train.images, digits.train.labels, batch_size=64, epochs=4, shuffle=False, verbose=0)
    other = Smoothed(plain, scale=0.02, num_samples=500)
    images, labels = digits.test.images[:20], digits.test.labels[:20]
    radii = [model.certify(images, labels, ThreatModel()).radius for model in (trained, other)]
    assert np.mean(radii[0]) > 1.2 * np.mean(radii[1])


def test_fit_is_reproducible_and_its_noise_changes_with_the_step(trained, digits):
    again = _fresh()
    _fit(again, digits)
    for one, two in zip(trained.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    x = digits.train.images[:3]
    first, second, same = (np.asarray(trained._noisy(keras.ops.array(x), votes.TRAINING, step)) for step in (1, 2, 1))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_allclose(first.sum(axis=(1, 2, 3)), x.sum(axis=(1, 2, 3)), rtol=1e-5)


def test_evaluate_scores_the_base_classifier_under_noise(trained, digits):
    images, labels = digits.test.images[:100], digits.test.labels[:100]
    scores = trained.evaluate(images, labels, batch_size=100, verbose=0, return_dict=True)
    noisy = np.asarray(trained._noisy(keras.ops.array(images), votes.EVALUATION, 0))
    predicted = trained.base_classifier.predict(noisy, verbose=0).argmax(axis=1)
    assert scores["accuracy"] == pytest.approx(np.mean(predicted == labels))
    assert scores["loss"] > 0


def test_images_are_not_rounded_in_mixed_precision(monkeypatch, digits):
    seen = []

    def shares(classifier, noise, seed, images, count):
        seen.append(images)
        return tf.ones([len(images), 10]) / 10

    monkeypatch.setattr(votes, "shares", shares)
    model = _fresh(dtype="mixed_bfloat16", num_votes=7)
    model(digits.test.images[:3])
    assert model.dtype_policy.name == "mixed_bfloat16" and seen[0].dtype == tf.float32
    np.testing.assert_array_equal(seen[0], digits.test.images[:3])
    # Without one of its own, the policy is that of the classifier.
    base = models.build("linear", (8, 8, 1), 10, seed=0)
    assert Smoothed(base).dtype_policy.name == base.dtype_policy.name


def test_predict_returns_shares_of_votes_independently_of_the_batch(trained, digits):
    images, labels = digits.test.images[:20], digits.test.labels[:20]
    shares = trained.predict(images, verbose=0)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(shares * 100, np.rint(shares * 100), atol=1e-4)
    np.testing.assert_array_equal(trained.predict(images[7:8], verbose=0)[0], shares[7])
    assert np.mean(shares.argmax(axis=1) == labels) > 0.7
    classes = trained.classify(images)
    answered = classes >= 0
    assert 0 < answered.sum() < 20, "the level decides some and not all"
    np.testing.assert_array_equal(classes[answered], shares.argmax(axis=1)[answered])
    # What has the certified majority has it among other votes too, where these settle it.
    certified = trained.certify(images, labels, ThreatModel()).predicted
    both = answered & (certified >= 0)
    np.testing.assert_array_equal(classes[both], certified[both])


def test_keras_files_restore_the_model(trained, digits, tmp_path):
    trained.save(tmp_path / "smoothed.keras")
    images, labels = digits.test.images[:4], digits.test.labels[:4]
    for loaded in (
        keras.saving.load_model(tmp_path / "smoothed.keras"),
        models.load_classifier(tmp_path / "smoothed.keras"),
    ):
        assert isinstance(loaded, Smoothed)
        assert storage.through_json(loaded.get_config()) == storage.through_json(trained.get_config())
        np.testing.assert_array_equal(loaded.predict(images, verbose=0), trained.predict(images, verbose=0))
        one, two = (model.certify(images, labels, ThreatModel()) for model in (loaded, trained))
        np.testing.assert_array_equal(one.radius, two.radius)
        assert models.returns_logits(loaded) is False
    again = keras.saving.load_model(tmp_path / "smoothed.keras")
    # Compiled as it was, and goes on from its step.
    assert int(again.optimizer.iterations) == int(trained.optimizer.iterations) > 0


def test_the_config_contains_every_setting():
    model = _fresh(noise="uniform", num_votes=64, alpha=0.01, seed=5)
    config = model.get_config()
    wanted = {"noise": "uniform", "scale": 0.02, "num_samples": 500, "num_votes": 64, "alpha": 0.01, "seed": 5}
    assert {key: config[key] for key in wanted} == wanted
    assert Smoothed.from_config(config).get_config() == config


@pytest.mark.parametrize(
    "options, told",
    [({"alpha": 2}, "alpha"), ({"noise": "gauss"}, "noise must be one of"), ({"scale": 0}, "scale")],
)
def test_bad_settings_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        Smoothed(models.build("linear", (8, 8, 1), 10), **options)
    with pytest.raises(ValueError, match="keras.Model"):
        wasser_tf.Smoothed(lambda x: x)


def test_fit_refuses_images_out_of_range(digits):
    model = _fresh()
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="lie in"):
        model.fit(digits.train.images * 2, digits.train.labels, verbose=0)
    with pytest.raises(ValueError, match="lie in"):
        model.classify(digits.test.images[:2] - 1)


def test_certify_takes_a_smoothed_classifier(ball):
    model = Smoothed(models.build("linear", (8, 8, 1), 10, seed=0), num_votes=64, num_samples=128, alpha=0.1)
    images = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
    labels, lines = np.array([0, 1, 2]), []
    found = wasser_tf.certify(model, images, labels, ball, progress=lines.append)
    wanted = model.certify(images, labels, ball)
    np.testing.assert_array_equal(found.radius, wanted.radius)
    assert (found.method, found.confidence) == (wanted.method, 0.9) and "N = 128" in found.method
    assert lines == ["3 of 3 images voted on"]
    with pytest.raises(ValueError, match="A Smoothed classifier has no bounds by crown"):
        wasser_tf.certify(model, images, labels, ball, method="crown")
    with pytest.raises(ValueError, match="resolution is for deterministic methods"):
        wasser_tf.certify(model, images, labels, ball, resolution=0.1)
