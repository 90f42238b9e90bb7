"""WasserAttack, the attack of WasserTrain (ICASSP 2022), Eq. 5 to 9.

The plan is Π = ½(tanh Φ + 1) for a free Φ, the image x̃ = Πᵀ1, and the attack maximises over Φ

    l0 + α l1 + β l2 + γ l3                                   (9)
    l0 = max_{j≠y} z_j(x̃) − z_y(x̃)         classification    (5)
    l1 = −Σ_i |(Π1 − x)_i|                  precision         (6)
    l2 = Σ_j min(1 − x̃_j, 0)                invalid pixel     (7)
    l3 = min(budget − ⟨Π, C⟩, 0)            outside the ball  (8)

The paper leaves the optimiser, its step, the start and the scale of l0 open. Chosen here (docs/log/wasser_attack.md):

*Natural gradient.* Φ moves along ∂(9)/∂Π. The plain gradient has a factor dΠ/dΦ = 2Π(1 − Π), by which entries near 0
hardly move; without it small entries grow and shrink by factors, at any radius alike.

*Penalties by their multipliers.* (6) to (8) have kinks at the constraints, where an optimum lies. Their subgradients
are −ρ_i − ν_j − λ C_ij with multipliers |ρ_i| ≤ α, 0 ≤ ν_j ≤ β, 0 ≤ λ ≤ γ, so that one step is

    Φ_ij ← Φ_ij + η (∂l0/∂x̃_j − ρ_i − ν_j − λ C_ij)

Away from a kink the multiplier is at its bound or 0. At a kink it may be anything between, and the step takes the one
that ends on the kink (a proximal step): stepping by the bound would throw the plan to and fro across it by η α, which
at a radius of 0.005 is more than the whole budget. The constraints are in proportion to mass, and so are these steps.
The multipliers found add up over the iterations, and the sum for the ball may fall again but not below 0: a plan that
comes to lie inside gets its cost back.

*Scales.* The penalties are exact if no multiplier of an optimum exceeds its weight. Those are at most
2 max|∂l0/∂x̃|, so the gradient of each image is scaled to a largest entry of half the weights. The scale falls
geometrically to 2 / iterations, and further where steps are long, so that the path ends. Φ starts at the plan of
largest entropy that costs a twentieth of the budget, and is bounded below where all entries together cost a
ten-thousandth of it.
"""

from typing import ClassVar, NamedTuple

import tensorflow as tf

from wasser_tf.attacks import losses
from wasser_tf.attacks.base import Attack
from wasser_tf.attacks.problem import Perturbation, Problem, image_gradient
from wasser_tf.attacks.step_size import relative_step
from wasser_tf.runtime.arguments import check_number
from wasser_tf.transport.gibbs import budget_multiplier, gibbs_plan, guess_multiplier, moments, project_kl
from wasser_tf.transport.neighbourhood import Support
from wasser_tf.transport.plan import row_sums

# Of the budget: what the first plan costs, and what all entries at the lower bound of Φ cost together.
_START_COST = 0.05
_FLOOR_COST = 1e-4
# The first step, in units of the relative step, and the last, times iterations^1.5 (docs/log/wasser_attack.md). A path
# of many iterations can afford longer steps at first, and leaves poor local optima by them.
_FIRST_STEP = 10.0
_FEW_ITERATIONS = 50
_LONGEST_STEP = 12.0
_LAST_STEP = 20.0
# A pixel this full no longer climbs, and is settled at its capacity: by a Newton step as if rows were independent of
# each other, times two, for the rows that it turns away have few other places that pay as much.
_NEARLY_FULL = 0.98
_OVER_RELAXATION = 2.0
_LEAST_SLOPE = 1e-6
_NEWTON_STEPS = 3
_COLD_START_NEWTON_STEPS = 8
# Bounds of logarithms, so that no setting overflows float32: of the climb, and of what a falling λ gives back.
_LARGEST_CLIMB = 25.0
_LARGEST_RETURN = 50.0
_LEAST_MASS = 1e-30
_LEAST_ROOM = 1e-7


class _State(NamedTuple):
    """The plan, which determines Φ, and what is kept so as not to be computed again.

    Attributes:
      plan: Π = ½(tanh Φ + 1), [B, T, H, W, C], 0 off the image and in rows without mass.
      image: Πᵀ1, [B, H, W, C].
      stays: The diagonal of Π, [B, H, W, C].
      multiplier: 2η λ summed over the iterations, [B, 1, 1, 1].
      change: The last of these summands, from which the search of the next begins.
    """

    plan: tf.Tensor
    image: tf.Tensor
    stays: tf.Tensor
    multiplier: tf.Tensor
    change: tf.Tensor


class _Weights(NamedTuple):
    """The multipliers of Eq. 9 and the largest value a pixel may take."""

    alpha: float
    beta: float
    gamma: float
    capacity: float


class WasserAttack(Attack):
    """The attack of the WasserTrain paper (see the module).

    The settings that all attacks share are described in `Attack`.

    Attributes:
      alpha: Weight of the precision loss, Eq. 6.
      beta: Weight of the invalid-pixel loss, Eq. 7. It has no effect without a capacity in the threat model.
      gamma: Weight of the ball loss, Eq. 8.
      step_size: η; None for 10 / √((iterations + 10) λ_0), where λ_0 is the multiplier of the budget in the plan of
        largest entropy, at least 0.3, and longer for images of more than 3,072 values. With more than 50 iterations it
        is (iterations / 50)³ times as long, at most 12.
      gradient_scale: The largest entry that ∂l0/∂x̃ of each image is scaled to at first, half of the default weights of
        the penalties by default; the scale falls to at most 2 / iterations of that. None leaves the gradient as it is.

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data, models
    >>> images = data.load("digits").test.images[:2]
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> labels = classifier.predict(images, verbose=0).argmax(axis=1)
    >>> attack = wasser_tf.WasserAttack(wasser_tf.ThreatModel(epsilon=0.2, kernel_size=3), iterations=5)
    >>> result = attack(classifier, images, labels)
    >>> bool(result.feasibility.feasible().all())
    True
    """

    name: ClassVar[str] = "wasser_attack"

    iterations: int = 200
    alpha: float = 10.0
    beta: float = 10.0
    gamma: float = 10.0
    step_size: float | None = None
    gradient_scale: float | None = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "beta", "gamma"):
            check_number(name, getattr(self, name), least=0)
        for name in ("step_size", "gradient_scale"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), above=0)

    def perturb(self, problem: Problem) -> Perturbation:
        images, support = problem.images, problem.support
        weights = _Weights(self.alpha, self.beta, self.gamma, self.threat_model.capacity or float("inf"))
        last_step = _LAST_STEP / self.iterations**1.5
        final_scale = min(2.0 / self.iterations, 1.0)
        first_budget = problem.budget(self.radius_at(tf.constant(0), problem))
        lowest = _lower_bound(images, first_budget, support)

        def step(iteration: tf.Tensor, state: _State) -> tuple[_State, tf.Tensor]:
            found = image_gradient(problem, state.image, losses.margin)
            gradient = found.image_gradient
            if self.gradient_scale is not None:
                largest = tf.reduce_max(tf.abs(gradient), axis=[1, 2, 3], keepdims=True)
                gradient = self.gradient_scale * tf.math.divide_no_nan(gradient, largest)
            budget = problem.budget(self.radius_at(iteration, problem))
            step_size = self._step_size(images, budget)
            done = tf.cast(iteration, tf.float32) / self.iterations
            gradient *= tf.minimum(last_step / step_size, final_scale) ** done
            return _ascend(state, images, gradient, step_size, budget, lowest, weights, support), found.fooled

        state, radius, used = self.iterate(step, _start(images, first_budget, lowest, support), problem)
        plan = state.plan if self.alpha == 0 else _exact_rows(state.plan, images)
        return Perturbation(plan=plan, raw=support.push_forward(plan), radius=radius, iterations=used)

    def _step_size(self, images: tf.Tensor, budget: tf.Tensor) -> tf.Tensor:
        """Returns η, [B, 1, 1, 1] or one for all images."""
        if self.step_size is not None:
            return tf.constant(self.step_size, tf.float32)
        first = _FIRST_STEP * max(self.iterations / _FEW_ITERATIONS, 1.0) ** 3
        return tf.minimum(first * relative_step(self.iterations, images, budget), _LONGEST_STEP)


def _lower_bound(images: tf.Tensor, budget: tf.Tensor, support: Support) -> tf.Tensor:
    """Returns what no entry of Π falls below, [B, 1, 1, 1]: it stands for 0."""
    entries = support.num_targets * tf.reduce_sum(tf.cast(images > 0, tf.float32), axis=[1, 2, 3])
    entry = _FLOOR_COST * budget / tf.maximum(entries * support.max_cost, 1.0)
    return tf.clip_by_value(entry, _LEAST_MASS, 0.1)[:, None, None, None]


@tf.function(jit_compile=True, autograph=False)
def _start(images: tf.Tensor, budget: tf.Tensor, lowest: tf.Tensor, support: Support) -> _State:
    """The plan of largest entropy that costs a twentieth of the budget."""
    guess = guess_multiplier(images, _START_COST * budget)
    nothing = tf.zeros_like(images)
    start = project_kl(nothing, guess, images, _START_COST * budget, support, _COLD_START_NEWTON_STEPS)
    may_send = support.valid & (images > 0)[:, None]
    plan = gibbs_plan(nothing, start.multiplier, images, support)
    plan = tf.where(may_send, tf.maximum(plan, lowest[:, None]), 0.0)
    return _State(plan, support.push_forward(plan), images, start.multiplier, tf.zeros_like(start.multiplier))


@tf.function(jit_compile=True, autograph=False)
def _ascend(
    state: _State,
    images: tf.Tensor,
    gradient: tf.Tensor,
    step_size: tf.Tensor,
    budget: tf.Tensor,
    lowest: tf.Tensor,
    weights: _Weights,
    support: Support,
) -> _State:
    """One step from Φ, with ∂l0/∂x̃ given, [B, H, W, C].

    Small entries are exp 2Φ, and 2η is what their logarithms move by: the multipliers are found on those.
    """
    rate = 2.0 * step_size
    kept = lowest * tf.cast(images > 0, tf.float32)
    climb = tf.clip_by_value(rate * gradient, -_LARGEST_CLIMB, _LARGEST_CLIMB)
    # ν: a full pixel does not climb, and what it is over-full by goes; −∂x̃_j/∂ν_j is what arrives, and what stays if it
    # has somewhere to go.
    slope = state.image - state.stays * tf.math.divide_no_nan(state.stays, images)
    settle = tf.nn.relu(climb) + _OVER_RELAXATION * (state.image - weights.capacity) / tf.maximum(slope, _LEAST_SLOPE)
    fill = state.image / weights.capacity
    climb -= tf.where(fill > _NEARLY_FULL, tf.clip_by_value(settle, 0.0, rate * weights.beta), 0.0)
    # λ: where the rows, each brought back to its mass, cost the budget.
    rings = support.weighted_rings(state.plan, tf.exp(climb))
    least = tf.maximum(-state.multiplier, -_LARGEST_RETURN / support.max_cost)
    change = budget_multiplier(rings, images, budget[:, None, None, None], state.change, _NEWTON_STEPS, least)
    change = tf.minimum(change, rate * weights.gamma)
    # ρ: what brings a row back to its mass.
    sent, _, _ = moments(rings, change)
    rows = tf.math.log(tf.maximum(images, _LEAST_MASS)) - tf.math.log(tf.maximum(sent, _LEAST_MASS))
    rows = tf.clip_by_value(rows, -rate * weights.alpha, rate * weights.alpha)
    plan = _add_duals(state.plan, rows, climb, change, kept, support)
    # Of second order: large entries are not exp 2Φ. What stays, x_i less all that is sent, makes up for it.
    stays = tf.maximum(images - row_sums(tf.where(support.home, 0.0, plan)), kept)
    exact = support.home & (tf.abs(rows) < rate * weights.alpha)[:, None]
    plan = tf.where(exact, stays[:, None], plan)
    return _State(plan, support.push_forward(plan), stays, state.multiplier + change, change)


def _add_duals(
    plan: tf.Tensor, source: tf.Tensor, target: tf.Tensor, multiplier: tf.Tensor, lowest: tf.Tensor, support: Support
) -> tf.Tensor:
    """Returns the plan of Φ_ij + ½ (u_i + v_j − λ C_ij), of a plan ½(tanh Φ + 1) that is 0 off the image.

    With t = Π exp(u + v − λ C), it is t / (1 − Π + t): no entry's logarithm or exponential is computed.

    Args:
      plan: Π, [B, T, H, W, C].
      source: u, [B, H, W, C].
      target: v, [B, H, W, C].
      multiplier: λ, [B, 1, 1, 1].
      lowest: What no entry falls below, [B, H, W, C].
      support: The support of the plan.
    """
    source_factor = tf.exp(source)[:, None]

    def move(entry: tf.Tensor, target_factor: tf.Tensor, cost: tf.Tensor) -> tf.Tensor:
        # The source's factor, which may be large where the others are small, comes last.
        moved = entry * (target_factor * tf.exp(-multiplier[:, None] * cost)) * source_factor
        return tf.maximum(moved / (tf.maximum(1.0 - entry, _LEAST_ROOM) + moved), lowest[:, None])

    return support.map_targets(move, plan, tf.exp(target))


@tf.function(jit_compile=True, autograph=False)
def _exact_rows(plan: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """A last step on (6) alone: rows that send more than their mass, by the second order above, do so no longer."""
    return plan * tf.math.divide_no_nan(images, tf.maximum(row_sums(plan), images))[:, None]
