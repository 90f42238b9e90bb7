"""Minimal radii by doubling and bisection: one run gives the whole curve of robust accuracy against ε."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from wasser_tf.attacks.base import Attack, batch_shape
from wasser_tf.attacks.inputs import check_in_wasserstein_ball
from wasser_tf.attacks.scoring import AttackResult
from wasser_tf.models.conversion import prepare_images
from wasser_tf.models.inputs import check_batch
from wasser_tf.runtime.progress import Bar
from wasser_tf.transport.feasibility import Feasibility

# The first radius is the largest one, halved this many times.
_DOUBLINGS = 8


class MinimalRadii(NamedTuple):
    """The smallest radius at which each image was fooled, with the corresponding examples.

    Attributes:
      radius: Upper bounds of the minimal radii, [n]: 0 for an image misclassified clean, inf for one never fooled.
      adversarial: The examples, float32 [n, H, W, C]; where the radius is inf, an unsuccessful one.
      feasibility: The feasibility record of these examples, fields [n].
    """

    radius: np.ndarray
    adversarial: np.ndarray
    feasibility: Feasibility

    def robust_accuracy(self, radii: Any) -> np.ndarray:
        """Returns the share of the images that are not fooled, at each of some radii [r], float64 [r]."""
        return (self.radius > np.asarray(radii)[:, None]).mean(axis=1)


def minimal_radii(
    attack: Attack,
    classifier: Callable[..., tf.Tensor],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    largest: float = 2.0,
    resolution: float = 0.005,
    index: np.ndarray | None = None,
    batch_size: int = 128,
    log: Callable[[str], None] | None = None,
) -> MinimalRadii:
    """Finds upper bounds of the minimal radii: doubles the radius of each image until it is fooled, then bisects.

    Balls are nested, so every success bounds the image's minimal radius from above.

    >>> from wasser_tf import ThreatModel, attacks, data, models
    >>> test = data.load("digits", splits=("test",)).test
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> attack = attacks.make("random_plan", ThreatModel())
    >>> found = minimal_radii(attack, classifier, test.images[:4], test.labels[:4], largest=0.5, resolution=0.1)
    >>> found.radius.shape, found.adversarial.shape
    ((4,), (4, 8, 8, 1))

    Args:
      attack: The attack made at each radius. Radii are per image, so one compiled function serves all radii.
      classifier: A Keras model, or any callable (images, training=False) -> [n, classes].
      images: Float [n, H, W, C] in [0, 1].
      labels: Class indices [n], or one-hot.
      largest: The largest radius, > 0; an image that is not fooled there gets inf.
      resolution: The bisection ends when the bracket is at most this wide, > 0.
      index: Numbers that seed the random starts, [n], see `Attack.__call__`.
      batch_size: Images attacked at a time.
      log: Takes a line of progress for each round.

    Returns:
      The radii, the examples and their feasibility record.

    Raises:
      ValueError: `largest` or `resolution` is not above 0, the attack has a radius schedule or does not produce
        examples in the Wasserstein ball, or the classifier does not accept the images.
    """
    if not largest > 0 or not resolution > 0:
        raise ValueError(f"largest and resolution must be above 0, got {largest!r} and {resolution!r}.")
    check_in_wasserstein_ball(attack)
    if attack.schedule is not None:
        raise ValueError("Bisection chooses the radius of each image: use an attack without a radius schedule.")
    seen = prepare_images(classifier, images)
    classifier = seen.classifier
    images, labels = check_batch(classifier, seen.images, labels)
    count = len(images)
    index = np.arange(count) if index is None else index
    size = batch_shape(count, batch_size)
    first = largest / 2**_DOUBLINGS
    # Radius 0 comes first, at which only images that are misclassified clean are fooled.
    low, high, tried = np.zeros(count), np.full(count, np.inf), np.zeros(count)
    best: AttackResult | None = None
    open_ones = np.arange(count)
    with Bar(count, "attack", "Minimal radii", log=log, seconds_between_lines=math.inf) as bar:
        while len(open_ones):
            # Padded to whole batches, so that all rounds share compiled functions.
            rows = open_ones if best is None else np.resize(open_ones, -(-len(open_ones) // size) * size)
            found = attack(
                classifier, images[rows], labels[rows], radius=tried[rows], index=index[rows], batch_size=batch_size
            )
            success = found.success[: len(open_ones)]
            won, robust = open_ones[success], open_ones[~success]
            low[robust] = tried[robust]
            # An example may cost less than its radius; by rounding, its cost may slightly exceed it.
            high[won] = np.minimum(tried[won], found.feasibility.cost[: len(open_ones)][success])
            best = found if best is None else _replace(best, found, won, np.flatnonzero(success))
            line = f"radii up to {tried[open_ones].max():.3f}: {len(open_ones)} images attacked, {len(won)} fooled"
            attacked = bar.finished + len(open_ones)
            # The radius doubles until the image is fooled. It starts small, because attacks may fail at large radii.
            tried = np.where(np.isfinite(high), 0.5 * (low + high), np.clip(2 * low, first, largest))
            open_ones = np.flatnonzero((low < largest) & (high - low > resolution))
            bar.total = attacked + int(_rounds_left(low[open_ones], high[open_ones], largest, resolution).sum())
            bar.update(attacked)
            if log:
                log(line if bar.drawn else f"{line}; at most {bar.total - attacked} attacks left")
    assert best is not None  # noqa: S101 (check_batch rejects an empty batch)
    return MinimalRadii(high, seen.restore(best.adversarial), best.feasibility)


def _rounds_left(low: np.ndarray, high: np.ndarray, largest: float, resolution: float) -> np.ndarray:
    """Returns the largest number of further rounds of each image, whose minimal radius is between `low` and `high`."""
    fooled = np.isfinite(high)
    doublings = np.where(fooled, 0, np.ceil(np.log2(largest / np.maximum(low, largest / 2 ** (_DOUBLINGS + 1)))))
    width = np.where(fooled, high, largest) - np.where(fooled, low, largest / 2)
    return doublings + np.maximum(np.ceil(np.log2(width / resolution)), 0)


def _replace(best: AttackResult, found: AttackResult, places: np.ndarray, chosen: np.ndarray) -> AttackResult:
    """Returns `best` with the entries at `places` replaced by the entries of `found` at `chosen`."""

    def put(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        merged = old.copy()
        merged[places] = new[chosen]
        return merged

    return tf.nest.map_structure(put, best, found)
