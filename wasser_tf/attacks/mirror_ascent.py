"""Mirror ascent on the transport plan: exponentiated gradient with exact projections onto rows and budget.

The plan is Π_ij = x_i exp(Φ_j − λ C_ij) / Z_i. Rows and Π ≥ 0 hold by construction, and λ is the dual of the budget. An
exponentiated-gradient step on Π with image gradient g multiplies Π_ij by exp(η g_j): it adds η g to Φ. So the state is
one image-sized potential, and one iteration is

    a ← η_t g / max|g|                                       the climb
    a_j ← a_j − max(a_j, 0) − 2 log x̃_j   where x̃_j is full   it settles at its capacity: a dual step, over-relaxed
    Φ ← Φ + a
    λ ← the root of ⟨Π, C⟩ = budget (0 if that binds not)    the exact KL projection, transport/gibbs.py
    x̃ ← Πᵀ1

none of which builds a plan. η_t falls geometrically from η_0 = 78 / √((I + 10) λ_0), where
λ_0 = log(4 m(x) / budget − 4) is the multiplier of the budget in the plan of largest entropy: the smaller the budget,
the fewer pixels receive mass, and the shorter the steps must be. Below 3.55 (ε above 0.1) λ_0 counts as λ_0³ / 3.55²,
and at least 0.3. For images of n > 3,072 values, whose largest gradient stands out more, η_0 is (n / 3072)^¼ times as
long. At the end a few dual steps with Φ held, ν_j ← max(ν_j + 1.7 log x̃_j, 0), bring the best plan into
capacity and budget together.
"""

from typing import ClassVar, NamedTuple

import tensorflow as tf

from wasser_tf.attacks import losses
from wasser_tf.attacks.base import Attack
from wasser_tf.attacks.problem import Gradient, Perturbation, Problem, choose, image_gradient
from wasser_tf.attacks.random_plan import random_potential
from wasser_tf.attacks.scoring import rounded
from wasser_tf.attacks.step_size import relative_step
from wasser_tf.runtime.arguments import check_number, check_whole
from wasser_tf.transport.gibbs import GibbsPlan, guess_multiplier, project_kl
from wasser_tf.transport.neighbourhood import Support

_COLD_START_NEWTON_STEPS = 6
# Newton steps where an ascent is resumed; the iterations correct what its first plan misses of the budget.
_RESUMING_NEWTON_STEPS = 10
# The ascent starts at a small part of the budget: the plan of largest entropy is a blur, and a blur that uses all of a
# large budget is a poor place to take gradients at.
_START_BUDGET = 0.05
# The share of the iterations in which the second start comes to the whole budget: at large budgets that is the better
# way in where the classifier's gradients mislead far from the image.
_RAMP = 0.3
# Noisy gradients averaged with the one at the plan.
_NOISE_SAMPLES = 4
# A pixel this full no longer climbs, and is settled towards its capacity.
_NEARLY_FULL = 0.98
# In units of the step: above 1, so that no pixel gains by being over-full, and bounded, so that none is emptied.
_LARGEST_SETTLEMENT = 1.25
# In units of the relative step: from sweeps (docs/log/mirror_ascent.md).
_FIRST_STEP = 78.0
# λ_0 below which the step grows faster with the budget.
_STEEPER_BELOW = 3.55
# Of the dual steps at the end, which converge slowly at 1.
_OVER_RELAXATION = 1.7
# What is over capacity will have to move, at most from where it gains most to where it costs most: 2 max|gradient|.
_EXCESS_WEIGHT = 2.0


class _State(NamedTuple):
    """The ascent's plan, and the best of those it has been through with its merit [B]."""

    now: GibbsPlan
    best: GibbsPlan
    best_merit: tf.Tensor


class _End(NamedTuple):
    """What one ascent found, and the margin [B] of the feasible example it makes, by which restarts are compared."""

    found: Perturbation
    margin: tf.Tensor


class MirrorAscent(Attack):
    """Mirror ascent on the transport plan (see the module).

    The settings that all attacks share are described in `Attack`; `iterations` counts the steps of one start.

    Attributes:
      step_size: η of the first step, on gradients scaled to a maximum of 1; it falls geometrically to 2 / iterations of
        that. By default it follows from the number of iterations, the size of the images and each image's budget (see
        the module).
      loss: What is maximised: "margin", "cross_entropy" or "dlr".
      restarts: The number of starts, from 1 to 1000; the best end counts. The first two ascend the loss, the second
        from smaller radii (see `ramp_from`). Each of the others ascends z_t − z_y for one class t, from the second in
        the order of their logits on the clean image (multi-targeted, Gowal et al. 2019); after the last class they
        ascend the loss again, from a random plan.
      gradient_noise: Standard deviation, in pixel values, of the noise that gradients are averaged over (with 4 samples
        an iteration costs 5 gradients). Optima of piecewise linear classifiers lie on kinks, where the gradient of one
        piece misleads and the average does not. 0 for the gradient alone.
      ramp_from: The share of the budget at which the second start begins. Above 1 it comes down from a larger ball, in
        which the image may be fooled, to its own.
      polish: Dual steps at the end, with the potential held, that bring the plan into capacity and budget together. By
        default as many as iterations, at most 30.

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data, models
    >>> images = data.load("digits").test.images[:2]
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> labels = classifier.predict(images, verbose=0).argmax(axis=1)
    >>> attack = wasser_tf.MirrorAscent(wasser_tf.ThreatModel(epsilon=0.2, kernel_size=3), iterations=5)
    >>> result = attack(classifier, images, labels)
    >>> bool(result.feasibility.feasible().all())
    True
    """

    name: ClassVar[str] = "mirror_ascent"
    preferred_for_checks: ClassVar[bool] = True

    iterations: int = 100
    step_size: float | None = None
    loss: str = "margin"
    restarts: int = 1
    gradient_noise: float = 0.0
    ramp_from: float = _START_BUDGET
    polish: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size is not None:
            check_number("step_size", self.step_size, above=0)
        losses.get(self.loss)
        # Each is a part of the graph.
        check_whole("restarts", self.restarts, least=1, most=1000)
        check_number("gradient_noise", self.gradient_noise, least=0)
        check_number("ramp_from", self.ramp_from, above=0)
        if self.polish is not None:
            check_whole("polish", self.polish, least=0)

    @property
    def _loss(self) -> losses.AttackLoss:
        return losses.get(self.loss)

    def check_warm_start(self) -> None:
        if self.restarts > 1 or self.gradient_noise or self.schedule is not None:
            raise ValueError(
                "warm_start needs mirror_ascent with restarts=1, gradient_noise=0 and a fixed radius: its ascent must "
                "have one end to continue from."
            )

    def perturb(self, problem: Problem) -> Perturbation:
        if self.restarts == 1:
            return self._ascend(problem, self._loss, tf.zeros_like(problem.images), None).found
        # Not traced one by one: all restarts are one loop.
        clean_logits = problem.logits_fn(problem.images)

        def restarted(restart: tf.Tensor, best: _End) -> tuple[tf.Tensor, _End]:
            start_potential = self._start_potential(problem, restart, clean_logits.shape[1])
            end = self._ascend(problem, self._goal(problem, restart, clean_logits), start_potential, restart == 1)
            used = best.found.iterations + end.found.iterations
            best = choose(end.margin > best.margin, end, best)
            return restart + 1, best._replace(found=best.found._replace(iterations=used))

        start = self._start(tf.zeros_like(problem.images), problem)
        nothing = Perturbation(start, start.image, problem.radius, tf.zeros_like(problem.labels))
        lowest = tf.fill(tf.shape(problem.radius), tf.float32.min)
        return tf.while_loop(
            lambda restart, best: restart < self.restarts, restarted, (tf.constant(0), _End(nothing, lowest))
        )[1].found

    def _start(self, potential: tf.Tensor, problem: Problem) -> GibbsPlan:
        """Returns the plan of a potential within a small part of the first budget."""
        budget = _START_BUDGET * problem.budget(self.radius_at(tf.constant(0), problem))
        return _start(potential, problem.images, budget, problem.support, tf.constant(_COLD_START_NEWTON_STEPS))

    def _goal(self, problem: Problem, restart: tf.Tensor, clean_logits: tf.Tensor) -> losses.AttackLoss:
        """Returns what a restart climbs."""
        if problem.targets is not None:
            return self._loss
        classes = clean_logits.shape[1]
        # The class of rank 1 is the one that the margin begins with.
        rank = tf.clip_by_value(restart, 1, classes - 1)
        towards = losses.towards(losses.ranked_class(clean_logits, problem.labels, rank))
        one_class = (restart > 1) & (restart < classes)
        return lambda logits, labels: tf.where(one_class, towards(logits, labels), self._loss(logits, labels))

    def _start_potential(self, problem: Problem, restart: tf.Tensor, classes: int) -> tf.Tensor:
        """Returns Φ at the start of a restart: 0, or random once the classes are through, [B, H, W, C]."""
        zero = tf.zeros_like(problem.images)
        first_random = 2 if problem.targets is not None else max(classes, 2)
        if self.restarts <= first_random:
            return zero
        return tf.where(restart >= first_random, random_potential(self.seed + restart, problem), zero)

    def resume(self, problem: Problem, potential: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Ascends from where an earlier ascent ended: for training, whose classifier changes little between the two.

        The path begins within the whole budget, and its last plan is the one that counts: to find the best of so few
        would take one gradient more. Restarts and noise are left out.

        Args:
          problem: The batch.
          potential: Φ of each image's plan then, float32 [B, H, W, C]; 0 where there was none.

        Returns:
          The feasible images [B, H, W, C], and Φ of their plans, at most 0 and at least −690.
        """
        images, support, capacity = problem.images, problem.support, self.threat_model.capacity
        budget = problem.budget(problem.radius)

        def step(iteration: tf.Tensor, plan: GibbsPlan) -> tuple[GibbsPlan, tf.Tensor]:
            gradient = image_gradient(problem, plan.image, self._loss)
            step_size = self._step_size(iteration, problem)
            following = _climb(plan, gradient.image_gradient, images, step_size, budget, capacity, support)
            return following, gradient.fooled

        start = _start(potential, images, budget, support, tf.constant(_RESUMING_NEWTON_STEPS))
        plan, radius, used = self.iterate(step, start, problem)
        polished = self._polished(plan, problem, budget)
        return rounded(Perturbation(polished, polished.image, radius, used), problem).image, plan.potential

    def _polished(self, plan: GibbsPlan, problem: Problem, budget: tf.Tensor) -> GibbsPlan:
        """Returns a plan brought into capacity and budget together, if there is a capacity."""
        capacity = self.threat_model.capacity
        if capacity is None:
            return plan
        steps = min(self.iterations, 30) if self.polish is None else self.polish
        return _polish(plan, problem.images, budget, capacity, problem.support, steps)

    def _step_size(self, iteration: tf.Tensor, problem: Problem) -> tf.Tensor:
        """Returns η of an iteration, [B, 1, 1, 1] or one for all images."""
        decay = min(2.0 / self.iterations, 1.0) ** (tf.cast(iteration, tf.float32) / self.iterations)
        if self.step_size is not None:
            return self.step_size * decay
        budget = problem.budget(self.radius_at(iteration, problem))
        return _FIRST_STEP * decay * relative_step(self.iterations, problem.images, budget, _STEEPER_BELOW)

    def _ascend(
        self, problem: Problem, loss: losses.AttackLoss, start_potential: tf.Tensor, ramped: tf.Tensor | None
    ) -> "_End":
        """Ascends a loss once from a potential; whether `ramp_from` holds is None where there is but one ascent."""
        images, support, capacity = problem.images, problem.support, self.threat_model.capacity

        def budget_at(iteration: tf.Tensor) -> tf.Tensor:
            budget = problem.budget(self.radius_at(iteration, problem))
            if ramped is None:
                return budget
            done = tf.cast(iteration + 1, tf.float32) / (_RAMP * self.iterations)
            share = self.ramp_from + (1.0 - self.ramp_from) * tf.minimum(done, 1.0)
            return tf.where(ramped, share * budget, budget)

        def step(iteration: tf.Tensor, state: _State) -> tuple[_State, tf.Tensor]:
            gradient = image_gradient(problem, state.now.image, loss)
            step_size = self._step_size(iteration, problem)
            late = iteration >= self.iterations // 2
            climbed = gradient.image_gradient + self._noisy_gradients(problem, state.now.image, loss, iteration)
            budget = budget_at(iteration)
            following, merit = _step(state, gradient, climbed, images, step_size, budget, late, capacity, support)
            fooled = gradient.fooled & (merit > 0)
            if ramped is not None and self.ramp_from > 1.0:
                # In a larger ball it counts for nothing; the plan at hand is of the iteration before.
                fooled &= ~ramped | (tf.cast(iteration, tf.float32) >= _RAMP * self.iterations)
            return following, fooled

        start = self._start(start_potential, problem)
        lowest = tf.fill(tf.shape(problem.radius), tf.float32.min)
        state, radius, used = self.iterate(step, _State(start, start, lowest), problem)
        best = _better(state, image_gradient(problem, state.now.image, loss), capacity)
        best = self._polished(best, problem, problem.budget(radius))
        found = Perturbation(plan=best, raw=best.image, radius=radius, iterations=used)
        margin = lowest
        if ramped is not None:
            margin = problem.margin(problem.logits_fn(rounded(found, problem).image))
        return _End(found, margin)

    def _noisy_gradients(
        self, problem: Problem, images: tf.Tensor, loss: losses.AttackLoss, iteration: tf.Tensor
    ) -> tf.Tensor | float:
        """Returns the sum of the loss's gradients at images with noise where they hold mass, [B, H, W, C]."""
        if not self.gradient_noise:
            return 0.0
        total = tf.zeros_like(images)
        for sample in range(_NOISE_SAMPLES):
            # The same for all images, so that none depends on its company.
            seed = tf.stack([self.seed * _NOISE_SAMPLES + sample, iteration])
            noise = tf.where(images > 0, self.gradient_noise * tf.random.stateless_normal(images.shape[1:], seed), 0.0)
            total += image_gradient(problem, images + noise, loss).image_gradient
        return total


@tf.function(jit_compile=True, autograph=False)
def _better(state: _State, found: Gradient, capacity: float | None) -> GibbsPlan:
    """Returns the better of the present plan, whose gradient is given, and the best so far."""
    return choose(_merit(found, state.now.image, capacity) > state.best_merit, state.now, state.best)


def _merit(found: Gradient, images: tf.Tensor, capacity: float | None) -> tf.Tensor:
    """Returns the loss less what moving the mass above the capacity can cost, [B]: what the best plan is chosen by."""
    if capacity is None:
        return found.loss
    excess = tf.reduce_sum(tf.maximum(images - capacity, 0.0), axis=[1, 2, 3])
    return found.loss - _EXCESS_WEIGHT * tf.reduce_max(tf.abs(found.image_gradient), axis=[1, 2, 3]) * excess


@tf.function(jit_compile=True, autograph=False)
def _start(
    potential: tf.Tensor, images: tf.Tensor, budget: tf.Tensor, support: Support, newton_steps: tf.Tensor
) -> GibbsPlan:
    """The plan of a potential within a budget; of potential 0, it is the one of largest entropy."""
    return project_kl(potential, guess_multiplier(images, budget), images, budget, support, newton_steps)


@tf.function(jit_compile=True, autograph=False)
def _step(
    state: _State,
    found: Gradient,
    gradient: tf.Tensor,
    images: tf.Tensor,
    step_size: tf.Tensor,
    budget: tf.Tensor,
    late: tf.Tensor,
    capacity: float | None,
    support: Support,
) -> tuple[_State, tf.Tensor]:
    """One iteration along a gradient, given what was found at the present plan, whose merit [B] is returned too.

    All in one compiled function: between small ones, a graph would pass image-sized tensors through memory.
    """
    now = state.now
    merit = _merit(found, now.image, capacity)
    # Before the path's second half the best is not kept: the budget may not be used yet.
    better = late & (merit > state.best_merit)
    best = choose(better, now, state.best)
    best_merit = tf.where(better, merit, state.best_merit)
    return _State(_climb(now, gradient, images, step_size, budget, capacity, support), best, best_merit), merit


@tf.function(jit_compile=True, autograph=False)
def _climb(
    now: GibbsPlan,
    gradient: tf.Tensor,
    images: tf.Tensor,
    step_size: tf.Tensor,
    budget: tf.Tensor,
    capacity: float | None,
    support: Support,
) -> GibbsPlan:
    """The climb, the settling of full pixels and the projection onto the budget (see the module)."""
    scale = tf.reduce_max(tf.abs(gradient), axis=[1, 2, 3], keepdims=True)
    climb = step_size * tf.math.divide_no_nan(gradient, scale)
    if capacity is not None:
        fill = now.image / capacity
        settle = tf.nn.relu(climb) + 2.0 * tf.math.log(tf.maximum(fill, _NEARLY_FULL))
        climb -= tf.where(fill > _NEARLY_FULL, tf.minimum(settle, _LARGEST_SETTLEMENT * step_size), 0.0)
    return project_kl(now.potential + climb, now.multiplier, images, budget, support)


@tf.function(jit_compile=True, autograph=False)
def _polish(
    plan: GibbsPlan, images: tf.Tensor, budget: tf.Tensor, capacity: float, support: Support, steps: int
) -> GibbsPlan:
    """Alternates dual steps for capacity and budget; rounding corrects what remains."""

    def step(count: tf.Tensor, capacity_dual: tf.Tensor, projected: GibbsPlan) -> tuple:
        log_fill = tf.math.log(tf.maximum(projected.image / capacity, 1e-30))
        capacity_dual = tf.maximum(capacity_dual + _OVER_RELAXATION * log_fill, 0.0)
        potential = plan.potential - capacity_dual
        return (
            count + 1,
            capacity_dual,
            project_kl(potential, projected.multiplier, images, budget, support, newton_steps=2),
        )

    start = (tf.constant(0), tf.zeros_like(images), plan)
    return tf.while_loop(lambda count, *_: count < steps, step, start)[2]
