"""Colour images: mass stays in its channel, and the budget is that of the whole image, as in [14] and [24]."""

import numpy as np
import pytest

from wasser_tf import ThreatModel, attacks, models
from wasser_tf.transport.exact import linear_optimum, wasserstein_distance

SHAPE = (6, 5, 3)
THREAT_MODEL = ThreatModel(epsilon=0.15, kernel_size=3)
# With the share of the optimum that each must reach; that the published attacks keep mass in its channel is in
# published_attacks_test.py.
ATTACKS = {"mirror_ascent": (30, 0.95), "wasser_attack": (100, 0.85)}
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


@pytest.fixture(scope="module", params=ATTACKS)
def attacked(request, classifier):
    """The attack's name, and what it makes of the images."""
    attack = attacks.make(request.param, THREAT_MODEL, iterations=ATTACKS[request.param][0])
    return request.param, attack(classifier, _images(), np.zeros(4, np.int32))


def test_mass_stays_in_its_channel(attacked):
    _, result = attacked
    images = _images()
    assert result.feasibility.feasible().all()
    np.testing.assert_allclose(
        result.adversarial.sum(axis=(1, 2), dtype=float), images.sum(axis=(1, 2), dtype=float), rtol=2e-6, atol=1e-6
    )
    assert (result.adversarial[3, :, :, 0] == 0).all()
    for image, target, cost in zip(images, result.adversarial, result.feasibility.cost, strict=True):
        # Of the channels together, each with a plan of its own.
        assert 0 < wasserstein_distance(image, target, THREAT_MODEL) <= cost * (1 + 1e-4) + 1e-6


def test_one_budget_is_for_the_whole_image(attacked):
    name, result = attacked
    absolute = ThreatModel(normalize_mass=False)
    for image, target in zip(_images(), result.adversarial, strict=True):
        spent = wasserstein_distance(image[:, :, 1:2], target[:, :, 1:2], absolute)
        # More than the channel could by itself, and no more than the image can.
        assert 1.3 * 0.15 * image[:, :, 1].sum() < spent <= 0.15 * image.sum() * (1 + 1e-4)
        direction = (WEIGHTS[..., 1] - WEIGHTS[..., 0]).astype(float)
        most, _ = linear_optimum(image, direction, THREAT_MODEL)
        clean = (direction * image).sum()
        assert (direction * target).sum() - clean > ATTACKS[name][1] * (most - clean)
