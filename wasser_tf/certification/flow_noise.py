"""Noise on the flows between neighbouring pixels, and how far it certifies a vote (Levine and Feizi, 2020).

docs/design/smoothing.md has the derivations.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from wasser_tf.runtime.arguments import check_number
from wasser_tf.threat_model import ThreatModel

KINDS = ("laplace", "uniform")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowNoise:
    """Independent, identically distributed noise on every flow between two 4-neighbours of an image of mass 1.

    An image has one flow for each pair of horizontal or vertical neighbours, in each channel: a flow of δ adds δ to one
    of the two pixels and takes it from the other. Mass is kept in every channel, pixels may become negative.

    Attributes:
      kind: The distribution, "laplace" or "uniform".
      scale: In units of the image's mass, above 0: the standard deviation σ of a flow for "laplace" (whose scale
        parameter is then b = σ/√2), the half-width λ of [−λ, λ] for "uniform".

    Raises:
      ValueError: A field is out of its range.
    """

    kind: str = "laplace"
    scale: float = 0.01

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"noise must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        check_number("scale", self.scale, above=0)
        object.__setattr__(self, "scale", float(self.scale))

    def sample(self, seed: tf.Tensor, count: int | tf.Tensor, image_shape: tuple[int, int, int]) -> tf.Tensor:
        """Returns what noise adds to `count` images of mass 1, float32 [count, H, W, C]; its sum is 0 in each channel.

        Args:
          seed: Integers [2]; the noise is a function of it, of the count and of the shape.
          count: How many independent samples.
          image_shape: Height, width and channels.
        """
        height, width, channels = image_shape
        horizontal, vertical = height * (width - 1) * channels, (height - 1) * width * channels
        flows = self._flows(seed, count, horizontal + vertical)
        return divergence(
            tf.reshape(flows[:, :horizontal], [count, height, width - 1, channels]),
            tf.reshape(flows[:, horizontal:], [count, height - 1, width, channels]),
        )

    def radius(self, probability: np.ndarray) -> np.ndarray:
        """Returns the ℓ1 distance of flows below which a class that wins with a probability keeps the majority.

        Laplace: b ln(1 / (2(1 − p))), Teng et al. 2019; uniform: 2λ(p − ½). Both are the largest such distances.

        Args:
          probability: A lower bound of the class's probability under noise, [n]. At ½ or below the radius is 0.

        Returns:
          Distances in units of the image's mass, float64 [n].
        """
        probability = np.asarray(probability, np.float64)
        if not ((probability >= 0) & (probability <= 1)).all():
            raise ValueError(f"probability must lie in [0, 1], got {probability!r}.")
        if self.kind == "uniform":
            distance = 2 * self.scale * (probability - 0.5)
        else:
            with np.errstate(divide="ignore"):
                distance = -self.scale / math.sqrt(2) * np.log(2 * (1 - probability))
        return np.maximum(distance, 0.0)

    def probability_after(self, probability: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Returns the least probability of a class after flows were shifted by an ℓ1 distance, float64 [n].

        Args:
          probability: Its probability before, or a lower bound of that, [n].
          distance: In units of the image's mass, [n].
        """
        probability, distance = np.asarray(probability, np.float64), np.asarray(distance, np.float64)
        if self.kind == "uniform":
            return np.maximum(probability - distance / (2 * self.scale), 0.0)
        growth = np.exp(distance * math.sqrt(2) / self.scale)
        return np.maximum(probability / growth, 1 - growth * (1 - probability))

    def _flows(self, seed: tf.Tensor, count: int | tf.Tensor, flows: int) -> tf.Tensor:
        """Returns independent draws, float32 [count, flows], each from 32 random bits."""
        # Philox by name: the default differs between devices.
        bits = tf.random.stateless_uniform([count, flows], seed, None, None, tf.uint32, alg="philox")
        if self.kind == "uniform":
            return (tf.cast(tf.bitcast(bits, tf.int32), tf.float32) + 0.5) * (self.scale * 2.0**-31)
        # The sign from one bit, an exponential from 31. A uniform float has 23 bits, its logarithm no tail beyond 16 b.
        unit = (tf.cast(tf.bitwise.right_shift(bits, 1), tf.float32) + 0.5) * 2.0**-31
        sign = tf.cast(tf.bitwise.bitwise_and(bits, 1), tf.float32) * 2 - 1
        return sign * tf.math.log(unit) * (self.scale / math.sqrt(2))


def divergence(horizontal: tf.Tensor, vertical: tf.Tensor) -> tf.Tensor:
    """Returns what flows add to each pixel, [n, H, W, C]: the upper or left one of two gains what the other loses.

    Args:
      horizontal: Flows from each pixel's right neighbour to it, [n, H, W − 1, C].
      vertical: Flows from each pixel's lower neighbour to it, [n, H − 1, W, C].
    """
    rows, columns, none = [[0, 1], [1, 0]], [[0, 1], [1, 0]], [0, 0]
    gained = tf.pad(horizontal, [none, none, columns[0], none]) + tf.pad(vertical, [none, rows[0], none, none])
    lost = tf.pad(horizontal, [none, none, columns[1], none]) + tf.pad(vertical, [none, rows[1], none, none])
    return gained - lost


def flow_per_cost(threat_model: ThreatModel, image_shape: tuple[int, int, int]) -> float:
    """Returns κ: the most flow between 4-neighbours, in ℓ1, that a feasible plan of cost 1 can represent.

    Mass that moves by (a, b) pixels costs (a² + b²)^(p/2) and is a flow along |a| + |b| edges, so κ is the largest
    (|a| + |b|) / (a² + b²)^(p/2) of the moves (a, b) ≠ 0 that the window and the image allow. With p = 1 it is √2 (a
    diagonal step), with p = 2 it is 1. It is 0 where nothing can move.

    Args:
      threat_model: Its p and its window count.
      image_shape: Height, width and channels.
    """
    reach = max(image_shape[:2]) if threat_model.kernel_size is None else threat_model.kernel_size // 2
    down, right = np.ogrid[: min(image_shape[0], reach + 1), : min(image_shape[1], reach + 1)]
    steps, squared = (down + right).astype(np.float64), (down**2 + right**2).astype(np.float64)
    moves = steps > 0
    return float(np.max(steps[moves] / squared[moves] ** (threat_model.p / 2), initial=0.0))
