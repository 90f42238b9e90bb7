"""The attacks by name, and their serialisation. `wasser_tf.attacks` lists them."""

from typing import Any

from wasser_tf.attacks.base import Attack
from wasser_tf.threat_model import ThreatModel

# Filled by wasser_tf/attacks/__init__.py, so that attacks made of others can look them up here.
ATTACKS: dict[str, type[Attack]] = {}


def attack_class(name: str) -> type[Attack]:
    """Returns the class of an attack.

    Raises:
      ValueError: There is no such attack; the message lists all attacks.
    """
    if name not in ATTACKS:
        raise ValueError(f"Unknown attack {name!r}; there are {', '.join(ATTACKS)}.")
    return ATTACKS[name]


def make(name: str, threat_model: ThreatModel, **settings: Any) -> Attack:
    """Makes an attack by its name.

    Args:
      name: A key of `ATTACKS`.
      threat_model: The ball.
      **settings: Keyword arguments of its class.

    Raises:
      ValueError: There is no such attack, or it has no such setting.

    Example:
    >>> import wasser_tf
    >>> wasser_tf.attacks.make("random_plan", wasser_tf.ThreatModel(epsilon=0.1), seed=3).seed
    3
    """
    kind = attack_class(name)
    try:
        return kind(threat_model, **settings)
    except TypeError as error:
        raise ValueError(f"Attack {name!r} does not take these settings: {error}.") from error


def serialize(attack: Attack) -> dict[str, Any]:
    """Returns {"name", "config"} in plain Python values, from which `deserialize` makes the same attack.

    Example:
    >>> from wasser_tf import ThreatModel, attacks
    >>> config = attacks.serialize(attacks.RandomPlan(ThreatModel(epsilon=0.1), seed=3))
    >>> config["name"], config["config"]["seed"]
    ('random_plan', 3)
    """
    return {"name": attack.name, "config": attack.get_config()}


def deserialize(config: dict[str, Any]) -> Attack:
    """Makes the attack that `serialize` described.

    Raises:
      ValueError: There is no such attack.

    Example:
    >>> from wasser_tf import ThreatModel, attacks
    >>> attack = attacks.RandomPlan(ThreatModel(epsilon=0.1), seed=3)
    >>> attacks.deserialize(attacks.serialize(attack)) == attack
    True
    """
    return attack_class(config["name"]).from_config(config["config"])
