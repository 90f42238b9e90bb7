"""Verifies examples by exact optimal transport, independently of plans, windows and attacks."""

import dataclasses
from collections.abc import Callable, Collection

import numpy as np

from wasser_tf.evaluation.examples import Examples
from wasser_tf.runtime.progress import Bar
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.exact import wasserstein_distance

# Relative tolerance on the radius, as in the feasibility record; absolute tolerance of a cost stored in float32.
_RELATIVE, _ABSOLUTE = 1e-5, 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactCheck:
    """The exact distances of some feasible examples, compared with their radii and costs.

    Attributes:
      num_images: Number of verified examples.
      max_ratio: The largest exact distance / radius; 1 is the boundary of the ball.
      max_excess: The largest exact distance − cost of the feasible plan; above 0 by rounding only.
      within_radius: Whether every distance is at most radius · (1 + 1e-5).
      below_cost: Whether every distance is at most the cost of the feasible plan, up to rounding.
    """

    num_images: int
    max_ratio: float
    max_excess: float
    within_radius: bool
    below_cost: bool


def summarize_exact_checks(checks: Collection[ExactCheck]) -> str:
    """Returns a one-line summary of some checks, at least one."""
    total, ratio = sum(check.num_images for check in checks), max(check.max_ratio for check in checks)
    outside = sum(not check.within_radius for check in checks)
    verdict = (
        f"{outside} of {len(checks)} attacks and radii have examples outside" if outside else "all within their radius"
    )
    return f"Exact transport of {total:,} examples: largest distance / radius {ratio:.6f}, {verdict}"


def verify(
    examples: Examples,
    threat_model: ThreatModel,
    limit: int | None = None,
    log: Callable[[str], None] | None = None,
) -> ExactCheck:
    """Computes the exact distances of feasible examples from their clean images and compares them with the radii.

    Distances are solved by linear programming in float64, about 10 ms for a 28×28 image.

    >>> import numpy as np
    >>> from wasser_tf import ThreatModel, attacks, data, models
    >>> from wasser_tf.evaluation.record import evaluate_attack
    >>> test = data.load("digits", splits=("test",)).test
    >>> images, labels = test.images[:4], test.labels[:4].astype(np.int32)
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> attack = attacks.make("random_plan", ThreatModel(epsilon=0.3))
    >>> record, result, clean = evaluate_attack(classifier, attack, images, labels)
    >>> verify(Examples(np.arange(4), images, labels, clean, result), ThreatModel()).within_radius
    True

    Args:
      examples: The examples.
      threat_model: The ball; its epsilon is ignored, because the examples carry their radii.
      limit: Verify only the first `limit` examples; None for all.
      log: Takes lines of progress.

    Returns:
      The comparison.

    Raises:
      ValueError: The mass of an example differs from that of its clean image, so that no distance is defined.
    """
    result = examples.result
    images, targets = examples.images[:limit], result.adversarial[:limit]
    distances = []
    with Bar(len(images), "example", "Exact distances", log=log) as bar:
        for image, target in zip(images, targets, strict=True):
            distances.append(wasserstein_distance(image, target, threat_model))
            bar.update(len(distances))
    exact = np.array(distances)
    radius = np.asarray(result.feasibility.radius[:limit], np.float64)
    cost = np.asarray(result.feasibility.cost[:limit], np.float64)
    ratio = np.where(radius > 0, exact / np.where(radius > 0, radius, 1.0), np.where(exact > _ABSOLUTE, np.inf, 0.0))
    return ExactCheck(
        num_images=len(exact),
        max_ratio=float(ratio.max()),
        max_excess=float((exact - cost).max()),
        within_radius=bool((exact <= radius * (1 + _RELATIVE) + _ABSOLUTE * (radius == 0)).all()),
        below_cost=bool((exact <= cost * (1 + _RELATIVE) + _ABSOLUTE).all()),
    )
