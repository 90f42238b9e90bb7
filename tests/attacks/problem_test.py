"""The batch under attack: success, margin, budget and gradient."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.attacks import RandomPlan, losses
from wasser_tf.attacks.problem import choose, image_gradient, where_image
from wasser_tf.threat_model import ThreatModel

WEIGHTS = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], np.float32)
IMAGES = np.array([[0.5, 0.25], [0.25, 0.75]], np.float32).reshape(2, 1, 2, 1)
LOGITS = tf.constant([[2.0, 5.0, 3.0], [1.0, 0.0, 4.0]])


def linear(images):
    return tf.reshape(images, [-1, 2]) @ WEIGHTS


def problem_of(labels, targets=None, logits_fn=linear, threat_model=None, **given):
    attack = RandomPlan(threat_model or ThreatModel(epsilon=0.5, kernel_size=3))
    targets = None if targets is None else tf.constant(targets)
    return attack.problem(logits_fn, tf.constant(IMAGES), tf.constant(labels), targets=targets, **given)


def test_fooled_is_any_wrong_class_or_the_target_where_there_is_one():
    assert problem_of([1, 0]).fooled(LOGITS).numpy().tolist() == [False, True]
    assert problem_of([1, 0], targets=[2, 2]).fooled(LOGITS).numpy().tolist() == [False, True]
    assert problem_of([0, 0], targets=[1, 1]).fooled(LOGITS).numpy().tolist() == [True, False]


def test_the_margin_is_above_0_where_fooled():
    np.testing.assert_allclose(problem_of([1, 0]).margin(LOGITS), [3 - 5, 4 - 1])
    # z_t less the largest other, the label's or not.
    np.testing.assert_allclose(problem_of([1, 0], targets=[2, 2]).margin(LOGITS), [3 - 5, 4 - 1])
    np.testing.assert_allclose(problem_of([0, 2], targets=[1, 0]).margin(LOGITS), [5 - 3, 1 - 4])


def test_the_budget_follows_the_threat_model():
    np.testing.assert_allclose(problem_of([0, 0]).budget(tf.constant([0.5, 2.0])), [0.5 * 0.75, 2.0])
    absolute = ThreatModel(normalize_mass=False, kernel_size=3)
    np.testing.assert_allclose(problem_of([0, 0], threat_model=absolute).budget(tf.constant([0.5, 2.0])), [0.5, 2.0])


def test_the_gradient_raises_the_loss_of_the_label_or_lowers_that_of_the_target():
    logits = linear(IMAGES).numpy()
    assert logits.argmax(axis=1).tolist() == [0, 1]
    found = image_gradient(problem_of([0, 0]), tf.constant(IMAGES), losses.margin)
    # The largest wrong classes are 2 and 1.
    expected = np.stack([WEIGHTS[:, 2] - WEIGHTS[:, 0], WEIGHTS[:, 1] - WEIGHTS[:, 0]])
    np.testing.assert_allclose(found.image_gradient.numpy().reshape(2, 2), expected, rtol=1e-6)
    np.testing.assert_allclose(found.loss, [logits[0, 2] - logits[0, 0], logits[1, 1] - logits[1, 0]], rtol=1e-6)
    assert found.fooled.numpy().tolist() == [False, True]
    aimed = image_gradient(problem_of([0, 0], targets=[2, 1]), tf.constant(IMAGES), losses.margin)
    expected = np.stack([WEIGHTS[:, 2] - WEIGHTS[:, 0], WEIGHTS[:, 1] - WEIGHTS[:, 2]])
    best_other = [logits[0, 0], max(logits[1, 0], logits[1, 2])]
    if logits[1, 0] > logits[1, 2]:
        expected[1] = WEIGHTS[:, 1] - WEIGHTS[:, 0]
    np.testing.assert_allclose(aimed.image_gradient.numpy().reshape(2, 2), expected, rtol=1e-6)
    np.testing.assert_allclose(aimed.loss, [logits[0, 2] - best_other[0], logits[1, 1] - best_other[1]], rtol=1e-6)
    assert aimed.fooled.numpy().tolist() == [False, True]


def test_entries_of_the_gradient_that_are_not_finite_are_0_and_the_others_stay():
    def kinked(images):
        # The first pixel's slope is infinite at 0.
        return tf.stack([0 * images[:, 0, 0, 0], tf.sqrt(images[:, 0, 0, 0]) + 2 * images[:, 0, 1, 0]], axis=1)

    images = tf.constant([[0.0, 0.25], [0.25, 0.75]], shape=[2, 1, 2, 1])
    found = image_gradient(problem_of([0, 0], logits_fn=kinked), images, losses.margin)
    np.testing.assert_allclose(found.image_gradient.numpy().reshape(2, 2), [[0, 2], [1, 2]])


def test_a_classifier_without_a_path_for_gradients_is_refused():
    with pytest.raises(ValueError, match="does not depend on its input by differentiable operations"):
        image_gradient(
            problem_of([0, 0], logits_fn=lambda images: tf.round(linear(images))), tf.constant(IMAGES), losses.margin
        )


def test_choosing_is_image_by_image_in_every_tensor():
    condition = tf.constant([True, False])
    ones, twos = tf.ones([2, 3, 2]), 2 * tf.ones([2, 3, 2])
    np.testing.assert_array_equal(where_image(condition, ones, twos)[:, 0, 0], [1, 2])
    chosen = choose(condition, {"a": ones, "b": tf.constant([5, 6])}, {"a": twos, "b": tf.constant([7, 8])})
    np.testing.assert_array_equal(chosen["a"][:, 2, 1], [1, 2])
    np.testing.assert_array_equal(chosen["b"], [5, 8])
