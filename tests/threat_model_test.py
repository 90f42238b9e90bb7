"""ThreatModel: validation, configs, and the sentence it prints."""

import dataclasses

import pytest

from wasser_tf.threat_model import ThreatModel


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epsilon", -0.1),
        ("epsilon", float("nan")),
        ("epsilon", float("inf")),
        ("epsilon", "0.5"),
        ("p", 0),
        ("p", -1),
        ("kernel_size", 4),
        ("kernel_size", 0),
        ("kernel_size", 5.0),
        ("kernel_size", True),
        ("normalize_mass", 1),
        ("capacity", 0.5),
        ("capacity", float("inf")),
    ],
)
def test_a_bad_field_is_named_with_what_was_given(field, value):
    with pytest.raises(ValueError, match=field) as error:
        ThreatModel(**{field: value})
    assert repr(value) in str(error.value)


def test_it_is_immutable_and_comes_back_from_its_config():
    threat_model = ThreatModel(epsilon=1, p=2, kernel_size=None, normalize_mass=False, capacity=None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        threat_model.epsilon = 2
    assert ThreatModel.from_config(threat_model.get_config()) == threat_model
    assert threat_model.with_epsilon(0.1) == dataclasses.replace(threat_model, epsilon=0.1)


def test_it_prints_the_six_things_an_epsilon_needs():
    text = str(ThreatModel(epsilon=0.3))
    for part in ("epsilon 0.3", "normalised", "p = 1", "Euclidean", "5×5", "capacity 1", "channel"):
        assert part in text
    text = str(ThreatModel(kernel_size=None, normalize_mass=False, capacity=None))
    for part in ("absolute", "dense", "no capacity"):
        assert part in text
