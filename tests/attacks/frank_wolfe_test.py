import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.attacks import FrankWolfe
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.exact import linear_optimum


def test_the_defaults_are_the_papers():
    attack = FrankWolfe(ThreatModel())
    assert (attack.iterations, attack.temperature, attack.stop_when_fooled) == (300, 1e-3, False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"bisections": 0}, "bisections must be a whole number"),
        ({"tolerance": 0.0}, "tolerance must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FrankWolfe(ThreatModel(), **settings)


def test_one_step_is_the_optimum_on_a_linear_classifier():
    # Dark images, so that neither the capacity nor the clip before the classifier is ever reached.
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 0.1, size=(8, 8, 8, 1)).astype("float32")
    weights = rng.normal(size=(64, 2)).astype("float32")
    threat_model = ThreatModel(epsilon=0.3, kernel_size=3)
    attack = FrankWolfe(threat_model, iterations=1, tolerance=1e-6)

    def classifier(x, training=False):
        return tf.reshape(x, [-1, 64]) @ weights

    labels = np.argmax(classifier(images), axis=1)
    result = attack(classifier, images, labels, from_logits=True)
    for image, label, raw, adversarial in zip(images, labels, result.raw, result.adversarial, strict=True):
        direction = (weights[:, 1 - label] - weights[:, label]).reshape(8, 8, 1)
        optimum, _ = linear_optimum(image, direction, threat_model)
        clean = np.sum(image * direction)
        for found in (raw, adversarial):
            assert np.sum(found * direction) - clean >= 0.99 * (optimum - clean)
