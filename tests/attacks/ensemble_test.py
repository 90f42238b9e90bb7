"""The ensemble: the worst case per image, each image attacked only until it is fooled."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import wasser_tf
from wasser_tf import attacks

THREAT_MODEL = wasser_tf.ThreatModel(epsilon=0.1, kernel_size=3)


class Fixed(attacks.Attack):
    """Leaves images alone, and so fools the classifier where it is wrong; it counts the images it was given."""

    name = "fixed"

    iterations: int = 1
    fooling: tuple = ()
    # A list, because attacks themselves cannot change.
    given: list = dataclasses.field(default_factory=list, hash=False)

    def __call__(self, classifier, images, labels, *, index, **options):
        self.given.append(sorted(set(index.tolist())))
        wrong = np.where(np.isin(index, self.fooling), (labels + 1) % 3, labels)
        result = super().__call__(classifier, images, wrong, index=index, **options)
        return result

    def perturb(self, problem):
        still = attacks.RandomPlan(self.threat_model).perturb(problem)
        return still._replace(iterations=tf.ones_like(problem.labels))


def test_members_get_only_the_images_still_standing(linear_classifier, images, labels):
    first, second = Fixed(THREAT_MODEL, fooling=(0, 3)), Fixed(THREAT_MODEL, fooling=(1, 2, 4, 5, 6, 7))
    third = Fixed(THREAT_MODEL)
    ensemble = attacks.Ensemble(THREAT_MODEL, members=[first, second, third])
    result = ensemble(linear_classifier, images, labels, radius=0.0)
    assert first.given == [[0, 1, 2, 3, 4, 5, 6, 7]] and second.given == [[1, 2, 4, 5, 6, 7]] and not third.given
    assert result.success.all()
    np.testing.assert_array_equal(result.iterations, [1, 2, 2, 1, 2, 2, 2, 2])


def test_it_is_as_strong_as_its_best_member_image_by_image(linear_classifier, images, labels):
    weak = attacks.RandomPlan(THREAT_MODEL)
    strong = wasser_tf.MirrorAscent(THREAT_MODEL, iterations=20)
    alone = [member(linear_classifier, images, labels) for member in (weak, strong)]
    result = attacks.Ensemble(THREAT_MODEL, members=[weak, strong])(linear_classifier, images, labels)
    np.testing.assert_array_equal(result.success, alone[0].success | alone[1].success)
    not_fooled = ~result.success
    losses = np.maximum(alone[0].loss, alone[1].loss)
    np.testing.assert_allclose(result.loss[not_fooled], losses[not_fooled], rtol=1e-5)
    assert result.feasibility.feasible().all()


def test_its_own_members_run_and_leave_no_more_standing_than_the_first_alone(linear_classifier, images, labels):
    first = wasser_tf.MirrorAscent(THREAT_MODEL, iterations=4)(linear_classifier, images, labels)
    result = attacks.Ensemble(THREAT_MODEL, iterations=4)(linear_classifier, images, labels)
    assert result.feasibility.feasible().all()
    assert (result.success >= first.success).all() and not result.success.all()
    # Six members, the last two of twice as many iterations, one with six starts and one with four.
    np.testing.assert_array_equal(result.iterations[~result.success], 4 + 6 * 4 + 4 + 4 + 8 + 4 * 8)


def test_config_round_trip_keeps_its_own_members(linear_classifier):
    made = attacks.Ensemble(THREAT_MODEL, members=[wasser_tf.MirrorAscent(THREAT_MODEL, iterations=7)])
    again = attacks.deserialize(attacks.serialize(made))
    assert [member.iterations for member in again.all_members] == [7]
    default = attacks.deserialize(attacks.serialize(attacks.Ensemble(THREAT_MODEL, iterations=9)))
    assert [member.name for member in default.all_members] == ["mirror_ascent"] * 4 + ["wasser_attack", "mirror_ascent"]


@pytest.mark.parametrize(
    "members", [[], ["mirror_ascent"], [wasser_tf.MirrorAscent(wasser_tf.ThreatModel(epsilon=0.3))]]
)
def test_bad_members_are_refused(members):
    with pytest.raises(ValueError, match="member"):
        attacks.Ensemble(THREAT_MODEL, members=members)


@pytest.mark.parametrize("name", ["linf_pgd", "distributional"])
def test_members_must_move_mass(name):
    with pytest.raises(ValueError, match=f"{name} is not a Wasserstein attack"):
        attacks.Ensemble(THREAT_MODEL, members=[attacks.make(name, THREAT_MODEL)])
