"""Checks of a classifier's input: valid values, invalid values and messages."""

import numpy as np
import pytest

from wasser_tf.models.inputs import (
    check_batch,
    check_labels,
    check_radius,
    num_classes,
    outputs_are_logits,
)

IMAGES = np.full((3, 4, 5, 1), 0.5, np.float32)
LABELS = np.array([0, 2, 1])


class Model:
    """As much of a Keras model as the checks ask for."""

    def __init__(self, input_shape=(None, 4, 5, 1), output_shape=(None, 3)):
        self.input_shape, self.output_shape = input_shape, output_shape

    def __call__(self, images, training):
        return np.zeros((len(images), 3))


def test_valid_images_and_labels_are_converted_to_float32_and_int32():
    images, labels = check_batch(Model(), IMAGES.astype(np.float64), LABELS.astype(np.int64))
    assert images.dtype == np.float32 and labels.dtype == np.int32
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    edge = IMAGES.copy()
    edge[0], edge[1] = 0.0, 1.0
    np.testing.assert_array_equal(check_batch(Model(), edge, LABELS)[0], edge)
    assert check_batch(Model(), IMAGES.tolist(), LABELS.tolist())[0].shape == IMAGES.shape


@pytest.mark.parametrize(
    ("classifier", "images", "message"),
    [
        (3, IMAGES, "classifier must be callable, as a Keras model is, got int"),
        (Model(), IMAGES[0], r"images must have shape \[n, height, width, channels\], got \(4, 5, 1\)"),
        (Model(), IMAGES[None], r"images must have shape .*, got \(1, 3, 4, 5, 1\)"),
        (Model(), IMAGES[:0], r"at least one image, got an empty batch of shape \(0, 4, 5, 1\)"),
        (Model(), IMAGES.astype(np.uint8), r"floats in \[0, 1\], got uint8; divide 8-bit images by 255"),
        (Model(), np.where(IMAGES > 0, np.nan, 0), "must be finite, got NaN or Inf"),
        (Model(), np.where(IMAGES > 0, np.inf, 0), "must be finite, got NaN or Inf"),
        (Model(), IMAGES - 0.75, r"must lie in \[0, 1\], got values from -0.25 to -0.25; scale them"),
        (Model(), IMAGES + 0.75, r"must lie in \[0, 1\], got values from 1.25 to 1.25"),
        (
            Model(),
            IMAGES[:, :3],
            r"takes images of shape \(4, 5, 1\) .*, got \(3, 5, 1\); images must be channels last",
        ),
        (Model(), np.zeros((3, 4, 5, 3)), r"takes images of shape \(4, 5, 1\) .*, got \(4, 5, 3\)"),
        (lambda images, training: images, np.zeros((3, 3, 8, 8)), r"channels last .*, got \(3, 3, 8, 8\); transpose"),
        (lambda images, training: images, np.zeros((3, 4, 8, 5)), r"channels last .*, got \(3, 4, 8, 5\); transpose"),
    ],
)
def test_bad_images_are_refused(classifier, images, message):
    with pytest.raises(ValueError, match=message):
        check_batch(classifier, images, LABELS)


def test_one_bad_pixel_is_enough():
    for value in (-0.01, 1.01, np.nan):
        images = IMAGES.copy()
        images[1, 2, 3, 0] = value
        with pytest.raises(ValueError, match="images must"):
            check_batch(Model(), images, LABELS)


@pytest.mark.parametrize("shape", [(3, 5, 8, 5), (3, 4, 8, 4), (3, 1, 8, 4)])
def test_ambiguous_shapes_are_accepted(shape):
    check_batch(lambda images, training: images, np.zeros(shape), LABELS)


def test_unknown_dimensions_of_the_input_accept_any_size():
    check_batch(Model((None, None, None, 1)), IMAGES, LABELS)
    check_batch(Model([(None, 4, 4, 1)]), IMAGES, LABELS)
    check_batch(Model((None, 20)), IMAGES, LABELS)
    # With a model that declares its shape, the guess by size is not made.
    check_batch(Model((None, 3, 8, 8)), np.zeros((3, 3, 8, 8)), LABELS)


def test_labels_are_limited_by_the_classes_of_the_classifier():
    with pytest.raises(ValueError, match="0 to 1, as the classifier has 2 classes, got 0 to 2"):
        check_batch(Model(output_shape=(None, 2)), IMAGES, LABELS)
    check_batch(Model(output_shape=[(None, 2)]), IMAGES, LABELS)
    check_batch(Model(output_shape=(None, 1, 2)), IMAGES, LABELS)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (LABELS, 3),
        (LABELS, None),
        (LABELS.astype(float), 3),
        (LABELS[:, None], 3),
        (np.eye(3)[LABELS], 3),
        (np.eye(3)[LABELS], None),
        (np.eye(3, dtype=np.uint8)[LABELS], 3),
    ],
)
def test_labels_of_every_kind_become_classes(labels, classes):
    found = check_labels(labels, 3, classes)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, LABELS)


def test_a_column_is_one_hot_where_there_is_one_class():
    np.testing.assert_array_equal(check_labels(np.ones((3, 1)), 3, 1), [0, 0, 0])


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (np.eye(4)[LABELS], 3, r"One-hot labels must have 3 columns, as the classifier has classes, got \(3, 4\)"),
        (np.full((3, 3), 1 / 3), 3, "one-hot: one 1 in each row, and 0 else"),
        (np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0]]), 3, "one-hot"),
        (np.array([[0, 0, 0], [1, 0, 0], [1, 0, 0]]), 3, "one-hot"),
        (np.array([[2, -1, 0], [1, 0, 0], [1, 0, 0]]), 3, "one-hot"),
        (LABELS[:2], 3, r"labels must have shape \[3\] or be one-hot \[3, classes\], got \(2,\)"),
        (np.zeros((3, 2, 2)), 3, r"labels must have shape \[3\] .*, got \(3, 2, 2\)"),
        (np.array(0), 3, r"labels must have shape \[3\] .*, got \(\)"),
        (np.array([0, 0.5, 1]), 3, "labels must be whole numbers, got float64"),
        (np.array([0, np.nan, 1]), 3, "labels must be whole numbers, got float64"),
        (np.array([0, np.inf, 1]), 3, "labels must be whole numbers, got float64"),
        (np.array(["a", "b", "c"]), 3, "labels must be whole numbers, got <U1"),
        (np.array([True, False, True]), 3, "labels must be whole numbers, got bool"),
        (np.array([-1, 0, 2]), 3, "labels must be 0 to 2, as the classifier has 3 classes, got -1 to 2"),
        (np.array([1, 0, 3]), 3, "labels must be 0 to 2, as the classifier has 3 classes, got 0 to 3"),
        (np.array([1, 0, -1]), None, "labels must be 0 or more, got -1 to 1"),
    ],
)
def test_bad_labels_are_refused(labels, classes, message):
    with pytest.raises(ValueError, match=message):
        check_labels(labels, 3, classes)


@pytest.mark.parametrize(("radius", "expected"), [(0.5, [0.5] * 3), ([2], [2] * 3), ([0, 1, 2], [0, 1, 2])])
def test_the_radius_is_broadcast_to_the_images(radius, expected):
    found = check_radius(radius, 3)
    assert found.dtype == np.float32 and found.shape == (3,)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("radius", "message"),
    [
        ({}, "radius must be one number or one for each image, got {}"),
        ([0.1, 0.2], r"one number or one for each of the 3 images, got shape \(2,\)"),
        (np.zeros((3, 1)), r"got shape \(3, 1\)"),
        ([0.1, -0.1, 0.2], "radius must be finite and at least 0, got -0.1.* to 0.2"),
        ([0.1, np.inf, 0.2], "radius must be finite and at least 0, got 0.1.* to inf"),
        (np.nan, "radius must be finite and at least 0"),
    ],
)
def test_a_bad_radius_is_refused(radius, message):
    with pytest.raises(ValueError, match=message):
        check_radius(radius, 3)


def test_the_number_of_classes_of_a_model_and_of_a_function():
    assert num_classes(Model()) == 3
    for shape in ([(None, 3)], (None, 2, 3), None):
        assert num_classes(Model(output_shape=shape)) is None
    assert num_classes(lambda images: images) is None


def outputs(values, **attributes):
    def classifier(images, training):
        assert training is False
        return np.asarray(values)

    for name, value in attributes.items():
        setattr(classifier, name, value)
    return classifier


@pytest.mark.parametrize(
    ("values", "logits"),
    [
        ([[0.2, 0.8], [1.0, 0.0]], False),
        ([[0.2, 0.805], [1.0, 0.0]], False),
        ([[0.2, 0.83], [1.0, 0.0]], True),
        ([[0.2, 0.8], [1.5, 0.0]], True),
        ([[0.2, 0.8], [1.5, -0.5]], True),
    ],
)
def test_probabilities_are_recognised_by_their_values(values, logits):
    assert outputs_are_logits(outputs(values), IMAGES[:2]) is logits


@pytest.mark.parametrize("declared", [True, False])
def test_declared_from_logits_takes_precedence(declared):
    assert outputs_are_logits(outputs([[0.2, 0.8]], from_logits=declared), IMAGES[:1]) is declared
    assert outputs_are_logits(outputs([[5.0, 0.8]], from_logits=declared), IMAGES[:1]) is declared


@pytest.mark.parametrize(
    ("values", "shape"), [(np.zeros(2), r"\(2,\)"), (np.zeros((3, 2)), r"\(3, 2\)"), (np.zeros((2, 1)), r"\(2, 1\)")]
)
def test_outputs_of_another_shape_are_refused(values, shape):
    with pytest.raises(
        ValueError, match=rf"must return \[n, classes\] with at least 2 classes, got {shape} for 2 imag"
    ):
        outputs_are_logits(outputs(values), IMAGES[:2])


def test_a_classifier_without_the_training_argument_is_refused():
    with pytest.raises(ValueError, match=r"must take \(images, training=False\), but: .*training"):
        outputs_are_logits(lambda images: images, IMAGES)
