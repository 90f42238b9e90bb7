"""Settings of all attacks: defaults, configs and validation."""

import inspect

import pytest

from wasser_tf import RadiusSchedule, ThreatModel, attacks

THREAT_MODEL = ThreatModel(epsilon=0.3, kernel_size=3)
_SHARED = {"schedule": None, "stop_when_fooled": False, "seed": 0}
DEFAULTS = {
    "wasser_attack": {
        "iterations": 200,
        "alpha": 10.0,
        "beta": 10.0,
        "gamma": 10.0,
        "step_size": None,
        "gradient_scale": 5.0,
    },
    "mirror_ascent": {
        "iterations": 100,
        "step_size": None,
        "loss": "margin",
        "restarts": 1,
        "gradient_noise": 0.0,
        "ramp_from": 0.05,
        "polish": None,
    },
    "projected_sinkhorn": {
        "iterations": 200,
        "step_size": 0.1,
        "norm": "linf",
        "regularization": 1000.0,
        "sinkhorn_iterations": 400,
        "stop_when_fooled": True,
    },
    "frank_wolfe": {"iterations": 300, "temperature": 1e-3, "bisections": 50, "tolerance": 1e-4},
    "dual_projection": {"iterations": 300, "step_size": 0.1},
    "constrained_sinkhorn": {
        "iterations": 200,
        "step_size": 0.06,
        "regularization": 1000.0,
        "sinkhorn_iterations": 100,
        "stop_when_fooled": True,
    },
    "random_plan": {"iterations": 1},
    "ensemble": {"iterations": 100},
    "linf_pgd": {"iterations": 40, "step_size": None, "loss": "cross_entropy", "random_start": True},
    "distributional": {"iterations": 16, "gamma": 0.5 / 1.3, "loss": "cross_entropy"},
}


def changed(name, setting, value):
    """A good value that is not the default."""
    if setting == "members":
        return [attacks.RandomPlan(THREAT_MODEL)]
    if setting == "schedule":
        return RadiusSchedule(start=0.2)
    if isinstance(value, bool):
        return not value
    if setting in ("loss", "norm"):
        return {"loss": "dlr", "norm": "l2"}[setting]
    return {None: 3, 0: 4}.get(value, 2 * (value or 0))


def test_every_registered_attack_is_covered():
    assert set(DEFAULTS) == set(attacks.ATTACKS)
    assert {name: attack.name for name, attack in attacks.ATTACKS.items()} == {name: name for name in DEFAULTS}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name):
    expected = {"threat_model": THREAT_MODEL.get_config(), **_SHARED, **DEFAULTS[name]}
    if name == "distributional":
        del expected["schedule"]
    attack = attacks.make(name, THREAT_MODEL)
    assert attack.get_config() == expected
    assert attacks.serialize(attack) == {"name": name, "config": expected}


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_setting_reaches_its_attribute_and_its_config(name):
    default = attacks.make(name, THREAT_MODEL).get_config()
    parameters = inspect.signature(attacks.ATTACKS[name].__init__).parameters
    for setting, parameter in parameters.items():
        if setting in ("self", "threat_model"):
            continue
        value = changed(name, setting, parameter.default)
        attack = attacks.make(name, THREAT_MODEL, **{setting: value})
        if setting != "members":
            assert getattr(attack, setting) == value, setting
        config = attack.get_config()
        differing = {key for key in config if config[key] != default.get(key)}
        assert differing == {setting}, setting
        again = attacks.deserialize(attacks.serialize(attack))
        assert again.get_config() == config and type(again) is type(attack), setting
        if setting == "schedule":
            assert again.schedule == value
    assert attacks.make(name, ThreatModel(epsilon=0.7)).threat_model == ThreatModel(epsilon=0.7)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("wasser_attack", {"alpha": -1.0}, "alpha must be a finite number of at least 0, got -1.0"),
        ("wasser_attack", {"beta": -1.0}, "beta must be a finite number of at least 0, got -1.0"),
        ("wasser_attack", {"gamma": float("inf")}, "gamma must be a finite number of at least 0, got inf"),
        ("wasser_attack", {"step_size": 0.0}, "step_size must be a finite number above 0, got 0.0"),
        ("wasser_attack", {"gradient_scale": 0.0}, "gradient_scale must be a finite number above 0, got 0.0"),
        ("mirror_ascent", {"step_size": 0.0}, "step_size must be a finite number above 0, got 0.0"),
        ("mirror_ascent", {"restarts": 0}, "restarts must be a whole number from 1 to 1000, got 0"),
        ("mirror_ascent", {"restarts": 1001}, "restarts must be a whole number from 1 to 1000, got 1001"),
        ("mirror_ascent", {"polish": -1}, "polish must be a whole number of at least 0, got -1"),
        ("mirror_ascent", {"gradient_noise": -0.1}, "gradient_noise must be a finite number of at least 0, got -0.1"),
        ("mirror_ascent", {"ramp_from": 0}, "ramp_from must be a finite number above 0, got 0"),
        ("projected_sinkhorn", {"norm": "l1"}, "norm must be 'linf' or 'l2', got 'l1'"),
        ("constrained_sinkhorn", {"step_size": 0.0}, "step_size must be a finite number above 0"),
        (
            "constrained_sinkhorn",
            {"sinkhorn_iterations": 0},
            "sinkhorn_iterations must be a whole number of at least 1",
        ),
        ("frank_wolfe", {"bisections": 0}, "bisections must be a whole number of at least 1, got 0"),
        ("ensemble", {"members": "mirror_ascent"}, "members must be a list of attacks, or None, got 'mirror_ascent'"),
        ("ensemble", {"members": []}, "needs at least one member, got none"),
    ],
)
def test_settings_out_of_range_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        attacks.make(name, THREAT_MODEL, **settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("wasser_attack", {"alpha": 0, "beta": 0, "gamma": 0, "gradient_scale": None}),
        ("mirror_ascent", {"restarts": 1000, "polish": 0}),
        ("frank_wolfe", {"bisections": 1}),
        ("projected_sinkhorn", {"sinkhorn_iterations": 1, "norm": "l2"}),
    ],
)
def test_settings_at_their_limits_pass(name, settings):
    attack = attacks.make(name, THREAT_MODEL, **settings)
    assert {setting: getattr(attack, setting) for setting in settings} == settings


def test_the_members_of_an_ensemble_get_its_settings():
    schedule = RadiusSchedule(start=0.2)
    made = attacks.Ensemble(THREAT_MODEL, iterations=10, schedule=schedule, stop_when_fooled=True, seed=5)
    shared = {"threat_model": THREAT_MODEL, "schedule": schedule, "stop_when_fooled": True, "seed": 5}
    own = (
        attacks.MirrorAscent(iterations=10, **shared),
        attacks.MirrorAscent(iterations=10, restarts=6, **shared),
        attacks.MirrorAscent(iterations=10, loss="dlr", **shared),
        attacks.MirrorAscent(iterations=10, loss="cross_entropy", step_size=12.0, **shared),
        attacks.WasserAttack(iterations=20, **shared),
        attacks.MirrorAscent(iterations=20, step_size=12.0, restarts=4, gradient_noise=0.25, ramp_from=1.5, **shared),
    )
    assert [attacks.serialize(member) for member in made.all_members] == [attacks.serialize(member) for member in own]
