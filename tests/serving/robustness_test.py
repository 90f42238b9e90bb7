"""The signature `robustness`: the margin and an upper bound on the minimal radius."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import ThreatModel
from wasser_tf.serving.robustness import RobustnessProbe, smallest_radius


def test_served_margins_and_radii(exported, classifier, images):
    loaded = tf.saved_model.load(str(exported.path)).signatures["robustness"]
    got = {name: value.numpy() for name, value in loaded(image=tf.constant(images)).items()}
    logits = np.sort(classifier(images, training=False).numpy(), axis=1)
    np.testing.assert_allclose(got["margin"], logits[:, -1] - logits[:, -2], atol=1e-5)
    found = np.isfinite(got["radius"])
    assert found.any() and (got["radius"][found] > 0).all() and (got["radius"][found] <= 2.0).all()


def test_the_radius_of_an_image_does_not_depend_on_its_batch(exported, images):
    loaded = tf.saved_model.load(str(exported.path)).signatures["robustness"]
    together = loaded(image=tf.constant(images))["radius"]
    alone = [loaded(image=tf.constant(images[place : place + 1]))["radius"][0] for place in range(3)]
    np.testing.assert_allclose(together[:3], alone, rtol=0.2)


def test_a_linear_edge_at_a_known_distance():
    """Two pixels, class 1 if the right one holds more: of (0.6, 0.4), 0.1 must move by 1, 0.1 of the mass 1."""
    images = tf.constant([[[[0.6], [0.4]]], [[[0.9], [0.1]]], [[[0.0], [0.0]]], [[[1.0], [1.0]]]])
    weights = tf.constant([[10.0, -10.0], [-10.0, 10.0]])

    def logits_fn(batch):
        return tf.reshape(batch, [-1, 2]) @ weights

    probe = RobustnessProbe(threat_model=ThreatModel(), rounds=10, iterations=10)
    margin, radius, _ = smallest_radius(probe, logits_fn, images, logits_fn(images))
    np.testing.assert_allclose(margin, [4.0, 16.0, 0.0, 0.0], atol=1e-5)
    np.testing.assert_allclose(radius[:2], [0.1, 0.4], rtol=0.05)
    assert (radius[:2].numpy() >= [0.1, 0.4]).all()
    # Neither an image without mass nor one without room can change.
    assert np.isinf(radius[2:]).all()


@pytest.mark.parametrize(
    "options", [{"largest": 0.0}, {"largest": np.inf}, {"rounds": 0}, {"iterations": 0}, {"threat_model": 0.5}]
)
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        RobustnessProbe(**{"threat_model": ThreatModel(), **options})
