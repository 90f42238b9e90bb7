"""Attacks written as name:setting=value:…."""

import pytest

import wasser_tf
from wasser_tf import attacks
from wasser_tf.attacks import spec

BALL = wasser_tf.ThreatModel(epsilon=0.3)


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("random_plan", "random_plan", {}),
        (" random_plan : seed = 3 ", "random_plan", {"seed": 3}),
        ("mirror_ascent:loss=dlr:restarts=6", "mirror_ascent", {"loss": "dlr", "restarts": 6}),
        ("mirror_ascent:step_size=1e-3:polish=None", "mirror_ascent", {"step_size": 1e-3, "polish": None}),
        ("linf_pgd:random_start=false", "linf_pgd", {"random_start": False}),
        ("linf_pgd:random_start=True", "linf_pgd", {"random_start": True}),
    ],
)
def test_text_is_read_and_written(text, name, settings):
    found = spec.parse_spec(text)
    assert found == (name, settings) and spec.attack_name(text) == name
    assert spec.parse_spec(spec.format_spec(*found)) == found


@pytest.mark.parametrize("text", ["random_plan:seed", "random_plan:=3", "random_plan:seed=3:x"])
def test_malformed_settings_are_refused(text):
    with pytest.raises(ValueError, match="given as name or name:setting=value"):
        spec.parse_spec(text)


@pytest.mark.parametrize("settings", [{"loss": "a:b"}, {"members": [{"name": "x:y"}]}, {"loss": "3"}])
def test_values_that_would_not_round_trip_are_not_written(settings):
    with pytest.raises(ValueError, match="cannot be written as"):
        spec.format_spec("mirror_ascent", settings)


def test_an_attack_is_made_from_text_and_default_settings():
    usual = {"seed": 5, "restarts": 2, "temperature": 0.1}
    made = spec.make_from_spec("mirror_ascent:restarts=3", BALL, usual)
    assert made == wasser_tf.MirrorAscent(BALL, restarts=3, seed=5)
    assert spec.make_from_spec("random_plan", BALL) == attacks.RandomPlan(BALL)


def test_unknown_names_and_settings_are_refused():
    with pytest.raises(ValueError, match="Unknown attack 'nothing'; there are wasser_attack"):
        spec.make_from_spec("nothing", BALL)
    with pytest.raises(ValueError, match="no setting bananas; it has iterations, schedule, stop_when_fooled, seed"):
        spec.make_from_spec("random_plan:bananas=3", BALL)
    with pytest.raises(ValueError, match="no setting threat_model"):
        spec.make_from_spec("random_plan:threat_model=3", BALL)


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_the_settings_are_those_of_the_config(name):
    config = attacks.make(name, BALL).get_config()
    extra = ["members"] if name == "ensemble" else []
    assert ["threat_model", *spec.setting_names(name)] == [*config, *extra]


def test_changed_settings_restore_the_attack():
    made = wasser_tf.MirrorAscent(BALL, restarts=4, loss="dlr", seed=2)
    found = spec.changed_settings(attacks.serialize(made))
    assert found == ("mirror_ascent", {"seed": 2, "loss": "dlr", "restarts": 4})
    assert spec.make_from_spec(spec.format_spec(*found), BALL) == made
