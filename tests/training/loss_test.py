import keras
import numpy as np
import pytest

from wasser_tf import MirrorAscent, ThreatModel, WasserTrain, models
from wasser_tf.training import loss

_LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
_LABELS = np.array([0, 3, 1, 1, 2, 0])


def test_smoothed_labels_are_those_of_keras_for_one_hot():
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)(np.eye(4)[_LABELS], _LOGITS)
    for labels in (_LABELS, _LABELS[:, None]):
        assert float(loss.make_loss(0.2)(labels, _LOGITS)) == pytest.approx(float(expected), rel=1e-6)
    # By the formula: 1 − s + s / K for the label's class, s / K for the others.
    logs = _LOGITS - np.log(np.exp(_LOGITS).sum(axis=1, keepdims=True))
    target = 0.8 * np.eye(4)[_LABELS] + 0.2 / 4
    assert float(expected) == pytest.approx(-(target * logs).sum(axis=1).mean(), rel=1e-6)


def test_without_smoothing_the_loss_equals_that_of_keras():
    assert isinstance(loss.make_loss(0.0), keras.losses.SparseCategoricalCrossentropy)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss.make_loss(0.1)))
    assert float(again(_LABELS, _LOGITS)) == float(loss.make_loss(0.1)(_LABELS, _LOGITS))


def test_name_and_reduction_are_those_given():
    made = loss.make_loss(0.1)
    assert (made.name, made.reduction) == ("smoothed_crossentropy", "sum_over_batch_size")
    own = type(made).from_config({**made.get_config(), "name": "mine", "reduction": "sum"})
    assert (own.name, own.reduction, own.label_smoothing) == ("mine", "sum", 0.1)
    assert float(own(_LABELS, _LOGITS)) == pytest.approx(6 * float(made(_LABELS, _LOGITS)), rel=1e-6)


def test_wasser_train_knows_that_it_takes_logits():
    classifier = models.build("linear", (8, 8, 1), 10)
    model = WasserTrain(classifier, MirrorAscent(ThreatModel(epsilon=0.1), iterations=1))
    model.compile("sgd", loss.make_loss(0.1))
    assert model._from_logits is True
