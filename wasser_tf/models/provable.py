"""A classifier that is made to be certified: potentials, then dense layers whose intervals do not grow at the start."""

import math
import random
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from wasser_tf.models.potentials import TransportPotentials
from wasser_tf.runtime.arguments import is_whole
from wasser_tf.threat_model import ThreatModel


@keras.saving.register_keras_serializable(package="wasser_tf")
class IBPNormal(keras.initializers.Initializer):
    """Draws weights from N(0, 2π / n²) for n inputs (Shi et al., NeurIPS 2021).

    The mean absolute value of a weight is then 2 / n, so that a layer followed by ReLU neither widens nor narrows
    intervals on average. With the usual variance, of the order of 1 / n, they grow by a factor of √n a layer.
    """

    def __init__(self, seed: int | None = None):
        """Creates the initializer; its seed is an integer, or None for the global random state."""
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> tf.Tensor:
        """Returns weights of the shape (…, outputs)."""
        deviation = math.sqrt(2 * math.pi) / max(1, math.prod(shape[:-1]))
        return keras.initializers.RandomNormal(stddev=deviation, seed=self.seed)(shape, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"seed": self.seed}


def build_provable(
    image_shape: Sequence[int],
    num_classes: int,
    threat_model: ThreatModel,
    *,
    potentials: int = 1024,
    hidden: Sequence[int] = (512, 512),
    relu_potentials: bool = True,
    seed: int | None = None,
) -> keras.Model:
    """Builds an untrained classifier for `CertifiedTrain`: potentials, ReLU, dense layers with ReLU, logits.

    Args:
      image_shape: The height, width and number of channels of the images, whose values lie in [0, 1].
      num_classes: The number of classes.
      threat_model: The ball; its epsilon is not used.
      potentials: The number of potentials.
      hidden: The number of units of each hidden layer.
      relu_potentials: Whether ReLU follows the potentials.
      seed: The seed of the initial weights; None draws them from the global random state.

    Returns:
      A functional model from the input "image", [n, H, W, C], to the layer "logits", [n, num_classes], in float32.

    Raises:
      ValueError: An argument is out of its range.

    Example:
    >>> from wasser_tf import ThreatModel
    >>> from wasser_tf.models.provable import build_provable
    >>> build_provable((8, 8, 1), 10, ThreatModel(), potentials=16, hidden=(32,), seed=0).output_shape
    (None, 10)
    """
    if not all(is_whole(units, 1) for units in hidden):
        raise ValueError(f"hidden must be whole numbers of at least 1, got {hidden!r}.")
    if not is_whole(num_classes, 2):
        raise ValueError(f"num_classes must be a whole number of at least 2, got {num_classes!r}.")
    seeds = None if seed is None else random.Random(int(seed))

    def drawn() -> int | None:
        return None if seeds is None else seeds.getrandbits(31)

    image = keras.Input(tuple(int(side) for side in image_shape), name="image")
    activation = "relu" if relu_potentials else None
    x = TransportPotentials(potentials, threat_model, activation=activation, seed=drawn(), name="potentials")(image)
    for number, units in enumerate(hidden):
        x = keras.layers.Dense(
            units, activation="relu", kernel_initializer=IBPNormal(drawn()), name=f"dense{number + 1}"
        )(x)
    logits = keras.layers.Dense(num_classes, kernel_initializer=IBPNormal(drawn()), dtype="float32", name="logits")(x)
    return keras.Model(image, logits, name="provable")


def project_potentials(classifier: keras.Model) -> None:
    """Calls `TransportPotentials.project` of each such layer of a classifier."""
    for layer in classifier.layers:
        if isinstance(layer, TransportPotentials):
            layer.project()


def adapt_potentials(classifier: keras.Model, images: Any, seed: int = 0) -> None:
    """Calls `TransportPotentials.adapt` of each such layer that reads the images.

    Args:
      classifier: The classifier.
      images: Floats [n, H, W, C] in [0, 1], such as 4,000 training images.
      seed: The seed of the quantiles.
    """
    for layer in classifier.layers:
        if isinstance(layer, TransportPotentials):
            layer.adapt(images, seed)
