import numpy as np
import pytest

from wasser_tf.attacks import ConstrainedSinkhorn, ProjectedSinkhorn
from wasser_tf.threat_model import ThreatModel

THREAT_MODEL = ThreatModel(kernel_size=3)


def test_the_defaults_are_the_papers():
    attack = ProjectedSinkhorn(THREAT_MODEL)
    assert (attack.iterations, attack.step_size, attack.norm) == (200, 0.1, "linf")
    assert (attack.regularization, attack.sinkhorn_iterations, attack.stop_when_fooled) == (1000.0, 400, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l1"}, "norm must be"),
        ({"step_size": 0.0}, "step_size must be a finite number above 0"),
        ({"regularization": np.inf}, "regularization must be a finite number above 0"),
        ({"sinkhorn_iterations": 0}, "sinkhorn_iterations must be a whole number"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ProjectedSinkhorn(THREAT_MODEL, **settings)


@pytest.mark.parametrize("attack_class", [ProjectedSinkhorn, ConstrainedSinkhorn])
@pytest.mark.parametrize("regularization", [1e-4, 1e8])
def test_no_regularization_overflows(attack_class, regularization):
    images = np.random.default_rng(0).uniform(size=(8, 8, 8, 1)).astype("float32")
    images[0], images[1] = 0.0, 1.0
    attack = attack_class(THREAT_MODEL, iterations=4, regularization=regularization, stop_when_fooled=False)
    result = attack(lambda x, training=False: 30 * x[:, 0, :3, 0], images, np.zeros(8, int), from_logits=True)
    assert result.feasibility.feasible().all()
    assert np.isfinite(result.raw).all()
    assert ((result.raw >= 0) & (result.raw <= 1)).all()


def test_the_l2_step_raises_the_loss():
    images = np.random.default_rng(0).uniform(0.2, 0.8, size=(8, 8, 8, 1)).astype("float32")
    attack = ProjectedSinkhorn(THREAT_MODEL, iterations=5, norm="l2", step_size=1.0, stop_when_fooled=False)

    def classifier(x, training=False):
        return 3 * x[:, 3, :3, 0]

    labels = np.argmax(classifier(images), axis=1)
    result = attack(classifier, images, labels, from_logits=True)
    clean = attack(classifier, images, labels, radius=0.0, from_logits=True)
    assert (result.loss > clean.loss).all()
