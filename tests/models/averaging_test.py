"""The mean of weights, batch normalisation included, ensembles, and models that cannot be averaged."""

import keras
import numpy as np
import pytest

import wasser_tf
from wasser_tf import models
from wasser_tf.models.averaging import average, average_logits


def classifier(seed, units=3):
    model = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(units, name="logits"),
        ]
    )
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.5, 1, size=weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture
def saved(tmp_path):
    paths = [tmp_path / f"{seed}.keras" for seed in range(3)]
    for seed, path in enumerate(paths):
        classifier(seed).save(path)
    return paths


def test_every_weight_is_the_mean(saved, tmp_path):
    output = tmp_path / "new" / "mean.keras"
    averaged = average(saved, output)
    found = models.load_classifier(output).get_weights()
    for weight, same, *others in zip(
        found, averaged.get_weights(), *[classifier(seed).get_weights() for seed in range(3)], strict=True
    ):
        np.testing.assert_allclose(weight, np.mean(others, axis=0), rtol=1e-6)
        np.testing.assert_array_equal(weight, same)
        assert weight.dtype == np.float32


def test_models_that_cannot_be_averaged_are_refused(saved, tmp_path):
    other = tmp_path / "other.keras"
    classifier(0, units=4).save(other)
    with pytest.raises(ValueError, match="another architecture"):
        average([*saved, other], tmp_path / "mean.keras")
    # The same shapes in other layers.
    Other = type("Other", (keras.layers.BatchNormalization,), {})
    keras.saving.register_keras_serializable("averaging_test")(Other)
    layers = [keras.Input((2, 2, 1)), keras.layers.Flatten(), Other(), keras.layers.Dense(3)]
    keras.Sequential(layers).save(other)
    with pytest.raises(ValueError, match="another architecture"):
        average([*saved, other], tmp_path / "mean.keras")
    with pytest.raises(ValueError, match="at least two"):
        average(saved[:1], tmp_path / "mean.keras")
    with pytest.raises(ValueError, match="at least two"):
        average(str(saved[0]), tmp_path / "mean.keras")
    with pytest.raises(ValueError, match=r"\.keras"):
        average(saved, tmp_path / "mean.npz")
    assert not list(tmp_path.glob("mean*"))


def test_an_ensemble_returns_the_mean_of_the_logits(saved, tmp_path):
    other = tmp_path / "other.keras"
    models.build("mlp", (2, 2, 1), 3, seed=4).save(other)
    ensemble = average_logits([*saved[:2], saved[1], other], tmp_path / "new" / "ensemble.keras")
    images = np.random.default_rng(0).uniform(size=(5, 2, 2, 1)).astype(np.float32)
    members = [classifier(0), classifier(1), classifier(1), models.load_keras(other)]
    wanted = np.mean([np.asarray(member(images)) for member in members], axis=0)
    np.testing.assert_allclose(ensemble(images), wanted, atol=1e-6)
    found = models.load_classifier(tmp_path / "new" / "ensemble.keras")
    np.testing.assert_allclose(found(images), wanted, atol=1e-6)
    assert models.returns_logits(found) is True
    assert np.isfinite(
        wasser_tf.certify(found, images, np.argmax(wanted, axis=1), wasser_tf.ThreatModel(epsilon=0.01)).margin
    ).all()


def test_models_that_are_no_ensemble_are_refused(saved, tmp_path):
    path, other = tmp_path / "ensemble.keras", tmp_path / "other.keras"
    models.build("mlp", (2, 2, 1), 4, seed=0).save(other)
    with pytest.raises(ValueError, match="to 4 classes.*to 3"):
        average_logits([saved[0], other], path)
    models.build("mlp", (3, 2, 1), 3, seed=0).save(other)
    with pytest.raises(ValueError, match="both need the same"):
        average_logits([saved[0], other], path)
    keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]).save(other)
    with pytest.raises(ValueError, match="must return logits"):
        average_logits([saved[0], other], path)
    with pytest.raises(ValueError, match="at least two"):
        average_logits(saved[:1], path)
    assert not path.exists()
