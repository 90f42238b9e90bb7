"""Classifiers that are accepted, need a description or are refused; the rows of docs/how_to/bring_your_own_model.md."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import Classifier, MirrorAscent, ThreatModel, WasserTrain, models
from wasser_tf.evaluation import metrics
from wasser_tf.models.classifier import CanonicalClassifier
from wasser_tf.models.conversion import canonical_of, prepare_images
from wasser_tf.models.description import clip_rounding
from wasser_tf.models.options import ModelOptions
from wasser_tf.models.saved_model import SavedModelClassifier

L = keras.layers
IMAGES = np.random.default_rng(0).uniform(size=(6, 8, 8, 1)).astype(np.float32)
LABELS = np.arange(6) % 3
ATTACK = MirrorAscent(ThreatModel(epsilon=0.1, kernel_size=3), iterations=2, polish=0)


def functional(*layers, shape=(8, 8, 1), **options):
    image = x = keras.Input(shape, **options)
    for layer in layers or (L.Flatten(), L.Dense(3)):
        x = layer(x)
    return keras.Model(image, x)


def described(model, shape=(8, 8, 1), **given):
    return Classifier(model, **given).describe(shape)


@pytest.mark.parametrize(
    "front",
    [
        lambda: L.Rescaling(1 / 255),
        lambda: L.Rescaling(1 / 256),
        lambda: L.Rescaling(1 / 127.5, offset=-1),
        lambda: L.Normalization(mean=120.0, variance=60.0**2, axis=None),
        lambda: L.Lambda(lambda x: x / 255.0),
        lambda: L.Lambda(lambda x: x - 117.0),
        lambda: functional(L.Rescaling(1 / 255)),
    ],
)
def test_pixels_of_0_to_255_are_found_by_the_first_operations(front):
    description = described(functional(front(), L.Flatten(), L.Dense(3)))
    assert description.input_range == (0, 255) and not description.plain


@pytest.mark.parametrize(
    "front",
    [
        lambda: L.Identity(),
        lambda: L.Rescaling(2.0, offset=-1.0),
        lambda: L.Normalization(mean=0.45, variance=0.05, axis=None),
        lambda: L.BatchNormalization(),
        lambda: L.Dropout(0.5),
        lambda: L.RandomFlip("horizontal"),
    ],
)
def test_a_keras_model_of_unit_pixels_needs_no_conversion(front):
    model = functional(front(), L.Flatten(), L.Dense(3))
    description = described(model)
    assert description.plain and description.input_range == (0, 1)
    assert prepare_images(model, IMAGES).classifier is model and canonical_of(model, (8, 8, 1)) is model


def test_preprocessing_of_keras_applications_is_found():
    preprocess = keras.applications.vgg16.preprocess_input
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, L.Dense(3)(L.Flatten()(preprocess(image))))
    assert described(model, (8, 8, 3)).input_range == (0, 255)


@pytest.mark.parametrize("scale", [1 / 16, 1 / 1000, 0.1])
def test_an_unknown_scale_must_be_given(scale):
    model = functional(L.Rescaling(scale), L.Flatten(), L.Dense(3))
    with pytest.raises(ValueError, match=r"multiplies pixels by .* give input_range \(--input_range\)"):
        ATTACK(model, IMAGES, LABELS)
    assert described(model, input_range=(0, 16)).input_range == (0, 16)


def test_examples_have_the_range_of_the_given_images():
    model = functional(L.Rescaling(1 / 255), L.Flatten(), L.Dense(3))
    unit, own = ATTACK(model, IMAGES, LABELS), ATTACK(model, IMAGES * np.float32(255), LABELS)
    np.testing.assert_array_equal(unit.success, own.success)
    assert unit.adversarial.max() <= 1 < own.adversarial.max() <= 255
    np.testing.assert_allclose(own.adversarial / 255, unit.adversarial, atol=1e-3)
    # Budgets are defined on [0, 1].
    np.testing.assert_allclose(own.feasibility.cost, unit.feasibility.cost, atol=1e-3)
    eight_bit = ATTACK(model, np.round(IMAGES * 255).astype(np.uint8), LABELS)
    assert eight_bit.adversarial.dtype == np.float32 and eight_bit.adversarial.max() > 1
    with pytest.raises(ValueError, match=r"must lie in \[0, 255\].*multiply them by 255"):
        ATTACK(Classifier(model, input_range=(0, 255)), IMAGES, LABELS)
    with pytest.raises(ValueError, match=r"\[0, 255\] \(or \[0, 1\]\), .* got values from .* to 510"):
        ATTACK(model, np.full_like(IMAGES, 510), LABELS)


def test_standardised_images_are_refused():
    with pytest.raises(ValueError, match="normalisation inside the classifier"):
        ATTACK(functional(), IMAGES * 2 - 1, LABELS)
    with pytest.raises(ValueError, match="normalisation inside the model"):
        Classifier(functional(), input_range=(-1, 1))


def test_pixel_rounding_errors_are_clipped_and_larger_ones_reported():
    images = IMAGES.copy()
    images[0, 0, 0], images[0, 0, 1] = 1.0000001, -1e-7
    assert clip_rounding(images).max() == 1 and clip_rounding(images).min() == 0
    assert ATTACK(functional(), images, LABELS).adversarial.max() <= 1
    images[0, 0, 0] = 1.00001
    with pytest.raises(ValueError, match=r"got values from 0 to 1\.00001\d*;"):
        ATTACK(functional(), images, LABELS)


def test_channels_first_is_detected_or_must_be_given():
    images = np.random.default_rng(1).uniform(size=(4, 3, 8, 8)).astype(np.float32)
    shape = (3, 8, 8)
    shown = functional(L.Permute((2, 3, 1)), L.Conv2D(2, 3), L.Flatten(), L.Dense(3), shape=shape)
    result = ATTACK(shown, images, LABELS[:4])
    assert result.adversarial.shape == images.shape
    # No mass leaves its channel.
    np.testing.assert_allclose(result.adversarial.sum((2, 3)), images.sum((2, 3)), rtol=1e-5)
    hidden = functional(shape=shape)
    with pytest.raises(ValueError, match="give data_format='channels_first'"):
        ATTACK(hidden, images, LABELS[:4])
    result = ATTACK(Classifier(hidden, data_format="channels_first"), images, LABELS[:4])
    np.testing.assert_allclose(result.adversarial.sum((2, 3)), images.sum((2, 3)), rtol=1e-5)


def test_flattened_images_and_images_without_channels():
    flat = functional(L.Dense(3), shape=(64,))
    found = ATTACK(flat, IMAGES, LABELS)
    assert found.adversarial.shape == IMAGES.shape
    with pytest.raises(ValueError, match="give image_shape="):
        ATTACK(flat, IMAGES.reshape(6, 64), LABELS)
    own = ATTACK(Classifier(flat, image_shape=(8, 8, 1)), IMAGES.reshape(6, 64), LABELS)
    np.testing.assert_array_equal(own.adversarial.reshape(IMAGES.shape), found.adversarial)
    grey = ATTACK(functional(shape=(8, 8)), IMAGES[..., 0], LABELS)
    assert grey.adversarial.shape == (6, 8, 8)
    with pytest.raises(ValueError, match="flattened images of 3 channels: give data_format"):
        described(functional(L.Dense(3), shape=(192,)), (8, 8, 3))


def test_one_of_several_outputs_is_chosen():
    image = keras.Input((8, 8, 1))
    hidden = L.Flatten()(image)
    digit, parity = L.Dense(3, name="digit")(hidden), L.Dense(2, name="parity")(hidden)
    heads = keras.Model(image, [digit, parity])
    with pytest.raises(ValueError, match=r"2 outputs: digit \[n, 3\], parity \[n, 2\]: choose .* \(--output\)"):
        ATTACK(heads, IMAGES, LABELS)
    expected = ATTACK(keras.Model(image, digit), IMAGES, LABELS)
    for model, output in ((heads, "digit"), (heads, 0), (keras.Model(image, {"a": parity, "b": digit}), "b")):
        found = ATTACK(Classifier(model, output=output), IMAGES, LABELS)
        np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-4)
    with pytest.raises(ValueError, match="none is 'nothing'"):
        described(heads, output="nothing")


def test_several_inputs_are_refused():
    one, other = keras.Input((8, 8, 1), name="picture"), keras.Input((3,), name="place")
    model = keras.Model([one, other], L.Dense(3)(L.Concatenate()([L.Flatten()(one), other])))
    with pytest.raises(ValueError, match=r"takes 2 inputs \(picture .*, place .*\)"):
        ATTACK(model, IMAGES, LABELS)


def test_one_sigmoid_unit_is_two_classes():
    model = functional(L.Flatten(), L.Dense(1, activation="sigmoid"))
    labels = LABELS % 2
    predicted = metrics.predict(model, IMAGES, labels).predicted
    np.testing.assert_array_equal(predicted, model.predict(IMAGES, verbose=0)[:, 0] > 0.5)
    logits = Classifier(model)(IMAGES)
    np.testing.assert_allclose(tf.nn.softmax(logits)[:, 1], model(IMAGES)[:, 0], rtol=1e-4)
    assert ATTACK(model, IMAGES, labels).success.shape == (6,)
    assert described(functional(L.Flatten(), L.Dense(1))).returns == "logits"
    with pytest.raises(ValueError, match="give returns='sigmoid'"):
        described(functional(L.Flatten(), L.Dense(1), L.Activation(lambda x: keras.ops.clip(x / 9 + 0.5, 0, 1))))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((L.Dense(3, activation="sigmoid"),), "3 sigmoid units, whose probabilities do not add up to 1"),
        ((L.Dense(3), L.Activation(lambda x: keras.ops.clip(x / 9 + 0.4, 0, 1))), "do not add up to 1"),
    ],
)
def test_unnormalised_probabilities_are_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        ATTACK(functional(L.Flatten(), *layers), IMAGES, LABELS)


def test_declared_probabilities_and_logits_are_checked():
    logits, softmax = functional(), functional(L.Flatten(), L.Dense(3, activation="softmax"))
    with pytest.raises(ValueError, match="are no probabilities"):
        ATTACK(logits, IMAGES, LABELS, from_logits=False)
    with pytest.raises(ValueError, match="are no probabilities"):
        described(logits, returns="probabilities")
    with pytest.raises(ValueError, match="outputs of a softmax, where logits were announced"):
        described(softmax, returns="logits")


def _saturated(kind):
    scaled = functional(L.Flatten(), L.Dense(3, kernel_initializer=keras.initializers.RandomNormal(stddev=50, seed=1)))
    if kind == "logits":
        return scaled
    if kind == "Lambda":
        return functional(scaled, L.Lambda(tf.nn.softmax))
    if kind == "function":
        return lambda images, training=False: tf.nn.softmax(scaled(images, training=training))
    # What no graph shows the logits of.
    return functional(scaled, L.Lambda(lambda x: tf.exp(x - tf.reduce_logsumexp(x, axis=1, keepdims=True))))


def test_the_logits_before_any_kind_of_softmax_are_used():
    expected = ATTACK(_saturated("logits"), IMAGES, LABELS)
    for kind in ("Lambda", "function"):
        found = ATTACK(_saturated(kind), IMAGES, LABELS)
        np.testing.assert_array_equal(found.success, expected.success)
        np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-3)
        assert not found.flagged.any()


def test_saturated_probabilities_are_flagged_with_a_warning():
    with pytest.warns(UserWarning, match="of 6 images are flagged"):
        found = ATTACK(_saturated("exp"), IMAGES, LABELS)
    assert found.flagged.any()


def test_a_fixed_batch_size():
    model = functional(batch_size=4)
    free = functional()
    free.set_weights(model.get_weights())
    found, expected = ATTACK(model, IMAGES, LABELS), ATTACK(free, IMAGES, LABELS)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-4)
    assert metrics.predict(model, IMAGES, LABELS).predicted.shape == (6,)


def test_a_saved_model_that_takes_one_image_at_a_time(tmp_path):
    model, module = functional(), tf.Module()
    module.model = model
    serve = tf.function(
        lambda image: {"logits": model(image, training=False)},
        input_signature=[tf.TensorSpec([1, 8, 8, 1], tf.float32, "image")],
    )
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": serve})
    loaded = models.load_classifier(tmp_path)
    assert described(loaded).batch_size == 1
    predicted = metrics.predict(loaded, IMAGES, LABELS)
    np.testing.assert_array_equal(predicted.predicted, np.asarray(model(IMAGES)).argmax(axis=1))
    np.testing.assert_allclose(canonical_of(loaded, (8, 8, 1))(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def _save(model, path, signatures):
    module = tf.Module()
    module.model = model
    tf.saved_model.save(module, str(path), signatures=signatures)


def test_signatures_and_outputs_of_saved_models(folder):
    model = functional()

    def signature(shape, dtype, keys):
        spec = [tf.TensorSpec(shape, dtype, "picture")]

        @tf.function(input_signature=spec)
        def serve(picture):
            logits = model(tf.cast(picture, tf.float32), training=False)
            return {key: logits + place for place, key in enumerate(keys)}

        return serve

    image = [None, 8, 8, 1]
    _save(model, folder / "two", {"a": signature(image, tf.float32, "x"), "b": signature(image, tf.float32, "y")})
    with pytest.raises(ValueError, match=r"a: picture float32 \[n, 8, 8, 1\] → x float32 \[n, 3\]; b: .*--signature"):
        models.load_classifier(folder / "two")
    assert models.load_classifier(folder / "two", signature="b").output == "y"
    with pytest.raises(ValueError, match="no signature 'c'"):
        models.load_classifier(folder / "two", signature="c")
    _save(model, folder / "outputs", {"serving_default": signature(image, tf.float32, "xy")})
    with pytest.raises(ValueError, match="--output"):
        models.load_classifier(folder / "outputs")
    chosen = models.load_classifier(folder / "outputs", output="y")
    np.testing.assert_allclose(chosen(IMAGES), model(IMAGES) + 1, rtol=1e-5)
    _save(model, folder / "integers", {"serving_default": signature(image, tf.uint8, "x")})
    with pytest.raises(ValueError, match=r"picture uint8 .*integers have no gradients"):
        models.load_classifier(folder / "integers")
    _save(model, folder / "single", {"serving_default": signature([1, 8, 8, 1], tf.float32, ["logits"])})
    one = models.load_classifier(folder / "single")
    found, expected = ATTACK(one, IMAGES, LABELS), ATTACK(model, IMAGES, LABELS)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-4)
    with pytest.raises(ValueError, match="is for SavedModels"):
        model.save(folder / "plain.keras")
        models.load_classifier(folder / "plain.keras", signature="a")


def test_the_logits_before_the_softmax_of_a_saved_model_are_used(folder):
    scaled = _saturated("logits")
    functional(scaled, L.Softmax()).export(folder / "hot", verbose=False)
    loaded = models.load_classifier(folder / "hot")
    assert isinstance(loaded, SavedModelClassifier)
    found, expected = ATTACK(loaded, IMAGES, LABELS), ATTACK(scaled, IMAGES, LABELS)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-3)
    assert not found.flagged.any()


def test_h5_files_are_loaded(folder):
    model = functional()
    model.save(folder / "old.h5")
    np.testing.assert_allclose(models.load_classifier(folder / "old.h5")(IMAGES), model(IMAGES), rtol=1e-5)
    model.save_weights(folder / "only.weights.h5")
    with pytest.raises(ValueError, match="cannot be loaded"):
        models.load_classifier(folder / "only.weights.h5")


def test_unknown_custom_layers_are_named(folder):
    @keras.saving.register_keras_serializable("mine")
    class Twice(L.Layer):
        def call(self, inputs):
            return 2 * inputs

    functional(Twice(), L.Flatten(), L.Dense(3)).save(folder / "own.keras")
    functional(Twice(), L.Flatten(), L.Dense(3)).save(folder / "own.h5")
    keras.saving.get_custom_objects().pop("mine>Twice")
    for name in ("own.keras", "own.h5"):
        with pytest.raises(ValueError, match=r"needs .*Twice.*--import=my.module"):
            models.load_classifier(folder / name)


def test_the_error_about_lambda_layers_explains_the_remedy(folder):
    functional(L.Lambda(lambda x: 2 * x), L.Flatten(), L.Dense(3)).save(folder / "lambda.keras")
    with pytest.raises(ValueError, match=r"holds a Lambda layer.*model\.export"):
        models.load_classifier(folder / "lambda.keras")


@pytest.mark.parametrize("model", [functional(), keras.Sequential([keras.Input((8, 8, 1)), L.Flatten(), L.Dense(3)])])
def test_a_loss_of_probabilities_refuses_a_classifier_of_logits(model):
    wrapped = WasserTrain(model, ATTACK)
    with pytest.raises(ValueError, match="from_logits=True"):
        wrapped.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=False))


def test_without_from_logits_in_the_loss_the_classifier_decides():
    image = keras.Input((8, 8, 1))
    flat = L.Flatten()(image)
    model = keras.Model(image, L.Add()([L.Dense(3)(flat), L.Dense(3)(flat)]))
    wrapped = WasserTrain(model, ATTACK)
    wrapped.compile("adam", lambda y, p: keras.ops.mean(p))
    assert wrapped._from_logits is True


def test_training_refuses_other_ranges_and_converts_those_of_a_description():
    model = functional(L.Rescaling(1 / 255), L.Flatten(), L.Dense(3))
    with pytest.raises(ValueError, match=r"takes pixels in \[0, 255\].*wasser_tf.Classifier\(model"):
        WasserTrain(model, ATTACK)
    trained = WasserTrain(Classifier(model), ATTACK)
    trained.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = model.get_weights()
    trained.fit(IMAGES, LABELS, verbose=0)
    assert not np.array_equal(before[0], model.get_weights()[0])
    np.testing.assert_allclose(trained.classifier(IMAGES), model(IMAGES * 255), rtol=1e-4, atol=1e-5)


def test_a_description_cannot_be_changed_and_checks_its_fields():
    classifier = Classifier(functional())
    with pytest.raises(AttributeError):
        classifier.input_range = (0, 255)
    for given, message in (
        ({"input_range": (1, 0)}, "two rising finite numbers"),
        ({"input_range": "x"}, "black and a white pixel"),
        ({"data_format": "nchw"}, "channels_last, channels_first"),
        ({"returns": "scores"}, "logits, probabilities, sigmoid"),
        ({"output": -1}, "name or the place"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"image_shape": (8, 8)}, "height, width and channels"),
    ):
        with pytest.raises(ValueError, match=message):
            Classifier(functional(), **given)
    for model in (3, classifier):
        with pytest.raises(ValueError, match="must be"):
            Classifier(model)


def test_options_of_a_binary_are_part_of_the_fingerprint():
    assert ModelOptions().mark("f") == "f" and ModelOptions().to_json() == {}
    options = ModelOptions(input_range=(0, 255), signature="a")
    assert options.to_json() == {"options": {"input_range": [0, 255], "signature": "a"}}
    assert options.mark("f") != "f" and options.of_file == {"signature": "a"}


def test_a_canonical_classifier_follows_its_model():
    model = functional(L.Rescaling(1 / 255), L.Flatten(), L.Dense(3))
    classifier = canonical_of(model, (8, 8, 1))
    assert isinstance(classifier, CanonicalClassifier) and classifier.input_shape == (None, 8, 8, 1)
    before = classifier(IMAGES).numpy()
    model.layers[-1].kernel.assign(2 * model.layers[-1].kernel)
    np.testing.assert_allclose(classifier(IMAGES), 2 * before, rtol=1e-5, atol=1e-6)
