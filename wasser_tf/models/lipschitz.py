"""Lipschitz constants of potentials over the windows of a ball, and the projection that keeps them at most 1."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# The unit roundoff of float32.
_UNIT = 2.0**-24
# Offsets are unrolled in the graph; a dense plan of 8×8 pixels has 112 pairs of opposite ones.
_MOST_OFFSETS = 200
# XLA takes a second to compile, and is not worth it for kernels of fewer numbers.
_SMALL = 2**16
# Rounds before potentials are divided by their constant.
_ROUNDS = 3


def window_offsets(
    image_shape: tuple[int, ...], p: float, kernel_size: int | None
) -> list[tuple[tuple[int, int], float]]:
    """Returns one of each two opposite offsets (rows, columns) within a window, and the ground cost of each.

    Args:
      image_shape: (H, W, …).
      p: The exponent of the ground cost.
      kernel_size: The side of the window, or None for the whole image.

    Raises:
      ValueError: There are too many.
    """
    height, width = image_shape[:2]
    half = max(height, width) if kernel_size is None else kernel_size // 2
    down, across = min(half, height - 1), min(half, width - 1)
    offsets = [(y, x) for y in range(down + 1) for x in range(-across, across + 1) if y > 0 or x > 0]
    if len(offsets) > _MOST_OFFSETS:
        raise ValueError(
            f"Potentials on {height}×{width} pixels with kernel_size={kernel_size} have {2 * len(offsets)} offsets, "
            f"and at most {2 * _MOST_OFFSETS} are supported: give the threat model a kernel_size of at most 19."
        )
    return [(offset, float(np.hypot(*offset) ** p)) for offset in offsets]


def lipschitz_constants(kernel: tf.Tensor, p: float, kernel_size: int | None) -> tf.Tensor:
    """Returns Lip(φ_k) = max |φ_j − φ_i| / C_ij over pairs within a window and a channel, differentiably.

    Args:
      kernel: φ, floats [H, W, C, K].
      p: The exponent of the ground cost.
      kernel_size: The side of the window, or None for the whole image.

    Returns:
      [K], at least 0.
    """
    height, width = kernel.shape[:2]
    steepest = [tf.zeros_like(kernel[0, 0, 0])]
    for (y, x), cost in window_offsets(kernel.shape, p, kernel_size):
        here = kernel[: height - y, max(0, -x) : width - max(0, x)]
        there = kernel[y:, max(0, x) : width - max(0, -x)]
        steepest.append(tf.reduce_max(tf.abs(there - here), axis=[0, 1, 2]) / cost)
    return tf.reduce_max(tf.stack(steepest), axis=0)


def project(kernel: tf.Tensor, p: float, kernel_size: int | None) -> tf.Tensor:
    """Returns potentials with Lip(φ_k) ≤ 1, close to given ones, which are returned almost unchanged if they have it.

    A few rounds of `approach` come first, and leave little for the division by the constant.

    Args:
      kernel: φ, float32 [H, W, C, K].
      p: The exponent of the ground cost.
      kernel_size: The side of the window, or None for the whole image.

    Returns:
      The potentials. Lip ≤ 1 holds for the rounded numbers, exactly.
    """
    for _ in range(_ROUNDS):
        kernel = approach(kernel, p, kernel_size)
    divided = _scaled if math.prod(kernel.shape) <= _SMALL else _compiled_scaled
    return divided(kernel, p, kernel_size)


def approach(kernel: tf.Tensor, p: float, kernel_size: int | None) -> tf.Tensor:
    """Returns the middle of the infimal and the supremal convolution with the ground cost over the window.

    Only values that violate Lip ≤ 1 change. What violates it afterwards does so over paths of several windows, by a
    few percent of what it was.

    Args:
      kernel: φ, float32 [H, W, C, K].
      p: The exponent of the ground cost.
      kernel_size: The side of the window, or None for the whole image.
    """
    # A program of its own: XLA would fuse it with `_scaled`, and compute it anew for each difference that reads it.
    return (_middle if math.prod(kernel.shape) <= _SMALL else _compiled_middle)(kernel, p, kernel_size)


def _middle(kernel: tf.Tensor, p: float, kernel_size: int | None) -> tf.Tensor:
    height, width = kernel.shape[:2]
    offsets = window_offsets(kernel.shape, p, kernel_size)
    lowest = highest = kernel
    reach = [max((abs(offset[axis]) for offset, _ in offsets), default=0) for axis in (0, 1)]
    margins = [[reach[0], reach[0]], [reach[1], reach[1]], [0, 0], [0, 0]]
    above, below = (tf.pad(kernel, margins, constant_values=value) for value in (math.inf, -math.inf))
    for (y, x), cost in offsets:
        for sign in (1, -1):
            top, left = reach[0] + sign * y, reach[1] + sign * x
            lowest = tf.minimum(lowest, above[top : top + height, left : left + width] + cost)
            highest = tf.maximum(highest, below[top : top + height, left : left + width] - cost)
    return 0.5 * (lowest + highest)


def _scaled(potentials: tf.Tensor, p: float, kernel_size: int | None) -> tf.Tensor:
    """Returns potentials divided by their Lipschitz constants where these exceed 1."""
    # The quotient is rounded: each value is off by a unit of it, and costs are at least 1.
    largest = tf.reduce_max(tf.abs(potentials), axis=[0, 1, 2])
    steepest = lipschitz_constants(potentials, p, kernel_size) * (1.0 + 16 * _UNIT) + 4 * _UNIT * largest
    return potentials / tf.maximum(1.0, steepest)


_compiled_middle = tf.function(_middle, jit_compile=True, autograph=False)
_compiled_scaled = tf.function(_scaled, jit_compile=True, autograph=False)


@keras.saving.register_keras_serializable(package="wasser_tf")
class UnitLipschitz(keras.constraints.Constraint):
    """Keeps `scale` × a kernel [H, W, C, K] close to Lip ≤ 1, after each step: see `approach`.

    The division by the constant, which `project` ends with, would lower all slopes by the steepest one, in each step.
    """

    def __init__(self, p: float, kernel_size: int | None, scale: float = 1.0):
        """Creates the constraint.

        Args:
          p: The exponent of the ground cost.
          kernel_size: The side of the window, or None for the whole image.
          scale: The factor between the weight and the potentials, a power of two.
        """
        self.p, self.kernel_size, self.scale = p, kernel_size, scale

    def __call__(self, w: Any) -> tf.Tensor:
        """Returns the weight after one round."""
        weight = tf.convert_to_tensor(w)
        return approach(self.scale * weight, self.p, self.kernel_size) / self.scale

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"p": self.p, "kernel_size": self.kernel_size, "scale": self.scale}
