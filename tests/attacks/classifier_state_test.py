"""Attacks use the current state of a classifier, and compile again only if its graph changes."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import wasser_tf
from wasser_tf import attacks
from wasser_tf.attacks import compilation
from wasser_tf.attacks.problem import Perturbation
from wasser_tf.models.structure import structure_of

BALL = wasser_tf.ThreatModel(epsilon=0.3, kernel_size=3)
SHAPE = (8, 8, 1)
L = keras.layers


class Scoring(attacks.Attack):
    """Scores images as they are: nothing to compile but the classifier."""

    name = "scoring"
    in_wasserstein_ball = False
    iterations: int = 1

    def perturb(self, problem):
        return Perturbation(plan=None, raw=problem.images, radius=problem.radius, iterations=problem.index)


SCORING = Scoring(BALL)


@pytest.fixture
def traces(monkeypatch):
    """Counts how often an attack is traced."""
    counted = []
    run = Scoring.run
    monkeypatch.setattr(
        Scoring, "run", lambda self, *given, **options: counted.append(1) or run(self, *given, **options)
    )
    return counted


def losses_of(classifier, images, labels):
    """The losses that the attack reports, and those of the classifier itself on the same examples."""
    result = SCORING(classifier, images, labels, from_logits=True)
    logits = np.asarray(classifier(result.adversarial, training=False))
    return result.loss, keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True).numpy()


def check_seen(classifier, images, labels, change):
    before, _ = losses_of(classifier, images, labels)
    change()
    after, expected = losses_of(classifier, images, labels)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)


def sequential():
    return keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(6, activation="tanh"), L.Dense(3)])


def functional():
    image = keras.Input(SHAPE)
    hidden = L.BatchNormalization(name="norm")(L.Flatten()(image))
    return keras.Model(image, L.Dense(3, name="logits")(hidden))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.flat = L.Flatten()
        self.blocks = [L.Dense(6), L.Dense(3)]
        self.scale = 1.0
        self.table = np.ones(3, np.float32)

    def call(self, images, training=False):
        x = self.flat(images)
        for block in self.blocks:
            x = block(x)
        return self.scale * x * self.table


def replace_the_head(model):
    model.pop()
    model.add(L.Dense(3, bias_initializer="ones"))


def replace_a_block(model):
    model.blocks[-1] = L.Dense(3)


def set_scale(model):
    model.scale = 3.0


def set_table(model):
    model.table[1] = 5.0


def replace_activation(model):
    model.layers[1].activation = keras.activations.relu


def change_the_dtype(model):
    model.layers[-1].dtype_policy = "mixed_float16"


def enable_lora(model):
    model.layers[-1].enable_lora(2)
    model.layers[-1].lora_kernel_b.assign(np.ones((2, 3), np.float32))


def set_weights(model):
    model.set_weights([3 * weight + 0.1 for weight in model.get_weights()])


CHANGES = [
    (sequential, replace_the_head),
    (sequential, replace_activation),
    (sequential, lambda model: model.quantize("int8")),
    (sequential, enable_lora),
    (sequential, set_weights),
    (functional, set_weights),
    (Subclassed, replace_a_block),
    (Subclassed, set_scale),
    (Subclassed, set_table),
    (Subclassed, set_weights),
]


@pytest.mark.parametrize(("make", "change"), CHANGES)
def test_changed_weights_take_effect_in_the_next_attack(make, change, images, labels):
    model = make()
    model(images[:1])
    structure = structure_of(model)
    if change is set_weights:
        check_seen(model, images, labels, lambda: change(model))
        assert structure_of(model) == structure
        return
    # By its structure; one case of many goes all the way below.
    change(model)
    assert structure_of(model) != structure and structure_of(model) == structure_of(model)


def test_replaced_layers_take_effect_in_the_next_attack(images, labels):
    for make, change in ((sequential, replace_the_head), (Subclassed, replace_a_block)):
        model = make()
        check_seen(model, images, labels, lambda model=model, change=change: change(model))


@pytest.mark.parametrize("change", [lambda m: setattr(m.layers[2], "trainable", False), change_the_dtype])
def test_trainable_flags_and_dtypes_are_part_of_the_structure(change):
    model = functional()
    structure = structure_of(model)
    change(model)
    assert structure_of(model) != structure


def test_an_unchanged_model_is_traced_once(traces, images, labels):
    model = sequential()
    for _ in range(2):
        SCORING(model, images, labels)
    Scoring(wasser_tf.ThreatModel(epsilon=0.3, kernel_size=3))(model, images, labels)
    # What Keras does with a model leaves the graph alone.
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(images, labels, verbose=0)
    model.evaluate(images, labels, verbose=0)
    model.predict(images, verbose=0)
    SCORING(model, images, labels)
    assert len(traces) == 1
    replace_the_head(model)
    SCORING(model, images, labels)
    Scoring(BALL, seed=1)(model, images, labels)
    assert len(traces) == 3


def test_one_attack_keeps_the_compiled_functions_of_two_models(traces, images, labels):
    one, two = sequential(), sequential()
    for model in (one, two, one, two):
        SCORING(model, images, labels)
    assert len(traces) == 2


FACTOR = 1.0


def test_a_function_is_retraced_when_a_python_value_that_it_reads_changes(
    traces, linear_classifier, images, labels, monkeypatch
):
    scale, table, variable = [1.0], {"shift": np.zeros(3, np.float32)}, tf.Variable(0.1)

    def classifier(given, training=False):
        logits = linear_classifier(given, training=training)
        return FACTOR * scale[0] * variable * logits + table["shift"]

    def change_scale():
        scale[0] = 2.0

    def change_table():
        table["shift"][0] = 2.0

    check_seen(classifier, images, labels, change_scale)
    check_seen(classifier, images, labels, change_table)
    check_seen(classifier, images, labels, lambda: monkeypatch.setitem(globals(), "FACTOR", 2.0))
    traced = len(traces)
    # A variable is read anew by the same graph.
    check_seen(classifier, images, labels, lambda: variable.assign(3.0))
    assert len(traces) == traced == 4


def test_a_callable_object_is_retraced_when_an_attribute_changes(linear_classifier, images, labels):
    class Classifier:
        offset = 0.0

        def __init__(self):
            self.inner, self.factor = linear_classifier, 1.0

        def __call__(self, given, training=False):
            return self.factor * self.inner(given, training=training) + tf.constant([0.0, 0.0, 1.0]) * self.offset

    classifier = Classifier()
    check_seen(classifier, images, labels, lambda: setattr(classifier, "factor", 2.0))
    check_seen(classifier, images, labels, lambda: setattr(Classifier, "offset", 2.0))
    method = classifier.__call__
    structure = structure_of(method)
    assert structure == structure_of(method)
    classifier.factor = 3.0
    assert structure != structure_of(method)


@pytest.mark.parametrize("kind", ["model", "function"])
def test_classifiers_are_not_kept_alive(kind, linear_classifier, images, labels):
    if kind == "model":
        classifier = sequential()
    else:
        weights = np.ones((64, 3), np.float32)

        def classifier(given, training=False):
            return tf.reshape(given, [-1, 64]) @ weights

    SCORING(classifier, images, labels, from_logits=True)
    assert classifier in compilation._functions
    alive, count = weakref.ref(classifier), len(compilation._functions)
    del classifier
    gc.collect()
    assert alive() is None and len(compilation._functions) < count


def test_equal_classifiers_are_compiled_separately(linear_classifier, images, labels):
    class Always:
        def __init__(self, factor):
            self.factor = factor

        def __eq__(self, other):
            return isinstance(other, Always)

        def __hash__(self):
            return 0

        def __call__(self, given, training=False):
            return self.factor * linear_classifier(given, training=training)

    one, two = Always(1.0), Always(4.0)
    assert not np.allclose(losses_of(one, images, labels)[0], losses_of(two, images, labels)[0])


def test_unhashable_classifiers_and_attacks_are_supported(linear_classifier, images, labels):
    class Unhashable:
        __hash__ = None

        def __call__(self, given, training=False):
            return linear_classifier(given, training=training)

    expected = SCORING(linear_classifier, images, labels, from_logits=True).loss
    np.testing.assert_allclose(SCORING(Unhashable(), images, labels, from_logits=True).loss, expected, rtol=1e-5)

    class Listing(Scoring):
        names: list = None

    found = Listing(BALL, names=["a"])(linear_classifier, images, labels, from_logits=True)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)


def test_few_functions_are_kept_for_a_classifier(linear_classifier, monkeypatch):
    monkeypatch.setattr(compilation, "_FUNCTIONS_PER_CLASSIFIER", 2)
    made = [compilation.compiled_attack(Scoring(BALL, seed=seed), linear_classifier, True) for seed in range(3)]
    assert compilation.compiled_attack(Scoring(BALL, seed=2), linear_classifier, True) is made[2]
    assert compilation.compiled_attack(Scoring(BALL, seed=0), linear_classifier, True) is not made[0]
