r"""Features that a Wasserstein ball cannot change by more than its radius: inner products with Lipschitz potentials.

A potential φ is a number for each pixel and channel. By Kantorovich and Rubinstein's duality, for any plan Π of cost at
most ρ that moves mass within the window,

    |φ · x̃ − φ · x| = |Σ_ij Π_ij (φ_j − φ_i)| ≤ Lip(φ) Σ_ij Π_ij C_ij ≤ Lip(φ) ρ,
    Lip(φ) = max over pairs i, j of one window and channel of |φ_j − φ_i| / C_ij.

No plan changes the mass m(x). So with Lip(φ_k) ≤ 1 the feature z_k = φ_k · x / m(x) changes by at most ρ / m(x): by ε
if the budget is normalised, by ε / m(x) if it is absolute. The Wasserstein ball becomes an ℓ∞ ball of that radius, and
with enough potentials no information about distances is lost. The masses of the channels are features that no plan
changes at all.

After each step of the optimizer a constraint projects the kernel: each potential becomes the middle of its infimal and
supremal convolution with the ground cost over the window,

    φ_i ← ½ (min_j (φ_j + C_ij) + max_j (φ_j − C_ij)),

which leaves a 1-Lipschitz φ as it is and changes only the values that violate the bound. What then violates it, by less
than a few percent, does so over paths of several windows. `TransportPotentials.project`, which `CertifiedTrain.fit`
calls after each epoch, repeats this and divides what still exceeds Lip = 1 by its constant. (Dividing after each step
lowers all slopes by the steepest one: potentials then stay flat.) So inference is one product of matrices.
"""

import math
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.models.lipschitz import UnitLipschitz, approach, lipschitz_constants, project
from wasser_tf.runtime.arguments import is_whole
from wasser_tf.threat_model import ThreatModel

# Frequencies of the initial waves, in radians per pixel of an image of 28 pixels, and waves per potential. Their slopes
# are too steep by a factor, so that the projections saturate many pairs.
_FREQUENCIES, _WAVES, _STEEPNESS, _PROJECTIONS = (0.1, 0.5), 3, 4.0, 12
# The features of the masses are 4 times the mean of the channel, which is near 0.5 for handwritten digits.
_MASS_SCALE = 4.0


@keras.saving.register_keras_serializable(package="wasser_tf")
class TransportPotentials(keras.layers.Layer):
    """Features z_k = φ_k · x / m(x) + b_k, Lip(φ_k) ≤ 1, that a Wasserstein ball changes by at most its radius.

    The masses of the channels follow them as further features, which no plan changes. An image without mass has the
    features b. The layer always computes in float32.

    The weight is φ / `step_scale`: an optimizer whose steps do not depend on the scale of the gradient, such as Adam,
    moves the potentials, whose values are of the order of 10, by that factor more than the weights of other layers.

    Attributes:
      units: The number K of potentials.
      threat_model: The ball; only p and the window matter.
      activation: The function after the bias; masses pass through it too.
      step_scale: The factor, a power of two.
      kernel: The weight, [H, W, C, K].
      bias: b, [K].

    Example:
    >>> import numpy as np
    >>> from wasser_tf import ThreatModel
    >>> from wasser_tf.models.potentials import TransportPotentials
    >>> layer = TransportPotentials(16, ThreatModel(kernel_size=3), seed=0)
    >>> layer(np.ones((2, 8, 8, 1), "float32")).shape
    TensorShape([2, 17])
    """

    def __init__(
        self,
        units: int,
        threat_model: ThreatModel,
        *,
        activation: Any = None,
        step_scale: float = 16.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        """Creates the layer.

        Args:
          units: The number K of potentials, at least 1.
          threat_model: The ball.
          activation: The function after the bias, as in `keras.layers.Dense`; of masses it must be the identity, as
            ReLU is, unless they are to be changed.
          step_scale: The factor between weight and potentials, a power of two.
          seed: The seed of the initial potentials.
          **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

        Raises:
          ValueError: An argument is out of its range.
        """
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        if not is_whole(units, 1):
            raise ValueError(f"units must be a whole number of at least 1, got {units!r}.")
        if not isinstance(threat_model, ThreatModel):
            raise ValueError(f"threat_model must be a wasser_tf.ThreatModel, got {threat_model!r}.")
        if not step_scale > 0 or math.frexp(step_scale)[0] != 0.5:
            raise ValueError(f"step_scale must be a power of two, such as 16, got {step_scale!r}.")
        self.units = int(units)
        self.threat_model = threat_model.rules
        self.activation = keras.activations.get(activation)
        self.step_scale = float(step_scale)
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Creates the weights for images of the shape (None, H, W, C)."""
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise ValueError(
                f"TransportPotentials needs images of a known shape (None, H, W, C), got {tuple(input_shape)}: give "
                "keras.Input that shape."
            )
        ball = self.threat_model
        constraint = UnitLipschitz(ball.p, ball.kernel_size, self.step_scale)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*input_shape[1:], self.units),
            initializer=self._initial,
            constraint=constraint,
            # All replicas project to the same values.
            aggregation="only_first_replica",
        )
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the features, float32 [B, K + C], of images [B, H, W, C]."""
        # Divided before the product, which could underflow otherwise.
        mass = tf.reduce_sum(images, axis=[1, 2, 3], keepdims=True)
        share = images / tf.where(mass > 0, mass, tf.ones_like(mass))
        flat = tf.reshape(share, [-1, math.prod(images.shape[1:])])
        features = tf.matmul(flat * self.step_scale, self.flat_kernel) + self.bias
        masses = tf.reduce_sum(images, axis=[1, 2]) * self.mass_scale
        return self.activation(tf.concat([features, masses], axis=1))

    @property
    def flat_kernel(self) -> tf.Tensor:
        """The weight as a matrix, [H·W·C, K]."""
        return tf.reshape(tf.convert_to_tensor(self.kernel), [-1, self.units])

    @property
    def mass_scale(self) -> float:
        """The factor on the masses of the channels."""
        return _MASS_SCALE / math.prod(self.kernel.shape[:2])

    def project(self) -> None:
        """Makes Lip(φ_k) ≤ 1 exact, for the rounded numbers."""
        ball = self.threat_model
        kernel = project(self.step_scale * tf.convert_to_tensor(self.kernel), ball.p, ball.kernel_size)
        self.kernel.assign(kernel / self.step_scale)

    def adapt(self, images: Any, seed: int = 0) -> None:
        """Sets each bias to minus a random quantile of its feature, between 10 % and 90 %, so that ReLUs divide images.

        Args:
          images: Floats [n, H, W, C] in [0, 1], such as 4,000 training images.
          seed: The seed of the quantiles.
        """
        flat = np.reshape(np.asarray(images, np.float64), [len(images), -1])
        mass = flat.sum(axis=1, keepdims=True)
        kernel = np.asarray(self.flat_kernel, np.float64)
        features = np.sort(flat / np.where(mass > 0, mass, 1.0) @ kernel * self.step_scale, axis=0)
        places = np.random.default_rng(seed).uniform(0.1, 0.9, self.units) * (len(features) - 1)
        self.bias.assign(-features[np.round(places).astype(int), np.arange(self.units)])

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        """Returns (None, K + C)."""
        return (input_shape[0], self.units + input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor as plain Python values."""
        return {
            **super().get_config(),
            "units": self.units,
            "threat_model": self.threat_model.get_config(),
            "activation": keras.activations.serialize(self.activation),
            "step_scale": self.step_scale,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Returns a layer from the result of `get_config`."""
        return cls(**{**config, "threat_model": ThreatModel.from_config(config["threat_model"])})

    def _initial(self, shape: tuple[int, ...], dtype: Any = None) -> tf.Tensor:
        """Returns sums of random plane waves, steepened and projected, over `step_scale`."""
        height, width, channels, units = shape
        random = np.random.default_rng(self.seed)
        rows, columns = (np.arange(size) - (size - 1) / 2 for size in (height, width))
        waves = np.zeros(shape)
        for _ in range(_WAVES):
            frequency = random.uniform(*_FREQUENCIES, units) * 28 / max(height, width)
            angle, phase = random.uniform(0, 2 * np.pi, (2, units))
            across = rows[:, None, None] * np.sin(angle) + columns[None, :, None] * np.cos(angle)
            amplitude = random.normal(size=(channels, units)) / frequency
            waves += amplitude * np.cos(frequency * across + phase)[:, :, None]
        kernel = tf.constant(waves, dtype or tf.float32)
        ball = self.threat_model
        steepest = lipschitz_constants(kernel, ball.p, ball.kernel_size)
        kernel *= _STEEPNESS / tf.where(steepest > 0, steepest, tf.ones_like(steepest))
        for _ in range(_PROJECTIONS):
            kernel = approach(kernel, ball.p, ball.kernel_size)
        return project(kernel, ball.p, ball.kernel_size) / self.step_scale
