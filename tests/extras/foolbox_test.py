"""Foolbox: our attacks on its models of PyTorch and TensorFlow; our classifiers as its models."""

import numpy as np
import pytest

from tests.extras.conftest import channels_first
from wasser_tf import MirrorAscent, ThreatModel

foolbox = pytest.importorskip("foolbox", reason="Foolbox is not installed: pip install 'wasser_tf[foolbox]'")

from wasser_tf.bridges.foolbox import FoolboxWassersteinAttack, to_model  # noqa: E402

ATTACK = MirrorAscent(ThreatModel(), iterations=20)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'wasser_tf[torch]'")


def test_a_pytorch_model_is_fooled_on_the_same_images_as_keras(torch, module, classifier, images, labels):
    fmodel = foolbox.PyTorchModel(module.eval(), bounds=(0, 1), device="cpu")
    attack = FoolboxWassersteinAttack(ATTACK)
    batch, answers = torch.tensor(channels_first(images)), torch.tensor(labels, dtype=torch.int64)
    raw, clipped, success = attack(fmodel, batch, answers, epsilons=[0.05, 0.1])
    for place, epsilon in enumerate((0.05, 0.1)):
        theirs = ATTACK(classifier, images, labels, radius=epsilon)
        np.testing.assert_array_equal(success[place].numpy(), theirs.success)
        assert torch.equal(raw[place], clipped[place])
    assert attack.result.feasibility.feasible().all()


def test_bounds_and_preprocessing_are_respected(torch, module, images, labels):
    fmodel = foolbox.PyTorchModel(
        module.eval(), bounds=(0, 255), device="cpu", preprocessing={"mean": [0.0], "std": [255.0], "axis": -3}
    )
    batch, answers = torch.tensor(255 * channels_first(images)), torch.tensor(labels, dtype=torch.int64)
    attack = FoolboxWassersteinAttack(ATTACK)
    _, found, success = attack(fmodel, batch, answers, epsilons=0.1)
    assert found.min() >= 0 and 200 < found.max() <= 255 and success.any()


def test_targets(torch, module, images, labels):
    fmodel = foolbox.PyTorchModel(module.eval(), bounds=(0, 1), device="cpu")
    targets = torch.tensor((labels + 1) % 10, dtype=torch.int64)
    criterion = foolbox.criteria.TargetedMisclassification(targets)
    _, found, success = FoolboxWassersteinAttack(ATTACK)(
        fmodel, torch.tensor(channels_first(images)), criterion, epsilons=0.4
    )
    assert success.float().mean() > 0.3
    np.testing.assert_array_equal(module(found).argmax(1) == targets, success)


def test_our_classifier_as_a_model(classifier, images, labels):
    import tensorflow as tf

    fmodel = to_model(classifier, (8, 8, 1))
    batch, answers = tf.constant(images), tf.constant(labels, tf.int64)
    assert foolbox.utils.accuracy(fmodel, batch, answers) > 0.9
    _, _, success = foolbox.attacks.LinfPGD()(fmodel, batch, answers, epsilons=0.2)
    assert success.numpy().mean() > 0.5
    attack = FoolboxWassersteinAttack(ATTACK)
    _, found, success = attack(fmodel, batch, answers, epsilons=0.1)
    np.testing.assert_array_equal(success.numpy(), ATTACK(classifier, images, labels, radius=0.1).success)
    distances = attack.distance(batch[:4], found[:4]).numpy()
    assert (distances <= 0.1 * (1 + 1e-5)).all() and distances.max() > 0.05


def test_what_is_refused(classifier, images):
    import tensorflow as tf

    with pytest.raises(ValueError, match="attack must be an attack of wasser_tf"):
        FoolboxWassersteinAttack("mirror_ascent")
    with pytest.raises(ValueError, match="criterion must be Misclassification or TargetedMisclassification"):
        FoolboxWassersteinAttack(ATTACK).run(to_model(classifier, (8, 8, 1)), tf.constant(images), None, epsilon=0.1)
