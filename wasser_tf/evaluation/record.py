"""Records: the scores of one attack on one classifier at one radius."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from wasser_tf.attacks import Attack, AttackResult
from wasser_tf.attacks.inputs import check_in_wasserstein_ball
from wasser_tf.evaluation import metrics
from wasser_tf.evaluation.metrics import Predictions, Scores
from wasser_tf.models.conversion import prepare_images
from wasser_tf.models.inputs import check_batch

# The name, in place of an attack's, of the row over all attacks.
WORST_CASE = "worst case"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """The scores of one attack on one classifier at one radius, with the settings needed to reproduce them.

    Attributes:
      model: The name of the classifier.
      dataset: The name of the images, such as "mnist test".
      attack: The name of the attack.
      epsilon: The radius. With an adaptive radius, that of the threat model, which was not used.
      threat_model: The threat model's config.
      settings: The attack's config, without the threat model.
      seed: The attack's seed.
      num_images: Number of attacked images.
      natural_accuracy: Share of the clean images that are classified correctly.
      natural_cross_entropy: Mean loss on the clean images, in nats.
      feasible: The scores of the feasible examples.
      raw: The scores of the raw examples, before rounding to feasible ones.
      mean_radius: Mean radius of the images; with an adaptive radius, the radius at which an image stopped.
      mean_iterations: Mean number of iterations per image.
      max_iterations: Largest number of iterations of any image.
      seconds: Wall-clock time of the attack in seconds, including compilation.
      num_flagged: Number of images at which the classifier had no usable gradient, see `AttackResult.flagged`.
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
        """Returns the fields as plain Python values."""
        return dataclasses.asdict(self)


class Evaluation(NamedTuple):
    """The outcome of one attack.

    Attributes:
      record: The scores.
      result: The attack's result, n examples.
      clean: The predictions on the clean images.
    """

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

    >>> from wasser_tf import ThreatModel, attacks, data, models
    >>> test = data.load("digits", splits=("test",)).test
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> attack = attacks.make("random_plan", ThreatModel(epsilon=0.3))
    >>> record, result, clean = evaluate_attack(classifier, attack, test.images[:4], test.labels[:4])
    >>> record.num_images, record.epsilon, record.feasible.feasible_share
    (4, 0.3, 1.0)

    Args:
      classifier: A Keras model, or any callable (images, training=False) -> logits or probabilities.
      attack: The attack.
      images: Float [n, H, W, C] in [0, 1].
      labels: Class indices [n], or one-hot.
      radius: The radius; that of the attack's threat model by default. Passing it here shares one compiled function
        between radii, where one attack object for each would be compiled separately.
      model_name: The name of the classifier in the record.
      dataset_name: The name of the images in the record.
      index: Numbers that seed the random starts, [n], see `Attack.__call__`.
      from_logits: Whether the classifier returns logits; detected by default, see `metrics.is_from_logits`.
      batch_size: Images attacked at a time.
      verbose: Whether to show a progress bar, or lines in a log.

    Returns:
      The record, the attack's result, and the predictions on the clean images.

    Raises:
      ValueError: The classifier does not accept the images, or the attack does not produce examples in the Wasserstein
        ball.
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
    """Makes the record of an attack's result.

    Args:
      attack: The attack.
      result: Its result, n examples.
      clean: The predictions on the clean images.
      radius: The radius; that of the attack's threat model if None.
      model_name: The name of the classifier.
      dataset_name: The name of the images.
      seconds: Duration of the attack in seconds.

    Returns:
      The record.

    Raises:
      ValueError: The attack does not produce examples in the Wasserstein ball.
    """
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
