"""Settings of attacks are declared once, immutable, comparable and serialisable."""

import copy
import dataclasses
import json
import pathlib
import pickle

import numpy as np
import pytest

import wasser_tf
from wasser_tf import attacks
from wasser_tf.attacks.base import Attack

BALL = wasser_tf.ThreatModel(epsilon=0.3, kernel_size=3)
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(params=attacks.ATTACKS)
def attack(request):
    return attacks.make(request.param, BALL)


@pytest.mark.parametrize("value", [3, -1, "nonsense"])
def test_a_setting_cannot_be_changed(attack, value):
    with pytest.raises(AttributeError, match=r"cannot be changed.*dataclasses.replace\(attack, iterations=20\)"):
        attack.iterations = value
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot be changed"):
        attack.anything = value
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot be changed"):
        del attack.iterations
    assert attack == attacks.make(attack.name, BALL)


def test_replace_returns_a_checked_copy(attack):
    changed = dataclasses.replace(attack, iterations=7)
    assert type(changed) is type(attack) and changed.iterations == 7 != attack.iterations
    assert dataclasses.replace(changed, iterations=attack.iterations) == attack
    with pytest.raises(ValueError, match="iterations must be a whole number from 0"):
        dataclasses.replace(attack, iterations=-1)


def test_equal_settings_make_equal_attacks(attack):
    same = attacks.make(attack.name, wasser_tf.ThreatModel(epsilon=0.3, kernel_size=3))
    assert attack == same and hash(attack) == hash(same) and len({attack, same}) == 1
    assert attack != dataclasses.replace(attack, seed=1)
    assert attack != attacks.make(attack.name, BALL.with_epsilon(0.2))
    assert len({kind(BALL) for kind in attacks.ATTACKS.values()}) == len(attacks.ATTACKS)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_are_equal(attack, copied):
    assert copied(attack) == attack and repr(copied(attack)) == repr(attack)


def test_an_attack_can_be_copied_after_use(linear_classifier, images, labels):
    attack = attacks.RandomPlan(BALL)
    result = attack(linear_classifier, images, labels)
    for again in (copy.deepcopy(attack), pickle.loads(pickle.dumps(attack))):
        assert again == attack
        np.testing.assert_array_equal(again(linear_classifier, images, labels).adversarial, result.adversarial)


def test_numpy_values_become_plain_ones():
    made = wasser_tf.MirrorAscent(BALL, iterations=np.int64(5), step_size=np.float64(2.5), stop_when_fooled=np.True_)
    plain = wasser_tf.MirrorAscent(BALL, iterations=5, step_size=2.5, stop_when_fooled=True)
    assert made == plain and json.dumps(attacks.serialize(made)) == json.dumps(attacks.serialize(plain))


def test_an_ensemble_follows_a_change_of_its_settings():
    ensemble = wasser_tf.Ensemble(BALL, iterations=9)
    changed = dataclasses.replace(ensemble, threat_model=BALL.with_epsilon(0.1), iterations=4)
    assert [member.iterations for member in changed.all_members] == [4, 4, 4, 4, 8, 8]
    assert {member.threat_model.epsilon for member in changed.all_members} == {0.1}


def test_a_custom_attack_needs_only_fields_and_perturb():
    class Mine(Attack):
        name = "mine"
        iterations: int = 2
        strength: float = 0.5

        def perturb(self, problem):
            raise NotImplementedError

    made = Mine(BALL, strength=2.0)
    assert made.get_config() == {
        **attacks.RandomPlan(BALL, iterations=2).get_config(),
        "strength": 2.0,
    }
    assert Mine.from_config(made.get_config()) == made and made != Mine(BALL)
    with pytest.raises(TypeError):
        Mine(BALL, bananas=3)
    with pytest.raises(AttributeError, match="cannot be changed"):
        made.strength = 1.0


# As written before settings were fields: the order of keys is part of the files.
DEFAULTS = {
    "wasser_attack": {"alpha": 10.0, "beta": 10.0, "gamma": 10.0, "step_size": None, "gradient_scale": 5.0},
    "mirror_ascent": {
        "step_size": None,
        "loss": "margin",
        "restarts": 1,
        "gradient_noise": 0.0,
        "ramp_from": 0.05,
        "polish": None,
    },
    "projected_sinkhorn": {
        "step_size": 0.1,
        "norm": "linf",
        "regularization": 1000.0,
        "sinkhorn_iterations": 400,
    },
    "frank_wolfe": {"temperature": 0.001, "bisections": 50, "tolerance": 0.0001},
    "dual_projection": {"step_size": 0.1},
    "constrained_sinkhorn": {"step_size": 0.06, "regularization": 1000.0, "sinkhorn_iterations": 100},
    "random_plan": {},
    "ensemble": {},
    "linf_pgd": {"step_size": None, "loss": "cross_entropy", "random_start": True},
    "distributional": {"gamma": 0.5 / 1.3, "loss": "cross_entropy"},
}
ITERATIONS = dict(zip(DEFAULTS, (200, 100, 200, 300, 300, 200, 1, 100, 40, 16), strict=True))


def test_configs_have_not_changed(attack):
    shared = {
        "threat_model": BALL.get_config(),
        "iterations": ITERATIONS[attack.name],
        "schedule": None,
        "stop_when_fooled": attack.name in ("projected_sinkhorn", "constrained_sinkhorn"),
        "seed": 0,
    }
    if attack.name == "distributional":
        del shared["schedule"]
    assert json.dumps(attacks.serialize(attack)) == json.dumps(
        {"name": attack.name, "config": {**shared, **DEFAULTS[attack.name]}}
    )


def stored_attacks(value):
    """Yields every serialised attack within a JSON value."""
    if isinstance(value, dict):
        if set(value) == {"name", "config"} and value["name"] in attacks.ATTACKS:
            yield value
        for item in value.values():
            yield from stored_attacks(item)
    elif isinstance(value, list):
        for item in value:
            yield from stored_attacks(item)


def test_stored_attacks_are_restored():
    files = [*ROOT.glob("docs/results/**/*.json"), *ROOT.glob("wasser_tf/pretrained/*.json")]
    found = [stored for file in files for stored in stored_attacks(json.loads(file.read_text()))]
    assert len(found) >= 8
    for stored in found:
        assert json.dumps(attacks.serialize(attacks.deserialize(stored))) == json.dumps(stored)


def test_leaderboard_attacks_are_restored():
    entries = list(ROOT.glob("docs/results/leaderboard/**/*.json"))
    assert entries
    for file in entries:
        entry = json.loads(file.read_text())
        ball = {**entry["threat_model"], "epsilon": 0.0}
        for label, settings in entry["attacks"].items():
            config = {"threat_model": ball, **settings}
            made = attacks.deserialize({"name": label.partition(":")[0], "config": config})
            assert json.dumps(made.get_config(), sort_keys=True) == json.dumps(config, sort_keys=True)
