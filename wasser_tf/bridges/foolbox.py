"""Foolbox: our attacks on its models, our classifiers as its models, and the Wasserstein distance of a threat model."""

from typing import Any

import numpy as np

from wasser_tf.attacks import Attack
from wasser_tf.bridges.host import HostClassifier
from wasser_tf.bridges.needed import check_installed
from wasser_tf.models.classifier import Classifier
from wasser_tf.models.conversion import canonical_of
from wasser_tf.threat_model import ThreatModel
from wasser_tf.transport.exact import wasserstein_distance

check_installed("foolbox", "foolbox", "eagerpy")

# ruff: noqa: E402
import eagerpy as ep
from foolbox.attacks.base import FixedEpsilonAttack
from foolbox.criteria import Misclassification, TargetedMisclassification
from foolbox.distances import Distance
from foolbox.models import Model, TensorFlowModel


class FoolboxWassersteinAttack(FixedEpsilonAttack):
    """An attack of wasser_tf on any Foolbox model. Every example is feasible and within the model's bounds.

    Each epsilon is the radius of the ball, in the units of the threat model. `clipped` equals `raw`, because the
    examples are in the ball already.

    Example:
    >>> import tensorflow as tf
    >>> import wasser_tf
    >>> from wasser_tf import data, models
    >>> test = data.load("digits", splits=("test",)).test
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> fmodel = to_model(classifier, (8, 8, 1))  # Any Foolbox model.
    >>> images, labels = tf.constant(test.images[:4]), tf.constant(test.labels[:4], tf.int64)
    >>> attack = FoolboxWassersteinAttack(wasser_tf.MirrorAscent(wasser_tf.ThreatModel(), iterations=5))
    >>> raw, clipped, success = attack(fmodel, images, labels, epsilons=[0.05, 0.1])
    >>> len(clipped), clipped[0].shape, success.shape
    (2, TensorShape([4, 8, 8, 1]), TensorShape([2, 4]))
    """

    def __init__(self, attack: Attack, *, batch_size: int = 128) -> None:
        """Creates the attack.

        Args:
          attack: The attack of wasser_tf; its ball without the radius.
          batch_size: Images at a time.

        Raises:
          ValueError: `attack` is not an attack of wasser_tf.
        """
        if not isinstance(attack, Attack):
            raise ValueError(f"attack must be an attack of wasser_tf, such as MirrorAscent, got {attack!r}.")
        self.attack, self.batch_size = attack, batch_size
        self.result: Any = None

    @property
    def distance(self) -> "WassersteinDistance":
        """The Wasserstein distance in the units of the threat model."""
        return WassersteinDistance(self.attack.threat_model)

    def run(self, model: Model, inputs: Any, criterion: Any, *, epsilon: float, **kwargs: Any) -> Any:
        """Returns adversarial examples of one radius.

        Args:
          model: The Foolbox model.
          inputs: Images within the bounds of the model, in the order of its library.
          criterion: Misclassification or TargetedMisclassification.
          epsilon: The radius.
          **kwargs: For `wasser_tf.attacks.Attack.__call__`.

        Raises:
          ValueError: The criterion is another one.
        """
        images, restore = ep.astensor_(inputs)
        targets = None
        if isinstance(criterion, TargetedMisclassification):
            targets = ep.astensor(criterion.target_classes).numpy()
            labels = model(images).numpy().argmax(axis=1)
        elif isinstance(criterion, Misclassification):
            labels = ep.astensor(criterion.labels).numpy()
        else:
            raise ValueError(f"criterion must be Misclassification or TargetedMisclassification, got {criterion}.")
        self.result = self.attack(
            foolbox_classifier(model, images),
            images.numpy(),
            labels,
            radius=epsilon,
            targets=targets,
            batch_size=self.batch_size,
            **kwargs,
        )
        return restore(ep.from_numpy(images, self.result.adversarial))


class WassersteinDistance(Distance):
    """The exact Wasserstein distance of images [n, H, W, C] or [n, C, H, W], by linear programs in float64 (slow).

    Attributes:
      threat_model: Gives the ground cost and the normalisation.
      data_format: "channels_last" or "channels_first".
    """

    def __init__(self, threat_model: ThreatModel, data_format: str = "channels_last") -> None:
        """Creates the distance of a threat model."""
        self.threat_model, self.data_format = threat_model, data_format

    def __call__(self, reference: Any, perturbed: Any) -> Any:
        """Returns the distance of each pair, [n]. The masses of a pair must be equal.

        Raises:
          ValueError: The masses of a pair differ, so that no plan exists.
        """
        (ours, theirs), restore = ep.astensors_(reference, perturbed)
        axes = (0, 2, 3, 1) if self.data_format == "channels_first" else (0, 1, 2, 3)
        pairs = zip(ours.numpy().transpose(axes), theirs.numpy().transpose(axes), strict=True)
        found = [wasserstein_distance(one, other, self.threat_model) for one, other in pairs]
        return restore(ep.from_numpy(ours, np.array(found, np.float32)))

    def clip_perturbation(self, references: Any, perturbed: Any, epsilon: float) -> Any:
        """Returns the examples unchanged: those of `FoolboxWassersteinAttack` are in the ball."""
        del references, epsilon
        return perturbed


def foolbox_classifier(model: Model, like: Any) -> Classifier:
    """Returns a Foolbox model as a `wasser_tf.Classifier`, with its bounds and the order of its library.

    Args:
      model: The Foolbox model, with any library and preprocessing.
      like: An EagerPy tensor of the library of the model, on its device.
    """

    def forward(images: np.ndarray) -> np.ndarray:
        return model(ep.from_numpy(like, images)).numpy()

    def backward(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
        factors = ep.from_numpy(like, weights)
        # The sum is over images too, which are independent of each other.
        _, found = ep.value_and_grad(lambda inputs: (model(inputs) * factors).sum(), ep.from_numpy(like, images))
        return found.numpy()

    low, high = (float(bound) for bound in model.bounds)
    order = getattr(model, "data_format", "channels_last")
    return Classifier(HostClassifier(forward, backward), input_range=(low, high), data_format=order)


def to_model(classifier: Any, image_shape: tuple[int, int, int]) -> TensorFlowModel:
    """Returns a classifier as a Foolbox model, from images [n, H, W, C] in [0, 1] to logits.

    Args:
      classifier: A Keras model, a `wasser_tf.Classifier` or any callable (images, training=False) -> [n, classes].
      image_shape: (H, W, C).
    """
    given = canonical_of(classifier, image_shape)
    return TensorFlowModel(lambda images: given(images, training=False), bounds=(0, 1), device="/CPU:0")
