"""Copies of classifiers in another precision: equal weights, layers in float32 at both ends, models without layers."""

import keras
import numpy as np
import pytest

from wasser_tf import models
from wasser_tf.publishing.compress_float16 import compress_float16

L = keras.layers


def _images(shape):
    return np.random.default_rng(0).uniform(size=(5, *shape)).astype(np.float32)


def _precisions(model):
    return {type(layer).__name__: layer.compute_dtype for layer in model._flatten_layers(include_self=False)}


@pytest.mark.parametrize("build", ["resnet_small", "lenet", "blurred", "sequential"])
def test_a_copy_and_its_copy_in_float32_have_the_same_weights(build):
    if build == "sequential":
        model = keras.Sequential([keras.Input((8, 8, 3)), L.Rescaling(2.0), L.Conv2D(3, 3), L.Flatten(), L.Dense(10)])
    else:
        model = models.build("resnet_small" if build == "blurred" else build, (8, 8, 3), 10, width=0.1)
        model = models.blurred(model, int(build == "blurred"))
    images = _images((8, 8, 3))
    expected = np.asarray(model(images))
    mixed = models.with_precision(model, "mixed_bfloat16")
    found = mixed(images)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())
    assert np.abs(np.asarray(found) - expected).max() > 0
    precisions = _precisions(mixed)
    assert precisions["Conv2D"] == "bfloat16" and precisions["Dense"] == "float32"
    assert precisions.get("Rescaling", "float32") == "float32"
    assert {weight.dtype for weight in mixed.trainable_weights} == {"float32"}
    np.testing.assert_array_equal(models.with_precision(mixed, "float32")(images), expected)
    mixed.set_weights([0 * weight for weight in mixed.get_weights()])
    np.testing.assert_array_equal(model(images), expected)  # The copy has weights of its own.


def test_a_copy_can_be_saved(tmp_path):
    model = models.with_precision(models.build("lenet", (8, 8, 1), 10, width=0.1), "mixed_bfloat16")
    model.save(tmp_path / "mixed.keras")
    loaded = models.load_keras(tmp_path / "mixed.keras")
    assert _precisions(loaded) == _precisions(model)
    np.testing.assert_array_equal(loaded(_images((8, 8, 1))), model(_images((8, 8, 1))))


def test_a_published_classifier_computes_in_float32(tmp_path):
    model = models.with_precision(models.build("lenet", (8, 8, 1), 10, width=0.1), "mixed_bfloat16")
    model.save(tmp_path / "mixed.keras")
    packed = compress_float16(tmp_path / "mixed.keras", tmp_path / "packed.keras")
    assert set(_precisions(packed).values()) == {"float32"}
    assert set(_precisions(models.load_keras(tmp_path / "packed.keras")).values()) == {"float32"}


class _Subclass(keras.Model):
    def call(self, images):
        return images


@pytest.mark.parametrize("model", [_Subclass(), keras.Sequential([L.Dense(3)])])
def test_models_without_a_graph_of_layers_are_refused(model):
    with pytest.raises(ValueError, match="not a functional or a built sequential model"):
        models.with_precision(model, "mixed_bfloat16")


@pytest.mark.parametrize("policy", ["bfloat16", "float64", None, 16])
def test_other_policies_are_refused(policy):
    with pytest.raises(ValueError, match="policy must be one of float32, mixed_float16, mixed_bfloat16"):
        models.with_precision(models.build("linear", (8, 8, 1), 10), policy)
