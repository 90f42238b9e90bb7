"""Losses and metrics of natural and adversarial images: their values, weights, names and variables."""

import functools

import keras
import pytest
import tensorflow as tf

from wasser_tf.training.adversarial_metrics import AdversarialScores, NaturalAndAdversarial, loss_takes_logits

X = tf.zeros([4, 2, 2, 1])
Y = tf.constant([0, 1, 0, 1])
RIGHT_ON_FIRST = tf.constant([[2.0, 1.0], [2.0, 1.0], [1.0, 2.0], [1.0, 3.0]])  # right, wrong, wrong, right
WEIGHTS = tf.constant([3.0, 1.0, 0.0, 0.0])


def values(scores):
    return {name: float(value) for name, value in scores.result().items()}


def scores_of(**options):
    options = {"metrics": ["accuracy"], "weighted_metrics": [keras.metrics.SparseCategoricalAccuracy("w")], **options}
    return AdversarialScores(**options)


def test_metrics_and_weighted_metrics_are_updated_with_their_weights():
    scores = scores_of(prefix="certified_")
    scores.update(X, Y, RIGHT_ON_FIRST, WEIGHTS)
    scores.update_loss(tf.constant(2.0), tf.constant(3))
    scores.update_loss(tf.constant(6.0), tf.constant(1))
    assert values(scores) == {"certified_loss": 3.0, "certified_accuracy": 0.5, "certified_w": 0.75}
    scores.reset()
    scores.update(X, Y, RIGHT_ON_FIRST, None)
    assert values(scores)["certified_w"] == 0.5


def test_build_creates_the_variables_once_with_the_arguments_of_update(monkeypatch):
    scores = scores_of()
    scores.update_loss(tf.constant(2.0), tf.constant(3))
    before = len(scores.variables)
    updates = []
    update = scores._scorer.compute_metrics
    monkeypatch.setattr(scores._scorer, "compute_metrics", lambda *given: updates.append(given) or update(*given))
    scores.build(X, Y, RIGHT_ON_FIRST, WEIGHTS)
    assert len(scores.variables) > before and values(scores)["adversarial_w"] == 0.75
    scores.build(X, Y, RIGHT_ON_FIRST, WEIGHTS)
    (given,) = updates
    assert all(one is other for one, other in zip(given, (X, Y, RIGHT_ON_FIRST, WEIGHTS), strict=True))


def test_directions_of_the_metrics():
    scores = scores_of(metrics=["accuracy", keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="nats")])
    scores.build(X, Y, RIGHT_ON_FIRST, None)
    found = scores.directions()
    assert found["adversarial_w"] == "max" and found["adversarial_nats"] == "min"


class Model(NaturalAndAdversarial):
    def __init__(self):
        super().__init__()
        self.classifier = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])

    def call(self, inputs):
        return self.classifier(inputs)


@pytest.fixture
def model():
    made = Model()
    metrics = {"metrics": ["accuracy"], "weighted_metrics": [keras.metrics.SparseCategoricalAccuracy("w")]}
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **metrics)
    return made


def test_natural_and_adversarial_outputs_have_their_own_scores(model):
    all_right = tf.one_hot(Y, 2)
    logs = model._update_metrics(X, Y, (all_right, RIGHT_ON_FIRST), WEIGHTS)
    model._update_losses(tf.constant(1.0), tf.constant(2.0), tf.constant(3.0), tf.constant(4))
    logs = {name: float(value) for name, value in {**logs, **model.get_metrics_result()}.items()}
    assert logs == {
        "loss": 1.0,
        "natural_loss": 2.0,
        "adversarial_loss": 3.0,
        "accuracy": 1.0,
        "w": 1.0,
        "adversarial_accuracy": 0.5,
        "adversarial_w": 0.75,
    }
    known = {id(variable) for variable in model.metrics_variables}
    assert {id(variable) for variable in model._adversarial.variables} <= known
    model.reset_metrics()
    assert all(float(tf.reduce_sum(tf.abs(tf.convert_to_tensor(one)))) == 0 for one in model.metrics_variables)


def test_natural_metrics_build_the_adversarial_ones_in_the_same_order_of_arguments(model, monkeypatch):
    built, build = [], model._adversarial.build
    monkeypatch.setattr(model._adversarial, "build", lambda *given: built.append(given) or build(*given))
    model.compute_metrics(X, Y, RIGHT_ON_FIRST, WEIGHTS)
    ((x, y, outputs, weights),) = built
    assert x is X and y is Y and outputs is RIGHT_ON_FIRST and weights is WEIGHTS


def test_copies_have_the_settings_and_not_the_state_of_the_originals():
    metric = keras.metrics.SparseTopKCategoricalAccuracy(k=1, name="top")
    metric.update_state(Y, RIGHT_ON_FIRST)
    scores = AdversarialScores(metrics=[metric])
    scores.update(X, Y, tf.one_hot(Y, 2), None)
    assert values(scores)["adversarial_top"] == 1.0 and float(metric.result()) == 0.5

    class Without(keras.metrics.Mean):
        def get_config(self):
            raise NotImplementedError("nothing")

    with pytest.raises(ValueError, match="The metric 'without' cannot be copied .*nothing"):
        AdversarialScores(metrics=[Without(name="without")])


def classifier(activation):
    return keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2, activation)])


def own_loss(y_true, y_pred, from_logits=True):
    return keras.ops.mean(y_pred, axis=-1)


@pytest.mark.parametrize(
    ("loss", "activation", "expected"),
    [
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), None, True),
        (keras.losses.SparseCategoricalCrossentropy(from_logits=False), "softmax", False),
        ([keras.losses.CategoricalCrossentropy(from_logits=True)], None, True),
        ("sparse_categorical_crossentropy", "softmax", False),
        ("crossentropy", "softmax", False),
        ("ce", "softmax", False),
        (own_loss, None, True),
        (functools.partial(own_loss, from_logits=False), "softmax", False),
        (functools.partial(own_loss), None, True),
        ("mse", None, True),
        ("mse", "softmax", False),
    ],
)
def test_the_loss_or_the_classifier_shows_whether_outputs_are_logits(loss, activation, expected):
    assert loss_takes_logits(classifier(activation), loss) is expected


@pytest.mark.parametrize(
    ("loss", "activation", "message"),
    [
        ("ce", None, r"returns logits, but the loss expects the opposite: create the loss with from_logits=True"),
        (own_loss, "softmax", r"returns probabilities, but .*from_logits=False"),
        (functools.partial(own_loss, from_logits=False), None, r"returns logits, but .*from_logits=True"),
    ],
)
def test_a_loss_that_contradicts_the_classifier_is_refused(loss, activation, message):
    with pytest.raises(ValueError, match=message):
        loss_takes_logits(classifier(activation), loss)
