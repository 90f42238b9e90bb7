"""Classifiers of other ranges, orders and outputs, certified as one model of layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import Classifier, ThreatModel, certify
from wasser_tf.certification.smoothing import certify_smoothed
from wasser_tf.models import as_layers, canonical_of

L = keras.layers
IMAGES = np.random.default_rng(0).uniform(size=(4, 6, 6, 1)).astype(np.float32)
BALL = ThreatModel(epsilon=0.01, kernel_size=3)
_RNG = np.random.default_rng(1)
KERNEL, BIAS = _RNG.normal(size=(36, 3)).astype(np.float32), _RNG.normal(size=3).astype(np.float32)
# A network of the same function for each way to take images and to return classes.
PLAIN = (IMAGES.reshape(4, 36) @ KERNEL + BIAS).argmax(axis=1)


def dense(kernel=KERNEL, bias=BIAS, **options):
    layer = L.Dense(kernel.shape[1], **options)
    layer.build((None, 36))
    layer.set_weights([kernel, bias])
    return layer


def network(*layers, shape=(6, 6, 1), head=None):
    image = x = keras.Input(shape)
    for layer in (*layers, head or dense()):
        x = layer(x)
    return keras.Model(image, x)


@pytest.fixture(scope="module")
def wanted():
    return certify(network(L.Flatten()), IMAGES, PLAIN, BALL, method="ibp")


@pytest.mark.parametrize(
    "made, images",
    [
        (lambda: network(L.Rescaling(1 / 255), L.Flatten()), IMAGES * 255),
        (lambda: network(L.Rescaling(1 / 255), L.Flatten()), IMAGES),
        (lambda: Classifier(network(L.Rescaling(0.1), L.Flatten()), input_range=(0, 10)), IMAGES * 10),
        (lambda: Classifier(network(shape=(36,)), image_shape=(6, 6, 1)), IMAGES),
        (lambda: network(L.Reshape((36,)), shape=(6, 6)), IMAGES[..., 0]),
        (lambda: network(L.Permute((2, 3, 1)), L.Conv2D(1, 1, kernel_initializer="ones"), L.Flatten(), shape=(1, 6, 6)),
         np.moveaxis(IMAGES, 3, 1)),
    ],
    ids=["0 to 255", "images in [0, 1]", "given range", "flat", "without channels", "channels first"],
)  # fmt: skip
def test_radii_are_those_of_the_same_network_in_canonical_form(made, images, wanted):
    found = certify(made(), images.astype(np.float32), PLAIN, BALL, method="ibp")
    assert found.correct.all() and (wanted.radius > 0).any()
    np.testing.assert_allclose(found.radius, wanted.radius, atol=2e-4)


def test_the_chosen_output_is_certified(wanted):
    image = keras.Input((6, 6, 1))
    flat = L.Flatten()(image)
    # The other head has no rule.
    model = keras.Model(image, {"digit": dense()(flat), "other": L.Dense(2)(L.LayerNormalization()(flat))})
    found = certify(Classifier(model, output="digit"), IMAGES, PLAIN, BALL, method="ibp")
    np.testing.assert_allclose(found.radius, wanted.radius, atol=2e-4)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_unit_is_certified_as_two_classes(activation):
    unit = dense(KERNEL[:, :1], np.zeros(1, np.float32), activation=activation)
    two = dense(np.concatenate([0 * KERNEL[:, :1], KERNEL[:, :1]], 1), np.zeros(2, np.float32))
    labels = (IMAGES.reshape(4, 36) @ KERNEL[:, 0] > 0).astype(int)
    found = certify(network(L.Flatten(), head=unit), IMAGES, labels, BALL, method="ibp")
    reference = certify(network(L.Flatten(), head=two), IMAGES, labels, BALL, method="ibp")
    assert found.correct.all()
    np.testing.assert_allclose(found.radius, reference.radius, atol=2e-3)
    # Bounds are sound: never above those of the logits.
    assert (found.radius <= reference.radius + 2e-4).all()


def test_models_that_cannot_be_converted_to_layers_are_refused():
    fixed = keras.Input(batch_shape=(2, 6, 6, 1))
    fixed = keras.Model(fixed, dense()(L.Flatten()(fixed)))
    with pytest.raises(ValueError, match="takes 2 images at a time"):
        certify(fixed, IMAGES, PLAIN, BALL)
    eight = keras.Input((6, 6, 1), dtype="uint8")
    eight = keras.Model(eight, dense()(L.Flatten()(L.Rescaling(1 / 255)(eight))))
    with pytest.raises(ValueError, match="takes uint8 images, and bounds hold for floats"):
        certify(eight, IMAGES, PLAIN, BALL)
    with pytest.raises(ValueError, match="bounds go through layers"):
        certify(lambda images, training=False: tf.reshape(images, [-1, 36]) @ KERNEL, IMAGES, PLAIN, BALL)


def test_a_model_in_canonical_form_is_returned_unchanged():
    model = network(L.Flatten())
    assert as_layers(canonical_of(model, (6, 6, 1))) is model


def test_smoothing_is_of_images_in_the_unit_range(tmp_path):
    settings = {"noise": "laplace", "scale": 0.01, "num_samples": 20, "num_votes": 5, "alpha": 0.05}
    plain = certify_smoothed(network(L.Flatten()), IMAGES, PLAIN, BALL, **settings)
    other = network(L.Rescaling(1 / 255), L.Flatten())
    for images in (IMAGES, IMAGES * np.float32(255)):
        found = certify_smoothed(other, images, PLAIN, BALL, folder=tmp_path, **settings)
        np.testing.assert_allclose(found.radius, plain.radius, rtol=1e-5)
