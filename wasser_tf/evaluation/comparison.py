"""Compares several classifiers under one attack at the same radii."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from wasser_tf.attacks import Attack
from wasser_tf.data import Split
from wasser_tf.evaluation.record import Evaluation, Record, evaluate_attack
from wasser_tf.runtime import interruption
from wasser_tf.runtime.progress import Progress, duration


class Comparison(NamedTuple):
    """The evaluations of several classifiers under one attack.

    Attributes:
      classifiers: The classifiers, by name.
      split: The attacked images.
      radii: The radii, in ascending order.
      evaluations: For each classifier, by name, one evaluation per radius.
    """

    classifiers: Mapping[str, Any]
    split: Split
    radii: tuple[float, ...]
    evaluations: dict[str, list[Evaluation]]

    @property
    def records(self) -> list[Record]:
        """The records of all classifiers, one classifier after the other."""
        return [evaluation.record for members in self.evaluations.values() for evaluation in members]


def compare(
    classifiers: Mapping[str, Any],
    attack: Attack,
    split: Split,
    radii: Sequence[float],
    *,
    dataset_name: str,
    from_logits: bool | None = None,
    batch_size: int = 128,
    kept: int | None = None,
    log: Callable[[str], None] | None = None,
    verbose: bool = True,
) -> Comparison:
    """Attacks several classifiers with the same attack at several radii.

    >>> from wasser_tf import ThreatModel, attacks, data, models
    >>> test = data.load("digits", splits=("test",)).test
    >>> split = data.Split(*(array[:4] for array in test))
    >>> classifiers = {name: models.build(name, (8, 8, 1), 10, seed=0) for name in ("linear", "mlp")}
    >>> attack = attacks.make("random_plan", ThreatModel())
    >>> compared = compare(classifiers, attack, split, [0.1, 0.3], dataset_name="digits test", verbose=False)
    >>> [(record.model, record.epsilon) for record in compared.records]
    [('linear', 0.1), ('linear', 0.3), ('mlp', 0.1), ('mlp', 0.3)]

    Args:
      classifiers: The classifiers, by name.
      attack: The attack.
      split: The images, n of them.
      radii: The radii, in ascending order.
      dataset_name: The name of the images in the records.
      from_logits: Whether the classifiers return logits; detected by default, see `metrics.is_from_logits`.
      batch_size: Images attacked at a time.
      kept: The number of examples whose images are kept, the first ones; None for all. Scores do not need them.
      log: Takes a line before each attack.
      verbose: Whether to show a progress bar, or lines in a log.

    Returns:
      The evaluations of each classifier at each radius.

    Raises:
      ValueError: A classifier does not accept the images, or the attack does not produce examples in the Wasserstein
        ball.
      Interrupted: A signal requested the run to stop.
    """
    evaluations: dict[str, list[Evaluation]] = {}
    meter = Progress([name for name in classifiers for _ in radii], None)
    for name, classifier in classifiers.items():
        for radius in radii:
            interruption.raise_if_requested()
            if log:
                left = meter.seconds_left()
                words = "" if not left else f"; {duration(left)} left"
                log(f"[{meter.finished + 1}/{meter.total}] Attacking {name} at ε = {radius:g}{words}")
            begin = time.perf_counter()
            found = evaluate_attack(
                classifier,
                attack,
                split.images,
                split.labels,
                radius=radius,
                model_name=name,
                dataset_name=dataset_name,
                index=split.index,
                from_logits=from_logits,
                batch_size=batch_size,
                verbose=verbose,
            )
            if kept is not None:
                adversarial, raw = (images[:kept].copy() for images in (found.result.adversarial, found.result.raw))
                found = found._replace(result=found.result._replace(adversarial=adversarial, raw=raw))
            evaluations.setdefault(name, []).append(found)
            meter.done(name, time.perf_counter() - begin, "")
    return Comparison(classifiers, split, tuple(radii), evaluations)
