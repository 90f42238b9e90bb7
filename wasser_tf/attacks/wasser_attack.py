"""WasserAttack, the attack of WasserTrain (ICASSP 2022), Eq. 5 to 9.

The plan is Π = ½(tanh Φ + 1) for a free Φ, the image x̃ = Πᵀ1, and the attack maximises over Φ

    l0 + α l1 + β l2 + γ l3                                   (9)
    l0 = max_{j≠y} z_j(x̃) − z_y(x̃)         classification    (5)
    l1 = −Σ_i |(Π1 − x)_i|                  precision         (6)
    l2 = Σ_j min(1 − x̃_j, 0)                invalid pixel     (7)
    l3 = min(budget − ⟨Π, C⟩, 0)            outside the ball  (8)

The paper leaves the optimiser, its step, the start and the scale of l0 open. Chosen here, by experiment on validation
images (BUILD_NOTES.md): natural gradient ascent in Φ, that is Φ ← Φ + η_t m with m a momentum of ∂(9)/∂Π. It divides
the plain gradient by dΠ/dΦ = 2Π(1 − Π), without which entries near 0 hardly move; small entries of Π then grow or
shrink by factors. η falls geometrically, so that the kinks of the penalties are settled to 1e-4, and ∂l0/∂x̃ is scaled
to a largest entry just under α, so that the penalties outweigh it on every classifier.
"""

from typing import ClassVar, NamedTuple

import tensorflow as tf

from wasser_tf.attacks import losses
from wasser_tf.attacks.base import Attack
from wasser_tf.attacks.problem import Perturbation, Problem, image_gradient
from wasser_tf.runtime.arguments import check_number
from wasser_tf.transport.neighbourhood import Support
from wasser_tf.transport.plan import row_sums, transport_cost

# Π = 0 would need Φ = −∞: at −9 it is 1.5e-8.
_BOUND = 9.0
_OFF_DIAGONAL_START = -3.0
_MOMENTUM = 0.9
_FINAL_STEP = 1e-4


class _State(NamedTuple):
    """Φ and the momentum, [B, T, H, W, C], and the image Πᵀ1, [B, H, W, C]."""

    phi: tf.Tensor
    momentum: tf.Tensor
    image: tf.Tensor


class _Weights(NamedTuple):
    """The multipliers of Eq. 9 and the largest value a pixel may take."""

    alpha: float
    beta: float
    gamma: float
    capacity: float


class WasserAttack(Attack):
    """The attack of the WasserTrain paper (see the module).

    Attributes:
      iterations: The maximum number of steps per image, I.
      alpha: Weight of the precision loss, Eq. 6.
      beta: Weight of the invalid-pixel loss, Eq. 7. It has no effect without a capacity in the threat model.
      gamma: Weight of the ball loss, Eq. 8.
      step_size: η of the first step; the last is 1e-4 of it.
      gradient_scale: The largest entry that ∂l0/∂x̃ of each image is scaled to, or None to leave it as it is.

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data, models
    >>> images = data.load("digits").test.images[:8]
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> labels = classifier.predict(images, verbose=0).argmax(axis=1)
    >>> attack = wasser_tf.WasserAttack(wasser_tf.ThreatModel(epsilon=0.2), iterations=5)
    >>> result = attack(classifier, images, labels)
    >>> bool(result.feasibility.feasible().all())
    True
    """

    name: ClassVar[str] = "wasser_attack"

    iterations: int = 200
    alpha: float = 10.0
    beta: float = 10.0
    gamma: float = 10.0
    step_size: float = 1.0
    gradient_scale: float | None = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "beta", "gamma"):
            check_number(name, getattr(self, name), least=0)
        check_number("step_size", self.step_size, above=0)
        if self.gradient_scale is not None:
            check_number("gradient_scale", self.gradient_scale, above=0)

    def perturb(self, problem: Problem) -> Perturbation:
        images, support = problem.images, problem.support
        weights = _Weights(self.alpha, self.beta, self.gamma, self.threat_model.capacity or float("inf"))

        def step(iteration: tf.Tensor, state: _State) -> tuple[_State, tf.Tensor]:
            found = image_gradient(problem, state.image, losses.margin)
            gradient = found.image_gradient
            if self.gradient_scale is not None:
                largest = tf.reduce_max(tf.abs(gradient), axis=[1, 2, 3], keepdims=True)
                gradient = self.gradient_scale * tf.math.divide_no_nan(gradient, largest)
            done = tf.cast(iteration, tf.float32) / self.iterations
            budget = problem.budget(self.radius_at(iteration, problem))
            following = _ascend(state, images, gradient, self.step_size * _FINAL_STEP**done, budget, weights, support)
            return following, found.fooled

        state, radius, used = self.iterate(step, _start(images, support), problem)
        return Perturbation(plan=_plan(state.phi), raw=state.image, radius=radius, iterations=used)


@tf.function(jit_compile=True, autograph=False)
def _start(images: tf.Tensor, support: Support) -> _State:
    """The identity plan, as near as a finite Φ comes to it; pixels without mass send nothing."""
    at_home = tf.atanh(2.0 * tf.clip_by_value(images, 1e-7, 1 - 1e-7) - 1.0)[:, None]
    phi = tf.where(support.home, at_home, _OFF_DIAGONAL_START)
    phi = _bounded(phi, images, support)
    return _State(phi, tf.zeros_like(phi), support.push_forward(_plan(phi)))


@tf.function(jit_compile=True, autograph=False)
def _ascend(
    state: _State,
    images: tf.Tensor,
    gradient: tf.Tensor,
    step_size: tf.Tensor,
    budget: tf.Tensor,
    weights: _Weights,
    support: Support,
) -> _State:
    """One step along ∂(9)/∂Π, with ∂l0/∂x̃ given, [B, H, W, C]."""
    plan = _plan(state.phi)
    over_full = tf.cast(state.image > weights.capacity, tf.float32)
    outside = tf.cast(transport_cost(plan, support) > budget, tf.float32)[:, None, None, None, None]
    ascent = (
        support.pull_back(gradient - weights.beta * over_full)
        - weights.alpha * tf.sign(row_sums(plan) - images)[:, None]
        - weights.gamma * outside * support.ground_cost
    )
    momentum = _MOMENTUM * state.momentum + (1.0 - _MOMENTUM) * ascent
    phi = _bounded(state.phi + step_size * momentum, images, support)
    return _State(phi, momentum, support.push_forward(_plan(phi)))


def _plan(phi: tf.Tensor) -> tf.Tensor:
    # Entries at the bound stand for 0, which tanh reaches at no finite Φ.
    return tf.where(phi > -_BOUND, 0.5 * (tf.tanh(phi) + 1.0), 0.0)


def _bounded(phi: tf.Tensor, images: tf.Tensor, support: Support) -> tf.Tensor:
    may_send = support.valid & (images > 0)[:, None]
    return tf.where(may_send, tf.clip_by_value(phi, -_BOUND, _BOUND), -_BOUND)
