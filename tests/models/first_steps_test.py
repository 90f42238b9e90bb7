"""The range of pixels behind resizes, borders, limits, branches and functions, and how outputs vary."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import Classifier, ThreatModel, attacks
from wasser_tf.evaluation import metrics
from wasser_tf.models.probe import look_at

L = keras.layers
IMAGES = np.random.default_rng(0).uniform(size=(6, 8, 8, 3)).astype(np.float32)
LABELS = np.arange(6) % 4
SCALE = 1 / 255
ATTACK = attacks.make("frank_wolfe", ThreatModel(epsilon=0.05, kernel_size=3), iterations=1)


def sequential(*layers, shape=(8, 8, 3), units=4):
    return keras.Sequential([keras.Input(shape), *layers, L.Flatten(), L.Dense(units)])


def as_function(function):
    return lambda images, training=False: function(images)


def scaled_in_function():
    model, scale = sequential(), tf.function(lambda images: images / 255.0)
    return as_function(lambda images: model(scale(images)))


def scaled_by_autograph():
    model = sequential()

    def classifier(images, training=False):
        if tf.shape(images)[0] > 100:
            tf.print("many")
        return model(images / 255.0)

    return classifier


def two_branches(*fronts):
    image = keras.Input((8, 8, 3))
    return keras.Model(image, L.Add()([L.Dense(4)(L.Flatten()(front(image))) for front in fronts]))


def constant_pixels():
    images = 255 * IMAGES
    images[:, :3] = 0
    normalization = L.Normalization(axis=(1, 2, 3))
    normalization.adapt(images)
    return normalization


@pytest.mark.parametrize(
    "make",
    [
        lambda: sequential(L.Resizing(6, 6), L.Rescaling(SCALE)),
        lambda: sequential(L.Resizing(6, 4, crop_to_aspect_ratio=True), L.Rescaling(SCALE)),
        lambda: sequential(L.Resizing(12, 12, interpolation="bicubic"), L.Rescaling(1 / 127.5, -1)),
        lambda: sequential(L.CenterCrop(6, 6), L.Rescaling(SCALE)),
        lambda: sequential(L.ZeroPadding2D(2), L.Rescaling(1 / 127.5, -1)),
        lambda: sequential(L.UpSampling2D(2), L.Rescaling(SCALE)),
        lambda: sequential(L.AveragePooling2D(2), L.Rescaling(SCALE)),
        lambda: sequential(L.MaxPooling2D(2), L.Rescaling(SCALE)),
        lambda: sequential(
            L.Lambda(lambda x: tf.image.extract_patches(x, *[[1, 4, 4, 1]] * 2, [1] * 4, "VALID") * SCALE)
        ),
        lambda: sequential(L.Lambda(tf.image.rgb_to_grayscale), L.Rescaling(SCALE)),
        lambda: sequential(L.Lambda(lambda x: tf.clip_by_value(x, 0.0, 255.0) / 255.0)),
        lambda: sequential(L.Lambda(lambda x: 1 - x / 255)),
        lambda: sequential(constant_pixels()),
        lambda: two_branches(L.Rescaling(SCALE), L.Rescaling(1 / 127.5, -1)),
        scaled_in_function,
        scaled_by_autograph,
        lambda: as_function(tf.function(sequential(L.Rescaling(SCALE)))),
    ],
)
def test_pixels_of_0_to_255_are_found_behind_other_operations(make):
    classifier = make()
    assert Classifier(classifier).describe((8, 8, 3)).input_range == (0, 255)
    predicted = np.asarray(classifier(tf.constant(255 * IMAGES), training=False)).argmax(axis=1)
    for images in (IMAGES, 255 * IMAGES):
        np.testing.assert_array_equal(metrics.predict(classifier, images, LABELS).predicted, predicted)


@pytest.mark.parametrize(
    "front",
    [
        L.Resizing(6, 6),
        L.ZeroPadding2D(2),
        L.Lambda(lambda x: tf.image.per_image_standardization(x)),
        L.Lambda(lambda x: 1 - x),
        L.Reshape((8, 24)),
    ],
)
def test_others_are_of_unit_pixels(front):
    assert Classifier(sequential(front)).describe((8, 8, 3)).input_range == (0, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: two_branches(L.Rescaling(SCALE), L.Identity()), "and elsewhere"),
        (
            lambda: sequential(L.Lambda(lambda x: tf.cond(tf.reduce_max(x) > 1.0, lambda: x / 255.0, lambda: x))),
            "cannot be looked into",
        ),
    ],
)
def test_what_cannot_be_found_is_asked_for(make, message):
    with pytest.raises(ValueError, match=f"{message}.*give input_range"):
        Classifier(make()).describe((8, 8, 3))


def test_many_channels_first_are_seen_or_asked_for():
    shown = sequential(L.Permute((2, 3, 1)), L.Conv2D(2, 3), shape=(13, 16, 16))
    assert Classifier(shown).describe((13, 16, 16)).data_format == "channels_first"
    with pytest.raises(ValueError, match="give data_format"):
        Classifier(sequential(shape=(13, 16, 16))).describe((13, 16, 16))
    assert Classifier(sequential(shape=(16, 16, 13))).describe((16, 16, 13)).data_format == "channels_last"


@pytest.mark.parametrize(
    ("model", "shape", "given"),
    [
        (sequential(L.Permute((2, 3, 1)), L.Conv2D(2, 3), shape=(3, 8, 8)), (3, 8, 8), "channels_last"),
        (sequential(L.Conv2D(2, 3)), (8, 8, 3), "channels_first"),
        (sequential(L.Permute((3, 1, 2))), (8, 8, 3), "channels_first"),
    ],
)
def test_an_order_that_the_operations_contradict_is_refused(model, shape, given):
    # The answers would be right, and mass would move between channels.
    with pytest.raises(ValueError, match=f"data_format='{given}' was given, but the first operations"):
        Classifier(model, data_format=given).describe(shape)


def ensemble(combine, activation="softmax", units=4):
    image = keras.Input((8, 8, 3))
    flat = L.Flatten()(image)
    return keras.Model(image, combine(*(L.Dense(units, activation=activation)(flat) for _ in range(2))))


@pytest.mark.parametrize(
    "combine",
    [
        lambda one, two: L.Average()([one, two]),
        lambda one, two: keras.ops.mean(keras.ops.stack([one, two]), axis=0),
        lambda one, two: 0.3 * one + 0.7 * two,
    ],
)
def test_means_of_probabilities_are_probabilities(combine):
    description = Classifier(ensemble(combine)).describe((8, 8, 3))
    assert description.returns == "probabilities"


@pytest.mark.parametrize("combine", [lambda one, two: 0.5 * one + 0.5 * two, lambda one, _: 1 - one])
def test_one_unit_made_of_sigmoids_is_asked_for(combine):
    with pytest.raises(ValueError, match="give returns='sigmoid'"):
        Classifier(ensemble(combine, "sigmoid", 1)).describe((8, 8, 3))


def test_several_units_made_of_sigmoids_are_refused():
    with pytest.raises(ValueError, match="do not add up to 1"):
        Classifier(ensemble(lambda one, two: 0.5 * one + 0.5 * two, "sigmoid", 3)).describe((8, 8, 3))


def test_classes_alone_are_refused():
    model = sequential()
    with pytest.raises(ValueError, match="one int64 for each image, the number of a class"):
        Classifier(as_function(lambda images: tf.argmax(model(images), axis=1))).describe((8, 8, 3))


def test_outputs_of_a_named_tuple_have_names():
    model, Outputs = sequential(), collections.namedtuple("Outputs", "logits features")
    classifier = as_function(lambda images: Outputs(model(images), tf.reshape(images, [-1, 192])))
    with pytest.raises(ValueError, match="logits .*, features"):
        Classifier(classifier).describe((8, 8, 3))
    found = Classifier(classifier, output="logits").canonical((8, 8, 3))(IMAGES)
    np.testing.assert_allclose(found, model(IMAGES), rtol=1e-5)


def batch_statistics():
    model, normalization = sequential(), L.BatchNormalization()
    return as_function(lambda images: model(normalization(images, training=True)))


def random_outputs():
    model = sequential()
    return as_function(lambda images: model(tf.nn.dropout(images, 0.5)))


@pytest.mark.parametrize(
    ("make", "unstable"),
    [
        (sequential, ""),
        (batch_statistics, "depend on the other images of its batch"),
        (random_outputs, "are random"),
        (lambda: as_function(lambda images: np.random.normal(size=(len(images), 3))), "are random"),
    ],
)
def test_outputs_that_vary_are_seen(make, unstable):
    assert look_at(make(), (8, 8, 3), None).unstable == unstable


def test_random_outputs_of_a_fixed_batch_are_seen():
    assert look_at(random_outputs(), (8, 8, 3), 3).unstable == "are random"
    assert look_at(sequential(), (8, 8, 3), 1).unstable == ""


def test_all_images_are_flagged_where_outputs_vary():
    with pytest.warns(UserWarning, match="6 of 6 images are flagged: .* random or depend on the batch"):
        assert ATTACK(random_outputs(), IMAGES, LABELS).flagged.all()


def test_labels_are_limited_by_the_classes_that_were_seen():
    model = sequential()
    for use in (ATTACK, metrics.predict):
        with pytest.raises(ValueError, match="labels must be 0 to 3, as the classifier has 4 classes, got 1 to 4"):
            use(as_function(model), IMAGES, LABELS + 1)
    with pytest.raises(ValueError, match="labels must be 0 to 3"):
        ATTACK(as_function(model), IMAGES, LABELS, targets=LABELS + 1)
