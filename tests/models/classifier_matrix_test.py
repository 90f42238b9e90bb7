"""One network in every form that users have is attacked like its canonical form, or refused."""

import warnings

import numpy as np
import pytest
import tensorflow as tf

from reliability import generated
from wasser_tf import Classifier, ThreatModel, attacks
from wasser_tf.evaluation import metrics

# The cheapest to compile that follows gradients and looks at losses: every form is another classifier.
ATTACK = attacks.make("frank_wolfe", ThreatModel(epsilon=0.01, kernel_size=3), iterations=1)
# Integers have no gradients where a model within casts to them, or where a signature takes them.
REFUSED = {("nested", "uint8"), ("saved_model", "uint8")}


@pytest.fixture(scope="module", autouse=True)
def _graphs_as_traced():
    """Switches off TensorFlow's optimisation of graphs, which takes longer than running each of them once."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).uniform(size=(12, *generated.SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def canonical(images):
    """Labels, of which some are wrong, and the attack's result on the canonical form, by the number of classes."""
    found = {}
    for classes in (2, 3):
        model = generated.reference(classes)
        labels = model.predict(images, verbose=0).argmax(axis=1)
        labels[:2] = (labels[:2] + 1) % classes
        # Two are misclassified clean.
        found[classes] = labels, ATTACK(model, images, labels)
    return found


def test_the_attack_of_the_matrix_fools_some_images_and_not_all(canonical):
    for _, result in canonical.values():
        assert 2 < result.success.sum() < 12


@pytest.mark.parametrize(
    "case", generated.matrix(), ids=lambda case: "-".join(map(str, (case.kind, case.pixels, case.returns, case.order)))
)
def test_every_form_is_attacked_as_its_canonical_form(case, images, canonical, tmp_path):
    labels, expected = canonical[case.num_classes]
    own = case.own_images(images)
    if (case.kind, case.pixels) in REFUSED:
        with pytest.raises(
            ValueError, match="integers have no gradients|by differentiable operations|give data_format"
        ):
            ATTACK(generated.make(case, tmp_path), own, labels)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # Without any description: layers and the graph show all of it.
        classifier = generated.make(case, tmp_path)
        found = ATTACK(classifier, own, labels)
        wrong = metrics.predict(classifier, own, labels).wrong
    np.testing.assert_array_equal(wrong, np.arange(len(labels)) < 2)
    np.testing.assert_array_equal(found.success, expected.success)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=2e-3, atol=2e-3)
    # The examples are in the range and the order of the images that were given.
    assert found.adversarial.shape == own.shape
    np.testing.assert_allclose(case.unit_images(found.adversarial), expected.adversarial, atol=5e-3)


@pytest.mark.parametrize("pixels", generated.PIXELS)
@pytest.mark.parametrize("order", generated.ORDERS)
def test_a_description_gives_the_same_result(pixels, order, images, canonical, tmp_path):
    case = generated.Generated("functional", pixels, "probabilities", order)
    labels, expected = canonical[case.num_classes]
    classifier = Classifier(generated.make(case, tmp_path), **case.given)
    found = ATTACK(classifier, case.own_images(images), labels)
    np.testing.assert_array_equal(found.success, expected.success)
    np.testing.assert_allclose(classifier(images), generated.reference(3)(images), rtol=1e-4, atol=1e-4)
