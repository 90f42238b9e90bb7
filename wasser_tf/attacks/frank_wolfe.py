"""Frank-Wolfe on the plan: Wu, Wang, Yu, "Stronger and faster Wasserstein adversarial attacks", ICML 2020 [24]."""

from typing import ClassVar, NamedTuple

import tensorflow as tf

from wasser_tf.attacks import losses
from wasser_tf.attacks.base import Attack
from wasser_tf.attacks.problem import Gradient, Perturbation, Problem, image_gradient
from wasser_tf.runtime.arguments import check_number, check_whole
from wasser_tf.transport.linear_maximiser import entropic_maximiser
from wasser_tf.transport.neighbourhood import Support
from wasser_tf.transport.plan import identity_plan


class _State(NamedTuple):
    """The plan [B, T, H, W, C] and its image [B, H, W, C]."""

    plan: tf.Tensor
    image: tf.Tensor


class FrankWolfe(Attack):
    """Moves the plan by 2 / (t + 2) towards the plan that maximises ⟨Π, gradient⟩ + τ · entropy within rows and budget.

    That maximiser is the Gibbs plan with potential gradient / τ, whose multiplier is found by bisection
    (transport/linear_maximiser.py). The attack ignores the capacity: the raw image, unclipped as in the paper, has
    pixels far above 1. The classifier sees clipped images during the attack.

    The settings that all attacks share are described in `Attack`.

    Attributes:
      temperature: τ, on gradients scaled to a maximum of 1 (1e-3 in the paper's scripts).
      bisections: The maximum number of bisection steps for the multiplier.
      tolerance: The bisection stops when the multiplier's bracket is narrower than this.

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data, models
    >>> images = data.load("digits").test.images[:2]
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> labels = classifier.predict(images, verbose=0).argmax(axis=1)
    >>> attack = wasser_tf.attacks.FrankWolfe(wasser_tf.ThreatModel(epsilon=0.2, kernel_size=3), iterations=2)
    >>> result = attack(classifier, images, labels)
    >>> bool(result.feasibility.feasible().all())
    True
    """

    name: ClassVar[str] = "frank_wolfe"

    iterations: int = 300
    temperature: float = 1e-3
    bisections: int = 50
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("temperature", self.temperature, above=0)
        check_whole("bisections", self.bisections, least=1)
        check_number("tolerance", self.tolerance, above=0)

    def perturb(self, problem: Problem) -> Perturbation:
        def step(iteration: tf.Tensor, state: _State) -> tuple[_State, tf.Tensor]:
            gradient = clipped_gradient(problem, state.image)
            budget = problem.budget(self.radius_at(iteration, problem))
            return _advance(
                state,
                gradient.image_gradient,
                problem.images,
                budget,
                2.0 / (tf.cast(iteration, tf.float32) + 2.0),
                tf.constant(self.temperature, tf.float32),
                problem.support,
                self.bisections,
                self.tolerance,
            ), gradient.fooled

        start = _State(identity_plan(problem.images, problem.support), problem.images)
        state, radius, used = self.iterate(step, start, problem)
        return Perturbation(plan=state.plan, raw=state.image, radius=radius, iterations=used)


def clipped_gradient(problem: Problem, images: tf.Tensor) -> Gradient:
    """Returns the cross-entropy of images clipped to [0, 1], and its gradient: 0 where the images are above."""
    gradient = image_gradient(problem, tf.clip_by_value(images, 0.0, 1.0), losses.cross_entropy)
    return gradient._replace(image_gradient=tf.where(images <= 1.0, gradient.image_gradient, 0.0))


@tf.function(jit_compile=True, autograph=False)
def _advance(
    state: _State,
    gradient: tf.Tensor,
    images: tf.Tensor,
    budget: tf.Tensor,
    step_size: tf.Tensor,
    temperature: tf.Tensor,
    support: Support,
    bisections: int,
    tolerance: float,
) -> _State:
    largest = tf.reduce_max(tf.abs(gradient), axis=[1, 2, 3], keepdims=True)
    gradient = tf.math.divide_no_nan(gradient, largest)
    best = entropic_maximiser(gradient, images, budget, temperature, support, bisections, tolerance)
    plan = state.plan + step_size * (best - state.plan)
    return _State(plan, support.push_forward(plan))
