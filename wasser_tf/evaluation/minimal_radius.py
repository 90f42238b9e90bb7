"""The minimal radius of each image, by a ramp and bisection: a whole curve of accuracy against ε from one run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from wasser_tf.attacks.base import Attack, batch_shape
from wasser_tf.attacks.inputs import check_batch, check_in_wasserstein_ball
from wasser_tf.attacks.scoring import AttackResult
from wasser_tf.models.conversion import prepare_images
from wasser_tf.transport.feasibility import Feasibility

# The ramp's first radius is the largest one, halved as often.
_DOUBLINGS = 8


class MinimalRadii(NamedTuple):
    """The smallest radius at which each image was fooled, and the example that shows it.

    Attributes:
      radius: Upper bounds of the minimal radii, [n]: 0 for an image misclassified clean, inf for one never fooled.
      adversarial: The examples, [n, H, W, C]; the last attempt where the radius is inf.
      feasibility: Of these examples, fields [n].
    """

    radius: np.ndarray
    adversarial: np.ndarray
    feasibility: Feasibility

    def robust_accuracy(self, radii: Any) -> np.ndarray:
        """Returns the share of the images that are not fooled at each of some radii [r]."""
        return (self.radius > np.asarray(radii)[:, None]).mean(axis=1)


def minimal_radii(
    attack: Attack,
    classifier: Callable[..., tf.Tensor],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    largest: float = 2.0,
    resolution: float = 0.005,
    batch_size: int = 128,
    log: Callable[[str], None] | None = None,
) -> MinimalRadii:
    """Doubles the radius of each image until it is fooled, then bisects; balls are nested, so every success bounds it.

    Args:
      attack: What is tried at each radius; radii are per image, so one compiled function does them all.
      classifier: A Keras model or callable, as the attack takes it.
      images: Float [n, H, W, C] in [0, 1].
      labels: Class indices [n], or one-hot.
      largest: The radius the ramp ends at, > 0; what withstands it is given inf.
      resolution: How narrow the bracket must be, > 0.
      batch_size: Images at a time.
      log: What to do with a line of text about each round.

    Raises:
      ValueError: largest or resolution is not above 0, the attack has a radius schedule or moves no mass, or the images
        are not what the classifier takes.
    """
    if not largest > 0 or not resolution > 0:
        raise ValueError(f"largest and resolution must be above 0, got {largest!r} and {resolution!r}.")
    check_in_wasserstein_ball(attack)
    if attack.schedule is not None:
        raise ValueError("Bisection gives each image its radius: take an attack without a radius schedule.")
    seen = prepare_images(classifier, images)
    classifier = seen.classifier
    images, labels = check_batch(classifier, seen.images, labels)
    count = len(images)
    size = batch_shape(count, batch_size)
    first = largest / 2**_DOUBLINGS
    # First radius 0, which those misclassified clean do not withstand.
    low, high, tried = np.zeros(count), np.full(count, np.inf), np.zeros(count)
    best: AttackResult | None = None
    open_ones = np.arange(count)
    while len(open_ones):
        # Filled up to whole batches, so that all rounds share compiled functions.
        rows = open_ones if best is None else np.resize(open_ones, -(-len(open_ones) // size) * size)
        found = attack(classifier, images[rows], labels[rows], radius=tried[rows], index=rows, batch_size=batch_size)
        success = found.success[: len(open_ones)]
        won, withstood = open_ones[success], open_ones[~success]
        low[withstood] = tried[withstood]
        # An example may need less than it was allowed; by rounding its cost may seem a little more.
        high[won] = np.minimum(tried[won], found.feasibility.cost[: len(open_ones)][success])
        best = found if best is None else _replace(best, found, won, np.flatnonzero(success))
        if log:
            log(f"radii up to {tried[open_ones].max():.3f}: {len(open_ones)} images attacked, {len(won)} fooled")
        # Until an image is fooled its radius doubles: an attack may miss at a large radius what a small one shows.
        tried = np.where(np.isfinite(high), 0.5 * (low + high), np.clip(2 * low, first, largest))
        open_ones = np.flatnonzero((low < largest) & (high - low > resolution))
    assert best is not None  # noqa: S101 (check_batch refuses an empty batch)
    return MinimalRadii(high, seen.restore(best.adversarial), best.feasibility)


def _replace(best: AttackResult, found: AttackResult, places: np.ndarray, chosen: np.ndarray) -> AttackResult:
    """Returns `best` with the chosen results put in at these places."""

    def put(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        merged = old.copy()
        merged[places] = new[chosen]
        return merged

    return tf.nest.map_structure(put, best, found)
