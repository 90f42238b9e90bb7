"""The loop and the batching that all attacks share, tested with attacks that count their steps."""

import collections
import contextlib

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import RadiusSchedule, ThreatModel, attacks
from wasser_tf.attacks import base, compilation
from wasser_tf.attacks.base import Attack, batch_shape
from wasser_tf.attacks.compilation import compiled_attack
from wasser_tf.attacks.problem import Perturbation
from wasser_tf.runtime.progress import show_progress
from wasser_tf.transport.plan import identity_plan

THREAT_MODEL = ThreatModel(epsilon=0.25, kernel_size=3)
IMAGES = np.linspace(0, 1, 15, dtype=np.float32).reshape(5, 1, 3, 1)
LABELS = np.array([0, 1, 2, 0, 1])
SCHEDULE = RadiusSchedule(start=1.0, factor=2.0, every=1, minimum=1.0, maximum=100.0)


def pixels(images, training=False):
    return 5 * tf.reshape(images, [-1, 3])


# By the id of the attack, which cannot be changed.
_PROBLEMS = collections.defaultdict(list)


class Still(Attack):
    """Leaves images alone and keeps the problems it was given."""

    name = "still"
    iterations: int = 1

    @property
    def problems(self):
        return _PROBLEMS[id(self)]

    def perturb(self, problem):
        self.problems.append(problem)
        plan = identity_plan(problem.images, problem.support)
        # The index comes out as the iterations.
        return Perturbation(plan, problem.images, problem.radius, problem.index)


def problem_of(attack, count=3, **given):
    return attack.problem(pixels, tf.constant(IMAGES[:count]), tf.constant(LABELS[:count]), **given)


def count_up(fooled_at):
    """A step whose state counts; image i is fooled once its state is fooled_at[i]."""
    seen = []

    def step(iteration, state):
        seen.append(int(iteration))
        return state + 1, state >= tf.constant(fooled_at)

    return step, seen


def iterate(attack, fooled_at, **given):
    step, seen = count_up(fooled_at)
    state, radius, used = attack.iterate(step, tf.zeros([3], tf.int32), problem_of(attack, **given))
    return state.numpy().tolist(), radius.numpy().tolist(), used.numpy().tolist(), seen


def test_without_a_reason_to_stop_every_image_gets_all_iterations():
    found = iterate(Still(THREAT_MODEL, iterations=4), [0, 2, 9])
    assert found == ([4, 4, 4], [0.25] * 3, [4, 4, 4], [0, 1, 2, 3])


def test_an_image_that_is_fooled_keeps_its_state_and_the_loop_ends_with_the_last():
    attack = Still(THREAT_MODEL, iterations=9, stop_when_fooled=True)
    assert iterate(attack, [0, 2, 3]) == ([0, 2, 3], [0.25] * 3, [0, 2, 3], [0, 1, 2, 3])
    assert iterate(attack, [0, 2, 30])[2:] == ([0, 2, 9], list(range(9)))
    radii = tf.constant([0.5, 1.0, 2.0])
    assert iterate(attack, [0, 2, 3], radius=radii)[1] == [0.5, 1.0, 2.0]


def test_a_schedule_stops_fooled_images_at_the_radius_that_fooled_them():
    attack = Still(THREAT_MODEL, iterations=5, schedule=SCHEDULE)
    # The state of 3 was reached in the iteration of number 2, at radius 4.
    assert iterate(attack, [0, 3, 30])[:3] == ([0, 3, 5], [1, 4, 16], [0, 3, 5])


def test_the_radius_is_the_problems_or_the_schedules():
    plain, growing = Still(THREAT_MODEL), Still(THREAT_MODEL, schedule=SCHEDULE)
    radii = tf.constant([0.5, 1.0, 2.0])
    assert plain.radius_at(tf.constant(3), problem_of(plain, radius=radii)).numpy().tolist() == [0.5, 1, 2]
    assert growing.radius_at(tf.constant(3), problem_of(growing, radius=radii)).numpy().tolist() == [8, 8, 8]


def test_the_problem_holds_the_arguments_in_the_types_of_attacks():
    attack = Still(THREAT_MODEL)
    problem = attack.problem(
        pixels, IMAGES.astype(np.float64), tf.constant(LABELS[:, None]), targets=tf.constant(LABELS)
    )
    assert problem.images.dtype == tf.float32 and problem.labels.dtype == tf.int32
    assert problem.labels.shape == (5,) and problem.targets.dtype == tf.int32
    np.testing.assert_array_equal(problem.radius, np.full(5, 0.25))
    np.testing.assert_array_equal(problem.index, np.arange(5))
    assert problem.threat_model is THREAT_MODEL.rules and problem.support.image_shape == (1, 3, 1)


def test_one_hot_labels_become_classes_and_index_and_radius_are_kept():
    attack = Still(THREAT_MODEL)
    given = {"radius": 2, "index": tf.constant([7, 8, 9, 5, 4])}
    problem = attack.problem(pixels, tf.constant(IMAGES), tf.constant(np.eye(3)[LABELS]), **given)
    np.testing.assert_array_equal(problem.labels, LABELS)
    np.testing.assert_array_equal(problem.index, [7, 8, 9, 5, 4])
    np.testing.assert_array_equal(problem.radius, np.full(5, 2, np.float32))
    assert problem.targets is None


@pytest.mark.parametrize("in_wasserstein_ball", [True, False])
def test_the_memory_of_plans_is_checked_for_the_whole_batch_of_attacks_that_make_plans(
    monkeypatch, in_wasserstein_ball
):
    seen = []
    monkeypatch.setattr(base, "check_memory", lambda support, count: seen.append(count))
    attack = Still(THREAT_MODEL)
    monkeypatch.setattr(Still, "in_wasserstein_ball", in_wasserstein_ball)
    problem_of(attack)
    assert seen == ([3] if in_wasserstein_ball else [])


@pytest.mark.parametrize(
    ("count", "batch_size", "size"), [(1, 8, 1), (2, 8, 2), (3, 8, 4), (5, 8, 8), (9, 8, 8), (8, 100, 8), (9, 10, 10)]
)
def test_a_batch_is_a_power_of_two_up_to_its_size(count, batch_size, size):
    assert batch_shape(count, batch_size) == size


def test_batches_have_one_shape_and_every_image_comes_back_in_its_place(eagerly):
    attack = Still(THREAT_MODEL)
    index, radius = np.array([11, 12, 13, 14, 15]), np.array([0.0, 1, 2, 3, 4])
    targets = np.array([1, 2, 0, 1, 2])
    result = attack(pixels, IMAGES, LABELS, radius=radius, index=index, targets=targets, from_logits=True, batch_size=2)
    np.testing.assert_array_equal(result.adversarial, IMAGES)
    np.testing.assert_array_equal(result.iterations, index)
    np.testing.assert_array_equal(result.radius, radius)
    assert all(isinstance(field, np.ndarray) for field in tf.nest.flatten(result))
    batches = [
        (p.index.numpy().tolist(), p.labels.numpy().tolist(), p.targets.numpy().tolist()) for p in attack.problems
    ]
    # The last is filled up with the last image.
    assert batches == [([11, 12], [0, 1], [1, 2]), ([13, 14], [2, 0], [0, 1]), ([15, 15], [1, 1], [2, 2])]
    assert attack.problems[0].index.dtype == tf.int32


def test_by_default_images_are_numbered_from_0_and_get_epsilon(eagerly):
    attack = Still(THREAT_MODEL, seed=77)  # No equal attack has been compiled before.
    result = attack(pixels, IMAGES, LABELS, from_logits=True)
    np.testing.assert_array_equal(result.iterations, np.arange(5))
    np.testing.assert_array_equal(result.radius, np.full(5, 0.25, np.float32))
    assert attack.problems[0].targets is None and len(attack.problems) == 1


@pytest.mark.parametrize("index", [np.arange(4), np.arange(5.0), np.arange(10).reshape(5, 2)])
def test_an_index_that_does_not_number_the_images_is_refused(index):
    with pytest.raises(ValueError, match="index must hold a whole number for each of the 5 images, got .*64"):
        Still(THREAT_MODEL)(pixels, IMAGES, LABELS, index=index, from_logits=True)


@pytest.mark.parametrize("batch_size", [0, 2.5, True])
def test_a_bad_batch_size_is_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got"):
        Still(THREAT_MODEL)(pixels, IMAGES, LABELS, from_logits=True, batch_size=batch_size)


def test_from_logits_is_detected_by_default(eagerly, monkeypatch):
    seen = []
    monkeypatch.setattr(compilation, "as_logits_fn", lambda classifier, from_logits: seen.append(from_logits) or pixels)
    for from_logits in (None, True):
        Still(THREAT_MODEL)(pixels, np.repeat(IMAGES, 2, axis=0), np.repeat(LABELS, 2), from_logits=from_logits)
    assert seen == [True, True]
    with pytest.raises(ValueError, match="are no probabilities"):
        Still(THREAT_MODEL)(pixels, IMAGES, LABELS, from_logits=False)


def test_the_compiled_attack_is_reused_for_the_same_classifier_and_from_logits():
    attack = Still(THREAT_MODEL)
    first = compiled_attack(attack, pixels, True)
    assert compiled_attack(attack, pixels, True) is first
    other = compiled_attack(attack, pixels, False)
    assert other is not first and compiled_attack(attack, pixels, False) is other
    assert compiled_attack(attack, lambda images, training=False: pixels(images), False) is not other


def test_progress_is_shown_on_request(eagerly, monkeypatch):
    seen = []

    class Bar(contextlib.nullcontext):
        def __init__(self, total, unit, title, log):
            super().__init__(self)
            seen.append((total, unit, title, log))

        def update(self, finished):
            seen.append(finished)

    monkeypatch.setattr(base, "Bar", Bar)
    Still(THREAT_MODEL)(pixels, IMAGES, LABELS, from_logits=True, batch_size=2)
    assert seen == [(5, "image", "still", None), 2, 4, 5]
    seen.clear()
    Still(THREAT_MODEL)(pixels, IMAGES, LABELS, from_logits=True, batch_size=2, verbose=True)
    assert seen == [(5, "image", "still", show_progress), 2, 4, 5]


def test_zero_iterations_do_not_call_the_attack(eagerly):
    attack = Still(THREAT_MODEL, iterations=0)
    result = attack(pixels, IMAGES, LABELS, radius=2.0, from_logits=True)
    assert not attack.problems and (result.iterations == 0).all() and (result.radius == 2).all()


def test_can_perturb_needs_iterations_and_a_radius_or_a_schedule():
    still = ThreatModel(epsilon=0.0)
    assert Still(THREAT_MODEL).can_perturb and Still(still, schedule=SCHEDULE).can_perturb
    assert not Still(still).can_perturb and not Still(THREAT_MODEL, iterations=0).can_perturb
    assert not Still(THREAT_MODEL, iterations=0, schedule=SCHEDULE).can_perturb
    assert Still(THREAT_MODEL).ball() == str(THREAT_MODEL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threat_model": 0.5}, "threat_model must be a wasser_tf.ThreatModel, got 0.5"),
        ({"iterations": -1}, "iterations must be a whole number from 0 to 2147483647, got -1"),
        ({"iterations": 2.0}, "iterations must be a whole number"),
        ({"iterations": 2**31}, "iterations must be a whole number"),
        ({"seed": -1}, "seed must be a whole number from 0 to 2147483647, got -1"),
        ({"seed": 2**31}, "seed must be a whole number"),
        ({"schedule": 0.1}, "schedule must be a wasser_tf.RadiusSchedule, or None, got 0.1"),
        ({"stop_when_fooled": 1}, "stop_when_fooled must be True or False, got 1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Still(**{"threat_model": THREAT_MODEL, **settings})


def test_the_largest_whole_numbers_pass():
    attack = Still(THREAT_MODEL, iterations=2**31 - 1, seed=2**31 - 1)
    assert attack.iterations == attack.seed == 2**31 - 1


def test_an_unknown_name_is_refused_with_a_list_of_the_known_ones():
    for unknown in (lambda: attacks.make("pgd", THREAT_MODEL), lambda: attacks.deserialize({"name": "pgd"})):
        with pytest.raises(ValueError, match="Unknown attack 'pgd'; there are wasser_attack, mirror_ascent, "):
            unknown()
