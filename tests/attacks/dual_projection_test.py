import pytest

from wasser_tf.attacks import DualProjection
from wasser_tf.threat_model import ThreatModel


def test_the_defaults_are_the_papers():
    attack = DualProjection(ThreatModel())
    assert (attack.iterations, attack.step_size, attack.stop_when_fooled) == (300, 0.1, False)


def test_a_step_size_out_of_range_is_refused():
    with pytest.raises(ValueError, match="step_size must be a finite number above 0"):
        DualProjection(ThreatModel(), step_size=-1.0)
