"""The ensemble: the worst case per image, each image attacked only until it is fooled."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
import tensorflow as tf

import wasser_tf
from wasser_tf import attacks
from wasser_tf.attacks.ensemble import _merge
from wasser_tf.attacks.problem import Perturbation
from wasser_tf.transport.feasibility import Feasibility
from wasser_tf.transport.plan import identity_plan

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


def test_members_attack_only_images_that_are_not_yet_fooled(linear_classifier, images, labels):
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
    # So small a ball that some of the others stand, and not the black image alone.
    alone = [member(linear_classifier, images, labels, radius=0.02) for member in (weak, strong)]
    result = attacks.Ensemble(THREAT_MODEL, members=[weak, strong])(linear_classifier, images, labels, radius=0.02)
    np.testing.assert_array_equal(result.success, alone[0].success | alone[1].success)
    not_fooled = ~result.success
    assert not_fooled[:7].sum() >= 3
    losses = np.maximum(alone[0].loss, alone[1].loss)
    assert (losses > np.minimum(alone[0].loss, alone[1].loss))[:7].sum() >= 3
    np.testing.assert_allclose(result.loss[not_fooled], losses[not_fooled], rtol=1e-5)
    assert result.feasibility.feasible().all()


def test_default_members_fool_at_least_as_many_images_as_the_first_alone(linear_classifier, images, labels):
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
def test_members_must_be_wasserstein_attacks(name):
    with pytest.raises(ValueError, match=f"{name} is not a Wasserstein attack"):
        attacks.Ensemble(THREAT_MODEL, members=[attacks.make(name, THREAT_MODEL)])


def results(success, loss, iterations, mark):
    """Results of as many images as losses, whose every other field is filled with a mark."""
    count = len(loss)
    one = np.full(count, mark, np.float32)
    feasibility = Feasibility(*[one] * 8)
    return attacks.AttackResult(
        adversarial=np.full((count, 1, 1, 1), mark, np.float32),
        feasibility=feasibility,
        success=np.array(success),
        loss=np.array(loss, np.float32),
        radius=one,
        iterations=np.array(iterations),
        raw=np.full((count, 1, 1, 1), mark, np.float32),
        raw_feasibility=feasibility,
        raw_success=np.array(success),
        raw_loss=one,
        flagged=one > 1,
    )


def test_an_example_is_replaced_where_the_new_one_fools_or_has_the_larger_loss():
    best = results([True, False, False, False], [9, 5, 5, 5], [1, 2, 3, 4], 1)
    # Of images 1 to 3: one fools at a lower loss, one has a larger loss, one the same; the last is filling.
    found = results([True, False, False, True], [1, 6, 5, 99], [10, 20, 30, 40], 2)
    merged = _merge(best, found, np.array([1, 2, 3]))
    assert merged.success.tolist() == [True, True, False, False]
    assert merged.loss.tolist() == [9, 1, 6, 5]
    assert merged.iterations.tolist() == [1, 12, 23, 34]
    for field in (merged.adversarial.ravel(), merged.feasibility.cost, merged.radius, merged.raw.ravel()):
        assert field.tolist() == [1, 2, 2, 1]
    assert merged.flagged.tolist() == [False, True, True, False]
    assert best.loss.tolist() == [9, 5, 5, 5] and best.iterations.tolist() == [1, 2, 3, 4]


class Recorder(attacks.RandomPlan):
    """Fools nobody, and keeps what it was called with."""

    calls: ClassVar[list] = []

    def __call__(self, classifier, images, labels, **options):
        self.calls.append((images, labels, options))
        return results([False] * len(images), [1.0] * len(images), [1] * len(images), 1)


def test_members_receive_the_arguments_of_their_images():
    images = np.linspace(0, 1, 6, dtype=np.float32).reshape(6, 1, 1, 1)

    class First(attacks.RandomPlan):
        def __call__(self, classifier, images, labels, **options):
            return results([True, False, True, False, False, True], [0.0] * 6, [1] * 6, 1)

    first, second = First(THREAT_MODEL), Recorder(THREAT_MODEL)
    ensemble = attacks.Ensemble(THREAT_MODEL, members=[first, second])
    given = {"radius": np.arange(6.0), "index": np.arange(10, 16), "targets": np.arange(6) % 3}
    ensemble(
        lambda x, training=False: tf.zeros([len(x), 6]), images, np.arange(6), batch_size=2, from_logits=True, **given
    )
    rows, labels, options = Recorder.calls.pop()
    # Three stand, filled up to two batches of two.
    np.testing.assert_array_equal(labels, [1, 3, 4, 1])
    np.testing.assert_array_equal(rows, images[[1, 3, 4, 1]])
    np.testing.assert_array_equal(options.pop("radius"), [1, 3, 4, 1])
    np.testing.assert_array_equal(options.pop("index"), [11, 13, 14, 11])
    np.testing.assert_array_equal(options.pop("targets"), [1, 0, 1, 1])
    assert options == {"batch_size": 2, "from_logits": True}


class Sends(attacks.Attack):
    """Sends so much of the middle of each 1×3 image to the right, in as many iterations as it says."""

    name = "sends"

    amounts: tuple[float, ...]

    def perturb(self, problem):
        plan = identity_plan(problem.images, problem.support).numpy()
        plan[:, 1, 0, 1, 0] -= np.array(self.amounts, np.float32)
        plan[:, 2, 0, 1, 0] += np.array(self.amounts, np.float32)
        image = problem.support.push_forward(tf.constant(plan))
        return Perturbation(tf.constant(plan), image, problem.radius, tf.fill([3], self.iterations))


def test_in_a_graph_each_image_keeps_the_example_of_largest_margin(eagerly):
    threat_model = wasser_tf.ThreatModel(epsilon=1.0, kernel_size=3)
    members = [
        Sends(threat_model, amounts=amounts, iterations=used)
        for amounts, used in (((0.1, 0.2, 0.3), 5), ((0.2, 0.2, 0.1), 7))
    ]
    attack = attacks.Ensemble(threat_model, members=members)
    images = tf.constant([[0.0, 0.5, 0.0]] * 3, shape=[3, 1, 3, 1])

    def right(images):
        return tf.stack([0.25 + 0 * images[:, 0, 0, 0], images[:, 0, 2, 0]], axis=1)

    found = attack.perturb(attack.problem(right, images, tf.constant([0, 0, 0])))
    np.testing.assert_allclose(found.raw[:, 0, 2, 0], [0.2, 0.2, 0.3])
    np.testing.assert_allclose(found.plan[:, 2, 0, 1, 0], [0.2, 0.2, 0.3])
    assert found.iterations.numpy().tolist() == [12] * 3


def test_members_of_another_ball_or_type_are_refused_by_name():
    other = wasser_tf.MirrorAscent(wasser_tf.ThreatModel(epsilon=0.3))
    for member in (other, "mirror_ascent"):
        with pytest.raises(ValueError, match="members of an ensemble must be attacks on its threat model, got"):
            attacks.Ensemble(THREAT_MODEL, members=[attacks.RandomPlan(THREAT_MODEL), member])
