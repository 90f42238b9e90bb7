"""What goes around a classifier, as a fixed part of it, so that moving mass changes less of what it says."""

import keras
import numpy as np

from wasser_tf._checks import is_whole


def blurred(classifier: keras.Model, passes: int) -> keras.Model:
    """Puts a fixed blur in front of a classifier: so many means over 3×3 pixels, one after the other.

    What a linear functional w of the image changes by in a ball of W1 is at most ε · mass · Lip(w) (Kantorovich and
    Rubinstein), and blurring makes all that the classifier reads smoother. Nothing is lost to the attacker: the blur is
    a part of the classifier, and gradients go through it.

    Args:
      classifier: A Keras model from images [n, H, W, C].
      passes: How many means; 0 returns the classifier as it is.

    Returns:
      A classifier with the same weights. Beyond the border there is nothing to take the mean over.

    Raises:
      ValueError: passes is no whole number from 0 to 100.
    """
    if not is_whole(passes, 0) or passes > 100:
        raise ValueError(f"blur must be a whole number of passes from 0 to 100, got {passes!r}.")
    if not passes:
        return classifier
    height, width, channels = classifier.input_shape[1:]
    image = keras.Input((height, width, channels), name="image")
    # The means along rows and those along columns commute, so all passes are one matrix on either side. Poolings took
    # three times as long as the LeNet behind them.
    rows, columns = _mean_of_three(height, passes), _mean_of_three(width, passes)
    x = keras.ops.einsum("ih,bhwc,jw->bijc", rows, image, columns)
    return keras.Model(image, classifier(x), name=f"{classifier.name}_blurred")


def shift_averaged(classifier: keras.Model, pixels: int) -> keras.Model:
    """Averages a classifier's answers over the image and its shifts up, down, left and right by up to so many pixels.

    Where a pixel's mass went by half a pixel, one of the shifted images has it where it was. Nothing is lost to the
    attacker, as with `blurred`: all of it is differentiable, and attacks climb the average. It costs as many passes
    through the classifier as there are images, 1 + 4 · pixels.

    Args:
      classifier: A Keras model from images [n, H, W, C].
      pixels: The farthest shift; 0 returns the classifier as it is.

    Returns:
      A classifier with the same weights. At the borders the image's mirror image comes in.

    Raises:
      ValueError: pixels is no whole number from 0 to below the sides of the images.
    """
    if not is_whole(pixels, 0):
        raise ValueError(f"shifts must be a whole number of pixels, got {pixels!r}.")
    if not pixels:
        return classifier
    height, width, channels = classifier.input_shape[1:]
    if pixels >= min(height, width):
        raise ValueError(f"shifts must be below the sides of images, {height} and {width} pixels, got {pixels}.")
    steps = [sign * distance for distance in range(1, pixels + 1) for sign in (1, -1)]
    offsets = [(0, 0), *((step, 0) for step in steps), *((0, step) for step in steps)]
    image = keras.Input((height, width, channels), name="image")
    margins = [[0, 0], [pixels, pixels], [pixels, pixels], [0, 0]]
    padded = keras.ops.pad(image, margins, mode="reflect")
    # All in one batch: one pass through the classifier's layers.
    shifted = [padded[:, pixels + y : pixels + y + height, pixels + x : pixels + x + width] for y, x in offsets]
    outputs = classifier(keras.ops.concatenate(shifted, axis=0))
    mean = keras.ops.mean(keras.ops.reshape(outputs, (len(offsets), -1, outputs.shape[-1])), axis=0)
    return keras.Model(image, mean, name=f"{classifier.name}_shifts")


def _mean_of_three(length: int, passes: int) -> np.ndarray:
    """Returns the matrix [length, length] that takes the mean over each entry and its neighbours, so many times."""
    near = np.abs(np.subtract.outer(np.arange(length), np.arange(length))) <= 1
    mean = near / near.sum(axis=1, keepdims=True)
    return np.linalg.matrix_power(mean, passes).astype(np.float32)
