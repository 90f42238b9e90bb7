"""Steps of all attacks except mirror ascent, compared with short NumPy references in float64 on dense plans."""

import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import RadiusSchedule, ThreatModel, attacks
from wasser_tf.attacks import constrained_sinkhorn, losses, projected_sinkhorn
from wasser_tf.attacks.frank_wolfe import clipped_gradient
from wasser_tf.attacks.random_plan import random_potential
from wasser_tf.transport.gibbs import explicit_plan, gibbs_plan
from wasser_tf.transport.plan import identity_plan, row_sums, transport_cost
from wasser_tf.transport.sinkhorn import SinkhornDuals, SinkhornProjection, initial_duals

SHAPE = (2, 3, 1)
PIXELS = 6
RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(size=(PIXELS, 3)).astype(np.float32)
CENTRES = RNG.uniform(size=(3, PIXELS)).astype(np.float32)
IMAGES = np.array([[1.0, 0.3, 0.99, 0.0, 0.6, 0.2], [0.4, 0.8, 0.1, 0.9, 0.95, 0.5]], np.float32).reshape(2, *SHAPE)
POSITIONS = np.array([(y, x) for y in range(2) for x in range(3)], float)
COST = np.linalg.norm(POSITIONS[:, None] - POSITIONS[None], axis=2)
NEAR = np.abs(POSITIONS[:, None] - POSITIONS[None]).max(axis=2) <= 1
THREAT_MODEL = ThreatModel(epsilon=0.3, kernel_size=3)

pytestmark = pytest.mark.usefixtures("eagerly")


def curved(images):
    flat = tf.reshape(images, [-1, PIXELS])
    return flat @ WEIGHTS - 1.5 * tf.reduce_sum((flat[:, None] - CENTRES) ** 2, axis=2)


LABELS = np.argmax(curved(IMAGES), axis=1)


def problem_of(attack, **given):
    return attack.problem(curved, tf.constant(IMAGES), tf.constant(LABELS), **given)


def look(pixels, label, loss=losses.cross_entropy):
    """Returns the gradient of a loss at one image of six pixels."""
    image = tf.constant(pixels.reshape(1, *SHAPE), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(image)
        value = loss(curved(image), tf.constant([label]))
    return tape.gradient(value, image).numpy().ravel().astype(float)


def compare(attack, reference, atol=1e-4, **given):
    found = attack.perturb(problem_of(attack, **given))
    wanted = [reference(image.ravel().astype(float), label) for image, label in zip(IMAGES, LABELS, strict=True)]
    np.testing.assert_allclose(found.raw.numpy().reshape(-1, PIXELS), wanted, atol=atol)
    assert found.iterations.numpy().tolist() == [attack.iterations] * 2
    np.testing.assert_allclose(problem_of(attack).support.push_forward(found.plan), found.raw, atol=1e-5)
    return found


def wasser_attack_found(**settings):
    attack = attacks.WasserAttack(THREAT_MODEL, iterations=40, **settings)
    found = attack.perturb(problem_of(attack))
    plan, support = found.plan, problem_of(attack).support
    return {
        "raw": found.raw.numpy(),
        "alpha": float(np.abs(row_sums(plan).numpy() - IMAGES).max()),
        "beta": float(found.raw.numpy().max()),
        "gamma": float((transport_cost(plan, support).numpy() / IMAGES.sum(axis=(1, 2, 3))).max()),
    }


@pytest.mark.parametrize(("weight", "bound"), [("alpha", 1e-4), ("beta", 1.001), ("gamma", 0.305)])
def test_each_penalty_of_wasser_attack_keeps_its_constraint(weight, bound):
    kept, without = (wasser_attack_found(**given) for given in ({}, {weight: 0.0}))
    assert kept[weight] < bound < without[weight]


@pytest.mark.parametrize(
    "settings", [{"step_size": 0.1}, {"step_size": 4}, {"gradient_scale": 1.0}, {"gradient_scale": None}], ids=str
)
def test_the_scales_of_wasser_attack_change_its_path(settings):
    assert np.abs(wasser_attack_found(**settings)["raw"] - wasser_attack_found()["raw"]).max() > 1e-3


def clipped_look(pixels, label):
    gradient = look(np.clip(pixels, 0, 1), label)
    return np.where(pixels <= 1, gradient, 0)


def test_gradients_of_clipped_images_are_0_above_1():
    attack = attacks.FrankWolfe(THREAT_MODEL)
    images = IMAGES.copy()
    images[0, 0, 1], images[1, 1, 2], images[1, 0, 0] = 1.5, 1.25, -0.5
    found = clipped_gradient(problem_of(attack), tf.constant(images)).image_gradient.numpy().reshape(2, PIXELS)
    for row, image, label in zip(found, images, LABELS, strict=True):
        np.testing.assert_allclose(row, clipped_look(image.ravel(), label), rtol=1e-4, atol=1e-6)
    assert found[0, 1] == found[1, 5] == 0 and found[1, 0] != 0


def frank_wolfe(attack):
    def run(image, label):
        budget, temperature = 0.3 * image.sum(), attack.temperature
        plan = np.diag(image)
        for iteration in range(attack.iterations):
            gradient = clipped_look(plan.sum(axis=0), label)
            gradient = gradient / np.abs(gradient).max()

            def best(multiplier, gradient=gradient):
                scores = np.where(NEAR, (gradient[None] - multiplier * COST) / temperature, -np.inf)
                weights = np.exp(scores - scores.max(axis=1, keepdims=True))
                return image[:, None] * weights / weights.sum(axis=1, keepdims=True)

            most = (image[:, None] * np.where(NEAR, COST, 0)).sum()
            low, high = 0.0, max(2 * np.abs(gradient).max() + temperature * np.log(most / budget), 0.0)
            for _ in range(attack.bisections):
                if high - low < attack.tolerance:
                    break
                middle = (low + high) / 2
                low, high = (middle, high) if (best(middle) * COST).sum() > budget else (low, middle)
            plan = plan + 2 / (iteration + 2) * (best(high) - plan)
        return plan.sum(axis=0)

    return run


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.05, "tolerance": 1e-6},
        {"temperature": 0.3, "tolerance": 1e-6},
        {"temperature": 0.05, "bisections": 3},
        {"temperature": 0.05, "tolerance": 0.2},
    ],
    ids=str,
)
def test_frank_wolfe(settings):
    attack = attacks.FrankWolfe(THREAT_MODEL, iterations=4, **settings)
    compare(attack, frank_wolfe(attack), atol=1e-3)


def dual_projection(attack):
    def rows_of(values, image):
        plan = np.zeros((PIXELS, PIXELS))
        for i in range(PIXELS):
            reached = np.flatnonzero(NEAR[i])
            descending = np.sort(values[i, reached])[::-1]
            thresholds = (np.cumsum(descending) - image[i]) / np.arange(1, len(reached) + 1)
            if image[i] > 0:
                threshold = thresholds[np.flatnonzero(descending > thresholds)[-1]]
                plan[i, reached] = np.maximum(values[i, reached] - threshold, 0)
        return plan

    def run(image, label):
        budget, plan = 0.3 * image.sum(), np.diag(image)
        for _ in range(attack.iterations):
            gradient = clipped_look(plan.sum(axis=0), label)
            values = plan + attack.step_size * (gradient / np.abs(gradient).max())[None]
            low, high = 0.0, 10.0
            for _ in range(50):
                middle = (low + high) / 2
                above = (rows_of(values - middle * COST, image) * COST).sum() > budget
                low, high = (middle, high) if above else (low, middle)
            plan = rows_of(values - high * COST, image)
        return plan.sum(axis=0)

    return run


@pytest.mark.parametrize("step_size", [0.1, 0.6])
def test_dual_projection(step_size):
    attack = attacks.DualProjection(THREAT_MODEL, iterations=4, step_size=step_size)
    compare(attack, dual_projection(attack), atol=1e-3)


class Projection:
    """Returns what it is asked to project, scaled beyond the pixel range, with duals that count the calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, targets, images, budget, duals, support, **settings):
        self.calls.append((targets.numpy(), images.numpy(), budget.numpy(), duals, settings))
        number = float(len(self.calls))
        made = SinkhornDuals(number * images, tf.fill([2, 1, 1, 1], number))
        return SinkhornProjection(1.6 * targets - 0.3, made, tf.zeros([2], tf.int32))


@pytest.fixture
def projection(monkeypatch):
    made = Projection()
    for module in (projected_sinkhorn, constrained_sinkhorn):
        monkeypatch.setattr(module, "compiled_projection", made)
    return made


def stepped_l2(image, label, step_size):
    gradient = look(image, label)
    return image + step_size * gradient / np.sqrt((gradient**2).sum())


def stepped_linf(image, label, step_size):
    return image + step_size * np.sign(look(image, label))


def stepped_by_mass(image, label, step_size, mass):
    gradient = look(image, label)
    return np.minimum(image + step_size * mass * gradient / np.abs(gradient).max(), 60 / 6 * mass)


@pytest.mark.parametrize("capacity", [None, 1.0, 1.25])
@pytest.mark.parametrize("kind", ["linf", "l2", "constrained"])
def test_the_sinkhorn_attacks_step_project_and_clip(projection, kind, capacity):
    threat_model = ThreatModel(epsilon=0.3, kernel_size=3, capacity=capacity)
    settings = {"iterations": 2, "step_size": 0.4, "regularization": 50.0, "sinkhorn_iterations": 7}
    if kind == "constrained":
        attack = attacks.ConstrainedSinkhorn(threat_model, stop_when_fooled=False, **settings)
    else:
        attack = attacks.ProjectedSinkhorn(threat_model, norm=kind, stop_when_fooled=False, **settings)
    radius = tf.constant([0.3, 0.7])
    found = attack.perturb(problem_of(attack, radius=radius))
    image = IMAGES.reshape(2, PIXELS).astype(float)
    mass = image.sum(axis=1)
    expected_duals = initial_duals(tf.constant(IMAGES))
    assert len(projection.calls) == 2
    for call, (targets, images, budget, duals, given) in enumerate(projection.calls):
        for row in range(2):
            if kind == "constrained":
                wanted = stepped_by_mass(image[row], LABELS[row], 0.4, mass[row])
            else:
                wanted = (stepped_linf if kind == "linf" else stepped_l2)(image[row], LABELS[row], 0.4)
            np.testing.assert_allclose(targets[row].ravel(), wanted, atol=1e-4)
        np.testing.assert_array_equal(images, IMAGES)
        np.testing.assert_allclose(budget, radius * mass, rtol=1e-6)
        # Those of the projection before in the constrained attack, and anew each time in the other.
        if call and kind == "constrained":
            expected_duals = SinkhornDuals(1.0 * IMAGES, np.ones((2, 1, 1, 1)))
        np.testing.assert_array_equal(duals.potential, expected_duals.potential)
        np.testing.assert_array_equal(duals.multiplier, expected_duals.multiplier)
        expected = {"regularization": 50.0, "sweeps": 7}
        if kind == "constrained":
            expected |= {"capacity": capacity, "mass_tolerance": 0.01, "cost_tolerance": 0.001}
        assert {key: None if value is None else float(value) for key, value in given.items()} == expected
        image = np.clip(1.6 * targets.reshape(2, PIXELS) - 0.3, 0, np.inf if capacity is None else capacity)
    np.testing.assert_allclose(found.raw.numpy().reshape(2, PIXELS), image, atol=1e-6)
    np.testing.assert_array_equal(found.radius, radius)
    plan = gibbs_plan(2.0 * IMAGES, tf.fill([2, 1, 1, 1], 2.0), tf.constant(IMAGES), problem_of(attack).support)
    np.testing.assert_allclose(found.plan, plan, rtol=1e-6)


def test_large_targets_of_constrained_sinkhorn_are_bounded_by_the_mass_a_pixel(projection):
    attack = attacks.ConstrainedSinkhorn(THREAT_MODEL, iterations=1, step_size=30.0)
    attack.perturb(problem_of(attack))
    targets = projection.calls[0][0].reshape(2, PIXELS)
    np.testing.assert_allclose(targets.max(axis=1), 10 * IMAGES.sum(axis=(1, 2, 3)), rtol=1e-6)


def test_steps_of_constrained_sinkhorn_are_shared_by_channels(projection):
    threat_model = ThreatModel(epsilon=0.3, kernel_size=3)
    attack = attacks.ConstrainedSinkhorn(threat_model, iterations=1, step_size=0.5)
    images = np.full((2, 1, 2, 2), 0.25, np.float32)

    def first(images, training=False):
        return tf.reshape(images, [2, 4])[:, :2]

    attack.perturb(attack.problem(first, tf.constant(images), tf.constant([0, 1])))
    change = projection.calls[0][0] - images
    # Of mass 1 and two channels.
    np.testing.assert_allclose(change.reshape(2, 4), [[-0.25, 0.25, 0, 0], [0.25, -0.25, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("name", ["projected_sinkhorn", "constrained_sinkhorn"])
def test_sinkhorn_attacks_that_never_project_have_the_identity_plan(projection, name):
    attack = attacks.make(name, THREAT_MODEL, iterations=2, stop_when_fooled=True)
    problem = attack.problem(curved, tf.constant(IMAGES), tf.constant([LABELS[0], (LABELS[1] + 1) % 3]))
    found = attack.perturb(problem)
    assert found.iterations.numpy()[1] == 0 and found.iterations.numpy()[0] > 0
    identity = identity_plan(problem.images, problem.support).numpy()
    np.testing.assert_array_equal(found.plan[1], identity[1])
    assert np.abs(found.plan[0] - identity[0]).max() > 0.01


def test_the_control_is_a_random_plan_that_spends_its_budget_by_seed_and_index():
    attack = attacks.RandomPlan(THREAT_MODEL, seed=3)
    radius = tf.constant([0.1, 0.3])
    index = tf.constant([4, 7])
    problem = problem_of(attack, radius=radius, index=index)
    found = attack.perturb(problem)
    explicit = explicit_plan(found.plan, problem.images, problem.support)
    np.testing.assert_allclose(transport_cost(explicit, problem.support), problem.budget(radius), rtol=1e-4)
    np.testing.assert_allclose(problem.support.push_forward(explicit), found.raw, rtol=1e-6)
    assert found.iterations.numpy().tolist() == [1, 1] and found.radius is not None
    np.testing.assert_array_equal(found.radius, radius)
    noise = [tf.random.stateless_normal(SHAPE, [3, number]).numpy() for number in (4, 7)]
    np.testing.assert_array_equal(random_potential(3, problem), noise)
    # The plan is a Gibbs plan of that noise: a larger potential draws more from the same row.
    plan = explicit.numpy()[1, :, 0, 1, 0].reshape(3, 3)
    expected = noise[1][0, 2, 0] - noise[1][0, 0, 0]
    np.testing.assert_allclose(np.log(plan[1, 2] / plan[1, 0]), expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["random_plan", "wasser_attack", "frank_wolfe", "dual_projection", "linf_pgd"])
def test_the_radius_of_a_schedule_is_used(name):
    schedule = RadiusSchedule(start=0.05, factor=1.0, every=1, minimum=0.0, maximum=1.0)
    growing = attacks.make(name, THREAT_MODEL, schedule=schedule, iterations=3)
    fixed = attacks.make(name, THREAT_MODEL.with_epsilon(0.05), iterations=3, stop_when_fooled=True)
    one, other = growing.perturb(problem_of(growing)), fixed.perturb(problem_of(fixed))
    np.testing.assert_allclose(one.radius, [0.05, 0.05])
    np.testing.assert_allclose(one.raw, other.raw, atol=1e-5)
    assert np.abs(one.raw - IMAGES).max() > 1e-3
