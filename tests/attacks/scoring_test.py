"""Scores of examples: those that do not raise the margin are replaced by the image, and suspicious ones are flagged."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.attacks import RandomPlan
from wasser_tf.attacks.problem import Perturbation
from wasser_tf.attacks.scoring import explicit, is_blind, rounded, score
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.gibbs import GibbsPlan
from wasser_tf.transport.plan import identity_plan

THREAT_MODEL = ThreatModel(epsilon=1.0, kernel_size=3)
# Mass in the middle; targets are left, home, right.
IMAGES = np.array([[0.0, 0.5, 0.0]] * 3, np.float32).reshape(3, 1, 3, 1)
LABELS = [0, 0, 0]
RADIUS = np.array([1.0, 0.5, 1.0], np.float32)

pytestmark = pytest.mark.usefixtures("eagerly")


def pixels(images):
    """Logits are the pixels: class 1, the middle, is the clean prediction."""
    return tf.reshape(images, [-1, 3])


def right(images):
    """The margin of label 0 grows with what arrives at the right."""
    return tf.stack([0.1 + 0 * images[:, 0, 0, 0], images[:, 0, 2, 0]], axis=1)


def problem_of(logits_fn, labels=LABELS, targets=None, threat_model=THREAT_MODEL):
    attack = RandomPlan(threat_model)
    return attack.problem(logits_fn, tf.constant(IMAGES), tf.constant(labels), tf.constant(RADIUS), targets=targets)


def moving(problem, to_left, to_right):
    """The plan that sends so much of each image's middle to each side, whatever the radius."""
    plan = identity_plan(problem.images, problem.support).numpy()
    plan[:, 1, 0, 1, 0] -= np.add(to_left, to_right)
    plan[:, 0, 0, 1, 0] += to_left
    plan[:, 2, 0, 1, 0] += to_right
    raw = problem.support.push_forward(tf.constant(plan)) + 0.25
    return Perturbation(tf.constant(plan), raw, problem.radius, tf.constant([3, 4, 5]))


def numpy(result):
    return tf.nest.map_structure(lambda field: field.numpy(), result)


def test_an_example_replaces_the_image_only_where_its_margin_is_higher():
    problem = problem_of(right)
    result = numpy(score(problem, moving(problem, [0.0, 0.0, 0.25], [0.25, 0.5, 0.0])))
    # Within radius 0.5, half of the mass; to the left, the margin does not change.
    expected = [[0, 0.25, 0.25], [0, 0.25, 0.25], [0, 0.5, 0]]
    np.testing.assert_allclose(result.adversarial.reshape(3, 3), expected, atol=1e-5)
    assert (result.adversarial[2] == IMAGES[2]).all()
    np.testing.assert_allclose(result.feasibility.cost, [0.5, 0.5, 0], atol=1e-5)
    np.testing.assert_allclose(result.raw_feasibility.cost, [0.5, 1.0, 0.5], atol=1e-6)
    assert result.feasibility.feasible().all()
    assert not result.raw_feasibility.feasible().any()
    assert result.success.tolist() == [True, True, False] and result.raw_success.tolist() == [True, True, True]
    assert result.iterations.tolist() == [3, 4, 5]
    np.testing.assert_array_equal(result.radius, RADIUS)
    assert not result.flagged.any()
    logits = right(tf.constant(result.adversarial))
    np.testing.assert_allclose(
        result.loss, tf.nn.sparse_softmax_cross_entropy_with_logits(labels=LABELS, logits=logits), rtol=1e-5
    )
    raw_logits = right(tf.constant(result.raw))
    np.testing.assert_allclose(
        result.raw_loss, tf.nn.sparse_softmax_cross_entropy_with_logits(labels=LABELS, logits=raw_logits), rtol=1e-5
    )
    np.testing.assert_allclose(result.raw_feasibility.column_error, [0.25] * 3, atol=1e-6)


def test_a_lower_margin_returns_the_image_even_if_it_is_misclassified():
    # Label 2, predicted 1: what leaves the middle lowers the margin.
    problem = problem_of(pixels, labels=[2, 2, 2])
    result = numpy(score(problem, moving(problem, [0.1] * 3, [0.0] * 3)))
    np.testing.assert_array_equal(result.adversarial, IMAGES)
    assert result.success.all() and (result.feasibility.cost == 0).all() and result.feasibility.feasible().all()


def test_targeted_attacks_compare_the_margin_of_the_target():
    # Image 0 goes to its target, 1 to the other side, which raises the margin too, 2 not far enough for class 2 to win.
    problem = problem_of(pixels, labels=[1, 1, 1], targets=tf.constant([2, 2, 2]))
    result = numpy(score(problem, moving(problem, [0.0, 0.4, 0.0], [0.4, 0.0, 0.2])))
    assert result.success.tolist() == [True, False, False]
    expected = [[0, 0.1, 0.4], [0.25, 0.25, 0.0], [0, 0.3, 0.2]]
    np.testing.assert_allclose(result.adversarial.reshape(3, 3), expected, atol=1e-5)


def nan_where(condition):
    return lambda images: tf.where(condition(images)[:, None], np.nan, right(images))


def test_an_example_with_nan_outputs_is_replaced_by_the_image_and_flagged():
    # NaN as soon as there is mass at the right.
    problem = problem_of(nan_where(lambda images: images[:, 0, 2, 0] > 0))
    result = numpy(score(problem, moving(problem, [0.0] * 3, [0.25, 0.25, 0.0])))
    np.testing.assert_array_equal(result.adversarial, IMAGES)
    assert result.flagged.tolist() == [True, True, False]


def test_a_single_nan_logit_is_flagged():
    def partly(images):
        logits = right(images)
        third = tf.where(images[:, 0, 2, 0] > 0, np.nan, -9.0)
        return tf.concat([logits, third[:, None]], axis=1)

    problem = problem_of(partly)
    result = numpy(score(problem, moving(problem, [0.0] * 3, [0.25, 0.25, 0.0])))
    np.testing.assert_array_equal(result.adversarial, IMAGES)
    assert result.flagged.tolist() == [True, True, False]


def test_a_clean_image_with_nan_outputs_is_returned_and_flagged():
    problem = problem_of(nan_where(lambda images: images[:, 0, 2, 0] == 0))
    result = numpy(score(problem, moving(problem, [0.0] * 3, [0.25, 0.25, 0.0])))
    np.testing.assert_array_equal(result.adversarial, IMAGES)
    assert result.flagged.all()


def test_a_flat_margin_at_the_clean_image_is_flagged_and_the_gain_kept():
    # Flat up to 0.1, so that the clean image gives no gradient, but a step across fools.
    problem = problem_of(
        lambda images: tf.stack([0.5 + 0 * images[:, 0, 0, 0], tf.nn.relu(9 * (images[:, 0, 2, 0] - 0.1))], axis=1)
    )
    result = numpy(score(problem, moving(problem, [0.0] * 3, [0.25, 0.25, 0.05])))
    assert result.flagged.all()
    assert result.success.tolist() == [True, True, False]


def test_raw_images_without_a_plan_are_scored_unchanged():
    problem = problem_of(lambda images: tf.where(images[:, :1, 0, 0] > 0.8, np.inf, right(images)))
    raw = IMAGES.copy()
    raw[0, 0, 2, 0], raw[1, 0, 0, 0] = 0.75, 0.875
    result = numpy(score(problem, Perturbation(None, tf.constant(raw), problem.radius, tf.constant([3, 4, 5]))))
    np.testing.assert_array_equal(result.adversarial, raw)
    np.testing.assert_array_equal(result.raw, raw)
    assert result.success.tolist() == result.raw_success.tolist() == [True, False, False]
    assert result.flagged.tolist() == [False, True, False]
    assert result.iterations.tolist() == [3, 4, 5]
    np.testing.assert_array_equal(result.radius, RADIUS)
    np.testing.assert_array_equal(result.feasibility.radius, RADIUS)
    np.testing.assert_array_equal(result.feasibility.column_error, [0.75, 0.875, 0])
    np.testing.assert_array_equal(result.raw_feasibility.column_error, [0.75, 0.875, 0])
    assert result.feasibility.feasible().tolist() == [False, False, True]
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=LABELS, logits=right(tf.constant(raw)))
    np.testing.assert_allclose(result.loss[[0, 2]], expected.numpy()[[0, 2]], rtol=1e-6)
    np.testing.assert_allclose(result.raw_loss[[0, 2]], expected.numpy()[[0, 2]], rtol=1e-6)


@pytest.mark.parametrize(
    ("gradient", "margin", "blind"),
    [
        ([0.0, 0.0], 1.0, True),
        ([0.0, -0.9e-5], 1.0, True),
        ([0.0, -1.1e-5], 1.0, False),
        ([0.9e-5, 0.0], -1.0, True),
        ([1.1e-5, 0.0], -1.0, False),
        ([0.0, -1.1e-2], 1e3, False),
        ([0.0, 0.9e-2], -1e3, True),
        ([0.0, 0.0], 0.0, True),
        ([0.0, 1e-9], 0.0, False),
        ([1.0, np.nan], 1.0, True),
        ([np.inf, 1.0], 1.0, True),
    ],
)
def test_a_gradient_is_blind_where_it_is_rounding_or_not_finite(gradient, margin, blind):
    gradients = tf.constant([[5.0, 5.0], gradient], shape=[2, 1, 2, 1])
    assert is_blind(gradients, tf.constant([1.0, margin])).numpy().tolist() == [False, blind]


def test_a_zero_gradient_is_blind():
    assert is_blind(None, tf.constant([1.0, -2.0])).numpy().tolist() == [True, True]


def test_a_plan_is_rounded_at_the_perturbations_radius_and_made_explicit_where_it_is_not():
    problem = problem_of(right)
    perturbation = moving(problem, [0.0] * 3, [0.5] * 3)._replace(radius=tf.constant([0.5, 0.25, 0.0]))
    found = rounded(perturbation, problem).image
    np.testing.assert_allclose(found[:, 0, 2, 0], [0.25, 0.125, 0], atol=1e-5)
    assert explicit(perturbation.plan, problem.images, problem.support) is perturbation.plan
    level = GibbsPlan(tf.zeros_like(problem.images), tf.zeros([3, 1, 1, 1]), problem.images)
    plan = explicit(level, problem.images, problem.support)
    np.testing.assert_allclose(plan[:, :, 0, 1, 0], np.full((3, 3), 0.5 / 3), rtol=1e-6)


def test_the_printed_result_counts_raw_and_feasible_successes():
    problem = problem_of(right)
    result = score(problem, moving(problem, [0.0, 0.0, 0.25], [0.25, 0.5, 0.0]))
    assert repr(result) == "<AttackResult of (3, 1, 3, 1)>"
    shown = repr(numpy(result))
    assert shown == "<AttackResult of (3, 1, 3, 1): 2 successful, raw 3; <Feasibility of 3: 3 feasible, cost to 0.5>>"
