"""Several classifiers under one attack at the same radii."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from wasser_tf.attacks import Attack
from wasser_tf.data import Split
from wasser_tf.evaluation.record import Evaluation, Record, evaluate_attack
from wasser_tf.runtime import interruption


class Comparison(NamedTuple):
    """What `compare` returns.

    Attributes:
      classifiers: The classifiers, by name.
      split: The images that were attacked.
      radii: The radii, rising.
      evaluations: For each classifier, by its name, an evaluation at each radius.
    """

    classifiers: Mapping[str, Any]
    split: Split
    radii: tuple[float, ...]
    evaluations: dict[str, list[Evaluation]]

    @property
    def records(self) -> list[Record]:
        """The records of all classifiers, one after the other."""
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
    log: Callable[[str], None] | None = None,
    verbose: bool = True,
) -> Comparison:
    """Attacks classifiers at several radii.

    Args:
      classifiers: Them, by name.
      attack: The attack.
      split: The images.
      radii: The radii, rising.
      dataset_name: What the records call the images.
      from_logits: Whether the classifiers return logits; told from them by default.
      batch_size: Images at a time.
      log: Is given a line before each attack.
      verbose: Whether to show a progress bar.

    Raises:
      ValueError: The images are not what a classifier takes.
    """
    evaluations: dict[str, list[Evaluation]] = {}
    for name, classifier in classifiers.items():
        for radius in radii:
            interruption.raise_if_requested()
            if log:
                log(f"Attacking {name} at ε = {radius:g}")
            evaluations.setdefault(name, []).append(
                evaluate_attack(
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
            )
    return Comparison(classifiers, split, tuple(radii), evaluations)
