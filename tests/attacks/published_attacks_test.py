"""Properties of every published attack. Each attack's own properties are tested in the file of its name."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import attacks
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.exact import linear_optimum

NAMES = ("projected_sinkhorn", "frank_wolfe", "dual_projection", "constrained_sinkhorn")
SHAPE = (8, 8, 1)
THREAT_MODEL = ThreatModel(epsilon=0.4, kernel_size=3)


def linear(shape, classes=3, seed=0):
    weights = tf.constant(np.random.default_rng(seed).normal(size=(int(np.prod(shape)), classes)), tf.float32)
    return lambda images, training=False: tf.reshape(images, [-1, weights.shape[0]]) @ weights


def batch(shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.uniform(size=(8, *shape)).astype("float32")
    images[3:5] = images[3:5] > 0.7
    images[5] = 0.0
    images[6] = 1.0
    images[7, 1:] = 0.0
    return images


CLASSIFIER = linear(SHAPE)
IMAGES = batch()
LABELS = np.argmax(CLASSIFIER(IMAGES), axis=1)
RADIUS = np.array([0.4, 0.1, 0.0, 0.4, 0.1, 0.4, 0.4, 0.4], "float32")


@pytest.fixture(scope="module", params=NAMES)
def attack(request):
    return attacks.make(request.param, THREAT_MODEL, iterations=12, stop_when_fooled=False)


@pytest.fixture(scope="module")
def result(attack):
    return attack(CLASSIFIER, IMAGES, LABELS, radius=RADIUS, from_logits=True)


def test_every_example_is_feasible_and_finite(result):
    assert result.feasibility.feasible().all()
    for name, field in result._asdict().items():
        values = [field] if isinstance(field, np.ndarray) else field._asdict().values()
        for value in values:
            assert np.isfinite(np.asarray(value, float)).all(), name


def test_radius_0_and_images_without_mass_return_the_image(result):
    np.testing.assert_allclose(result.adversarial[2], IMAGES[2], atol=1e-6)
    assert (result.adversarial[5] == 0).all()
    assert (result.raw[5] == 0).all()


def test_the_loss_rises(result):
    logits = CLASSIFIER(IMAGES)
    clean = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits).numpy()
    moved = [0, 1, 3, 4, 7]
    assert (result.loss[moved] > clean[moved] + 0.1).all()
    assert (result.raw_loss[moved] > clean[moved] + 0.1).all()
    assert (result.loss >= clean - 1e-4).all()


def test_results_do_not_depend_on_the_other_images_of_the_batch(attack, result):
    images, labels = batch(seed=9), LABELS[::-1].copy()
    images[:2], labels[:2] = IMAGES[:2], LABELS[:2]
    other = attack(CLASSIFIER, images, labels, radius=RADIUS, from_logits=True)
    np.testing.assert_allclose(other.adversarial[:2], result.adversarial[:2], atol=1e-5)
    np.testing.assert_allclose(other.raw[:2], result.raw[:2], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_iterations_return_the_image(name):
    result = attacks.make(name, THREAT_MODEL, iterations=0)(CLASSIFIER, IMAGES, LABELS, from_logits=True)
    np.testing.assert_array_equal(result.raw, IMAGES)
    np.testing.assert_allclose(result.adversarial, IMAGES, atol=1e-6)
    assert (result.iterations == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_fooled_images_stop(name):
    attack = attacks.make(name, THREAT_MODEL, iterations=12, stop_when_fooled=True)
    result = attack(CLASSIFIER, IMAGES, (LABELS + np.arange(8) % 2) % 3, radius=RADIUS, from_logits=True)
    assert (result.iterations[1::2] == 0).all()
    np.testing.assert_array_equal(result.raw[1::2], IMAGES[1::2])
    assert (result.iterations[::2] > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_dense_plans_and_channels(name):
    shape = (4, 3, 2)
    classifier, images = linear(shape), batch(shape)
    labels = np.argmax(classifier(images), axis=1)
    threat_model = ThreatModel(epsilon=0.3, kernel_size=None, p=2.0, normalize_mass=False)
    result = attacks.make(name, threat_model, iterations=5)(classifier, images, labels, from_logits=True)
    assert result.feasibility.feasible().all()
    assert np.isfinite(result.raw).all()
    assert result.feasibility.cost[:2].min() > 0.03
    # Mass stays in its channel.
    np.testing.assert_allclose(result.adversarial.sum(axis=(1, 2)), images.sum(axis=(1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_from_config_restores_the_attack(name):
    attack = attacks.make(name, THREAT_MODEL, iterations=7)
    copy = attacks.deserialize(attacks.serialize(attack))
    assert type(copy) is type(attack)
    assert copy.get_config() == attack.get_config()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        # One step of Frank-Wolfe is its linear maximiser.
        ("frank_wolfe", {"iterations": 1, "tolerance": 1e-6}),
        ("dual_projection", {"iterations": 50, "step_size": 0.1}),
    ],
)
def test_plans_without_capacity_reach_the_optimum_on_a_linear_classifier(name, settings):
    # Dark images, so that neither the capacity nor the clip before the classifier is ever reached.
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 0.1, size=(8, 8, 8, 1)).astype("float32")
    weights = rng.normal(size=(64, 2)).astype("float32")
    threat_model = ThreatModel(epsilon=0.3, kernel_size=3)
    attack = attacks.make(name, threat_model, **settings)

    def classifier(x, training=False):
        return tf.reshape(x, [-1, 64]) @ weights

    labels = np.argmax(classifier(images), axis=1)
    result = attack(classifier, images, labels, from_logits=True)
    for image, label, raw, adversarial in zip(images, labels, result.raw, result.adversarial, strict=True):
        direction = (weights[:, 1 - label] - weights[:, label]).reshape(8, 8, 1)
        optimum, _ = linear_optimum(image, direction, threat_model)
        clean = np.sum(image * direction)
        for found in (raw, adversarial):
            assert np.sum(found * direction) - clean >= 0.99 * (optimum - clean)
