"""ThreatModel: validation, configs, and the sentence it prints."""

import dataclasses

import numpy as np
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


def test_threat_models_are_immutable_and_round_trip_through_their_config():
    threat_model = ThreatModel(epsilon=1, p=2, kernel_size=None, normalize_mass=False, capacity=None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        threat_model.epsilon = 2
    assert ThreatModel.from_config(threat_model.get_config()) == threat_model
    assert threat_model.with_epsilon(0.1) == dataclasses.replace(threat_model, epsilon=0.1)


def test_the_description_contains_all_six_properties():
    text = str(ThreatModel(epsilon=0.3))
    for part in ("epsilon 0.3", "normalised", "p = 1", "Euclidean", "5×5", "capacity 1", "channel"):
        assert part in text
    text = str(ThreatModel(kernel_size=None, normalize_mass=False, capacity=None))
    for part in ("absolute", "dense", "no capacity"):
        assert part in text


def test_limits_are_valid_and_numpy_numbers_become_python_numbers():
    given = ThreatModel(epsilon=0, p=np.float32(0.5), kernel_size=np.int64(1), capacity=1)
    assert given.get_config() == {
        "epsilon": 0.0,
        "p": 0.5,
        "kernel_size": 1,
        "normalize_mass": True,
        "capacity": 1.0,
    }
    types = {field: type(value) for field, value in given.get_config().items()}
    assert types == {"epsilon": float, "p": float, "kernel_size": int, "normalize_mass": bool, "capacity": float}


@pytest.mark.parametrize(
    ("field", "value"), [("epsilon", True), ("p", float("inf")), ("p", True), ("capacity", True), ("kernel_size", -1)]
)
def test_more_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} must be .*got {value!r}"):
        ThreatModel(**{field: value})


def test_the_defaults_are_the_papers():
    expected = {"epsilon": 0.5, "p": 1.0, "kernel_size": 5, "normalize_mass": True, "capacity": 1.0}
    assert ThreatModel().get_config() == expected


def test_rules_are_one_object_for_all_radii_and_keep_other_fields():
    threat_model = ThreatModel(epsilon=0.3, p=2, kernel_size=7, normalize_mass=False, capacity=None)
    assert threat_model.rules is threat_model.with_epsilon(0.7).rules
    assert threat_model.rules == dataclasses.replace(threat_model, epsilon=0.0)
    assert threat_model.rules is not ThreatModel().rules


def test_descriptions_of_all_threat_models():
    assert str(ThreatModel(epsilon=0.3, p=2, capacity=1.5)) == (
        "Wasserstein ball: epsilon 0.3 normalised (× mass), p = 2 (cost Euclidean^p in pixels), local 5×5 plan, "
        "capacity 1.5, one budget for all channels, none crossed"
    )
    assert str(ThreatModel(kernel_size=None, normalize_mass=False, capacity=None)) == (
        "Wasserstein ball: epsilon 0.5 absolute (pixel mass), p = 1 (Euclidean cost in pixels), dense plan, "
        "no capacity, one budget for all channels, none crossed"
    )
