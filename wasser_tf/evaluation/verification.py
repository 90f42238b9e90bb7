"""Verifies examples by exact optimal transport: a judge that knows nothing of plans, windows or attacks."""

import dataclasses
from collections.abc import Collection

import numpy as np

from wasser_tf.evaluation.examples import Examples
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.exact import wasserstein_distance

# The feasibility record's tolerance on the radius, and float32's on a stored cost.
_RELATIVE, _ABSOLUTE = 1e-5, 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactCheck:
    """What the exact distances of some feasible examples are.

    Attributes:
      num_images: How many were verified.
      max_ratio: The largest exact distance / radius; 1 is the edge of the ball.
      max_excess: The largest exact distance − feasible cost; above 0 by rounding only.
      within_radius: Whether every distance is at most radius · (1 + 1e-5).
      below_cost: Whether every distance is at most the feasible cost, but for rounding.
    """

    num_images: int
    max_ratio: float
    max_excess: float
    within_radius: bool
    below_cost: bool


def in_words(checks: Collection[ExactCheck]) -> str:
    """Returns what some checks came to, in a line."""
    total, ratio = sum(check.num_images for check in checks), max(check.max_ratio for check in checks)
    outside = sum(not check.within_radius for check in checks)
    verdict = (
        f"{outside} of {len(checks)} attacks and radii have some outside" if outside else "all within their radius"
    )
    return f"Exact transport of {total:,} examples: largest distance / radius {ratio:.6f}, {verdict}"


def verify(examples: Examples, threat_model: ThreatModel, limit: int | None = None) -> ExactCheck:
    """Computes exact distances (linear programming, float64, some 10 ms for a 28×28 image) of feasible examples.

    Args:
      examples: The examples.
      threat_model: The ball; its epsilon is not used, the examples carry their radius.
      limit: Only the first so many are verified; None for all.

    Raises:
      ValueError: An example has not the mass of its clean image, so that it has no distance.
    """
    result = examples.result
    images, targets = examples.images[:limit], result.adversarial[:limit]
    exact = np.array(
        [wasserstein_distance(image, target, threat_model) for image, target in zip(images, targets, strict=True)]
    )
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
