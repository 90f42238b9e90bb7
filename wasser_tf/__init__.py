"""Wasserstein adversarial attacks and adversarial training for Keras image classifiers."""

from typing import TYPE_CHECKING

from wasser_tf.starter import is_starting
from wasser_tf.version import __version__

# All names are imported at once, because Keras finds the classes in a saved model only if their modules were imported.
# The program `wasser-tf` is the exception: it first sets what TensorFlow reads at its start, and then does this.
if TYPE_CHECKING or not is_starting():
    from wasser_tf.runtime.keras_backend import check_keras_backend

    # Before anything imports Keras, which would fail in the middle of a trace, or find no backend at all.
    check_keras_backend()

    from wasser_tf import attacks
    from wasser_tf.attacks import AttackResult, Ensemble, MirrorAscent, RadiusSchedule, WasserAttack
    from wasser_tf.bridges.torch import from_torch
    from wasser_tf.certification.prover import certify
    from wasser_tf.certification.result import CertificationResult
    from wasser_tf.certification.smoothed import Smoothed
    from wasser_tf.models import Classifier, load_pretrained
    from wasser_tf.threat_model import ThreatModel
    from wasser_tf.training.certified_train import CertifiedTrain
    from wasser_tf.training.schedules import Cosine, LinearRamp, Staircase
    from wasser_tf.training.wasser_train import WasserTrain
    from wasser_tf.transport.feasibility import Feasibility

__all__ = [
    "__version__",
    "AttackResult",
    "CertificationResult",
    "CertifiedTrain",
    "Classifier",
    "Cosine",
    "Ensemble",
    "Feasibility",
    "LinearRamp",
    "MirrorAscent",
    "RadiusSchedule",
    "Smoothed",
    "Staircase",
    "ThreatModel",
    "WasserAttack",
    "WasserTrain",
    "attacks",
    "certify",
    "from_torch",
    "load_pretrained",
]
