"""The exact oracle itself, on instances worked by hand."""

import numpy as np
import pytest

from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.exact import linear_optimum, wasserstein_distance


def image(*rows):
    return np.array(rows, float)[:, :, None]


def test_distances_worked_by_hand():
    threat_model = ThreatModel()
    assert wasserstein_distance(image([1, 0, 0]), image([0, 0, 1]), threat_model) == pytest.approx(2)
    assert wasserstein_distance(image([1, 0], [0, 1]), image([1, 0], [1, 0]), threat_model) == pytest.approx(0.5)
    absolute = ThreatModel(p=2, normalize_mass=False)
    assert wasserstein_distance(image([1, 0, 0]), image([0.5, 0, 0.5]), absolute) == pytest.approx(0.5 * 4)


def test_channels_are_separate_and_unequal_masses_refused():
    two_channels = np.zeros((1, 2, 2))
    two_channels[0, 0] = 1
    moved = two_channels[:, ::-1]
    assert wasserstein_distance(two_channels, moved, ThreatModel()) == pytest.approx(1)
    with pytest.raises(ValueError, match="channel 0"):
        wasserstein_distance(two_channels, two_channels * [0.5, 1.5], ThreatModel())


@pytest.mark.parametrize("kernel_size", [3, None])
def test_the_linear_optimum_spends_the_budget_on_the_best_move(kernel_size):
    # One pixel of mass 1 beside a pixel worth 2: a budget of 0.25 moves 0.25 of it.
    threat_model = ThreatModel(epsilon=0.25, kernel_size=kernel_size)
    best, target = linear_optimum(image([1, 0, 0]), image([0, 2, 1]), threat_model)
    assert best == pytest.approx(0.5)
    np.testing.assert_allclose(target.ravel(), [0.75, 0.25, 0], atol=1e-9)


def test_the_linear_optimum_respects_capacity():
    threat_model = ThreatModel(epsilon=10.0)
    best, target = linear_optimum(image([1, 0.5, 1]), image([0, 1, 0]), threat_model)
    assert best == pytest.approx(1)
    assert target.max() <= 1 + 1e-9
