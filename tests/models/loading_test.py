import functools
import json
import pathlib
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import data, models
from wasser_tf.models.saved_model import SavedModelClassifier
from wasser_tf.runtime import arguments as validators

_built = functools.cache(functools.partial(models.build, image_shape=(32, 32, 3), num_classes=10))


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 13, 3)])
def test_models_map_images_to_float32_logits(name, shape):
    model = models.build(name, shape, 7, width=0.25)
    logits = model(np.random.default_rng(0).random((3, *shape), np.float32), training=False)
    assert logits.shape == (3, 7) and logits.dtype == tf.float32
    assert np.isfinite(logits).all()
    assert model.input.name == "image" and model.layers[-1].name == "logits" and model.name == name
    assert models.returns_logits(model) is True


@pytest.mark.parametrize(
    ("name", "shape", "weights"),
    [
        # (4·4·1 + 1)·… by hand: 272 + 8,224 + (7·7·32 + 1)·100 + 101·10.
        ("lenet", (28, 28, 1), 272 + 8224 + 156900 + 1010),
        ("lenet_wide", (28, 28, 1), 17 * 64 + (16 * 64 + 1) * 128 + (49 * 128 + 1) * 400 + 401 * 10),
        ("linear", (8, 8, 1), 65 * 10),
        ("mlp", (8, 8, 1), 65 * 64 + 65 * 10),
    ],
)
def test_models_have_the_expected_number_of_weights(name, shape, weights):
    assert models.build(name, shape, 10).count_params() == weights


def test_resnets_have_the_expected_number_of_weights():
    def trainable(name):
        return sum(int(np.prod(weight.shape)) for weight in _built(name).trainable_weights)

    assert 11.1e6 < trainable("resnet18") < 11.3e6
    convolutions = 9 * (3 * 16 + 16 * 32 + 32 * 32 + 32 * 96 + 96 * 96 + 96 * 160 + 160 * 160)
    assert trainable("resnet_small") == convolutions + 2 * (16 + 2 * (32 + 96 + 160)) + 161 * 10
    convolutions = 9 * (3 * 96 + 4 * 96 * 96 + 96 * 192 + 3 * 192 * 192 + 192 * 256 + 3 * 256 * 256)
    shortcuts = 96 * 192 + 192 * 256
    # Two before each block's convolutions, and one at the end.
    normalised = 96 + 3 * 96 + (96 + 3 * 192) + (192 + 3 * 256) + 256
    assert trainable("resnet_coarse") == convolutions + shortcuts + 2 * normalised + 257 * 10


def test_width_multiplies_the_hidden_layers():
    assert models.build("lenet", (8, 8, 1), 10, width=4).count_params() == (
        models.build("lenet_wide", (8, 8, 1), 10).count_params()
    )


@pytest.mark.parametrize("name", ["lenet", "resnet_small"])
def test_seed_decides_the_weights_and_layers_differ(name):
    def weights(seed):
        return models.build(name, (8, 8, 1), 10, seed=seed, width=0.5).get_weights()

    first, again, other = weights(3), weights(3), weights(4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    kernels = [weight for weight in first if weight.ndim == 4 and weight.shape[:3] == first[-2].shape[:3]]
    assert all(not np.array_equal(a, b) for a, b in zip(kernels, kernels[1:], strict=False))


def test_logits_stay_float32_under_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = models.build("lenet", (8, 8, 1), 10)
    finally:
        keras.config.set_dtype_policy(before)
    assert model.get_layer("conv1").compute_dtype == "float16"
    assert model(np.ones((1, 8, 8, 1), np.float32)).dtype == tf.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenett", (8, 8, 1), 10), "one of lenet, lenet_wide, resnet_small"),
        (("lenet", (8, 8), 10), "height, width and channels"),
        (("lenet", (8, 8, 0), 10), "height, width and channels"),
        (("lenet", (3, 8, 1), 10), "at least 4×4 pixels, got 3×8"),
        (("lenet", (8, 8, 1), 1), "num_classes must be .* at least 2, got 1"),
    ],
)
def test_build_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.build(*arguments)


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"width": float("nan")}, {"width": "2"}, {"seed": -1}, {"seed": 0.5}]
)
def test_build_refuses_options(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        models.build("mlp", (8, 8, 1), 10, **options)


def _published_arrays():
    names = ["conv1", "conv2", "dense1", "dense2"]
    weights = models.build("lenet", (28, 28, 1), 10, seed=5).get_weights()
    return {
        f"{name}_{kind}": weights[2 * i + j]
        for i, name in enumerate(names)
        for j, kind in enumerate(("kernel", "bias"))
    }


def test_published_arrays_are_assigned_to_their_layers(tmp_path):
    path = tmp_path / "net.npz"
    np.savez(path, **_published_arrays())
    images = np.random.default_rng(0).random((2, 28, 28, 1), np.float32)
    expected = models.build("lenet", (28, 28, 1), 10, seed=5)(images)
    np.testing.assert_array_equal(models.load_classifier(path)(images), expected)


def test_published_checkpoint_is_as_accurate_as_published(shared_data):
    test = data.load("mnist", data_dir=shared_data / "tfds", splits=("test",)).test
    model = models.load_published(shared_data / "checkpoints" / "wong_standard.npz")
    accuracy = np.mean(model.predict(test.images, batch_size=1000, verbose=0).argmax(1) == test.labels)
    assert accuracy == pytest.approx(0.9889, abs=5e-5)


def test_published_checkpoint_refuses_broken_files(tmp_path):
    arrays, path = _published_arrays(), tmp_path / "net.npz"
    with pytest.raises(ValueError, match="There is no file .*net.npz: give the path"):
        models.load_published(path)
    np.savez(path, **{key: array for key, array in arrays.items() if key != "conv2_bias"})
    with pytest.raises(ValueError, match="has no conv2_bias: a published checkpoint holds conv1_kernel"):
        models.load_published(path)
    np.savez(path, **arrays | {"dense1_kernel": np.zeros((100, 1568), np.float32)})
    with pytest.raises(ValueError, match=r"dense1_kernel .* must have the shape \(1568, 100\), got \(100, 1568\)"):
        models.load_published(path)
    np.savez(path, **arrays | {"conv1_bias": np.full(16, np.nan, np.float32)})
    with pytest.raises(ValueError, match="conv1_bias .* must hold finite floats"):
        models.load_published(path)
    np.savez(path, **arrays | {"conv1_bias": np.array(["x"] * 16, object)})
    with pytest.raises(ValueError, match="cannot be read as an .npz file"):
        models.load_published(path)
    np.savez(path, **arrays)
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="cannot be read as an .npz file"):
            models.load_published(path)
    with path.open("wb") as file:
        np.save(file, arrays["conv1_bias"])
    with pytest.raises(ValueError, match="cannot be read as an .npz file"):
        models.load_published(path)


@pytest.fixture(scope="module")
def classifier():
    return models.build("mlp", (8, 8, 1), 10, seed=1, width=0.25)


@pytest.fixture(scope="module")
def images():
    return tf.constant(np.random.default_rng(0).random((3, 8, 8, 1), np.float32))


def test_keras_file_round_trip(tmp_path, classifier, images):
    classifier.save(tmp_path / "net.keras")
    loaded = models.load_classifier(str(tmp_path / "net.keras"))
    np.testing.assert_array_equal(loaded(images), classifier(images))
    assert models.returns_logits(loaded) is True


@keras.saving.register_keras_serializable(package="models_test")
class _Wrapper(keras.Model):
    def __init__(self, classifier, **kwargs):
        super().__init__(**kwargs)
        self.classifier = classifier

    def call(self, images):
        return self.classifier(images)

    def get_config(self):
        return super().get_config() | {"classifier": keras.saving.serialize_keras_object(self.classifier)}

    @classmethod
    def from_config(cls, config):
        config["classifier"] = keras.saving.deserialize_keras_object(config["classifier"])
        return cls(**config)


def test_wrapper_gives_its_classifier(tmp_path, classifier, images):
    wrapper = _Wrapper(classifier)
    wrapper(images)
    wrapper.save(tmp_path / "net.keras")
    loaded = models.load_classifier(tmp_path / "net.keras")
    assert type(loaded) is type(classifier)
    np.testing.assert_array_equal(loaded(images), classifier(images))
    assert models.returns_logits(wrapper) is True


def test_refuses_other_objects_as_classifiers(tmp_path, classifier):
    with pytest.raises(ValueError, match="There is no file .*nothing: give the path of a .keras or .h5 file"):
        models.load_classifier(tmp_path / "nothing")
    (tmp_path / "net.txt").write_bytes(b"")
    with pytest.raises(ValueError, match="net.txt is not a classifier: give the path of a .keras or .h5 file"):
        models.load_classifier(tmp_path / "net.txt")
    (tmp_path / "net.h5").write_bytes(b"")
    with pytest.raises(ValueError, match="net.h5 cannot be loaded"):
        models.load_classifier(tmp_path / "net.h5")
    with pytest.raises(ValueError, match="does not contain saved_model.pb"):
        models.load_classifier(tmp_path)
    path = tmp_path / "net.keras"
    classifier.save(path)
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="net.keras is truncated"):
            models.load_classifier(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
    with pytest.raises(ValueError, match="net.keras cannot be loaded"):
        models.load_classifier(path)


def test_lambda_layers_in_files_are_not_executed(tmp_path):
    image = keras.Input((8, 8, 1))
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2)(image)).save(tmp_path / "net.keras")
    with pytest.raises(ValueError, match="cannot be loaded"):
        models.load_classifier(tmp_path / "net.keras")


@pytest.mark.parametrize(
    "change",
    [
        lambda layers: layers[-1]["config"].update(units=10**9),
        # Two layers, each of which would fit.
        lambda layers: [layer["config"].update(units=10**6) for layer in layers if layer["class_name"] == "Dense"],
        lambda layers: layers[0]["config"].update(batch_shape=[None, 100000, 100000, 3000]),
    ],
)
def test_files_that_need_more_memory_than_available_are_refused_before_loading(tmp_path, monkeypatch, change):
    models.build("mlp", (4, 4, 1), 3, seed=0).save(tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as good, zipfile.ZipFile(tmp_path / "bad.keras", "w") as bad:
        for name in good.namelist():
            content = good.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config["config"]["layers"])
                for layer in config["config"]["layers"]:
                    layer.pop("build_config", None)
                content = json.dumps(config)
            bad.writestr(name, content)
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("Keras was asked to make it."))
    with pytest.raises(ValueError, match=r"The weights of .*bad\.keras need about .* GiB and this machine has .* GiB"):
        models.load_classifier(tmp_path / "bad.keras")


def _export(classifier, path: pathlib.Path, **outputs):
    archive = keras.export.ExportArchive()
    archive.track(classifier)
    spec = tf.TensorSpec((None, 8, 8, 1), tf.float32, name="image")
    archive.add_endpoint(
        "serving_default",
        lambda image: {key: f(classifier(image)) for key, f in outputs.items()},
        input_signature=[spec],
    )
    archive.write_out(str(path), verbose=False)


def test_saved_model_prefers_logits_and_gradients_flow(tmp_path, classifier, images):
    _export(classifier, tmp_path / "3", classes=tf.argmax, probabilities=tf.nn.softmax, logits=tf.identity)
    _export(classifier, tmp_path / "12", probabilities=tf.nn.softmax, logits=tf.identity)
    loaded = models.load_classifier(tmp_path)
    assert isinstance(loaded, SavedModelClassifier) and loaded.path.name == "12"
    assert loaded.from_logits is True and models.returns_logits(loaded) is True
    with pytest.raises(ValueError, match="is not a Keras model: give the .keras file"):
        models.load_keras(tmp_path)
    assert loaded.input_shape == (None, 8, 8, 1) and loaded.output_shape == (None, 10)

    def gradient(model):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(model(images, training=False)[:, 2])
        return tape.gradient(loss, images)

    np.testing.assert_allclose(loaded(images.numpy()), classifier(images), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tf.function(gradient)(loaded), gradient(classifier), rtol=1e-4, atol=1e-6)


def test_saved_model_of_probabilities_or_one_output(tmp_path, classifier, images):
    _export(classifier, tmp_path / "a", probabilities=tf.nn.softmax)
    loaded = models.load_classifier(tmp_path / "a")
    assert models.returns_logits(loaded) is False
    np.testing.assert_allclose(loaded(images), tf.nn.softmax(classifier(images)), rtol=1e-5)
    classifier.export(str(tmp_path / "b"), verbose=False)
    loaded = models.load_classifier(tmp_path / "b")
    assert models.returns_logits(loaded) is None
    np.testing.assert_allclose(loaded(images), classifier(images), rtol=1e-5, atol=1e-6)


def test_saved_model_refuses(tmp_path, classifier):
    _export(classifier, tmp_path / "a", one=tf.identity, two=tf.identity)
    with pytest.raises(ValueError, match="No signature of .* has serving_default: .*: choose one"):
        SavedModelClassifier(tmp_path / "a")
    tf.saved_model.save(tf.Module(), str(tmp_path / "b"))
    with pytest.raises(ValueError, match="No signature of .* has none: choose one"):
        SavedModelClassifier(tmp_path / "b")
    graph = tmp_path / "a" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be loaded .*: export it again"):
        SavedModelClassifier(tmp_path / "a")


def test_returns_logits_reads_the_last_layer():
    image = keras.Input((8, 8, 1))
    features = keras.layers.Flatten()(image)
    assert models.returns_logits(keras.Model(image, keras.layers.Dense(3, "softmax")(features))) is False
    assert models.returns_logits(keras.Model(image, keras.layers.Softmax()(features))) is False
    assert models.returns_logits(keras.Model(image, keras.layers.Dense(3, "relu")(features))) is None
    assert models.returns_logits(keras.Sequential([models.build("mlp", (8, 8, 1), 10)])) is True
    assert models.returns_logits(lambda images: images) is None


def test_a_blur_in_front_is_a_mean_over_neighbours(tmp_path):
    classifier = models.build("linear", (6, 5, 1), 3, seed=0)
    image = np.random.default_rng(0).random((1, 6, 5, 1), np.float32)
    once = np.zeros_like(image)
    for y in range(6):
        for x in range(5):
            once[0, y, x] = image[0, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].mean()
    blurred = models.blurred(classifier, 1)
    np.testing.assert_allclose(blurred(image), classifier(once), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(models.blurred(classifier, 2)(image), blurred(once), rtol=1e-5, atol=1e-6)
    assert models.blurred(classifier, 0) is classifier and models.returns_logits(blurred) is True
    blurred.save(tmp_path / "blurred.keras")
    np.testing.assert_array_equal(models.load_classifier(tmp_path / "blurred.keras")(image), blurred(image))
    with pytest.raises(ValueError, match="blur must be a whole number of passes from 0 to 100, got -1"):
        models.blurred(classifier, -1)
    with pytest.raises(ValueError, match="from 0 to 100, got 101"):
        models.blurred(classifier, 101)
    assert models.blurred(classifier, 100).name == "linear_blurred"


def _outputs(name, kind, attribute=None):
    """Sides and channels of what layers of a kind return, for images of 32×32; or one of their settings."""
    layers = [layer for layer in _built(name).layers if isinstance(layer, kind)]
    if attribute:
        return [getattr(layer, attribute) for layer in layers]
    return [tuple(layer.output.shape[1:]) for layer in layers]


def test_lenets_have_the_published_feature_maps():
    convolution = keras.layers.Conv2D
    assert _outputs("lenet", convolution) == [(16, 16, 16), (8, 8, 32)]
    assert _outputs("lenet_wide", convolution) == [(16, 16, 64), (8, 8, 128)]
    for name in ("lenet", "lenet_wide"):
        assert _outputs(name, convolution, "kernel_size") == [(4, 4), (4, 4)]
        assert _outputs(name, keras.layers.ZeroPadding2D, "padding") == 2 * [((1, 1), (1, 1))]
        for kind, count in ((convolution, 2), (keras.layers.Dense, 1)):
            assert _outputs(name, kind, "activation")[:count] == count * [keras.activations.relu]
    assert models.build("lenet", (4, 4, 1), 2).output_shape == (None, 2)


@pytest.mark.parametrize(
    ("name", "maps", "activation"),
    [
        ("resnet_small", [(32, 16), (32, 32), (16, 32), (16, 96), (8, 96), (8, 160), (4, 160)], "relu"),
        ("resnet_coarse", [(16, 96)] + 4 * [(16, 96)] + 5 * [(8, 192)] + 5 * [(4, 256)], "silu"),
        (
            "resnet18",
            [(32, 64)] + 4 * [(32, 64)] + 5 * [(16, 128)] + 5 * [(8, 256)] + 5 * [(4, 512)],
            "relu",
        ),
    ],
)
def test_resnets_have_the_feature_maps_of_their_kind(name, maps, activation):
    assert [(rows, channels) for rows, _, channels in _outputs(name, keras.layers.Conv2D)] == maps
    assert not any(_outputs(name, keras.layers.Conv2D, "use_bias"))
    initializers = _outputs(name, keras.layers.Conv2D, "kernel_initializer")
    assert {type(initializer) for initializer in initializers} == {keras.initializers.HeNormal}
    assert {one.__name__ for one in _outputs(name, keras.layers.Activation, "activation")} == {activation}
    assert set(_outputs(name, keras.layers.BatchNormalization, "momentum")) == {0.9}
    assert set(_outputs(name, keras.layers.BatchNormalization, "epsilon")) == {1e-5}
    # From [0, 1] to [-2, 2].
    assert (_outputs(name, keras.layers.Rescaling, "scale"), _outputs(name, keras.layers.Rescaling, "offset")) == (
        [4.0],
        [-2.0],
    )
    blocks = {"resnet_small": 3, "resnet_coarse": 6, "resnet18": 8}[name]
    assert len(_outputs(name, keras.layers.Add)) == blocks
    if name != "resnet_small":
        # A shortcut is of 1×1 pixels, of what was normalised; all others are of 3×3.
        sizes = _outputs(name, keras.layers.Conv2D, "kernel_size")
        assert sizes.count((1, 1)) == {"resnet_coarse": 2, "resnet18": 3}[name]
        assert set(sizes) == {(1, 1), (3, 3)}


def test_a_hidden_layer_has_at_least_one_unit():
    assert models.build("mlp", (8, 8, 1), 10, width=1e-3).count_params() == 65 + 20


@pytest.mark.parametrize(
    ("name", "shape", "classes", "width", "gigabytes"),
    # One weight for each pixel and unit; of a convolution the widest; of many classes at least one each.
    [
        ("linear", (1000, 1000, 1), 1000, 1, 3.73),
        ("mlp", (1000, 1000, 1), 2, 10, 2.38),
        ("lenet", (4000, 1000, 1), 2, 4, 1.49),
        ("resnet18", (8, 8, 1), 2, 400, 2.44),
        ("linear", (1, 1, 1), 10**9, 1, 3.73),
    ],
)
def test_models_that_exceed_the_memory_are_not_built(monkeypatch, name, shape, classes, width, gigabytes):
    monkeypatch.setattr(validators, "physical_memory", lambda: 2**30)
    with pytest.raises(ValueError, match=f"The weights of {name} for images of .* need about {gigabytes:g} GiB"):
        models.build(name, shape, classes, width=width)


def test_returns_logits_is_none_where_the_model_does_not_show_it():
    image = keras.Input((8, 8, 1))
    features = keras.layers.Flatten()(image)
    assert models.returns_logits(keras.Model(image, keras.layers.Dense(3, "sigmoid")(features))) is False
    assert models.returns_logits(keras.Sequential([])) is None
    assert models.returns_logits(keras.Model(image, features)) is None
