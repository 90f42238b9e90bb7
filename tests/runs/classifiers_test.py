"""Loading a classifier for a run: it must be better than chance, and the flags reach it."""

import keras
import numpy as np
import pytest

from wasser_tf.data.selection import Selection
from wasser_tf.models.classifier import CanonicalClassifier
from wasser_tf.models.options import ModelOptions
from wasser_tf.runs.classifiers import check_natural_accuracy, load_checked

COUNT = 64


@pytest.fixture(scope="module")
def images():
    """Images of four classes: the quadrant that is bright."""
    generator = np.random.default_rng(0)
    labels = np.arange(COUNT) % 4
    values = generator.uniform(0, 0.3, size=(COUNT, 4, 4, 1)).astype(np.float32)
    for number, label in enumerate(labels):
        row, column = 2 * (label // 2), 2 * (label % 2)
        values[number, row : row + 2, column : column + 2] += 0.6
    return Selection("quadrants", np.arange(COUNT, dtype=np.int32), values, labels.astype(np.int32), None)


def classifier(*front, bias=0.0, correct=True):
    kernel = np.zeros((16, 4), np.float32)
    for label in range(4):
        row, column = 2 * (label // 2), 2 * (label % 2)
        kernel[[4 * y + x for y in (row, row + 1) for x in (column, column + 1)], label] = 1
    layers = [*front, keras.layers.Flatten(), keras.layers.Dense(4)]
    model = keras.Sequential([keras.Input((4, 4, 1)), *layers])
    model.layers[-1].set_weights([kernel if correct else np.roll(kernel, 1, axis=1), np.array([bias, 0, 0, 0])])
    return model


def check(model, images):
    check_natural_accuracy(model, images.images, images.labels, "mine")


def test_a_good_classifier_passes(images):
    check(classifier(), images)


def test_a_classifier_at_chance_is_refused(images):
    with pytest.raises(ValueError, match=r"mine classifies 0.0 % of the first 64 .*no better than chance \(25.0 %\)"):
        check(classifier(correct=False), images)
    # Too few images to judge by.
    check_natural_accuracy(classifier(correct=False), images.images[:8], images.labels[:8], "mine")


def test_an_unknown_pixel_range_is_compared_with_0_to_255(images, tmp_path):
    # Its bias is that of a model of 0..255: on [0, 1] all images are of class 0.
    model = classifier(bias=200.0)
    model.save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"100.0 % with pixels in \[0, 255\]: give --input_range=0,255"):
        load_checked(str(tmp_path / "m.keras"), ModelOptions(), images)
    loaded = load_checked(str(tmp_path / "m.keras"), ModelOptions(input_range=(0, 255)), images)
    assert isinstance(loaded, CanonicalClassifier)
    assert load_checked(str(tmp_path / "m.keras"), ModelOptions(), images, allow_chance_accuracy=True) is not None


def test_the_pixel_range_of_the_first_layers_is_used(images, tmp_path):
    classifier(keras.layers.Rescaling(1 / 255)).save(tmp_path / "m.keras")
    loaded = load_checked(str(tmp_path / "m.keras"), ModelOptions(), images)
    assert loaded.description.input_range == (0, 255)
