"""The control attack: a random feasible plan that uses the whole budget.

An attack that is not stronger than this one does not work.
"""

from typing import ClassVar

import tensorflow as tf

from wasser_tf.attacks.base import Attack
from wasser_tf.attacks.problem import Perturbation, Problem
from wasser_tf.transport.gibbs import guess_multiplier, project_kl

# The multiplier of a random potential is near that of none.
_NEWTON_STEPS = 10


class RandomPlan(Attack):
    """Sends mass along the Gibbs plan of a random potential, with no use of the classifier.

    Attributes:
      iterations: 0 to return the images unchanged; otherwise a single iteration is made.
      seed: Seed of the potentials; an image's potential depends on the seed and the image's index only.

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data, models
    >>> images = data.load("digits").test.images[:2]
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> labels = classifier.predict(images, verbose=0).argmax(axis=1)
    >>> attack = wasser_tf.attacks.RandomPlan(wasser_tf.ThreatModel(epsilon=0.2, kernel_size=3), seed=3)
    >>> result = attack(classifier, images, labels)
    >>> bool(result.feasibility.feasible().all())
    True
    """

    name: ClassVar[str] = "random_plan"
    uses_gradients: ClassVar[bool] = False

    iterations: int = 1

    def perturb(self, problem: Problem) -> Perturbation:
        images, support = problem.images, problem.support
        used = tf.ones_like(problem.labels)
        radius = self.radius_at(tf.constant(0), problem)
        budget = problem.budget(radius)
        potential = random_potential(self.seed, problem)
        plan = project_kl(potential, guess_multiplier(images, budget), images, budget, support, _NEWTON_STEPS)
        return Perturbation(plan=plan, raw=plan.image, radius=radius, iterations=used)


def random_potential(seed: tf.Tensor | int, problem: Problem) -> tf.Tensor:
    """Returns standard normal noise for each image, [B, H, W, C], a function of the seed and the image's index only."""
    return tf.map_fn(
        lambda index: tf.random.stateless_normal(problem.support.image_shape, seed=tf.stack([seed, index])),
        problem.index,
        fn_output_signature=tf.float32,
    )
