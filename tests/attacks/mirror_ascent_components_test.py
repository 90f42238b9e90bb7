"""Mirror ascent against a reference of few lines in NumPy, component by component.

The reference has whole plans, in float64, and finds multipliers by bisection. So that both can be compared to float32,
projections inside the attack get more Newton steps than usual; that the usual number is enough is in gibbs_test.py.
"""

import math

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import MirrorAscent, RadiusSchedule, ThreatModel
from wasser_tf.attacks import losses, mirror_ascent
from wasser_tf.attacks.random_plan import random_potential
from wasser_tf.transport.rounding import round_to_feasible

SHAPE = (2, 3, 1)
PIXELS = 6
RULES = {"epsilon": 0.35, "kernel_size": 3}
RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(size=(PIXELS, 4)).astype(np.float32)
CENTRES = RNG.uniform(size=(4, PIXELS)).astype(np.float32)
# Full and nearly full pixels among others, and no two alike.
IMAGES = np.array(
    [[1.0, 0.3, 0.99, 0.0, 0.6, 0.2], [0.4, 0.8, 0.1, 1.0, 0.95, 0.5], [0.3, 0.2, 0.4, 0.1, 0.3, 0.25]], np.float32
).reshape(3, *SHAPE)


def curved(images):
    """Four logits with curvature, so that a path overshoots and the order of classes changes on the way."""
    flat = tf.reshape(images, [-1, PIXELS])
    far = tf.reduce_sum((flat[:, None] - CENTRES) ** 2, axis=2)
    return flat @ WEIGHTS - 1.5 * far


LABELS = np.argmax(curved(IMAGES), axis=1)
POSITIONS = np.array([(y, x) for y in range(2) for x in range(3)], float)
DISTANCE = np.linalg.norm(POSITIONS[:, None] - POSITIONS[None], axis=2)
NEAR = np.abs(POSITIONS[:, None] - POSITIONS[None]).max(axis=2) <= 1


USUAL = mirror_ascent.project_kl


@tf.function(jit_compile=True, autograph=False)
def exact(potential, multiplier, images, budget, support):
    return USUAL(potential, multiplier, images, budget, support, newton_steps=40)


rounded_alone = tf.function(round_to_feasible, jit_compile=True, autograph=False)


@pytest.fixture(autouse=True)
def _eager_with_exact_projections(monkeypatch):
    """All but the projections runs as it is written: cheaper than to compile a few iterations on six pixels."""
    monkeypatch.setattr(mirror_ascent, "project_kl", lambda *given, newton_steps=4: exact(*given[:5]))
    for name in ("_better", "_start", "_step", "_climb", "_polish"):
        monkeypatch.setattr(mirror_ascent, name, getattr(mirror_ascent, name).python_function)


def plan_within(potential, image, budget):
    """Returns the Gibbs plan [6, 6] of a potential with the least λ ≥ 0 that keeps the budget."""

    def at(multiplier):
        scores = np.where(NEAR, potential[None] - multiplier * DISTANCE, -np.inf)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        return image[:, None] * weights / weights.sum(axis=1, keepdims=True)

    low, high = 0.0, 1e3
    if (at(0.0) * DISTANCE).sum() <= budget:
        return at(0.0)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if (at(middle) * DISTANCE).sum() > budget else (low, middle)
    return at(high)


class Reference:
    """One image's attack, as the module says it."""

    def __init__(self, attack, number, targets=None, labels=LABELS):
        self.attack, self.image = attack, IMAGES[number].ravel().astype(float)
        self.number, self.label = number, int(labels[number])
        self.target = None if targets is None else int(targets[number])
        self.capacity = attack.threat_model.capacity or np.inf
        self.loss = losses.get(attack.loss)

    def radius(self, iteration):
        schedule = self.attack.schedule
        if schedule is None:
            return self.attack.threat_model.epsilon
        grown = schedule.start * schedule.factor ** (iteration // schedule.every)
        return min(max(grown, schedule.minimum), schedule.maximum)

    def budget(self, iteration):
        return self.radius(iteration) * self.image.sum()

    def look(self, pixels, loss):
        """Returns the loss at an image, its gradient, and whether the attacker has what it wants."""
        image = tf.constant(pixels.reshape(1, *SHAPE), tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(image)
            logits = curved(image)
            if self.target is None:
                value = loss(logits, tf.constant([self.label]))
            else:
                value = -loss(logits, tf.constant([self.target]))
        best = int(np.argmax(logits))
        fooled = best != self.label if self.target is None else best == self.target
        return float(value[0]), tape.gradient(value, image).numpy().ravel().astype(float), fooled

    def merit(self, pixels, loss):
        value, gradient, _ = self.look(pixels, loss)
        if self.capacity == np.inf:
            return value
        return value - 2 * np.abs(gradient).max() * np.maximum(pixels - self.capacity, 0).sum()

    def noisy(self, pixels, loss, iteration):
        total = 0.0
        for sample in range(4 if self.attack.gradient_noise else 0):
            noise = tf.random.stateless_normal(SHAPE, [self.attack.seed * 4 + sample, iteration]).numpy().ravel()
            total += self.look(pixels + np.where(pixels > 0, self.attack.gradient_noise * noise, 0), loss)[1]
        return total

    def eta(self, iteration):
        iterations = self.attack.iterations
        entropic = math.log(max(4 * self.image.sum() / self.budget(iteration) - 4, 1))
        entropic *= min(entropic / 3.55, 1) ** 2
        first = self.attack.step_size or 78 / math.sqrt((iterations + 10) * max(entropic, 0.3))
        return first * min(2 / iterations, 1) ** (iteration / iterations)

    def climbed(self, potential, pixels, gradient, eta):
        climb = eta * gradient / max(np.abs(gradient).max(), 1e-30)
        for j, fill in enumerate(pixels / self.capacity):
            if fill > 0.98:
                climb[j] -= min(max(climb[j], 0) + 2 * math.log(fill), 1.25 * eta)
        return potential + climb

    def polished(self, potential, pixels, budget):
        steps = min(self.attack.iterations, 30) if self.attack.polish is None else self.attack.polish
        dual, plan = np.zeros(PIXELS), None
        if self.capacity == np.inf:
            steps = 0
        for _ in range(steps):
            dual = np.maximum(dual + 1.7 * np.log(np.maximum(pixels / self.capacity, 1e-30)), 0)
            plan = plan_within(potential - dual, self.image, budget)
            pixels = plan.sum(axis=0)
        return pixels, potential - dual

    def ascend(self, loss, potential, ramped):
        attack, iterations = self.attack, self.attack.iterations
        pixels = plan_within(potential, self.image, 0.05 * self.budget(0)).sum(axis=0)
        best, best_merit, used, radius = (potential, pixels), -np.inf, 0, self.radius(0)
        for iteration in range(iterations):
            _, gradient, fooled = self.look(pixels, loss)
            merit = self.merit(pixels, loss)
            fooled = fooled and merit > 0
            if ramped and attack.ramp_from > 1 and iteration < 0.3 * iterations:
                fooled = False
            if fooled and (attack.stop_when_fooled or attack.schedule):
                break
            if iteration >= iterations // 2 and merit > best_merit:
                best, best_merit = (potential, pixels), merit
            gradient = gradient + self.noisy(pixels, loss, iteration)
            potential = self.climbed(potential, pixels, gradient, self.eta(iteration))
            share = attack.ramp_from + (1 - attack.ramp_from) * min((iteration + 1) / (0.3 * iterations), 1)
            budget = self.budget(iteration) * (share if ramped else 1)
            pixels = plan_within(potential, self.image, budget).sum(axis=0)
            used, radius = used + 1, self.radius(iteration)
        if self.merit(pixels, loss) > best_merit:
            best = potential, pixels
        pixels, potential = self.polished(*best, radius * self.image.sum())
        return pixels, potential, radius, used

    def run(self):
        """Returns the raw image, its radius and the iterations."""
        attack = self.attack
        if attack.restarts == 1:
            pixels, _, radius, used = self.ascend(self.loss, np.zeros(PIXELS), False)
            return pixels, radius, used
        clean = curved(tf.constant(self.image.reshape(1, *SHAPE), tf.float32))[0].numpy()
        wrong = [c for c in np.argsort(-clean) if c != self.label]
        best, best_margin, total = None, -np.inf, 0
        for restart in range(attack.restarts):
            loss, start = self.loss, np.zeros(PIXELS)
            if self.target is None and 2 <= restart < 4:
                loss = losses.towards(tf.constant([wrong[restart - 1]]))
            if restart >= (4 if self.target is None else 2):
                start = self.random_start(attack.seed + restart)
            end = self.ascend(loss, start, restart == 1)
            total += end[3]
            margin = self.rounded_margin(*end)
            if margin > best_margin:
                best, best_margin = end, margin
        return best[0], best[2], total

    def random_start(self, seed):
        problem = MirrorAscent(self.attack.threat_model).problem(curved, tf.constant(IMAGES), tf.constant(LABELS))
        return random_potential(seed, problem)[self.number].numpy().ravel().astype(float)

    def rounded_margin(self, pixels, potential, radius, used):
        problem = MirrorAscent(self.attack.threat_model).problem(curved, tf.constant(IMAGES), tf.constant(LABELS))
        plan = plan_within(potential, self.image, radius * self.image.sum())
        window = np.zeros((1, 9, *SHAPE), np.float32)
        for i, (y, x) in enumerate(POSITIONS.astype(int)):
            for j, (v, u) in enumerate(POSITIONS.astype(int)):
                if NEAR[i, j]:
                    window[0, (v - y + 1) * 3 + (u - x + 1), y, x, 0] = plan[i, j]
        image = tf.constant(self.image.reshape(1, *SHAPE), tf.float32)
        feasible = rounded_alone(
            tf.constant(window), image, problem.support, tf.constant(radius, tf.float32), problem.threat_model
        ).image
        logits = curved(feasible)
        if self.target is None:
            return float(losses.margin(logits, tf.constant([self.label]))[0])
        return -float(losses.margin(logits, tf.constant([self.target]))[0])


def compare(settings, rules=None, targets=None, labels=LABELS, atol=2e-3):
    attack = MirrorAscent(ThreatModel(**{**RULES, **(rules or {})}), **settings)
    problem = attack.problem(
        curved, tf.constant(IMAGES), tf.constant(labels), targets=None if targets is None else tf.constant(targets)
    )
    found = attack.perturb(problem)
    wanted = [Reference(attack, number, targets, labels).run() for number in range(len(IMAGES))]
    np.testing.assert_array_equal(found.iterations, [used for _, _, used in wanted])
    np.testing.assert_allclose(found.radius, [radius for _, radius, _ in wanted], rtol=1e-5)
    np.testing.assert_allclose(found.raw.numpy().reshape(-1, PIXELS), [pixels for pixels, _, _ in wanted], atol=atol)
    return found


@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_the_path_the_best_plan_and_the_polish(iterations):
    compare({"iterations": iterations})


@pytest.mark.parametrize("capacity", [None, 1.3])
def test_capacities_other_than_1(capacity):
    compare({"iterations": 6}, {"capacity": capacity})


@pytest.mark.parametrize("settings", [{"polish": 0}, {"polish": 3}, {"step_size": 1.5}, {"step_size": 40.0}], ids=str)
def test_settings_of_the_path(settings):
    compare({"iterations": 6, **settings})


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
def test_losses(loss):
    compare({"iterations": 5, "loss": loss})


def test_towards_a_target():
    compare({"iterations": 5, "loss": "cross_entropy"}, targets=(LABELS + 1) % 4)


def test_gradients_are_averaged_over_noise_that_the_seed_gives():
    compare({"iterations": 4, "gradient_noise": 0.3, "seed": 2})


@pytest.mark.parametrize("restarts", [2, 5])
def test_restarts_are_warm_started_then_towards_each_class_then_random(restarts):
    compare({"iterations": 3, "restarts": restarts})


@pytest.mark.parametrize("ramp_from", [0.4, 3.0])
def test_the_second_start_ramps(ramp_from):
    compare({"iterations": 7, "restarts": 2, "ramp_from": ramp_from})


def test_the_second_start_from_a_larger_ball_does_not_stop_in_it():
    compare({"iterations": 7, "restarts": 2, "ramp_from": 3.0, "stop_when_fooled": True})


def test_restarts_towards_a_target_are_random_from_the_third():
    compare({"iterations": 3, "restarts": 4, "seed": 3}, targets=(LABELS + 1) % 4)


def test_an_image_stops_when_it_is_fooled():
    found = compare({"iterations": 8, "stop_when_fooled": True, "step_size": 0.4})
    assert len(set(found.iterations.numpy())) > 1


def test_an_image_stops_at_the_radius_that_fools_it():
    schedule = RadiusSchedule(start=0.02, factor=1.8, every=2, minimum=0.03, maximum=0.4)
    found = compare({"iterations": 12, "schedule": schedule})
    assert len(set(found.radius.numpy())) > 1


@pytest.mark.parametrize("polish", [0, 3])
def test_a_resumed_path_starts_with_the_whole_budget_and_returns_its_last_plan(polish):
    attack = MirrorAscent(ThreatModel(**RULES), iterations=4, polish=polish)
    problem = attack.problem(curved, tf.constant(IMAGES), tf.constant(LABELS))
    start = np.random.default_rng(2).normal(size=IMAGES.shape).astype(np.float32)
    images, potentials = attack.resume(problem, tf.constant(start))
    for number in range(len(IMAGES)):
        reference = Reference(attack, number)
        budget = reference.budget(0)
        potential = start[number].ravel().astype(float)
        pixels = plan_within(potential, reference.image, budget).sum(axis=0)
        for iteration in range(4):
            _, gradient, _ = reference.look(pixels, losses.margin)
            potential = reference.climbed(potential, pixels, gradient, reference.eta(iteration))
            pixels = plan_within(potential, reference.image, budget).sum(axis=0)
        np.testing.assert_allclose(potentials[number].numpy().ravel(), potential - potential.max(), atol=2e-2)
        if polish:
            pixels, _ = reference.polished(potential, pixels, budget)
            np.testing.assert_allclose(images[number].numpy().ravel(), pixels, atol=3e-2)
    assert images.numpy().max() <= 1


def test_the_usual_newton_steps_of_each_projection(monkeypatch):
    seen = []

    def spy(potential, multiplier, images, budget, support, newton_steps=4):
        seen.append(int(newton_steps))
        return exact(potential, multiplier, images, budget, support)

    monkeypatch.setattr(mirror_ascent, "project_kl", spy)
    attack = MirrorAscent(ThreatModel(**RULES), iterations=2)
    problem = attack.problem(curved, tf.constant(IMAGES), tf.constant(LABELS))
    attack.perturb(problem)
    # The start, two steps, two polishing.
    assert seen == [6, 4, 4, 2, 2]
    seen.clear()
    attack.resume(problem, tf.zeros_like(problem.images))
    assert seen == [10, 4, 4, 2, 2]


@pytest.mark.parametrize(("iterations", "polish", "steps"), [(3, None, 3), (40, None, 30), (40, 50, 50), (3, 0, 0)])
def test_polishing_steps_default_to_the_iterations_up_to_30(monkeypatch, iterations, polish, steps):
    seen = []
    monkeypatch.setattr(mirror_ascent, "_polish", lambda *given: seen.append(given[-1]))
    attack = MirrorAscent(ThreatModel(**RULES), iterations=iterations, polish=polish)
    attack._polished(None, attack.problem(curved, tf.constant(IMAGES), tf.constant(LABELS)), None)
    assert seen == [steps]


def test_the_start_is_within_a_twentieth_of_the_first_budget(monkeypatch):
    seen = []
    monkeypatch.setattr(mirror_ascent, "_start", lambda *given: seen.append(given[2].numpy()))
    attack, radius = MirrorAscent(ThreatModel(**RULES)), np.array([0.1, 0.2, 0.4], np.float32)
    problem = attack.problem(curved, tf.constant(IMAGES), tf.constant(LABELS), tf.constant(radius))
    attack._start(tf.zeros_like(problem.images), problem)
    np.testing.assert_allclose(seen[0], 0.05 * radius * IMAGES.sum(axis=(1, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize(("iterations", "step_size"), [(1, None), (54, None), (10, 3.0)])
def test_step_sizes_follow_the_budget_up_to_a_bound(iterations, step_size):
    attack = MirrorAscent(ThreatModel(**RULES), iterations=iterations, step_size=step_size)
    images = np.concatenate([IMAGES[:1], IMAGES[:1], np.zeros_like(IMAGES[:1]), IMAGES[:1]])
    # The second budget binds nothing, and the third image has no mass: both have the multiplier 0.
    radius = tf.constant([0.01, 1e6, 0.1, 0.3])
    problem = attack.problem(curved, tf.constant(images), tf.zeros(4, tf.int32), radius=radius)
    for iteration in (0, iterations - 1):
        found = attack._step_size(tf.constant(iteration), problem)
        decay = min(2 / iterations, 1) ** (iteration / iterations)
        if step_size is not None:
            assert float(found) == pytest.approx(step_size * decay)
            continue
        multiplier = np.array([math.log(4 / 0.01 - 4), 0.3, 0.3, math.log(4 / 0.3 - 4) ** 3 / 3.55**2])
        wanted = 78 / math.sqrt(iterations + 10) * decay / np.sqrt(multiplier)
        np.testing.assert_allclose(found.numpy().ravel(), wanted, rtol=1e-5)


def test_steps_of_large_images_are_longer():
    attack, steps = MirrorAscent(ThreatModel(epsilon=0.01, kernel_size=3)), []
    for side in (16, 32, 64):
        images = tf.ones([1, side, side, 3])
        problem = attack.problem(
            lambda images: images[:, 0, 0], images, tf.zeros(1, tf.int32), radius=tf.constant([0.01])
        )
        steps.append(float(attack._step_size(tf.constant(0), problem)[0, 0, 0, 0]))
    # Of 768, 3,072 and 12,288 values.
    assert steps[1] == pytest.approx(steps[0], rel=1e-5) and steps[2] == pytest.approx(4**0.25 * steps[1], rel=1e-5)
