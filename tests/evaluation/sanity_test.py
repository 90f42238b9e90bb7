import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.evaluation.check import gradient_masking, worst_case_is_per_example
from wasser_tf.evaluation.record import WORST_CASE, make_record
from wasser_tf.evaluation.sanity import SanityChecker
from wasser_tf.evaluation.surrogate import train_surrogate

RADII = (0.05, 0.1, 0.3)


@pytest.fixture
def check(mirror_ascent, digits, other_classifier):
    def make(classifier):
        return SanityChecker(
            classifier, mirror_ascent, digits.images, digits.labels, RADII, surrogate=other_classifier, batch_size=16
        )

    return make


@pytest.mark.slow
def test_a_healthy_classifier_passes(check, classifier):
    told = []
    checks = check(classifier).run(told.append)
    assert {made.name: made.passed for made in checks if made.passed is False} == {}
    assert gradient_masking(checks) == []
    # Nothing in mirror ascent is random, so there is nothing to restart.
    assert sum(made.passed is None for made in checks) <= 1
    assert len(told) == len(checks) == 9
    assert any("at 0.05" in made.measured and "at 0.3" in made.measured for made in checks)


def test_a_saturated_softmax_is_flagged(check, classifier):
    def saturated(images, training=False):
        logits = 1000 * classifier(images, training=training)
        # Not tf.nn.softmax, behind which the logits would be found.
        return tf.exp(logits - tf.reduce_logsumexp(logits, axis=1, keepdims=True))

    made = check(saturated).gradients()
    assert made.passed is False and made.masking
    assert "100.0 %" in made.measured


def test_a_step_activation_is_flagged(check, classifier):
    # The sign has a gradient of 0 everywhere, rounding has none at all.
    def by_sign(images, training=False):
        return classifier(0.5 + 0.5 * tf.sign(images - 0.3), training=training)

    def by_rounding(images, training=False):
        return classifier(tf.round(4 * images) / 4, training=training)

    assert check(by_sign).gradients().passed is False
    rounded = check(by_rounding)
    assert rounded.gradients().passed is False
    # Without a gradient the attack fails, which the transfer attack shows is not the classifier's merit.
    assert rounded.transfer().passed is False
    assert gradient_masking([rounded.gradients(), rounded.transfer()]) == [
        "the margin has a gradient",
        "white-box beats transfer",
    ]


def test_random_outputs_are_flagged(check, classifier):
    def randomised(images, training=False):
        logits = classifier(images, training=training)
        return logits + tf.random.normal(tf.shape(logits))

    assert check(randomised).deterministic().passed is False
    assert check(classifier).deterministic().passed is True


def test_zero_gradients_are_flagged(check, classifier):
    def flat(images, training=False):
        return tf.stop_gradient(classifier(images, training=training)) + 0 * tf.reduce_sum(images)

    # What follows from it for the other checks is in sanity_verdicts_test.
    assert check(flat).gradients().passed is False


def test_batch_statistics_are_flagged(check, classifier):
    def centred(images, training=False):
        logits = classifier(images, training=training)
        return logits - tf.reduce_mean(logits, axis=0)

    assert check(centred).independent_of_batch().passed is False
    assert check(classifier).independent_of_batch().passed is True


def test_success_that_falls_is_flagged(check, classifier):
    checker = check(classifier)
    for radius, fooled in zip(RADII, (4, 12, 8), strict=True):
        checker._fooled[radius] = np.arange(16) < fooled
    made = checker.grows_with_radius()
    assert made.passed is False and made.measured == "25.0 % at 0.05, 75.0 % at 0.1, 50.0 % at 0.3"


def test_a_check_that_cannot_be_made_is_skipped(mirror_ascent, classifier, digits):
    checker = SanityChecker(classifier, mirror_ascent, digits.images, digits.labels, RADII)
    made = checker.transfer()
    assert made.passed is None and gradient_masking([made]) == []
    with pytest.raises(ValueError, match="at least one radius"):
        SanityChecker(classifier, mirror_ascent, digits.images, digits.labels, ())


def test_a_worst_case_below_an_attack_is_found(make_examples, random_plan):
    def record(attack, success):
        examples = make_examples(success, [0, 0])
        made = make_record(
            random_plan, examples.result, examples.clean, radius=0.1, model_name="m", dataset_name="d", seconds=1
        )
        return dataclasses.replace(made, attack=attack)

    half, none = record("random_plan", [True, False]), record(WORST_CASE, [False, False])
    assert worst_case_is_per_example([half]).passed is None
    assert worst_case_is_per_example([half, record(WORST_CASE, [False, True])]).passed is True
    assert worst_case_is_per_example([half, none]).passed is False


def test_the_surrogate_imitates(classifier, digits):
    surrogate = train_surrogate(classifier, digits.images)
    agree = np.argmax(surrogate(digits.images), axis=1) == np.argmax(classifier(digits.images), axis=1)
    assert agree.mean() > 0.9
