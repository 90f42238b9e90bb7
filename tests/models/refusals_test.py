"""Images, labels and classifiers of all kinds: each is attacked rightly, or refused in one sentence."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import ThreatModel, WasserTrain, attacks

L = keras.layers
IMAGES = np.random.default_rng(0).random((4, 6, 6, 1), np.float32)
LABELS = np.arange(4) % 3
ATTACK = attacks.make("frank_wolfe", ThreatModel(epsilon=0.05, kernel_size=3), iterations=1)


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((6, 6, 1)), L.Flatten(), L.Dense(3)])


@pytest.fixture(scope="module")
def expected(model):
    return ATTACK(model, IMAGES, LABELS)


def _with(value):
    images = IMAGES.copy()
    images[0, 0, 0, 0] = value
    return images


@pytest.mark.parametrize(
    "images",
    [
        IMAGES.astype(np.float64),
        IMAGES.astype(">f4"),
        np.asfortranarray(IMAGES),
        np.repeat(IMAGES, 2, axis=0)[::2],
        np.ma.masked_array(IMAGES, mask=IMAGES > 0.9),
        IMAGES.tolist(),
        tf.constant(IMAGES),
    ],
    ids=["float64", "big-endian", "Fortran order", "strided", "masked", "list", "tensor"],
)
@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], np.eye(3)[LABELS], list(LABELS), LABELS.astype(np.uint8)])
def test_the_same_numbers_in_another_form_give_the_same_examples(model, expected, images, labels):
    found = ATTACK(model, images, labels)
    np.testing.assert_allclose(found.adversarial, expected.adversarial, atol=1e-6)
    assert found.adversarial.dtype == np.float32


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_size_of_the_batches_changes_nothing(model, expected, batch_size):
    found = ATTACK(model, IMAGES, LABELS, batch_size=batch_size)
    # Of one image at a time, products sum in another order.
    np.testing.assert_allclose(found.adversarial, expected.adversarial, atol=1e-4)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (_with(np.nan), "finite"),
        (_with(np.inf), "finite"),
        (_with(-0.5), r"\[0, 1\].*from -0.5 to"),
        (_with(1.5), r"\[0, 1\].*to 1.5; scale them"),
        ((IMAGES * 255).astype(np.uint8), "got uint8; divide 8-bit images by 255"),
        (IMAGES > 0.5, "got bool; convert them"),
        (IMAGES.astype(object), r"got object; convert them, as by np.asarray\(images\).astype"),
        (IMAGES.astype(complex), "got complex128; convert them"),
        (tf.cast(IMAGES, tf.bfloat16), "got bfloat16; convert them"),
        (IMAGES[:0], "at least one image"),
        (IMAGES[0], r"\[n, height, width, channels\]"),
        (IMAGES[:, :5], r"takes images of shape \(6, 6, 1\)"),
        (np.repeat(IMAGES, 3, axis=3), r"takes images of shape \(6, 6, 1\)"),
        ([[[[0.1]]], [[[0.1, 0.2]]]], "rows have equal shapes"),
        ({"image": IMAGES}, r"\[n, height, width, channels\]"),
        (None, r"\[n, height, width, channels\]"),
    ],
)
def test_images_are_refused_in_a_sentence(model, images, message):
    with pytest.raises(ValueError, match=message) as error:
        ATTACK(model, images, LABELS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS + 0.5, "got float64 0.5: number the classes from 0"),
        (LABELS * np.nan, "got float64 nan"),
        (["a", "b", "c", "a"], "got <U1 'a': number the classes"),
        (LABELS.astype(object), "got object 0"),
        (LABELS > 0, "got bool False"),
        (LABELS - 1, "0 to 2.*got -1 to 1"),
        (np.full(4, 2**62), "0 to 2"),
        (LABELS[:3], r"shape \[4\]"),
        (1, r"shape \[4\]"),
        (np.stack([LABELS, LABELS]), "3 columns"),
        ([[1], [1, 2], [0], [0]], "rows have equal shapes"),
    ],
)
def test_labels_are_refused_in_a_sentence(model, labels, message):
    with pytest.raises(ValueError, match=message) as error:
        ATTACK(model, IMAGES, labels)
    assert "\n" not in str(error.value)


def _flat(images):
    return tf.reshape(images, [-1, 36])


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        (lambda images: images, r"must take \(images, training=False\)"),
        (lambda images, training=False: np.asarray(images).reshape(-1, 36)[:, :3], "cannot be traced .* not of NumPy"),
        (lambda images, training=False: 1 / 0, r"cannot be called .*division by zero"),
        (lambda images, training=False: {}, "returns no outputs"),
        (lambda images, training=False: "a", r"must return \[n, classes\]"),
        (lambda images, training=False: tf.fill([8, 3], "a"), "must return numbers"),
        (lambda images, training=False: _flat(images)[:1, :3], r"got \(1, 3\) for 8 images: return one row for each"),
        (lambda images, training=False: images, r"got \(8, 6, 6, 1\) for 8 images"),
        (lambda images, training=False: tf.cast(_flat(images)[:, :3] * 9, tf.int32), "by differentiable operations"),
        ("model.keras", "must be callable"),
        (None, "must be callable"),
    ],
)
def test_classifiers_are_refused_in_a_sentence(classifier, message):
    with pytest.raises(ValueError, match=message) as error:
        ATTACK(classifier, IMAGES, LABELS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("radius", ["x", [0.1, 0.2], [[0.1], [0.1, 0.2]], np.nan, -1.0, np.inf])
def test_radii_are_refused_in_a_sentence(model, radius):
    with pytest.raises(ValueError, match="^radius must be") as error:
        ATTACK(model, IMAGES, LABELS, radius=radius)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("use", ["fit", "evaluate"])
def test_labels_of_a_training_are_arrays_that_suit_the_loss(model, use):
    trained = WasserTrain(model, ATTACK)
    trained.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for labels, message in ((["a"] * 4, "y must be an array of labels, got a list"), (np.eye(3)[LABELS], "argmax")):
        with pytest.raises(ValueError, match=message) as error:
            getattr(trained, use)(IMAGES, labels, verbose=0)
        assert "\n" not in str(error.value)
