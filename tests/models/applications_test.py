"""Classifiers of keras.applications by name."""

import keras
import numpy as np
import pytest

from wasser_tf import models
from wasser_tf.evaluation.fingerprint import fingerprint
from wasser_tf.models import applications

_SHAPE = (32, 32, 3)


@pytest.fixture(scope="module")
def small():
    return models.build("keras:MobileNetV2", _SHAPE, 7, seed=3, width=0.35)


def test_returns_logits_of_images_in_the_unit_interval(small):
    assert small.input_shape == (None, *_SHAPE) and small.output_shape == (None, 7) and small.input.name == "image"
    assert models.returns_logits(small) is True
    images = np.random.default_rng(0).random((2, *_SHAPE), np.float32)
    inner = next(layer for layer in small.layers if isinstance(layer, keras.Model))
    given = keras.applications.mobilenet_v2.preprocess_input(255 * images)
    np.testing.assert_allclose(small(images), inner(given), atol=1e-5)
    assert models.canonical_of(small, _SHAPE) is small


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0", "DenseNet121", "VGG16", "ResNet50"])
def test_the_conversion_is_that_of_keras(name):
    images = np.random.default_rng(0).random((2, 4, 5, 3), np.float32)
    module = {
        "MobileNetV2": keras.applications.mobilenet_v2,
        "EfficientNetB0": keras.applications.efficientnet,
        "DenseNet121": keras.applications.densenet,
        "VGG16": keras.applications.vgg16,
        "ResNet50": keras.applications.resnet50,
    }[name]
    image = keras.Input((4, 5, 3))
    converted = keras.Model(image, applications._converted(image, name))(images)
    np.testing.assert_allclose(converted, module.preprocess_input(255 * images), atol=1e-3, rtol=1e-5)


def test_the_seed_determines_the_weights(small):
    again = models.build("keras:MobileNetV2", _SHAPE, 7, seed=3, width=0.35)
    other = models.build("keras:MobileNetV2", _SHAPE, 7, seed=4, width=0.35)
    for one, two in zip(small.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(small.get_weights(), other.get_weights(), strict=True))


def test_weights_are_loaded_from_a_file(small, tmp_path):
    inner = next(layer for layer in small.layers if isinstance(layer, keras.Model))
    path = tmp_path / "mine.weights.h5"
    inner.save_weights(path)
    loaded = models.build(f"keras:MobileNetV2:weights={path}", _SHAPE, 7, width=0.35)
    images = np.random.default_rng(0).random((2, *_SHAPE), np.float32)
    np.testing.assert_array_equal(loaded(images), small(images))
    assert len(fingerprint(f"keras:MobileNetV2:weights={path}")) == 64
    with pytest.raises(ValueError, match="does not hold the weights of MobileNetV2 for 5 classes"):
        models.build(f"keras:MobileNetV2:weights={path}", _SHAPE, 5, width=0.35)


def test_saved_and_loaded(small, tmp_path):
    small.save(tmp_path / "a.keras")
    images = np.random.default_rng(0).random((2, *_SHAPE), np.float32)
    np.testing.assert_array_equal(models.load_classifier(tmp_path / "a.keras")(images), small(images))


def test_grey_images_need_no_colour_conversion():
    assert models.build("keras:MobileNet", (32, 32, 1), 3, width=0.25).input_shape == (None, 32, 32, 1)
    with pytest.raises(ValueError, match="VGG16 takes images of 3 channels, got 1: pass --channels=3"):
        applications._conversion("VGG16", 1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("keras:LeNet", {}, "keras.applications has no classifier 'LeNet': pass keras: and one of ConvNeXtBase"),
        ("keras:MobileNetV2:file=x", {}, "there may be :weights=FILE, got 'file=x'"),
        ("keras:MobileNetV2:weights=none.h5", {}, "There is no file none.h5"),
        ("keras:MobileNetV2", {"image_shape": (8, 8, 3)}, "cannot be built for images of 8×8×3 .*image_size"),
        ("keras:VGG16", {"width": 0.5}, "VGG16 has no width, got 0.5"),
    ],
)
def test_wrong_names_and_sizes_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, options.pop("image_shape", _SHAPE), 5, **options)


def test_random_weights_are_not_loaded():
    with pytest.raises(ValueError, match="keras:VGG16 has random weights: give the file of its weights"):
        models.load_classifier("keras:VGG16")


def test_loaded_with_the_usual_size_and_classes(tmp_path, monkeypatch):
    (tmp_path / "w.h5").touch()
    built = []
    monkeypatch.setattr(applications, "build_application", lambda *arguments: built.append(arguments))
    models.load_classifier(f"keras:MobileNetV2:weights={tmp_path}/w.h5")
    models.load_classifier(f"keras:Xception:weights={tmp_path}/w.h5")
    assert [arguments[1:] for arguments in built] == [((224, 224, 3), 1000), ((299, 299, 3), 1000)]
