"""What several attacks on the same images come to: the worst case for each image, and the least cost that fooled it."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from wasser_tf.attacks import AttackResult
from wasser_tf.evaluation.examples import Examples, take


def worst_case(runs: Sequence[Examples]) -> Examples:
    """Returns for each image the worst of its examples: one that succeeds if any does, and of those the largest loss.

    Raw examples are chosen by their own success and loss. Iterations are summed, for all attacks were needed.

    Args:
      runs: Examples of the same images and classifier, feasible at the radius that is reported: those of that radius, and
        those of smaller ones, whose balls lie within.

    Raises:
      ValueError: There are none, or their images differ.
    """
    if not runs:
        raise ValueError("There must be at least one attack to take the worst case over, got none.")
    first = runs[0]
    if any(not np.array_equal(run.index, first.index) or not np.array_equal(run.labels, first.labels) for run in runs):
        raise ValueError("The worst case is over attacks on the same images, got different ones.")
    feasible = _worst([run.result.success for run in runs], [run.result.loss for run in runs])
    raw = _worst([run.result.raw_success for run in runs], [run.result.raw_loss for run in runs])

    def pick(choice: np.ndarray, *fields: np.ndarray) -> np.ndarray:
        # Of images there may be fewer, the first ones.
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


def with_more(worst: Examples, found: Examples, rows: np.ndarray) -> Examples:
    """Returns the worst case of examples so far and of others, found since for some of the images.

    Args:
      worst: The examples so far, [n].
      found: The others, [m].
      rows: The places of their images among all, rising, [m].
    """
    worse = worst_case([take(worst, rows), found])

    def put(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        merged = old.copy()
        # Of images there may be fewer, the first ones.
        merged[rows[: len(new)]] = new
        return merged

    return tf.nest.map_structure(put, worst, worse)


def least_costs(runs: Sequence[Examples]) -> np.ndarray:
    """Returns the smallest cost at which each image was fooled, [n]: an upper bound of its minimal radius.

    0 for an image that is misclassified clean, infinite for one that was never fooled.

    Args:
      runs: Examples of the same images and classifier by any attacks at any radii.
    """
    smallest = np.where(runs[0].clean.wrong, 0.0, np.inf)
    for run in runs:
        feasibility = run.result.feasibility
        # The cost may exceed the radius by rounding, which must not count as another radius.
        cost = np.minimum(np.asarray(feasibility.cost, np.float64), np.asarray(feasibility.radius, np.float64))
        # Without a plan there is no cost, and the radius is not this ball's.
        known = run.result.success & np.isfinite(feasibility.cost)
        smallest = np.minimum(smallest, np.where(known, cost, np.inf))
    return smallest


def _worst(success: Sequence[np.ndarray], loss: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the number of the run that is worst for each image, [n]; of equals the first."""
    successes, losses = np.stack(success), np.stack(loss)
    candidates = successes | ~successes.any(axis=0)
    # A loss that is not a number must not be chosen before one that is.
    return np.argmax(np.where(candidates, np.nan_to_num(losses, nan=-1e30), -np.inf), axis=0)
