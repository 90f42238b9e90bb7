"""The exact oracle, compared with instances solved by hand."""

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


def test_the_distance_is_euclidean_to_the_power_p_between_unlike_numbers_of_pixels():
    start, end = np.zeros((3, 4, 1)), np.zeros((3, 4, 1))
    start[0, 0], start[1, 3] = 0.5, 0.25
    end[0, 2], end[1, 1], end[2, 3] = 0.25, 0.25, 0.25
    # From the top left: 0.25 by 2, 0.25 by √2; the rest down by 1.
    expected = {1.0: 0.25 * (2 + np.sqrt(2) + 1), 2.0: 0.25 * (4 + 2 + 1), 3.0: 0.25 * (8 + 2 * np.sqrt(2) + 1)}
    for p, total in expected.items():
        assert wasserstein_distance(start, end, ThreatModel(p=p)) == pytest.approx(total / 0.75)
        assert wasserstein_distance(start, end, ThreatModel(p=p, normalize_mass=False)) == pytest.approx(total)


def test_masses_may_differ_by_rounding_and_no_more_in_either_direction():
    start = image([1, 0, 0])
    assert wasserstein_distance(start, 1.00005 * start, ThreatModel()) == pytest.approx(0, abs=1e-12)
    for factor in (0.9998, 1.0002):
        with pytest.raises(ValueError, match="channel 0 has mass 1 in the image and .* in the target"):
            wasserstein_distance(start, factor * start, ThreatModel())
    # Relative to the mass: what is much for 1 is little for 100.
    wasserstein_distance(100 * start, 100.005 * start, ThreatModel())


def test_black_channels_and_black_images_cost_nothing():
    two_channels = np.zeros((1, 2, 2))
    assert wasserstein_distance(two_channels, two_channels, ThreatModel()) == 0
    two_channels[0, 0, 1] = 0.5
    assert wasserstein_distance(two_channels, two_channels[:, ::-1], ThreatModel()) == pytest.approx(1)


def test_the_linear_optimum_in_two_dimensions_two_channels_and_a_window():
    # All mass is worth most far away: at the corner of a 2×3 image, in the second channel only.
    start, weights = np.zeros((2, 3, 2)), np.zeros((2, 3, 2))
    start[0, 0] = 0.5, 0.25
    weights[0, 1, 1], weights[1, 1, 1], weights[1, 2, 1] = 1, 3, 9
    # Dense: to (1, 2) at √5; in a window of 3: to (1, 1) at √2.
    for kernel_size, gain in ((None, 9 / np.sqrt(5)), (3, 3 / np.sqrt(2))):
        absolute = ThreatModel(epsilon=0.1, kernel_size=kernel_size, normalize_mass=False)
        best, target = linear_optimum(start, weights, absolute)
        assert best == pytest.approx(0.1 * gain)
        assert target.sum() == pytest.approx(0.75) and target.shape == start.shape
        assert target[0, 0, 0] == pytest.approx(0.5)
        normalised = ThreatModel(epsilon=0.1, kernel_size=kernel_size)
        assert linear_optimum(start, weights, normalised)[0] == pytest.approx(0.075 * gain)
    squared = ThreatModel(epsilon=0.1, kernel_size=None, normalize_mass=False, p=2.0)
    assert linear_optimum(start, weights, squared)[0] == pytest.approx(0.1 * 9 / 5)


def test_the_linear_optimum_with_and_without_capacity():
    start, weights = image([1, 0.75, 1]), image([0, 1, 0])
    assert linear_optimum(start, weights, ThreatModel(epsilon=10.0, capacity=None))[0] == pytest.approx(2.75)
    assert linear_optimum(start, weights, ThreatModel(epsilon=10.0, capacity=1.5))[0] == pytest.approx(1.5)


def test_a_window_reaches_half_its_size_in_each_direction():
    weights = image([0, 0, 1, 5, 0])
    for kernel_size, best in ((1, 0), (3, 0), (5, 1), (7, 5)):
        threat_model = ThreatModel(epsilon=10.0, kernel_size=kernel_size)
        assert linear_optimum(image([1, 0, 0, 0, 0]), weights, threat_model)[0] == pytest.approx(best)
