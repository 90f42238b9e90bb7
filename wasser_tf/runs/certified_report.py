"""The certified classifier in the report of a training run: the bracket and the introduction."""

from collections.abc import Callable

import numpy as np

from wasser_tf.certification.prover import Prover
from wasser_tf.evaluation.comparison import Comparison
from wasser_tf.reporting.bracket import Bracket
from wasser_tf.threat_model import ThreatModel
from wasser_tf.training.certified_phase import certified_schedule
from wasser_tf.training.config import TrainConfig


def brackets_of(compared: Comparison, threat_model: ThreatModel, log: Callable[[str], None]) -> dict[str, Bracket]:
    """Certifies the images of a comparison by IBP, and adds the smallest of its radii that fooled each image.

    Args:
      compared: The classifiers under attack.
      threat_model: The ball; its epsilon is not used.
      log: Takes a line for each classifier.

    Returns:
      The radii from both sides, by the name of the classifier.
    """
    found = {}
    ball = threat_model.with_epsilon(max(compared.radii))
    for name, classifier in compared.classifiers.items():
        log(f"Certifying {name}")
        prover = Prover(classifier, ball)
        images, labels = prover.check(compared.split.images, compared.split.labels)
        result = prover.certify(images, labels, "ibp")
        fooled = np.full(len(labels), np.inf)
        for radius, evaluation in reversed(list(zip(compared.radii, compared.evaluations[name], strict=True))):
            fooled[evaluation.result.success] = radius
        found[name] = Bracket(result.radius, np.where(result.correct, fooled, 0.0))
    return found


def introduction(config: TrainConfig, before: str, epoch: int) -> str:
    """Returns the beginning of the report with a sentence about the certified classifier.

    Args:
      config: The settings of the run.
      before: The beginning of the report without it.
      epoch: The epoch that was kept.
    """
    if not config.epochs:
        before = f"# provable on {config.dataset}, by certified training\n\n"
    bounded = f", q of {certified_schedule(config, 'exponent')}" if config.certified_exponent else ""
    return (
        f"{before}\nCertified classifier: {config.potentials} transport potentials, two hidden layers of "
        f"{config.hidden_units}; CertifiedTrain with ε of {certified_schedule(config, 'epsilon')} and κ of "
        f"{certified_schedule(config, 'kappa')}{bounded}; epoch {epoch} of {config.certified_epochs} is kept. "
        "Certified by IBP: no feasible plan of that radius changes the answer.\n"
    )
