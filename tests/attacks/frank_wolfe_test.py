import pytest

from wasser_tf.attacks import FrankWolfe
from wasser_tf.threat_model import ThreatModel


def test_the_defaults_are_the_papers():
    attack = FrankWolfe(ThreatModel())
    assert (attack.iterations, attack.temperature, attack.stop_when_fooled) == (300, 1e-3, False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a finite number above 0"),
        ({"bisections": 0}, "bisections must be a whole number"),
        ({"tolerance": 0.0}, "tolerance must be a finite number above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FrankWolfe(ThreatModel(), **settings)
