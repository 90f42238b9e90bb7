"""PGD with dual projection: Wu, Wang, Yu, "Stronger and faster Wasserstein adversarial attacks", ICML 2020 [24]."""

from typing import ClassVar, NamedTuple

import tensorflow as tf

from wasser_tf.attacks.base import Attack
from wasser_tf.attacks.frank_wolfe import clipped_gradient
from wasser_tf.attacks.problem import Perturbation, Problem
from wasser_tf.runtime.arguments import check_number
from wasser_tf.transport import euclidean
from wasser_tf.transport.neighbourhood import Support
from wasser_tf.transport.plan import identity_plan


class _State(NamedTuple):
    """The plan [B, T, H, W, C] and its image [B, H, W, C]."""

    plan: tf.Tensor
    image: tf.Tensor


class DualProjection(Attack):
    """A gradient step on the plan, then its Euclidean projection onto {Π ≥ 0, Π1 = x, ⟨Π, C⟩ ≤ budget}.

    The attack ignores the capacity: the raw image, unclipped as in the paper, has pixels far above 1. The classifier
    sees clipped images during the attack.

    The settings that all attacks share are described in `Attack`.

    Attributes:
      step_size: The step in units of mass, on gradients scaled to a maximum of 1: 0.1 on MNIST, 0.01 on CIFAR-10 and
        ImageNet.

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data, models
    >>> images = data.load("digits").test.images[:2]
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> labels = classifier.predict(images, verbose=0).argmax(axis=1)
    >>> attack = wasser_tf.attacks.DualProjection(wasser_tf.ThreatModel(epsilon=0.2, kernel_size=3), iterations=2)
    >>> result = attack(classifier, images, labels)
    >>> bool(result.feasibility.feasible().all())
    True
    """

    name: ClassVar[str] = "dual_projection"

    iterations: int = 300
    step_size: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("step_size", self.step_size, above=0)

    def perturb(self, problem: Problem) -> Perturbation:
        def step(iteration: tf.Tensor, state: _State) -> tuple[_State, tf.Tensor]:
            gradient = clipped_gradient(problem, state.image)
            budget = problem.budget(self.radius_at(iteration, problem))
            return _advance(
                state.plan,
                gradient.image_gradient,
                problem.images,
                budget,
                tf.constant(self.step_size, tf.float32),
                problem.support,
            ), gradient.fooled

        start = _State(identity_plan(problem.images, problem.support), problem.images)
        state, radius, used = self.iterate(step, start, problem)
        return Perturbation(plan=state.plan, raw=state.image, radius=radius, iterations=used)


@tf.function(jit_compile=True, autograph=False)
def _advance(
    plan: tf.Tensor,
    gradient: tf.Tensor,
    images: tf.Tensor,
    budget: tf.Tensor,
    step_size: tf.Tensor,
    support: Support,
) -> _State:
    largest = tf.reduce_max(tf.abs(gradient), axis=[1, 2, 3], keepdims=True)
    direction = support.pull_back(tf.math.divide_no_nan(gradient, largest))
    plan = euclidean.project_euclidean(plan + step_size * direction, images, budget, support)
    return _State(plan, support.push_forward(plan))
