"""Each check of a classifier at both sides of its tolerance."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.evaluation.classifier_checks import ClassifierChecker

IMAGES = np.random.default_rng(0).uniform(0.2, 0.8, (6, 3, 3, 1)).astype(np.float32)
LABELS = np.arange(6) % 2


class Drifting:
    """Two logits, from −100 to −90, that change by `step` from call to call, or with the size of the batch."""

    def __init__(self, step, by_batch=False):
        self.step, self.by_batch, self.calls = step, by_batch, 0
        self.from_logits = True

    def __call__(self, images, training=False):
        assert training is False
        self.calls += 1
        drift = self.step * (float(len(images) == 1) if self.by_batch else self.calls)
        value = tf.reduce_mean(tf.convert_to_tensor(images), axis=(1, 2, 3))
        return tf.stack([0 * value - 100.0, 10 * value - 98.0], axis=1) - drift


@pytest.mark.parametrize(("step", "passed"), [(0.0, True), (0.009, True), (0.02, False)])
def test_deterministic_up_to_a_ten_thousandth_of_the_largest_output(step, passed):
    found = ClassifierChecker(Drifting(step), IMAGES, LABELS).deterministic()
    assert found.passed is passed and found.masking and found.name == "the classifier is deterministic"
    assert f"differ by up to {step:.2g} (largest output 1e+02)" in found.measured or step


@pytest.mark.parametrize(("step", "passed"), [(0.0, True), (0.09, True), (0.2, False)])
def test_independent_of_the_batch_up_to_a_thousandth_of_the_largest_output(step, passed):
    found = ClassifierChecker(Drifting(step, by_batch=True), IMAGES, LABELS).independent_of_batch()
    assert found.passed is passed and found.masking
    assert f"differ by up to {step:.2g}" in found.measured or step == 0.0


@pytest.mark.parametrize(("blind", "passed"), [(0, True), (1, True), (2, False), (20, False)])
def test_at_most_one_image_in_twenty_may_have_no_gradient(blind, passed):
    images = np.repeat(IMAGES[:1], 20, axis=0)
    images[:blind] *= 0.1

    def classifier(given, training=False):
        value = tf.reduce_mean(tf.convert_to_tensor(given), axis=(1, 2, 3))
        value = tf.where(value < 0.15, tf.stop_gradient(value), value)
        return tf.stack([4 * value, 1 - value], axis=1)

    classifier.from_logits = True
    found = ClassifierChecker(classifier, images, np.zeros(20, int)).gradients()
    assert found.passed is passed and found.measured == f"{5.0 * blind:.1f} % of the images have no gradient"
    assert found.masking


def test_outputs_without_a_derivative_fail():
    def classifier(given, training=False):
        return tf.stop_gradient(tf.reshape(tf.convert_to_tensor(given), [len(given), 9])[:, :2])

    classifier.from_logits = True
    found = ClassifierChecker(classifier, IMAGES, LABELS).gradients()
    assert found.passed is False and found.measured == "the outputs are not differentiable" and found.masking
