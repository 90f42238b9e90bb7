"""The distributional scheme of Sinha, Namkoong, Duchi, ICLR 2018 (ref. [13] of the paper).

("Certifying some distributional robustness with principled adversarial training".) It is not a Wasserstein attack on an
image: its Wasserstein distance is between distributions of images, with the squared Euclidean distance of two images as
ground cost. The package has it for comparison, to train on.
"""

import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from wasser_tf.attacks import losses
from wasser_tf.attacks.base import Attack
from wasser_tf.attacks.problem import Perturbation, Problem, image_gradient
from wasser_tf.runtime.arguments import check_number


class Distributional(Attack):
    """Maximises loss(x̃) − γ ‖x̃ − x‖² over images, with γ fixed, by gradient ascent (their Algorithm 1).

    The steps are those of the authors' code, in units of the penalty's curvature 2γ; the clip is added here:

        x̃ ← clip(x̃ + 1/√t · (∇loss(x̃) / (2γ) − (x̃ − x)), 0, 1),   t = 1, 2, …

    There is no ball: the loss and γ alone determine how far an image moves. Neither the threat model nor a radius is
    used, the radius in the result is infinite, and there is no schedule.

    Attributes:
      iterations: The maximum number of steps per image. The default is the authors' 15, after a first one of length 1.
      gamma: γ, above 0, in nats per squared distance of 1. The default is that of the authors' script for MNIST,
        0.5 / 1.3.
      loss: What is maximised, apart from the penalty: "cross_entropy" (as in the paper), "margin" or "dlr".

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data, models
    >>> images = data.load("digits").test.images[:2]
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> labels = classifier.predict(images, verbose=0).argmax(axis=1)
    >>> attack = wasser_tf.attacks.Distributional(wasser_tf.ThreatModel(), iterations=5)
    >>> result = attack(classifier, images, labels)
    >>> bool(result.adversarial.min() >= 0 and result.adversarial.max() <= 1)
    True
    """

    name: ClassVar[str] = "distributional"
    in_wasserstein_ball: ClassVar[bool] = False
    has_radius: ClassVar[bool] = False

    iterations: int = 16
    # Not a setting: there is no radius that could grow.
    schedule: None = dataclasses.field(default=None, init=False)
    gamma: float = 0.5 / 1.3
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("gamma", self.gamma, above=0)
        losses.get(self.loss)

    @property
    def can_perturb(self) -> bool:
        return self.iterations > 0

    def perturb(self, problem: Problem) -> Perturbation:
        def step(iteration: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            gradient = image_gradient(problem, images, losses.get(self.loss))
            ascent = gradient.image_gradient / (2 * self.gamma) - (images - problem.images)
            length = tf.math.rsqrt(tf.cast(iteration, tf.float32) + 1)
            return tf.clip_by_value(images + length * ascent, 0.0, 1.0), gradient.fooled

        raw, _, used = self.iterate(step, problem.images, problem)
        return Perturbation(plan=None, raw=raw, radius=tf.fill(tf.shape(problem.radius), math.inf), iterations=used)

    def ball(self) -> str:
        return (
            f"no ball: the loss minus γ times the squared Euclidean distance of the images, γ = {self.gamma:g}, pixels "
            "within [0, 1]"
        )
