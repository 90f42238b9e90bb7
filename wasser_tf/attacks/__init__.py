"""The attacks by name. A new attack is one file here and one line below."""

from typing import Any

from wasser_tf.attacks.base import Attack
from wasser_tf.attacks.constrained_sinkhorn import ConstrainedSinkhorn
from wasser_tf.attacks.distributional import Distributional
from wasser_tf.attacks.dual_projection import DualProjection
from wasser_tf.attacks.ensemble import Ensemble
from wasser_tf.attacks.frank_wolfe import FrankWolfe
from wasser_tf.attacks.linf_pgd import LinfPGD
from wasser_tf.attacks.mirror_ascent import MirrorAscent
from wasser_tf.attacks.projected_sinkhorn import ProjectedSinkhorn
from wasser_tf.attacks.radius_schedule import RadiusSchedule
from wasser_tf.attacks.random_plan import RandomPlan
from wasser_tf.attacks.scoring import AttackResult
from wasser_tf.attacks.wasser_attack import WasserAttack
from wasser_tf.threat_model import ThreatModel

ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack
    for attack in (
        WasserAttack,
        MirrorAscent,
        ProjectedSinkhorn,
        FrankWolfe,
        DualProjection,
        ConstrainedSinkhorn,
        RandomPlan,
        Ensemble,
        LinfPGD,
        Distributional,
    )
}

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackResult",
    "ConstrainedSinkhorn",
    "Distributional",
    "DualProjection",
    "Ensemble",
    "FrankWolfe",
    "LinfPGD",
    "MirrorAscent",
    "ProjectedSinkhorn",
    "RadiusSchedule",
    "RandomPlan",
    "WasserAttack",
    "deserialize",
    "make",
    "serialize",
]


def make(name: str, threat_model: ThreatModel, **settings: Any) -> Attack:
    """Makes an attack by its name.

    Args:
      name: A key of `ATTACKS`.
      threat_model: The ball.
      **settings: Keyword arguments of its class.

    Raises:
      ValueError: No such attack, or it has no such setting; the message lists those there are.
    """
    if name not in ATTACKS:
        raise ValueError(f"Unknown attack {name!r}; there are {', '.join(ATTACKS)}.")
    try:
        return ATTACKS[name](threat_model, **settings)
    except TypeError as error:
        raise ValueError(f"Attack {name!r} does not take these settings: {error}.") from error


def serialize(attack: Attack) -> dict[str, Any]:
    """Returns {"name", "config"} in plain Python values, from which `deserialize` makes the same attack."""
    return {"name": attack.name, "config": attack.get_config()}


def deserialize(config: dict[str, Any]) -> Attack:
    """Makes the attack that `serialize` described.

    Raises:
      ValueError: No such attack.
    """
    if config["name"] not in ATTACKS:
        raise ValueError(f"Unknown attack {config['name']!r}; there are {', '.join(ATTACKS)}.")
    return ATTACKS[config["name"]].from_config(config["config"])
