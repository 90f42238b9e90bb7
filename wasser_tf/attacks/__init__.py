"""Attacks on image classifiers. A new attack is one file in this folder and one line in `ATTACKS.update`."""

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
from wasser_tf.attacks.registry import ATTACKS, deserialize, make, serialize
from wasser_tf.attacks.scoring import AttackResult
from wasser_tf.attacks.wasser_attack import WasserAttack

ATTACKS.update(
    (attack.name, attack)
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
)

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
