"""Combines several attacks on the same images: the worst case per image, and the least cost that fooled it."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from wasser_tf.attacks import AttackResult
from wasser_tf.evaluation.examples import Examples, take


def worst_case(runs: Sequence[Examples]) -> Examples:
    """Returns the worst example of each image: a successful one if there is one, and among those the largest loss.

    Raw examples are chosen by their own success and loss. Iterations are summed over the attacks.

    >>> import numpy as np
    >>> from wasser_tf import ThreatModel, attacks, data, models
    >>> from wasser_tf.evaluation.record import evaluate_attack
    >>> test = data.load("digits", splits=("test",)).test
    >>> images, labels = test.images[:4], test.labels[:4].astype(np.int32)
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> attack, runs = attacks.make("random_plan", ThreatModel()), []
    >>> for radius in (0.1, 0.3):
    ...     evaluation = evaluate_attack(classifier, attack, images, labels, radius=radius)
    ...     runs.append(Examples(np.arange(4), images, labels, evaluation.clean, evaluation.result))
    >>> bool(np.all(worst_case(runs).result.success >= runs[0].result.success))
    True

    Args:
      runs: Examples of the same n images and classifier. All must be feasible at the reported radius: they were found
        at that radius or at smaller ones, whose balls it contains.

    Returns:
      The worst examples, n of them.

    Raises:
      ValueError: There are no examples, or their images differ.
    """
    if not runs:
        raise ValueError("A worst case needs the examples of at least one attack, got none.")
    first = runs[0]
    if any(not np.array_equal(run.index, first.index) or not np.array_equal(run.labels, first.labels) for run in runs):
        raise ValueError("A worst case needs attacks on the same images, got different images.")
    feasible = _worst([run.result.success for run in runs], [run.result.loss for run in runs])
    raw = _worst([run.result.raw_success for run in runs], [run.result.raw_loss for run in runs])

    def pick(choice: np.ndarray, *fields: np.ndarray) -> np.ndarray:
        # The images may be kept for the first few examples only.
        count = len(fields[0])
        return np.stack(fields)[choice[:count], np.arange(count)]

    results = [run.result for run in runs]
    return first._replace(
        result=AttackResult(
            adversarial=pick(feasible, *(result.adversarial for result in results)),
            feasibility=tf.nest.map_structure(
                lambda *fields: pick(feasible, *fields), *(result.feasibility for result in results)
            ),
            success=pick(feasible, *(result.success for result in results)),
            loss=pick(feasible, *(result.loss for result in results)),
            radius=pick(feasible, *(result.radius for result in results)),
            iterations=np.sum([result.iterations for result in results], axis=0),
            raw=pick(raw, *(result.raw for result in results)),
            raw_feasibility=tf.nest.map_structure(
                lambda *fields: pick(raw, *fields), *(result.raw_feasibility for result in results)
            ),
            raw_success=pick(raw, *(result.raw_success for result in results)),
            raw_loss=pick(raw, *(result.raw_loss for result in results)),
            flagged=pick(feasible, *(result.flagged for result in results)),
        )
    )


def update_worst_case(worst: Examples, found: Examples, rows: np.ndarray) -> Examples:
    """Merges new examples of some images into the worst case of all images.

    Args:
      worst: The worst case so far, n examples.
      found: The new examples, m of them.
      rows: The positions of their images among the n, in ascending order, [m].

    Returns:
      The new worst case, n examples.

    Raises:
      ValueError: The images of `found` are not those at `rows`.
    """
    worse = worst_case([take(worst, rows), found])

    def put(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        merged = old.copy()
        # The images may be kept for the first few examples only.
        merged[rows[: len(new)]] = new
        return merged

    return tf.nest.map_structure(put, worst, worse)


def least_costs(runs: Sequence[Examples]) -> np.ndarray:
    """Returns the smallest cost at which each image was fooled: an upper bound of its minimal radius.

    Args:
      runs: Examples of the same n images and classifier, from any attacks at any radii.

    Returns:
      The costs, float64 [n]: 0 for an image that is misclassified clean, infinity for one that was never fooled.
    """
    smallest = np.where(runs[0].clean.wrong, 0.0, np.inf)
    for run in runs:
        feasibility = run.result.feasibility
        # By rounding, the cost may slightly exceed the radius; the radius then is the bound.
        cost = np.minimum(np.asarray(feasibility.cost, np.float64), np.asarray(feasibility.radius, np.float64))
        # Without a plan there is no cost, and the radius belongs to another ball.
        known = run.result.success & np.isfinite(feasibility.cost)
        smallest = np.minimum(smallest, np.where(known, cost, np.inf))
    return smallest


def _worst(success: Sequence[np.ndarray], loss: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the position of the worst run for each image, [n]; the first one of a tie."""
    successes, losses = np.stack(success), np.stack(loss)
    candidates = successes | ~successes.any(axis=0)
    # NaN must not be preferred to a finite loss.
    return np.argmax(np.where(candidates, np.nan_to_num(losses, nan=-1e30), -np.inf), axis=0)
