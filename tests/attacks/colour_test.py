"""Three channels: mass stays in its own, and one budget is for the whole image, as in [14] and [24]."""

import keras
import numpy as np
import pytest

from wasser_tf import ThreatModel, WasserTrain, attacks, models
from wasser_tf.transport.exact import linear_optimum, wasserstein_distance

SHAPE = (6, 5, 3)
THREAT_MODEL = ThreatModel(epsilon=0.15, kernel_size=3)
ITERATIONS = {"wasser_attack": 100, "mirror_ascent": 30, "dual_projection": 40}
# An ensemble's examples are its members'.
NAMES = sorted(name for name, attack in attacks.ATTACKS.items() if attack.transports and name != "ensemble")
WEIGHTS = np.random.default_rng(0).normal(size=(*SHAPE, 2)).astype(np.float32)
# Two channels say nothing: an attack that knows one budget spends on the third what belongs to them.
WEIGHTS[:, :, [0, 2]] = 0


def _images():
    values = np.random.default_rng(1).uniform(0.05, 0.6, size=(4, *SHAPE)).astype(np.float32)
    values[3, :, :, 0] = 0
    return values


@pytest.fixture(scope="module")
def classifier():
    model = models.build("linear", SHAPE, 2, seed=0)
    model.set_weights([WEIGHTS.reshape(-1, 2), np.zeros(2, np.float32)])
    return model


@pytest.fixture(scope="module", params=NAMES)
def attacked(request, classifier):
    """The attack's name, and what it makes of the images."""
    settings = {"iterations": ITERATIONS[request.param]} if request.param in ITERATIONS else {}
    attack = attacks.make(request.param, THREAT_MODEL, **settings)
    return request.param, attack(classifier, _images(), np.zeros(4, np.int32))


def test_mass_stays_in_its_channel(attacked):
    _, result = attacked
    images = _images()
    assert result.certificate.valid().all()
    np.testing.assert_allclose(
        result.adversarial.sum(axis=(1, 2), dtype=float), images.sum(axis=(1, 2), dtype=float), rtol=2e-6, atol=1e-6
    )
    assert (result.adversarial[3, :, :, 0] == 0).all()
    for image, target, cost in zip(images, result.adversarial, result.certificate.cost, strict=True):
        # Of the channels together, each with a plan of its own.
        assert 0 < wasserstein_distance(image, target, THREAT_MODEL) <= cost * (1 + 1e-4) + 1e-6


def test_one_budget_is_for_the_whole_image(attacked):
    name, result = attacked
    if name == "random_plan":
        pytest.skip("the control does not follow the loss")
    absolute = ThreatModel(normalize_mass=False)
    for image, target in zip(_images(), result.adversarial, strict=True):
        spent = wasserstein_distance(image[:, :, 1:2], target[:, :, 1:2], absolute)
        # More than the channel could by itself, and no more than the image can.
        assert 1.3 * 0.15 * image[:, :, 1].sum() < spent <= 0.15 * image.sum() * (1 + 1e-4)
    if name in ("mirror_ascent", "wasser_attack"):
        for image, target in zip(_images(), result.adversarial, strict=True):
            direction = (WEIGHTS[..., 1] - WEIGHTS[..., 0]).astype(float)
            most, _ = linear_optimum(image, direction, THREAT_MODEL)
            clean = (direction * image).sum()
            assert (direction * target).sum() - clean > 0.9 * (most - clean)


def test_training_in_chunks_is_the_same_and_attacks_change_no_statistics():
    attack = attacks.make("mirror_ascent", THREAT_MODEL, iterations=2, polish=1)
    rng = np.random.default_rng(2)
    images, labels = rng.random((4, 8, 8, 3), np.float32), rng.integers(0, 3, 4)
    trained = []
    for omega, chunk in ((0.7, None), (0.7, 3), (0.0, None)):
        model = WasserTrain(models.build("resnet_small", (8, 8, 3), 3, seed=0, width=0.1), attack, omega)
        model.attack_chunk = chunk
        # So slow that statistics are all that a step moves.
        model.compile(keras.optimizers.SGD(1e-9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        before = [weight.numpy() for weight in model.classifier.non_trainable_weights]
        model.fit(images, labels, batch_size=4, verbose=0)
        trained.append([weight.numpy() for weight in model.classifier.non_trainable_weights])
    for whole, chunks, natural, start in zip(*trained, before, strict=True):
        np.testing.assert_allclose(chunks, whole, atol=1e-5)
        # One step's worth, of both kinds of images or of one: momentum 0.9 leaves a tenth of the way from the start.
        assert not np.array_equal(whole, start) and not np.array_equal(natural, start)
        assert np.abs(whole - natural).max() < np.abs(natural - start).max()
