"""Mirror ascent: restarts and losses. Properties of all attacks are tested in base_test.py."""

import numpy as np
import pytest

import wasser_tf

THREAT_MODEL = wasser_tf.ThreatModel(epsilon=0.4, kernel_size=3)


def test_restarts_never_hurt(linear_classifier, images, labels):
    once = wasser_tf.MirrorAscent(THREAT_MODEL, iterations=20)(linear_classifier, images, labels)
    # The second warm-started, the third towards the other wrong class, the fourth from a random plan.
    often = wasser_tf.MirrorAscent(THREAT_MODEL, iterations=20, restarts=4)(linear_classifier, images, labels)
    gain = _margins(linear_classifier, often, labels) - _margins(linear_classifier, once, labels)
    assert gain.min() >= -1e-2 and gain.max() > 0
    assert often.feasibility.feasible().all() and (often.iterations == 80).all()


def _margins(classifier, result, labels):
    logits = np.array(classifier(result.adversarial))
    own = logits[np.arange(len(labels)), labels]
    logits[np.arange(len(labels)), labels] = -np.inf
    return logits.max(axis=1) - own


def test_every_loss_is_increased(linear_classifier, images, labels):
    control = wasser_tf.attacks.RandomPlan(THREAT_MODEL)(linear_classifier, images, labels)
    for loss in ("cross_entropy", "dlr"):
        result = wasser_tf.MirrorAscent(THREAT_MODEL, iterations=20, loss=loss)(linear_classifier, images, labels)
        assert _margins(linear_classifier, result, labels).mean() > _margins(linear_classifier, control, labels).mean()


def test_averaged_gradients_do_not_depend_on_other_images(linear_classifier, images, labels):
    attack = wasser_tf.MirrorAscent(
        THREAT_MODEL, iterations=10, restarts=2, gradient_noise=0.5, ramp_from=3.0, stop_when_fooled=True
    )
    together = attack(linear_classifier, images, labels)
    assert together.feasibility.feasible().all()
    # Plans of the larger ball, rounded, would lose what lies outside it: the raw ones must be inside too.
    assert (together.raw_feasibility.cost <= 1.001 * THREAT_MODEL.epsilon).all()
    alone = attack(linear_classifier, images[4:], labels[4:])
    np.testing.assert_allclose(alone.adversarial, together.adversarial[4:], atol=1e-4)


@pytest.mark.parametrize(
    "setting",
    [{"step_size": 0.0}, {"restarts": 0}, {"polish": -1}, {"loss": "hinge"}, {"gradient_noise": -1}, {"ramp_from": 0}],
)
def test_bad_settings_are_refused(setting):
    with pytest.raises(ValueError, match="|".join([*setting, "Unknown attack loss"])):
        wasser_tf.MirrorAscent(THREAT_MODEL, **setting)
