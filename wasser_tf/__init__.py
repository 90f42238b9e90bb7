"""Wasserstein adversarial attacks and adversarial training for Keras image classifiers."""

from wasser_tf import attacks
from wasser_tf.attacks import AttackResult, Ensemble, MirrorAscent, RadiusSchedule, WasserAttack
from wasser_tf.certification.smoothed import Smoothed
from wasser_tf.models import Classifier, load_pretrained
from wasser_tf.threat_model import ThreatModel
from wasser_tf.training.wasser_train import WasserTrain
from wasser_tf.transport.feasibility import Feasibility
from wasser_tf.version import __version__

__all__ = [
    "__version__",
    "AttackResult",
    "Classifier",
    "Feasibility",
    "Ensemble",
    "MirrorAscent",
    "RadiusSchedule",
    "Smoothed",
    "ThreatModel",
    "WasserAttack",
    "WasserTrain",
    "attacks",
    "load_pretrained",
]
