"""PGD in the ℓ∞ ball of pixel space: Madry, Makelov, Schmidt, Tsipras, Vladu, ICLR 2018.

("Towards deep learning models resistant to adversarial attacks".) It is not a Wasserstein attack. The package has it
for comparison: to train on, and for the paper's Fig. 1.
"""

from typing import ClassVar

import tensorflow as tf

from wasser_tf.attacks import losses
from wasser_tf.attacks.base import Attack
from wasser_tf.attacks.problem import Perturbation, Problem, image_gradient
from wasser_tf.runtime.arguments import check_bool, check_number


class LinfPGD(Attack):
    """Steps along the sign of the gradient, then clips to max |x̃ − x| ≤ radius and to [0, 1].

    The radius, and so the threat model's epsilon, bounds the change of a pixel: 0.3 is usual on MNIST. The other fields
    of the threat model are not used. Madry et al. train on MNIST with 40 iterations of step 0.01.

    The settings that all attacks share are described in `Attack`.

    Attributes:
      step_size: The change of a pixel in one step; 2.5 · radius / iterations by default, so that every point of the
        ball can be reached from every other.
      loss: What is maximised: "cross_entropy" (as in the paper), "margin" or "dlr".
      random_start: Whether the attack starts at a random point of the ball (as in the paper) or at the image.

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data, models
    >>> images = data.load("digits").test.images[:2]
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> labels = classifier.predict(images, verbose=0).argmax(axis=1)
    >>> attack = wasser_tf.attacks.LinfPGD(wasser_tf.ThreatModel(epsilon=0.1), iterations=5)
    >>> result = attack(classifier, images, labels)
    >>> bool((abs(result.adversarial - images) < 0.1 + 1e-6).all())
    True
    """

    name: ClassVar[str] = "linf_pgd"
    in_wasserstein_ball: ClassVar[bool] = False

    iterations: int = 40
    step_size: float | None = None
    loss: str = "cross_entropy"
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size is not None:
            check_number("step_size", self.step_size, above=0)
        losses.get(self.loss)
        check_bool("random_start", self.random_start)

    def perturb(self, problem: Problem) -> Perturbation:
        def step(iteration: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            gradient = image_gradient(problem, images, losses.get(self.loss))
            radius = self.radius_at(iteration, problem)[:, None, None, None]
            length = 2.5 * radius / self.iterations if self.step_size is None else self.step_size
            moved = images + length * tf.sign(gradient.image_gradient)
            return _clip(moved, problem.images, radius), gradient.fooled

        start = problem.images
        if self.random_start:
            radius = self.radius_at(tf.constant(0), problem)[:, None, None, None]
            start = _clip(start + radius * _noise(self.seed, problem), start, radius)
        raw, radius, used = self.iterate(step, start, problem)
        return Perturbation(plan=None, raw=raw, radius=radius, iterations=used)

    def ball(self) -> str:
        radius = "an adaptive radius" if self.schedule else f"{self.threat_model.epsilon:g}"
        return f"ℓ∞ ball of pixel space: every pixel changes by at most {radius}, within [0, 1]"


def _clip(images: tf.Tensor, clean: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(images, tf.maximum(clean - radius, 0.0), tf.minimum(clean + radius, 1.0))


def _noise(seed: int, problem: Problem) -> tf.Tensor:
    """Returns uniform noise in [−1, 1) for each image, [B, H, W, C], by the seed and the image's index only."""
    return tf.map_fn(
        lambda index: tf.random.stateless_uniform(
            problem.support.image_shape, seed=tf.stack([seed, index]), minval=-1.0, maxval=1.0
        ),
        problem.index,
        fn_output_signature=tf.float32,
    )
