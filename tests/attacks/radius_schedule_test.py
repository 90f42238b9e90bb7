"""The adaptive radius: its growth, its limits, and its settings."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf.attacks.radius_schedule import RadiusSchedule


def radii(schedule, iterations):
    return [float(schedule.radius(tf.constant(iteration))) for iteration in range(iterations)]


def test_the_radius_is_multiplied_by_the_factor_every_given_number_of_iterations():
    schedule = RadiusSchedule(start=0.2, factor=3.0, every=2, minimum=0.0, maximum=100.0)
    np.testing.assert_allclose(radii(schedule, 7), [0.2, 0.2, 0.6, 0.6, 1.8, 1.8, 5.4], rtol=1e-6)


def test_the_radius_stays_within_its_limits():
    schedule = RadiusSchedule(start=0.1, factor=2.0, every=1, minimum=0.3, maximum=1.0)
    np.testing.assert_allclose(radii(schedule, 6), [0.3, 0.3, 0.4, 0.8, 1.0, 1.0], rtol=1e-6)


def test_the_defaults_are_the_papers():
    expected = {"start": 0.1, "factor": 1.4, "every": 5, "minimum": 0.1, "maximum": 2.1}
    assert RadiusSchedule().get_config() == expected
    assert RadiusSchedule(**RadiusSchedule(start=0.3, every=2).get_config()) == RadiusSchedule(start=0.3, every=2)


def test_limits_may_be_equal_and_the_factor_1():
    schedule = RadiusSchedule(start=5.0, factor=1, every=1, minimum=0, maximum=0)
    assert radii(schedule, 2) == [0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": np.nan}, "start of a radius schedule must be a finite number, got nan"),
        ({"factor": "2"}, "factor of a radius schedule must be a finite number, got '2'"),
        ({"minimum": -np.inf}, "minimum of a radius schedule must be a finite number, got -inf"),
        ({"maximum": np.inf}, "maximum of a radius schedule must be a finite number, got inf"),
        ({"factor": 0.99}, "factor of a radius schedule must be at least 1, got 0.99"),
        ({"every": 0}, "every of a radius schedule must be a whole number of at least 1, got 0"),
        ({"every": 1.5}, "every of a radius schedule must be a whole number of at least 1, got 1.5"),
        ({"minimum": -0.1}, "needs 0 <= minimum <= maximum, got minimum -0.1 and maximum 2.1"),
        ({"minimum": 3.0}, "needs 0 <= minimum <= maximum, got minimum 3.0 and maximum 2.1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RadiusSchedule(**settings)
