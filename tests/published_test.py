"""The published attacks at their authors' settings, benchmarks/published.py."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import published
from wasser_tf import MirrorAscent, RadiusSchedule, ThreatModel, data, models


def test_hus_radius_grows_by_the_same_amount():
    schedule = published.AddingSchedule(start=0.001, every=2, minimum=0.001, maximum=0.004)
    found = [float(schedule.radius(tf.constant(iteration))) for iteration in (0, 1, 2, 5, 100)]
    np.testing.assert_allclose(found, [0.001, 0.001, 0.002, 0.003, 0.004], rtol=1e-6)


def test_the_settings_are_the_authors():
    rows = published.published()
    assert [row.attack.iterations for row in rows] == [400, 400, 400, 300, 300, 300]
    assert [row.attack.threat_model.p for row in rows] == [2.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert all(row.attack.threat_model.kernel_size == 5 for row in rows)
    assert float(rows[0].attack.schedule.radius(tf.constant(299))) == pytest.approx(0.001 * 1.17**29, rel=1e-4)
    assert float(rows[2].attack.schedule.radius(tf.constant(299))) == pytest.approx(0.3, rel=1e-4)


def test_an_image_that_is_fooled_at_a_larger_radius_is_robust_at_a_smaller_one():
    digits = data.load("digits").test
    classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    images = digits.images[:8]
    labels = classifier.predict(images, verbose=0).argmax(axis=1).astype(np.int32)
    schedule = RadiusSchedule(start=0.001, factor=3.0, every=2, minimum=0.001, maximum=1.0)
    attack = MirrorAscent(ThreatModel(), iterations=14, schedule=schedule)
    row = published.measure(published.Published("growing", attack, (0.0005, 0.03, 1.0)), classifier, images, labels)
    shares = [row["radii"][radius]["raw"] for radius in ("0.0005", "0.03", "1")]
    assert row["natural_accuracy"] == 1.0 and shares[0] == 1.0 and shares[0] >= shares[1] >= shares[2]
    assert shares[2] < 0.5
    assert published.table([row]).splitlines()[2].startswith("| growing | 100.0 / 100.0 |")
