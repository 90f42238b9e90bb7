"""A record: one attack on one classifier at one radius, in numbers."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from wasser_tf.attacks import Attack, AttackResult
from wasser_tf.attacks.inputs import check_batch, check_in_wasserstein_ball
from wasser_tf.evaluation import metrics
from wasser_tf.evaluation.metrics import Predictions, Scores
from wasser_tf.models.conversion import prepare_images

# What the row over all attacks is called in place of an attack.
WORST_CASE = "worst case"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One attack on one classifier at one radius, with everything needed to read its numbers and to make them again.

    Attributes:
      model: What the classifier is called.
      dataset: What the images are called, such as "mnist test".
      attack: Name of the attack.
      epsilon: The radius. With an adaptive radius, the threat model's, which was not used.
      threat_model: Its config.
      settings: The attack's config, without the threat model.
      seed: The attack's.
      num_images: How many images were attacked.
      natural_accuracy: Share of the clean images that are classified right.
      natural_cross_entropy: Mean loss on the clean images, in nats.
      feasible: The scores of the feasible examples.
      raw: The scores of what the attack made before it was feasible.
      mean_radius: Mean radius the images were given (where an adaptive radius stopped).
      mean_iterations: Mean iterations an image used.
      max_iterations: The most an image used.
      seconds: Wall clock of the attack, compilation included.
      num_flagged: On how many images the classifier gave the attack nothing to go by, see `AttackResult.flagged`.
    """

    model: str
    dataset: str
    attack: str
    epsilon: float
    threat_model: dict[str, Any]
    settings: dict[str, Any]
    seed: int
    num_images: int
    natural_accuracy: float
    natural_cross_entropy: float
    feasible: Scores
    raw: Scores
    mean_radius: float
    mean_iterations: float
    max_iterations: int
    seconds: float
    num_flagged: int = 0

    def to_json(self) -> dict[str, Any]:
        """Returns plain Python values."""
        return dataclasses.asdict(self)


class Evaluation(NamedTuple):
    """What `evaluate_attack` returns: the record, the examples, and what the classifier says of the clean images."""

    record: Record
    result: AttackResult
    clean: Predictions


def evaluate_attack(
    classifier: Callable[..., Any],
    attack: Attack,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    radius: float | None = None,
    model_name: str = "classifier",
    dataset_name: str = "images",
    index: np.ndarray | None = None,
    from_logits: bool | None = None,
    batch_size: int = 128,
    verbose: bool = False,
) -> Evaluation:
    """Attacks a classifier at one radius and scores the examples.

    Args:
      classifier: A Keras model, or any callable (images, training=False) -> logits or probabilities.
      attack: The attack.
      images: Float [n, H, W, C] in [0, 1].
      labels: Class indices [n], or one-hot.
      radius: The radius; that of the attack's threat model by default. Giving it here spares a compilation for each
        radius that an attack object for each would cost.
      model_name: What the record calls the classifier.
      dataset_name: What it calls the images.
      index: Numbers for random starts, see `Attack.__call__`.
      from_logits: Whether the classifier returns logits; told from it by default.
      batch_size: Images at a time.
      verbose: Whether to show a progress bar.

    Raises:
      ValueError: The input is not what the classifier takes, or the attack moves no mass.
    """
    check_in_wasserstein_ball(attack)
    seen = prepare_images(classifier, images, from_logits)
    classifier = seen.classifier
    images, labels = check_batch(classifier, seen.images, labels)
    from_logits = metrics.is_from_logits(classifier, images) if seen.from_logits is None else seen.from_logits
    clean = metrics.predict(classifier, images, labels, from_logits=from_logits)
    start = time.perf_counter()
    result = attack(
        classifier,
        images,
        labels,
        radius=radius,
        index=index,
        from_logits=from_logits,
        batch_size=batch_size,
        verbose=verbose,
    )
    seconds = time.perf_counter() - start
    record = make_record(
        attack, result, clean, radius=radius, model_name=model_name, dataset_name=dataset_name, seconds=seconds
    )
    result = result._replace(adversarial=seen.restore(result.adversarial), raw=seen.restore(result.raw))
    return Evaluation(record, result, clean)


def make_record(
    attack: Attack,
    result: AttackResult,
    clean: Predictions,
    *,
    radius: float | None,
    model_name: str,
    dataset_name: str,
    seconds: float,
) -> Record:
    """Makes the record of a result; the arguments are those of `evaluate_attack`."""
    check_in_wasserstein_ball(attack)
    epsilon = attack.threat_model.epsilon if radius is None else float(radius)
    threat_model = attack.threat_model.with_epsilon(epsilon)
    settings = attack.get_config()
    settings.pop("threat_model", None)
    return Record(
        model=model_name,
        dataset=dataset_name,
        attack=attack.name,
        epsilon=epsilon,
        threat_model=threat_model.get_config(),
        settings=settings,
        seed=attack.seed,
        num_images=len(clean.wrong),
        natural_accuracy=float(np.mean(~clean.wrong)),
        natural_cross_entropy=float(np.mean(clean.loss, dtype=np.float64)),
        feasible=metrics.score_feasible(result, clean.wrong, threat_model.capacity),
        raw=metrics.score_raw(result, clean.wrong, threat_model.capacity),
        mean_radius=float(np.mean(result.radius, dtype=np.float64)),
        mean_iterations=float(np.mean(result.iterations)),
        max_iterations=int(np.max(result.iterations)),
        seconds=seconds,
        num_flagged=int(np.sum(result.flagged)),
    )
