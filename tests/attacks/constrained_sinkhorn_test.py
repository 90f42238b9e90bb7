import numpy as np
import pytest

from wasser_tf.attacks import ConstrainedSinkhorn
from wasser_tf.threat_model import ThreatModel


def test_the_defaults_are_the_papers():
    attack = ConstrainedSinkhorn(ThreatModel())
    assert (attack.iterations, attack.step_size, attack.stop_when_fooled) == (200, 0.06, True)
    assert (attack.regularization, attack.sinkhorn_iterations) == (1000.0, 100)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="regularization must be a finite number above 0"):
        ConstrainedSinkhorn(ThreatModel(), regularization=0.0)


def test_the_raw_image_is_in_the_ball_to_the_papers_tolerances():
    images = np.random.default_rng(0).uniform(size=(8, 8, 8, 1)).astype("float32")
    attack = ConstrainedSinkhorn(ThreatModel(epsilon=0.3, kernel_size=3), iterations=6, stop_when_fooled=False)
    result = attack(lambda x, training=False: 9 * x[:, 3, :3, 0], images, np.zeros(8, int), from_logits=True)
    assert result.raw_feasibility.mass_error.max() < 0.015
    assert result.raw_feasibility.cost.max() < 0.31
    assert result.raw_feasibility.max_pixel.max() <= 1
