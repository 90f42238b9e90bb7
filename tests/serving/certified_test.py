"""The signature `certified`: the radii of a loaded export are those that the package proves, rounded down."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.certification.prover import Prover
from wasser_tf.models import blurred, build
from wasser_tf.serving.certified import CertifiedProbe
from wasser_tf.serving.export import export_classifier
from wasser_tf.threat_model import ThreatModel

BALL = ThreatModel(epsilon=0.2, kernel_size=3)


@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_the_export_returns_the_class_and_its_certified_radius(tmp_path, method):
    classifier = blurred(build("mlp", (6, 6, 1), 4, seed=1), 1)
    probe = CertifiedProbe(threat_model=BALL, method=method, largest=0.2, rounds=9)
    exported = export_classifier(classifier, tmp_path, "digits", certified=probe)
    assert "certified" in exported.signatures
    images = np.random.default_rng(0).random((5, 6, 6, 1)).astype(np.float32)
    found = tf.saved_model.load(str(exported.path)).signatures["certified"](image=tf.constant(images))
    classes = classifier.predict(images, verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(found["class_id"], classes)
    prover = Prover(classifier, BALL)
    wanted = prover.certify(*prover.check(images, classes), method, 0.2 / 2**9).radius
    assert found["radius"].dtype == tf.float32
    assert (wanted > 0.002).any()
    np.testing.assert_allclose(found["radius"], np.minimum(wanted, 0.2), atol=2 * 0.2 / 2**9)
    assert (prover.margins(images, classes.astype(np.int32), found["radius"].numpy(), method) >= 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "smoothing"}, "method must be ibp or crown"),
        ({"largest": 0.0}, "largest must be a finite number above 0"),
        ({"rounds": 0}, "rounds must be a whole number"),
        ({"threat_model": 0.3}, "threat_model must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CertifiedProbe(**{"threat_model": BALL, **settings})
