"""Attacks on classifiers without a useful gradient: the clean image is returned and flagged."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import Classifier, ThreatModel, attacks

_FAULTS = {
    "honest": lambda logits, images: logits,
    "constant": lambda logits, images: 0 * logits + tf.constant([3.0, 2.0, 1.0]),
    "saturated": lambda logits, images: 0 * logits + 1e9 * tf.stop_gradient(tf.sign(logits)),
    "zero_gradient": lambda logits, images: tf.stop_gradient(logits) + 0 * tf.reduce_sum(images),
    "nan": lambda logits, images: logits / 0 * 0,
    # Its outputs are numbers, its gradient is none: the square root at 0.
    "nan_gradient": lambda logits, images: logits + tf.sqrt(0 * logits),
    # Right about the clean images, and NaN as soon as mass arrives where there was none.
    "nan_beside": lambda logits, images: tf.where(images[:, 0, 0] > 0, np.nan, logits),
}


@pytest.fixture(scope="module", params=["mirror_ascent", "wasser_attack"])
def attack(request):
    settings = {"polish": 1} if request.param == "mirror_ascent" else {}
    return attacks.make(request.param, ThreatModel(epsilon=0.4, kernel_size=3), iterations=3, **settings)


@pytest.fixture(scope="module")
def faulty(linear_classifier):
    """One function for all faults, so that an attack is traced once."""
    fault = tf.Variable(0)

    def classifier(images, training=False):
        logits = linear_classifier(images, training=training)
        made = tf.switch_case(fault.read_value(), [lambda make=make: make(logits, images) for make in _FAULTS.values()])
        return tf.ensure_shape(made, [None, 3])

    classifier.fault = fault
    return classifier


def test_images_without_a_gradient_are_flagged(attack, faulty, images, labels):
    clean = images[:6].copy()
    clean[:, 0, 0] = 0
    for number, name in enumerate(_FAULTS):
        faulty.fault.assign(number)
        # The branches of tf.switch_case cannot be looked into, so the range has to be given.
        result = attack(Classifier(faulty, input_range=(0, 1), returns="logits"), clean, labels[:6])
        assert result.feasibility.feasible().all(), name
        assert np.isfinite(result.adversarial).all() and np.isfinite(result.raw).all(), name
        if name == "honest":
            assert not result.flagged.any() and (result.adversarial != clean).any()
        elif name == "nan_beside":
            # Flagged or not, no example may be one that the classifier has no answer for.
            assert (result.adversarial[:, 0, 0] == 0).all()
        elif name in ("saturated", "zero_gradient", "nan_gradient"):
            assert result.flagged.all(), name
            if name == "saturated":
                # What moved all the same, fools.
                assert result.success[(result.adversarial != clean).any(axis=(1, 2, 3))].all()
        else:
            assert result.flagged.all(), name
            np.testing.assert_array_equal(result.adversarial, clean, err_msg=name)


def test_non_differentiable_classifiers_are_refused_by_gradient_attacks(linear_classifier, images, labels):
    def rounded(images, training=False):
        return tf.round(linear_classifier(images, training=training))

    result = attacks.make("random_plan", ThreatModel(epsilon=0.4, kernel_size=3))(rounded, images[:6], labels[:6])
    assert result.flagged.all()
    with pytest.raises(ValueError, match="does not depend on its input by differentiable operations"):
        attacks.make("mirror_ascent", ThreatModel(), iterations=1)(rounded, images, labels)
