"""The doubling and the bisection of radii, with an attack that fools each image from a given radius on."""

from typing import ClassVar

import numpy as np
import pytest

from wasser_tf import RadiusSchedule, ThreatModel, attacks
from wasser_tf.attacks import AttackResult
from wasser_tf.evaluation.minimal_radius import MinimalRadii, minimal_radii
from wasser_tf.transport.feasibility import Feasibility


class _FoolsFrom(attacks.RandomPlan):
    """Fools an image at radii of at least its first pixel, at all that it was allowed or `saved` of it."""

    saved: ClassVar[float] = 1.0
    rounds: ClassVar[list] = []

    def __call__(self, classifier, images, labels, *, radius, index, batch_size):
        self.rounds.append((radius.tolist(), index.tolist(), batch_size, labels.tolist()))
        count, fill = len(images), np.zeros(len(images), np.float32)
        success = radius >= images[:, 0, 0, 0].astype(np.float64)
        # Every round leaves its number in its examples.
        adversarial = np.full_like(images, len(self.rounds))
        feasibility = Feasibility(self.saved * radius, radius, *[fill] * 6)
        return AttackResult(
            adversarial, feasibility, success, fill, fill, np.zeros(count, int), adversarial, feasibility, success,
            fill, np.zeros(count, bool),
        )  # fmt: skip


def _found(thresholds, *, saved=1.0, **options):
    # Attacks cannot be changed, their class can.
    _FoolsFrom.saved, _FoolsFrom.rounds = saved, []
    attack = _FoolsFrom(ThreatModel())
    images = np.float32(thresholds)[:, None, None, None] * np.ones([1, 2, 2, 1], np.float32)
    found = minimal_radii(
        attack, lambda images, training: images[:, 0, :, 0] - 1, images, np.zeros(len(images), int), **options
    )
    return found, attack.rounds


def test_the_ramp_doubles_from_a_256th_and_then_the_bracket_is_halved():
    told = []
    found, rounds = _found([0.3], largest=1.28, resolution=0.05, log=told.append)
    tried = [radius[0] for radius, *_ in rounds]
    # 0.32 fools, 0.16 did not; 0.24 and 0.28 do not, which leaves a bracket of 0.04.
    assert tried == pytest.approx([0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.24, 0.28])
    assert found.radius == pytest.approx([0.32])
    assert told[0] == "radii up to 0.000: 1 images attacked, 0 fooled; at most 13 attacks left"
    assert told[7] == "radii up to 0.320: 1 images attacked, 1 fooled; at most 2 attacks left" and len(told) == 10
    # The example is that of the last success.
    assert found.adversarial[0, 0, 0, 0] == 8 and found.feasibility.radius == pytest.approx([0.32])


def test_each_image_has_a_radius_of_its_own():
    thresholds = [0.0, 0.3, 0.9, 0.01]
    found, rounds = _found(thresholds, largest=1.0, resolution=0.01)
    assert found.radius[0] == 0
    gap = found.radius - thresholds
    assert (gap[1:] > -1e-7).all() and (gap[1:] <= 0.01).all()
    # The example and its record are those of the same round.
    np.testing.assert_allclose(found.feasibility.radius, found.radius)
    # What has been found is attacked no more, and the batch is filled up.
    assert [sorted(set(index)) for _, index, *_ in rounds][:2] == [[0, 1, 2, 3], [1, 2, 3]]
    assert all(len(index) == 4 and size == 128 for _, index, size, _ in rounds)
    assert len(set(map(tuple, (index for _, index, *_ in rounds)))) > 2


def test_an_image_robust_at_the_largest_radius_has_an_infinite_minimal_radius():
    found, rounds = _found([1.0, 0.5], largest=0.5, resolution=0.1)
    assert np.isinf(found.radius[0]) and found.radius[1] == pytest.approx(0.5)
    # The last attempt at the first: the largest radius, once.
    assert [dict(zip(index, radius, strict=True)).get(0) for radius, index, *_ in rounds].count(0.5) == 1
    assert found.adversarial[0, 0, 0, 0] == 1


def test_the_cost_of_an_example_lowers_the_minimal_radius():
    found, rounds = _found([0.3], saved=0.75, largest=1.28, resolution=0.05)
    # 0.32 fools at a cost of 0.24; 0.2 does not, and 0.04 are left.
    assert [radius[0] for radius, *_ in rounds][-2:] == pytest.approx([0.32, 0.2])
    assert found.radius == pytest.approx([0.24])
    # A cost that is larger by rounding does not raise the radius.
    assert _found([0.3], saved=1.01, largest=1.28, resolution=0.05)[0].radius == pytest.approx([0.32])


def test_batches():
    _, rounds = _found([0.1] * 5, largest=0.2, resolution=0.1, batch_size=2)
    assert rounds[0][1] == [0, 1, 2, 3, 4] and rounds[0][2] == 2
    assert rounds[1][1] == [0, 1, 2, 3, 4, 0]


def test_accuracies_of_radii():
    found = MinimalRadii(np.array([0, 0.1, 0.2, np.inf]), None, None)
    np.testing.assert_array_equal(found.robust_accuracy([0.0, 0.1, 0.15, 0.2, 9.0]), [0.75, 0.5, 0.5, 0.25, 0.25])


@pytest.mark.parametrize("options", [{"largest": 0.0}, {"largest": -1.0}, {"resolution": 0.0}, {"largest": np.nan}])
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match="largest and resolution must be above 0"):
        _found([0.1], **options)


def test_attacks_that_cannot_be_bisected_are_refused():
    given = (lambda images, training: images, np.zeros([1, 2, 2, 1], np.float32), np.zeros(1, int))
    with pytest.raises(ValueError, match="without a radius schedule"):
        minimal_radii(attacks.make("random_plan", ThreatModel(), schedule=RadiusSchedule()), *given)
    with pytest.raises(ValueError, match="is not a Wasserstein attack"):
        minimal_radii(attacks.make("linf_pgd", ThreatModel()), *given)
