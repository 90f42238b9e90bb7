"""The tables of docs/how_to/bring_your_own_model.md: each row is run, and has the outcome that it states."""

import functools
import pathlib
import re
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from tests.commands import conftest as commands
from wasser_tf import Classifier, ThreatModel, WasserTrain, attacks, models
from wasser_tf.data.selection import Selection
from wasser_tf.models import ModelOptions
from wasser_tf.runs.classifiers import load_checked

L = keras.layers
load = commands.load
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "how_to" / "bring_your_own_model.md"
IMAGES = np.random.default_rng(0).uniform(size=(4, 6, 6, 1)).astype(np.float32)
COLOUR = np.random.default_rng(1).uniform(size=(4, 6, 6, 3)).astype(np.float32)
LABELS = np.arange(4) % 3
ATTACK = attacks.make("frank_wolfe", ThreatModel(epsilon=0.05, kernel_size=3), iterations=1)
# The words of the second column, and the outcome that each of them states.
_WORDS = {
    "accepted": "accepted",
    "clipped": "accepted",
    "read from": "accepted",
    "unless": "accepted",
    "first; else": "accepted",
    "import their": "accepted",
    "with a warning": "warned",
    "asked for": "asked",
    "and ask": "asked",
    "need": "asked",
    "all are listed": "asked",
    "refused": "refused",
    "refuses": "refused",
    "named": "refused",
    "stop": "refused",
}


def _rows():
    """Yields the two cells of each row."""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 2 and not cells[0].startswith((":--", "the classifier", "the file")):
            yield cells


ROWS = dict(_rows())


def outcome(work):
    """Runs it and returns "accepted", "warned", "asked" or "refused", and the message."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            work()
        except ValueError as error:
            message = str(error)
            assert "\n" not in message.strip()
            asks = re.search(
                r"\b(give|choose)\b.*(--|input_range|data_format|returns|image_shape|from_logits=)", message
            )
            return "asked" if asks else "refused", message
    messages = [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
    return ("warned" if any("flagged" in message for message in messages) else "accepted"), " ".join(messages)


def dense(units=3, activation=None):
    return [L.Flatten(), L.Dense(units, activation=activation)]


def functional(*layers, shape=(6, 6, 1), **options):
    image = x = keras.Input(shape, **options)
    for layer in layers or dense():
        x = layer(x)
    return keras.Model(image, x)


class _Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = functional()

    def call(self, images):
        return self.inner(images)


def described(model, shape=(6, 6, 1), **given):
    """Describes it and calls it in canonical form on images in [0, 1]."""
    classifier = Classifier(model, **given)
    description = classifier.describe(shape)
    images = np.resize(IMAGES, (4, *description.image_shape))
    assert classifier.canonical(shape)(tf.constant(images)).shape == (4, description.num_classes)
    return description


def attacked(model, images=IMAGES, labels=LABELS, **options):
    result = ATTACK(model, images, labels, **options)
    assert result.adversarial.shape == images.shape and result.feasibility.feasible().all()
    return result


def trained(model, loss, images=IMAGES):
    wrapped = WasserTrain(model, ATTACK, omega=0.0)
    wrapped.compile("sgd", loss)
    wrapped.fit(images, LABELS, verbose=0)


def _probabilities(from_logits=False):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)


def _clip():
    return L.Activation(lambda x: keras.ops.clip(x / 9 + 0.4, 0, 1))


def _every_kind(folder):
    functional().export(folder / "exported", verbose=False)
    inner = functional()
    for model in (
        functional(),
        keras.Sequential([keras.Input((6, 6, 1)), *dense()]),
        keras.Sequential(dense()),
        keras.Sequential([keras.Input((6, 6, 1)), functional()]),
        _Subclassed(),
        lambda images, training=False: inner(images),
        models.load_classifier(folder / "exported"),
    ):
        described(model)
    attacked(model)


def _eight_bits(folder):
    preprocess = keras.applications.vgg16.preprocess_input
    image = keras.Input((6, 6, 3))
    description = described(keras.Model(image, L.Dense(3)(L.Flatten()(preprocess(image)))), (6, 6, 3))
    assert description.input_range == (0, 255)
    normalization = L.Normalization(mean=120.0, variance=3600.0, axis=None)
    for front in (normalization, L.Lambda(lambda x: x / 255.0), L.Rescaling(1 / 255)):
        model = functional(front, *dense())
        assert described(model).input_range == (0, 255)
    unit, own = attacked(model), attacked(model, IMAGES * np.float32(255))
    np.testing.assert_array_equal(unit.success, own.success)
    np.testing.assert_allclose(own.adversarial / 255, unit.adversarial, atol=1e-3)


def _unit(folder):
    for front in (L.Rescaling(2.0, offset=-1.0), L.BatchNormalization(), L.RandomFlip("horizontal")):
        assert described(functional(front, *dense())).input_range == (0, 1)


def _selection(classifier, count=40):
    """Images, and labels which the classifier knows of images in 0..255."""
    images = np.random.default_rng(2).uniform(size=(count, 6, 6, 1)).astype(np.float32)
    labels = classifier.predict(images * 255, verbose=0).argmax(axis=1).astype(np.int32)
    return Selection("made", np.arange(count, dtype=np.int32), images, labels, None)


def _trained_on_eight_bits(folder):
    """A classifier without preprocessing whose answers depend on the range, its file and its images."""
    model = functional(L.Flatten(), L.Dense(3, bias_initializer=keras.initializers.Constant([0.0, 40.0, -40.0])))
    model.save(folder / "eight.keras")
    return str(folder / "eight.keras"), _selection(model)


def _saved(folder, **changes):
    path, images = _trained_on_eight_bits(folder)
    return load_checked(path, ModelOptions(**changes), images)


def _unit_rounding(amount):
    images = IMAGES.copy()
    images[0, 0, 0, 0] = 1 + amount
    result = ATTACK(functional(), images, LABELS)
    assert result.adversarial.max() <= 1


def _heads():
    image = keras.Input((6, 6, 1))
    flat = L.Flatten()(image)
    return keras.Model(image, {"digit": L.Dense(3)(flat), "parity": L.Dense(2)(flat)})


def _two_inputs():
    one, other = keras.Input((6, 6, 1)), keras.Input((3,))
    return keras.Model([one, other], L.Dense(3)(L.Concatenate()([L.Flatten()(one), other])))


def _saturated(softmax):
    wide = L.Dense(3, kernel_initializer=keras.initializers.RandomNormal(stddev=80, seed=1))
    return functional(L.Flatten(), wide, softmax)


def _softmaxes(folder):
    for softmax in (L.Softmax(), L.Lambda(tf.nn.softmax)):
        assert not attacked(_saturated(softmax)).flagged.any()
    _saturated(L.Softmax()).export(folder / "softmax", verbose=False)
    assert not attacked(models.load_classifier(folder / "softmax")).flagged.any()


def _hidden_softmax(folder):
    hidden = L.Lambda(lambda x: tf.exp(x - tf.reduce_logsumexp(x, axis=1, keepdims=True)))
    assert attacked(_saturated(hidden)).flagged.any()


def _add():
    image = keras.Input((6, 6, 1))
    flat = L.Flatten()(image)
    return keras.Model(image, L.Add()([L.Dense(3)(flat), L.Dense(3)(flat)]))


def _ensemble(activation, units=3):
    image = keras.Input((6, 6, 1))
    flat = L.Flatten()(image)
    return keras.Model(image, sum(0.5 * L.Dense(units, activation=activation)(flat) for _ in range(2)))


def _behind(folder):
    for front in (L.Resizing(4, 4), L.CenterCrop(4, 4), L.ZeroPadding2D(1), L.AveragePooling2D(2)):
        assert described(functional(front, L.Rescaling(1 / 255), *dense())).input_range == (0, 255)


def _first_output_loss(y, outputs):
    return keras.ops.mean(outputs[:, 0] ** 2)


def _own_layer(folder):
    """A file with a layer of a module that is not imported; returns its path."""
    (folder / "layers_of_the_table.py").write_text(
        "import keras\n\n\n@keras.saving.register_keras_serializable('table')\nclass Twice(keras.layers.Layer):\n"
        "    def call(self, inputs):\n        return 2 * inputs\n"
    )
    sys.path.insert(0, str(folder))
    try:
        import layers_of_the_table

        functional(layers_of_the_table.Twice(), *dense()).save(folder / "own.keras")
    finally:
        sys.modules.pop("layers_of_the_table", None)
        keras.saving.get_custom_objects().pop("table>Twice")
    return folder / "own.keras"


def _imported(folder, load):
    """Loads a file whose layers the flag --import of a binary registers."""
    path = _own_layer(folder)
    sys.path.insert(0, str(folder))
    try:
        binary = load("attack")
        flags.FLAGS(["bin", f"--model={path}", "--output_dir=o", "--import=layers_of_the_table"])
        binary._flags.import_modules()
        described(models.load_classifier(path))
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("layers_of_the_table", None)
        keras.saving.get_custom_objects().pop("table>Twice", None)


def _files(folder):
    model = functional()
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    model.export(folder / "numbered" / "1", verbose=False)
    for name in ("m.keras", "m.h5", "numbered"):
        np.testing.assert_allclose(models.load_classifier(folder / name)(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-6)
    described(models.load_classifier("pretrained:mnist_wassertrain"), (28, 28, 1))
    lenet = models.build("lenet", (28, 28, 1), 10, seed=0)
    names = {"conv1": "conv1", "conv2": "conv2", "dense1": "dense1", "logits": "dense2"}
    arrays = {
        f"{theirs}_{kind}": weight
        for ours, theirs in names.items()
        for kind, weight in zip(("kernel", "bias"), lenet.get_layer(ours).get_weights(), strict=True)
    }
    np.savez(folder / "published.npz", **arrays)
    described(models.load_classifier(folder / "published.npz"), (28, 28, 1))
    _save_as_keras_2(model, folder / "old", ["output"])
    described(models.load_classifier(folder / "old"))


def _save_as_keras_2(model, path, keys, signatures=("serving_default",)):
    """Writes a SavedModel with inputs and outputs as model.save of Keras 2 named them."""
    module = tf.Module()
    module.keras_api = model

    def make():
        @tf.function(input_signature=[tf.TensorSpec([None, 6, 6, 1], tf.float32, name="input_1")])
        def serve(input_1):
            return {key: model(input_1, training=False) + place for place, key in enumerate(keys)}

        return serve

    tf.saved_model.save(module, str(path), signatures={name: make() for name in signatures})


def _chosen(folder):
    model = functional()
    _save_as_keras_2(model, folder / "both", ["probabilities", "logits"])
    assert models.load_classifier(folder / "both").output == "logits"
    _save_as_keras_2(model, folder / "named", ["dense"], ("classify", "serving_default"))
    assert models.load_classifier(folder / "named").signature == "serving_default"


def _not_chosen(folder):
    _save_as_keras_2(functional(), folder / "several", ["dense", "dense_1"])
    try:
        models.load_classifier(folder / "several")
    except ValueError as error:
        assert "input_1 float32 [n, 6, 6, 1]" in str(error) and "--output" in str(error) and "--signature" in str(error)
        raise


def _weights_alone(folder):
    functional().save_weights(folder / "w.weights.h5")
    models.load_classifier(folder / "w.weights.h5")


def _lambda(folder):
    functional(L.Lambda(lambda x: 2 * x), *dense()).save(folder / "lambda.keras")
    models.load_classifier(folder / "lambda.keras")


# What each row states, part by part; `f` is an empty folder.
CHECKS = {
    "functional, Sequential (with or without Input), nested, subclassed; a function; a SavedModel": [_every_kind],
    "begins with a `Rescaling`, `Normalization`, `x / 255`, or the preprocessing of keras.applications, for pixels of "
    "0..255": [_eight_bits],
    "begins with such a layer for [0, 1], with batch normalization or with augmentation layers": [_unit],
    "such a layer behind a resize, crop, border, pooling or clip, or in several branches that agree": [_behind],
    "begins with another scale, such as 1/16, or with branches that disagree or cannot be looked into": [
        lambda f: attacked(functional(L.Rescaling(1 / 16), *dense()))
    ],
    "no preprocessing, but trained on 0..255": [_saved],
    "takes images of mean 0 (negative pixels)": [lambda f: attacked(functional(), IMAGES - np.float32(0.5))],
    '`keras.Input(dtype="uint8")`': [lambda f: attacked(functional(*dense(), dtype="uint8"), IMAGES * np.float32(255))],
    "integer inputs of an inner model or of a signature": [
        lambda f: attacked(keras.Sequential([keras.Input((6, 6, 1)), functional(*dense(), dtype="uint8")]))
    ],
    "pixels within 1e-6 of [0, 1]": [lambda f: _unit_rounding(5e-7), lambda f: _unit_rounding(1e-5)],
    "channels first, with a `Permute` or convolutions that show it": [
        lambda f: attacked(functional(L.Permute((2, 3, 1)), *dense(), shape=(3, 6, 6)), COLOUR.transpose(0, 3, 1, 2))
    ],
    "channels first or last, and nothing shows which": [
        lambda f: attacked(functional(shape=(3, 6, 6)), COLOUR.transpose(0, 3, 1, 2))
    ],
    "a `data_format` that the first operations contradict": [
        lambda f: described(functional(L.Conv2D(2, 3), *dense()), data_format="channels_first")
    ],
    "flattened images": [
        lambda f: (
            described(functional(L.Dense(3), shape=(36,))),
            described(functional(L.Dense(3), shape=(36,)), (36,), image_shape=(6, 6, 1)),
        ),
        lambda f: described(functional(L.Dense(3), shape=(108,)), (6, 6, 3)),
    ],
    "images [n, height, width] without channels": [lambda f: attacked(functional(shape=(6, 6)), IMAGES[..., 0])],
    "a fixed batch size": [
        lambda f: attacked(functional(batch_size=3)),
        lambda f: trained(functional(batch_size=3), _probabilities(True)),
    ],
    "several inputs": [lambda f: attacked(_two_inputs())],
    "several outputs, in a list or a dict": [lambda f: attacked(_heads())],
    "one sigmoid unit": [lambda f: attacked(functional(*dense(1, "sigmoid")), labels=LABELS % 2)],
    "one unit without activation": [lambda f: described(functional(*dense(1)))],
    "one unit, values in [0, 1] of unknown origin": [lambda f: described(functional(*dense(1), _clip()))],
    "several sigmoid units, or values in [0, 1] that do not add up to 1": [
        lambda f: described(functional(*dense(3, "sigmoid")))
    ],
    "a mean or weighted sum of several softmaxes": [
        lambda f: attacked(_ensemble("softmax")),
    ],
    "a mean or difference of sigmoid units": [
        lambda f: described(_ensemble("sigmoid", 1)),
        lambda f: described(_ensemble("sigmoid")),
    ],
    "the number of a class alone": [
        lambda f: described(functional(*dense(), L.Lambda(lambda x: tf.argmax(x, axis=1))))
    ],
    "announced as probabilities, but negative or not adding up to 1": [
        lambda f: attacked(functional(), from_logits=False)
    ],
    "announced as logits, but from a softmax or sigmoid": [
        lambda f: described(functional(*dense(3, "softmax")), returns="logits")
    ],
    "a softmax of any kind that the graph shows (a layer, a function in a Lambda, in a SavedModel)": [_softmaxes],
    "saturated probabilities without such a softmax": [_hidden_softmax],
    "outputs that are random, or depend on the other images of a batch": [
        lambda f: attacked(functional(L.Lambda(lambda x: tf.nn.dropout(x, 0.5)), *dense())),
    ],
    "a loss that takes the other of logits and probabilities (WasserTrain)": [
        lambda f: trained(functional(), _probabilities())
    ],
    "a loss that does not show which (WasserTrain)": [
        lambda f: trained(_add(), _first_output_loss),
        lambda f: trained(functional(*dense(), _clip()), _first_output_loss),
    ],
    "WasserTrain on a model of another range or order": [
        lambda f: trained(functional(L.Rescaling(1 / 255), *dense()), _probabilities(True)),
        lambda f: trained(Classifier(functional(L.Rescaling(1 / 255), *dense())), _probabilities(True)),
    ],
    "no better than chance on the first 16 to 256 images": [
        lambda f: _chance(f, allow=False),
        lambda f: _chance(f, allow=True),
    ],
    "`.keras`, `.h5`, a published `.npz`, a SavedModel of Keras 2 or 3 or its numbered versions, `pretrained:NAME`": [
        _files
    ],
    "layers of your own": [lambda f: models.load_classifier(_own_layer(f)), _imported],
    "`Lambda` layers": [_lambda],
    "weights without a model": [_weights_alone],
    "a SavedModel with several signatures or outputs": [_chosen, _not_chosen],
}
# Messages whose last words offer a remedy that is another model or another argument, not a field of `Classifier`.
_REFUSALS_THAT_OFFER_A_FIELD = {
    "several sigmoid units, or values in [0, 1] that do not add up to 1",
    "a mean or difference of sigmoid units",
    "announced as probabilities, but negative or not adding up to 1",
    "announced as logits, but from a softmax or sigmoid",
    "a loss that takes the other of logits and probabilities (WasserTrain)",
    "WasserTrain on a model of another range or order",
    "no better than chance on the first 16 to 256 images",
    "layers of your own",
    "integer inputs of an inner model or of a signature",
    "takes images of mean 0 (negative pixels)",
    "pixels within 1e-6 of [0, 1]",
    "a fixed batch size",
}


def _chance(folder, allow):
    path, images = _trained_on_eight_bits(folder)
    rolled = images._replace(labels=np.arange(len(images.labels), dtype=np.int32) % 3)
    load_checked(path, ModelOptions(input_range=(0, 255)), rolled, allow_chance_accuracy=allow)


def test_every_row_has_a_check_and_every_check_a_row():
    assert list(CHECKS) == list(ROWS)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("row", CHECKS)
def test_a_row_has_the_outcome_that_it_states(row, tmp_path, load):
    stated = re.findall("|".join(map(re.escape, _WORDS)), ROWS[row])
    expected = [_WORDS[word] for word in stated]
    assert expected, f"the row {ROWS[row]!r} states no known outcome"
    for place, check in enumerate(CHECKS[row]):
        folder = tmp_path / str(place)
        folder.mkdir()
        found, message = outcome(functools.partial(check, *((folder, load) if check is _imported else (folder,))))
        wanted = expected[min(place, len(expected) - 1)]
        if wanted == "refused" and row in _REFUSALS_THAT_OFFER_A_FIELD:
            assert found in ("asked", "refused"), message
        else:
            assert found == wanted, message
        if wanted == "asked":
            # Whatever the row names in code is named by the message.
            named = re.findall(r"`-*(\w+)`", ROWS[row])
            assert any(name in message for name in named) or not named, message
