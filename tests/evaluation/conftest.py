import keras
import numpy as np
import pytest

from wasser_tf import ThreatModel, attacks, data, models
from wasser_tf.attacks import AttackResult
from wasser_tf.data.selection import Selection
from wasser_tf.evaluation.examples import Examples
from wasser_tf.evaluation.metrics import Predictions
from wasser_tf.transport.feasibility import Feasibility


@pytest.fixture(scope="session")
def digits():
    split = data.load("digits", splits=("test",)).test
    return Selection("digits test", np.arange(16, dtype=np.int32), split.images[:16], split.labels[:16], None)


@pytest.fixture(scope="session")
def classifier():
    return trained("mlp")


@pytest.fixture(scope="session")
def other_classifier():
    return trained("linear")


@pytest.fixture(scope="session")
def random_plan():
    # One object, so that its compiled function is shared.
    return attacks.make("random_plan", ThreatModel(epsilon=0.3))


@pytest.fixture(scope="session")
def mirror_ascent():
    return attacks.make("mirror_ascent", ThreatModel(epsilon=0.3), iterations=40, polish=8)


@pytest.fixture
def make_examples():
    return examples_of


def trained(name):
    train = data.load("digits", splits=("train",)).train
    model = models.build(name, (8, 8, 1), 10, seed=0)
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(train.images, train.labels, epochs=5, batch_size=64, verbose=0, shuffle=False)
    return model


def examples_of(success, loss, *, wrong=None, radius=0.5, cost=0.4, raw_success=None):
    """Examples with the given outcomes; example i of a run is an image of constant value loss[i] / 100."""
    count = len(success)
    loss = np.asarray(loss, np.float32)
    images = np.full([count, 2, 2, 1], 0.5, np.float32)
    adversarial = images * 0 + loss[:, None, None, None] / 100
    labels = np.zeros(count, np.int32)
    predicted = np.zeros(count, np.int32) if wrong is None else np.asarray(wrong).astype(np.int32)

    def fill(value):
        return np.full(count, value, np.float32)

    feasibility = Feasibility(fill(cost), fill(radius), *(fill(0) for _ in range(3)), fill(0), fill(1), fill(0))
    raw = feasibility._replace(mass_error=fill(0.25), max_pixel=fill(3))
    success = np.asarray(success, bool)
    raw_success = success if raw_success is None else np.asarray(raw_success, bool)
    result = AttackResult(
        adversarial,
        feasibility,
        success,
        loss,
        fill(radius),
        np.full(count, 7, np.int32),
        adversarial,
        raw,
        raw_success,
        loss,
        np.zeros(count, bool),
    )
    return Examples(
        np.arange(count, dtype=np.int32), images, labels, Predictions(predicted, predicted != labels, loss * 0), result
    )
