"""PGD with constrained Sinkhorn: Hu et al., "Improved image Wasserstein attacks and defenses", arXiv 2004.12478."""

from typing import ClassVar

import tensorflow as tf

from wasser_tf.attacks.base import Attack
from wasser_tf.attacks.problem import Perturbation, Problem
from wasser_tf.attacks.projected_sinkhorn import check_settings, compiled_projection, projected_ascent
from wasser_tf.transport.plan import image_mass
from wasser_tf.transport.sinkhorn import SinkhornDuals, SinkhornProjection

# The published code bounds each pixel of the point it projects to this share of the image's mass (60 / H² / C), against
# overflow. Nothing overflows here, but the bound changes where the projection lands.
_LARGEST_SHARE = 60.0
# The published code's tolerances of a projection, relative to the mass: of its sum, and of ⟨Π, C⟩ above the radius.
_MASS_TOLERANCE = 0.01
_COST_TOLERANCE = 0.001


class ConstrainedSinkhorn(Attack):
    """Projected Sinkhorn [14] with the capacity inside the projection, and steps proportional to the image's mass.

    Each projection starts from the duals of the previous one and runs until mass and cost are correct to about 1 %. The
    following clip to the pixel range only removes rounding.

    The settings that all attacks share are described in `Attack`.

    Attributes:
      stop_when_fooled: As in the published code, an image stops as soon as it is misclassified.
      step_size: α. A step is α · m(x) / C · gradient / max|gradient|, with mass m(x) and C channels.
      regularization: λ, the weight of the transport cost against the entropy: 1000 on MNIST, 3000 on CIFAR-10.
      sinkhorn_iterations: The maximum number of sweeps of a projection.

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data, models
    >>> images = data.load("digits").test.images[:2]
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> labels = classifier.predict(images, verbose=0).argmax(axis=1)
    >>> ball = wasser_tf.ThreatModel(epsilon=0.2, kernel_size=3)
    >>> attack = wasser_tf.attacks.ConstrainedSinkhorn(ball, iterations=2, sinkhorn_iterations=5)
    >>> result = attack(classifier, images, labels)
    >>> bool(result.feasibility.feasible().all())
    True
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
