"""Mirror ascent on the transport plan: exponentiated gradient with exact projections onto rows and budget.

The plan is Π_ij = x_i exp(Φ_j − λ C_ij) / Z_i. Rows and Π ≥ 0 hold by construction, and λ is the dual of the budget. An
exponentiated-gradient step on Π with image gradient g multiplies Π_ij by exp(η g_j): it adds η g to Φ. So the state is
one image-sized potential, and one iteration is

    Φ ← Φ + η_t (g / max|g| − ρ [x̃ > 1])                   ascent, and an exact penalty for the capacity
    λ ← the root of ⟨Π, C⟩ = budget (0 if that binds not)    the exact KL projection, transport/gibbs.py
    x̃ ← Πᵀ1

which costs less than the classifier's own gradient, whatever the window. η_t falls geometrically. At the end a few dual
steps with Φ held, ν_j ← max(ν_j + log x̃_j, 0), bring the best plan into capacity and budget together.
"""

from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from wasser_tf.attacks import losses
from wasser_tf.attacks.base import Attack, Gradient, Perturbation, Problem, image_gradient, where_image
from wasser_tf.attacks.radius_schedule import RadiusSchedule
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.gibbs import GibbsPlan, gibbs_plan, project_to_budget
from wasser_tf.transport.neighbourhood import Support

_COLD_START_NEWTON_STEPS = 20
# The ascent starts at a small part of the budget: the plan of largest entropy is a blur, and a blur that uses all of a
# large budget is a poor place to take gradients at.
_START_BUDGET = 0.05
# ρ: above 1, the largest entry of the scaled gradient, so that no pixel gains by being over-full.
_CAPACITY_PENALTY = 1.25


class _State(NamedTuple):
    """The ascent's plan, and the best of those it has been through with its merit [B]."""

    now: GibbsPlan
    best: GibbsPlan
    best_merit: tf.Tensor


class MirrorAscent(Attack):
    """Mirror ascent on the plan (see the module).

    Attributes:
      step_size: η of the first step, on gradients scaled to a maximum of 1; it falls geometrically to
        2 / iterations of that.
      loss: What is maximised: "margin", "cross_entropy" or "dlr".
      polish: Dual steps at the end, with the potential held, that bring the plan into capacity and budget together.
    """

    name: ClassVar[str] = "mirror_ascent"

    def __init__(
        self,
        threat_model: ThreatModel,
        *,
        iterations: int = 100,
        step_size: float = 10.0,
        loss: str = "margin",
        polish: int = 30,
        schedule: RadiusSchedule | None = None,
        stop_when_fooled: bool = False,
        seed: int = 0,
    ):
        super().__init__(
            threat_model, iterations=iterations, schedule=schedule, stop_when_fooled=stop_when_fooled, seed=seed
        )
        if not step_size > 0:
            raise ValueError(f"step_size must be above 0, got {step_size!r}.")
        if polish < 0:
            raise ValueError(f"polish must be at least 0, got {polish!r}.")
        self.step_size = step_size
        self.loss = loss
        self.polish = polish
        self._loss = losses.get(loss)
        self._final_step = min(2.0 / max(iterations, 1), 1.0)

    def perturb(self, problem: Problem) -> Perturbation:
        images, support, capacity = problem.images, problem.support, self.threat_model.capacity

        def step(iteration: tf.Tensor, state: _State) -> tuple[_State, tf.Tensor]:
            gradient = image_gradient(problem, state.now.image, self._loss)
            done = tf.cast(iteration, tf.float32) / self.iterations
            step_size = self.step_size * self._final_step**done
            budget = problem.budget(self.radius_at(iteration, problem))
            now = _ascend(state.now, images, gradient.image_gradient, step_size, budget, capacity, support)
            return _State(now, *_better(state, gradient, capacity)), gradient.fooled

        start = _start(images, problem.budget(self.radius_at(tf.constant(0), problem)), support)
        lowest = tf.fill(tf.shape(problem.radius), tf.float32.min)
        state, radius, used = self.iterate(step, _State(start, start, lowest), problem)
        best, _ = _better(state, image_gradient(problem, state.now.image, self._loss), capacity)
        if capacity is not None:
            best = _polish(best, images, problem.budget(radius), capacity, support, self.polish)
        plan = gibbs_plan(best.potential, best.multiplier, images, support)
        return Perturbation(plan=plan, raw=best.image, radius=radius, iterations=used)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "step_size": self.step_size, "loss": self.loss, "polish": self.polish}


def _better(state: _State, found: Gradient, capacity: float | None) -> tuple[GibbsPlan, tf.Tensor]:
    """Returns the better of the present plan, whose gradient is given, and the best so far, and its merit [B].

    The merit is what the steps climb: the loss less the penalty for over-full pixels. By the loss alone the best plan
    would be an early one that is far from legal.
    """
    merit = found.loss
    if capacity is not None:
        excess = tf.reduce_sum(tf.maximum(state.now.image - capacity, 0.0), axis=[1, 2, 3])
        merit -= _CAPACITY_PENALTY * tf.reduce_max(tf.abs(found.image_gradient), axis=[1, 2, 3]) * excess
    better = merit > state.best_merit
    best = tf.nest.map_structure(lambda new, old: where_image(better, new, old), state.now, state.best)
    return best, tf.maximum(merit, state.best_merit)


@tf.function(jit_compile=True)
def _start(images: tf.Tensor, budget: tf.Tensor, support: Support) -> GibbsPlan:
    """The plan of largest entropy within a small part of the budget."""
    multiplier = tf.zeros_like(budget)[:, None, None, None]
    budget = _START_BUDGET * budget
    return project_to_budget(tf.zeros_like(images), multiplier, images, budget, support, _COLD_START_NEWTON_STEPS)


@tf.function(jit_compile=True)
def _ascend(
    now: GibbsPlan,
    images: tf.Tensor,
    gradient: tf.Tensor,
    step_size: tf.Tensor,
    budget: tf.Tensor,
    capacity: float | None,
    support: Support,
) -> GibbsPlan:
    """One iteration on all images."""
    ascent = tf.math.divide_no_nan(gradient, tf.reduce_max(tf.abs(gradient), axis=[1, 2, 3], keepdims=True))
    if capacity is not None:
        ascent -= _CAPACITY_PENALTY * tf.cast(now.image > capacity, tf.float32)
    return project_to_budget(now.potential + step_size * ascent, now.multiplier, images, budget, support)


@tf.function(jit_compile=True)
def _polish(
    plan: GibbsPlan, images: tf.Tensor, budget: tf.Tensor, capacity: float, support: Support, steps: int
) -> GibbsPlan:
    """Alternating dual steps for capacity and budget; what they leave over, rounding mends."""

    def step(count: tf.Tensor, capacity_dual: tf.Tensor, projected: GibbsPlan) -> tuple:
        capacity_dual = tf.maximum(capacity_dual + tf.math.log(tf.maximum(projected.image / capacity, 1e-30)), 0.0)
        potential = plan.potential - capacity_dual
        return count + 1, capacity_dual, project_to_budget(potential, projected.multiplier, images, budget, support)

    start = (tf.constant(0), tf.zeros_like(images), plan)
    return tf.while_loop(lambda count, *_: count < steps, step, start)[2]
