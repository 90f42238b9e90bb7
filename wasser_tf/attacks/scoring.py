"""Scores of perturbations: rounding to feasible plans, feasibility records, and the classifier's outputs."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from wasser_tf.attacks import losses
from wasser_tf.attacks.problem import Perturbation, Problem, where_image
from wasser_tf.models.description import LARGEST_GAP
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.feasibility import Feasibility, measure_feasibility, measure_feasibility_without_plan
from wasser_tf.transport.gibbs import GibbsPlan, explicit_plan
from wasser_tf.transport.neighbourhood import Support
from wasser_tf.transport.rounding import Rounded, feasible_plan, round_to_feasible

# Gradients of at most this share of the margin are float32 rounding.
_ROUNDING = 1e-5


class AttackResult(NamedTuple):
    """Examples and their scores; arrays from `Attack.__call__`, tensors from `Attack.run`.

    Attributes:
      adversarial: The feasible examples x̃, float32 [B, H, W, C], in [0, 1] exactly. For an attack that does not move
        mass they are `raw`, and their feasibility record is not feasible where anything was changed.
      feasibility: Their feasibility record, fields [B].
      success: Whether the classifier is wrong on them, or sees the target where there is one, bool [B].
      loss: Their cross-entropy in nats, [B].
      radius: The radius that the attack was allowed (with a schedule, the radius where it stopped), [B].
      iterations: Iterations used, int32 [B].
      raw: The images before rounding, as papers score them, [B, H, W, C]. They may be infeasible.
      raw_feasibility: The feasibility record of `raw`.
      raw_success: As `success`, for `raw`.
      raw_loss: As `loss`, for `raw`.
      flagged: Whether the attack had no usable gradient at the clean image, bool [B]: the margin's gradient is not
        finite or only rounding, outputs are not finite, or the margin is of logarithms of saturated probabilities. A
        failed attack there is not a sign of robustness. All are flagged where the outputs of the classifier are random
        or depend on the other images of a batch.

    Example:
    >>> from wasser_tf import ThreatModel, attacks, data, models
    >>> test = data.load("digits", splits=("test",)).test
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> attack = attacks.make("random_plan", ThreatModel(epsilon=0.1))
    >>> result = attack(classifier, test.images[:4], test.labels[:4])
    >>> result.adversarial.shape, result.success.shape, bool(result.feasibility.feasible().all())
    ((4, 8, 8, 1), (4,), True)
    """

    adversarial: Any
    feasibility: Feasibility
    success: Any
    loss: Any
    radius: Any
    iterations: Any
    raw: Any
    raw_feasibility: Feasibility
    raw_success: Any
    raw_loss: Any
    flagged: Any = False

    def __repr__(self) -> str:
        # Short, instead of all numbers.
        shape = f"{type(self).__name__} of {tuple(self.adversarial.shape)}"
        if not isinstance(self.success, np.ndarray):
            return f"<{shape}>"
        return f"<{shape}: {self.success.sum()} successful, raw {self.raw_success.sum()}; {self.feasibility!r}>"


def score(problem: Problem, perturbation: Perturbation) -> AttackResult:
    """Rounds a perturbation to a feasible plan, measures it and scores it with the classifier.

    Where the example's margin is not above that of the clean image, or is NaN, the clean image is returned. Without a
    plan the raw images are scored as they are.
    """
    if perturbation.plan is None:
        return _score_without_plan(problem, perturbation)
    images, support, threat_model, radius = problem.images, problem.support, problem.threat_model, perturbation.radius
    feasible = rounded(perturbation, problem)
    with tf.GradientTape() as tape:
        tape.watch(images)
        clean_logits = problem.logits_fn(images)
        clean_margin = problem.margin(clean_logits)
    feasible_logits = problem.logits_fn(feasible.image)
    # The clean image is feasible too. Outputs are checked as well, because the maximum in a margin may skip a NaN.
    unmoved = (
        ~(problem.margin(feasible_logits) > clean_margin) | _not_finite(feasible_logits) | _not_finite(clean_logits)
    )
    feasible = feasible._replace(
        image=where_image(unmoved, images, feasible.image), step=tf.where(unmoved, 0.0, feasible.step)
    )
    feasibility, raw_feasibility = _feasibilities(
        perturbation.plan, perturbation.raw, feasible, images, support, radius, threat_model
    )
    logits, raw_logits = where_image(unmoved, clean_logits, feasible_logits), problem.logits_fn(perturbation.raw)
    return AttackResult(
        adversarial=feasible.image,
        feasibility=feasibility,
        success=problem.fooled(logits),
        loss=losses.cross_entropy(logits, problem.labels),
        radius=radius,
        iterations=perturbation.iterations,
        raw=perturbation.raw,
        raw_feasibility=raw_feasibility,
        raw_success=problem.fooled(raw_logits),
        raw_loss=losses.cross_entropy(raw_logits, problem.labels),
        flagged=_not_finite(clean_logits)
        | _lost_digits(problem, clean_margin)
        | _not_finite(feasible_logits)
        | is_blind(tape.gradient(clean_margin, images), clean_margin),
    )


def _score_without_plan(problem: Problem, perturbation: Perturbation) -> AttackResult:
    raw = perturbation.raw
    feasibility = measure_feasibility_without_plan(raw, problem.images, perturbation.radius)
    logits = problem.logits_fn(raw)
    success, loss = problem.fooled(logits), losses.cross_entropy(logits, problem.labels)
    return AttackResult(
        adversarial=raw,
        feasibility=feasibility,
        success=success,
        loss=loss,
        radius=perturbation.radius,
        iterations=perturbation.iterations,
        raw=raw,
        raw_feasibility=feasibility,
        raw_success=success,
        raw_loss=loss,
        flagged=_not_finite(logits),
    )


def rounded(perturbation: Perturbation, problem: Problem) -> Rounded:
    """Returns the feasible images to which the plans of a perturbation are rounded."""
    return _round_to_feasible(
        perturbation.plan, problem.images, problem.support, perturbation.radius, problem.threat_model
    )


def explicit(plan: tf.Tensor | GibbsPlan, images: tf.Tensor, support: Support) -> tf.Tensor:
    """Returns the entries of a plan, [B, T, H, W, C]."""
    return _explicit_plan(plan, images, support) if isinstance(plan, GibbsPlan) else plan


def is_blind(gradient: tf.Tensor | None, margin: tf.Tensor) -> tf.Tensor:
    """Returns where the gradient [B, H, W, C] of a margin [B] is not finite, only rounding, or None, bool [B].

    A saturated softmax is 1 or 1 − 6e-8 in float32, depending on the machine: its gradient is 0 or next to 0.
    """
    if gradient is None:
        return tf.ones_like(margin, tf.bool)
    flat = tf.reshape(gradient, [tf.shape(gradient)[0], -1])
    return _not_finite(flat) | (tf.reduce_max(tf.abs(flat), axis=1) <= _ROUNDING * tf.abs(margin))


def _lost_digits(problem: Problem, margin: tf.Tensor) -> tf.Tensor:
    """Returns where a margin of logarithms of probabilities is so large that float32 has lost most of its digits."""
    # What the classifier's graph showed while it was traced, just before.
    taken = getattr(problem.logits_fn, "takes_logarithms", None)
    return (tf.abs(margin) > LARGEST_GAP) if taken else tf.zeros_like(margin, tf.bool)


def warn_of_flagged(flagged: np.ndarray) -> None:
    """Warns where an attack had no usable gradient."""
    count = int(np.sum(flagged))
    if count:
        warnings.warn(f"{flagged_in_words(count, np.size(flagged))}", stacklevel=3)


def flagged_in_words(count: int, total: int) -> str:
    """Returns what flagged images mean, in one sentence."""
    return (
        f"{count} of {total} images are flagged: the classifier has no usable gradient there (zero, not finite, of "
        "saturated probabilities, or of outputs that are random or depend on the batch), so a failed attack on them is "
        "not a sign of robustness."
    )


def _not_finite(rows: tf.Tensor) -> tf.Tensor:
    return ~tf.reduce_all(tf.math.is_finite(rows), axis=1)


# Compiled separately, as are the feasibility records: a graph that does not use them does not compute the plans.
_round_to_feasible = tf.function(round_to_feasible, jit_compile=True, autograph=False)
_explicit_plan = tf.function(explicit_plan, jit_compile=True, autograph=False)


@tf.function(jit_compile=True, autograph=False)
def _feasibilities(
    plan: tf.Tensor | GibbsPlan,
    raw: tf.Tensor,
    feasible: Rounded,
    images: tf.Tensor,
    support: Support,
    radius: tf.Tensor,
    threat_model: ThreatModel,
) -> tuple[Feasibility, Feasibility]:
    """Returns the feasibility records of the feasible image and its plan, and of the raw image and the plan as found.

    One compiled function makes both, because both plans have the same factors, and none then passes through memory.
    """
    return (
        measure_feasibility(
            feasible_plan(plan, feasible, images, support), feasible.image, images, support, radius, threat_model
        ),
        measure_feasibility(explicit(plan, images, support), raw, images, support, radius, threat_model),
    )
