"""PGD with projected Sinkhorn: Wong, Schmidt, Kolter, "Wasserstein adversarial examples", ICML 2019 [14]."""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import tensorflow as tf

from wasser_tf.attacks import losses
from wasser_tf.attacks.base import Attack
from wasser_tf.attacks.problem import Perturbation, Problem, image_gradient, where_image
from wasser_tf.runtime.arguments import check_number, check_whole
from wasser_tf.transport.gibbs import gibbs_plan
from wasser_tf.transport.plan import identity_plan
from wasser_tf.transport.sinkhorn import SinkhornDuals, SinkhornProjection, initial_duals, sinkhorn_projection


class _State(NamedTuple):
    """The image [B, H, W, C], and the duals of the projection that it comes from."""

    image: tf.Tensor
    duals: SinkhornDuals


class ProjectedSinkhorn(Attack):
    """A gradient step in pixel space, the entropic projection onto the ball, and a clip to the pixel range.

    The clip loses mass, so the raw image, which is that of the paper, may be infeasible. The plan is that of the last
    projection.

    The settings that all attacks share are described in `Attack`.

    Attributes:
      stop_when_fooled: As in the published code, an image stops as soon as it is misclassified.
      step_size: α, in pixel values, as `norm` measures them. 0.1 in the paper.
      norm: "linf" steps along the sign of the gradient (as the paper does), "l2" along the normalised gradient.
      regularization: λ, the weight of the transport cost against the entropy: 1000 on MNIST, 3000 on CIFAR-10.
      sinkhorn_iterations: The maximum number of sweeps of a projection.

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data, models
    >>> images = data.load("digits").test.images[:2]
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> labels = classifier.predict(images, verbose=0).argmax(axis=1)
    >>> ball = wasser_tf.ThreatModel(epsilon=0.2, kernel_size=3)
    >>> attack = wasser_tf.attacks.ProjectedSinkhorn(ball, iterations=2, sinkhorn_iterations=5)
    >>> result = attack(classifier, images, labels)
    >>> bool(result.feasibility.feasible().all())
    True
    """

    name: ClassVar[str] = "projected_sinkhorn"

    iterations: int = 200
    stop_when_fooled: bool = True
    step_size: float = 0.1
    norm: str = "linf"
    regularization: float = 1000.0
    sinkhorn_iterations: int = 400

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"norm must be 'linf' or 'l2', got {self.norm!r}.")
        check_settings(self.step_size, self.regularization, self.sinkhorn_iterations)

    def perturb(self, problem: Problem) -> Perturbation:
        def step(images: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
            if self.norm == "linf":
                return images + self.step_size * tf.sign(gradient)
            norm = tf.sqrt(tf.reduce_sum(gradient**2, axis=[1, 2, 3], keepdims=True))
            return images + self.step_size * tf.math.divide_no_nan(gradient, norm)

        def project(targets: tf.Tensor, budget: tf.Tensor, duals: SinkhornDuals) -> SinkhornProjection:
            return compiled_projection(
                targets,
                problem.images,
                budget,
                initial_duals(problem.images),
                problem.support,
                regularization=tf.constant(self.regularization, tf.float32),
                sweeps=self.sinkhorn_iterations,
            )

        return projected_ascent(self, problem, step, project)


def projected_ascent(
    attack: Attack,
    problem: Problem,
    step: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    project: Callable[[tf.Tensor, tf.Tensor, SinkhornDuals], SinkhornProjection],
) -> Perturbation:
    """Repeats: step along the gradient of the cross-entropy, project onto the ball, clip to the pixel range.

    Args:
      attack: The attack whose loop and settings are used.
      problem: The batch.
      step: (images, gradient) -> the point to project, all [B, H, W, C].
      project: (points, budget [B], duals of the previous projection) -> the projection.
    """
    capacity = problem.threat_model.capacity

    def iteration(number: tf.Tensor, state: _State) -> tuple[_State, tf.Tensor]:
        gradient = image_gradient(problem, state.image, losses.cross_entropy)
        budget = problem.budget(attack.radius_at(number, problem))
        found = project(step(state.image, gradient.image_gradient), budget, state.duals)
        image = tf.clip_by_value(found.image, 0.0, tf.float32.max if capacity is None else capacity)
        return _State(image, found.duals), gradient.fooled

    start = _State(problem.images, initial_duals(problem.images))
    state, radius, used = attack.iterate(iteration, start, problem)
    plan = gibbs_plan(state.duals.potential, state.duals.multiplier, problem.images, problem.support)
    plan = where_image(used > 0, plan, identity_plan(problem.images, problem.support))
    return Perturbation(plan=plan, raw=state.image, radius=radius, iterations=used)


def check_settings(step_size: float, regularization: float, sinkhorn_iterations: int) -> None:
    """Raises ValueError where a setting of the two Sinkhorn attacks is out of its range."""
    check_number("step_size", step_size, above=0)
    check_number("regularization", regularization, above=0)
    check_whole("sinkhorn_iterations", sinkhorn_iterations, least=1)


compiled_projection = tf.function(sinkhorn_projection, jit_compile=True, autograph=False)
