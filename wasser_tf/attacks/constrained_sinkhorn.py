"""PGD with constrained Sinkhorn: Hu et al., "Improved image Wasserstein attacks and defenses", arXiv 2004.12478."""

from typing import ClassVar

import tensorflow as tf

from wasser_tf.attacks.base import Attack
from wasser_tf.attacks.problem import Perturbation, Problem
from wasser_tf.attacks.projected_sinkhorn import check_settings, compiled_projection, projected_ascent
from wasser_tf.transport.plan import image_mass
from wasser_tf.transport.sinkhorn import SinkhornDuals, SinkhornProjection

# The published code bounds the point it projects to this share of the image's mass a pixel (60 / H² / C), against
# overflow. Nothing overflows here, but it decides where the projection lands.
_LARGEST_SHARE = 60.0
# How far the published code lets a projection be off, relative to the mass: its sum, and ⟨Π, C⟩ above the radius.
_MASS_TOLERANCE = 0.01
_COST_TOLERANCE = 0.001


class ConstrainedSinkhorn(Attack):
    """As projected Sinkhorn [14] with the capacity inside the projection, and steps that scale with the mass.

    Projections start from the duals of the one before, and go on until mass and cost are right to about a per cent. The
    clip to the pixel range that follows then has nothing left to do but round.

    Attributes:
      step_size: α. A step is α · m(x) / C · gradient / max|gradient|.
      regularization: λ of the projection: 1000 on MNIST, 3000 on CIFAR-10.
      sinkhorn_iterations: The most sweeps of a projection, as long as its mass and cost are right.
    """

    name: ClassVar[str] = "constrained_sinkhorn"

    iterations: int = 200
    stop_when_fooled: bool = True
    step_size: float = 0.06
    regularization: float = 1000.0
    sinkhorn_iterations: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self.step_size, self.regularization, self.sinkhorn_iterations)

    def perturb(self, problem: Problem) -> Perturbation:
        height, width, channels = problem.support.image_shape
        mass = image_mass(problem.images)[:, None, None, None]
        largest_target = _LARGEST_SHARE / (height * width * channels) * mass

        def step(images: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
            largest = tf.reduce_max(tf.abs(gradient), axis=[1, 2, 3], keepdims=True)
            stepped = images + self.step_size / channels * mass * tf.math.divide_no_nan(gradient, largest)
            return tf.minimum(stepped, largest_target)

        def project(targets: tf.Tensor, budget: tf.Tensor, duals: SinkhornDuals) -> SinkhornProjection:
            return compiled_projection(
                targets,
                problem.images,
                budget,
                duals,
                problem.support,
                regularization=tf.constant(self.regularization, tf.float32),
                sweeps=self.sinkhorn_iterations,
                capacity=problem.threat_model.capacity,
                mass_tolerance=_MASS_TOLERANCE,
                cost_tolerance=_COST_TOLERANCE,
            )

        return projected_ascent(self, problem, step, project)
