"""Warm starts: each image's attack starts where its attack of the epoch before ended (ATTA, Zheng et al., CVPR 2020).

A transport plan of mirror ascent is determined by a potential Φ of the size of the image. If the potentials are kept,
the few iterations of a step add to those of earlier epochs, and the classifier is trained on a stronger attack in the
same time. A factor scales the potentials down in every epoch, because they were found against earlier weights.

Potentials are kept in the frame of the original image. Where training images are augmented, the potential of a step is
moved along with its image, and the end of the attack is moved back.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.attacks import Attack
from wasser_tf.data.pixel_sources import PixelSources, to_augmented, to_original
from wasser_tf.runtime.arguments import check_fits, check_number, is_whole

NUMBERS_NEEDED = (
    'warm_start needs a number for each image: fit x={"image": images, "number": numpy.arange(len(images))}.'
)


class Numbers(NamedTuple):
    """Which training images the images of a step are.

    Attributes:
      number: Their numbers in the training set, integers [B].
      sources: Where their pixels come from, if they are augmented.
    """

    number: tf.Tensor
    sources: PixelSources | None = None


class WarmStart(keras.Layer):
    """The potentials of all training images, float16, in one non-trainable weight.

    Attributes:
      num_examples: The number of training images; the numbers of the images are below it.
      fade: The factor on the potentials in each epoch, above 0 and below 1.
    """

    def __init__(self, num_examples: Any, fade: float, **kwargs: Any):
        super().__init__(trainable=False, autocast=False, **kwargs)
        if not is_whole(num_examples, 1):
            raise ValueError(
                f"num_examples must be the number of training images, got {num_examples!r}: pass len(images)."
            )
        self.num_examples = num_examples
        self.fade = fade

    def build(self, input_shape: Any) -> None:
        """Creates the weight for images of shape [B, H, W, C]."""
        pixels = tuple(input_shape[1:])
        size = 2 * self.num_examples
        for length in pixels:
            size *= length
        check_fits(size, "The potentials that warm_start keeps", "train without warm_start")
        self._potentials = self.add_weight(
            name="potentials", shape=(self.num_examples, *pixels), dtype="float16", initializer="zeros"
        )
        self.built = True

    def potentials(self, numbers: Numbers) -> tf.Tensor:
        """Returns the scaled potentials of images, float32 [B, H, W, C], moved as the images are."""
        potentials = self._originals(numbers)
        return potentials if numbers.sources is None else to_augmented(potentials, numbers.sources)

    def keep(self, numbers: Numbers, potentials: tf.Tensor) -> None:
        """Stores the potentials [B, H, W, C] of images; pixels that augmentation hides keep their scaled ones."""
        if numbers.sources is not None:
            potentials = to_original(potentials, numbers.sources, self._originals(numbers))
        self._potentials.value.scatter_update(tf.IndexedSlices(tf.cast(potentials, tf.float16), numbers.number))

    def _originals(self, numbers: Numbers) -> tf.Tensor:
        return self.fade * tf.cast(tf.gather(self._potentials.value, numbers.number), tf.float32)

    def check(self, numbers: Any, images: Any) -> None:
        """Checks the arguments of `fit`, if they are arrays.

        Args:
          numbers: The numbers of the images, integers [N], or None.
          images: The images [N, H, W, C], or a dataset, which is not checked.

        Raises:
          ValueError: The numbers are missing, have another type, shape or range, or there are several replicas.
        """
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise ValueError(
                "warm_start needs a single replica, because replicas do not share potentials: leave it out."
            )
        if not isinstance(images, (np.ndarray, tf.Tensor)):
            return
        if numbers is None:
            raise ValueError(NUMBERS_NEEDED)
        numbers = np.asarray(numbers)
        if numbers.shape != (len(images),) or not np.issubdtype(numbers.dtype, np.integer):
            raise ValueError(
                f"number must hold a whole number for each of the {len(images)} images, got {numbers.dtype} "
                f"{numbers.shape}."
            )
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < self.num_examples:
            raise ValueError(
                f"number must be from 0 to below num_examples, {self.num_examples}, got {numbers.min()} to "
                f"{numbers.max()}."
            )


def check_warm_start(fade: Any, attack: Attack) -> None:
    """Checks the factor of warm starts, and that the attack supports them.

    Args:
      fade: The factor on the potentials in each epoch; 0 for attacks from scratch.
      attack: The attack.

    Raises:
      ValueError: The factor is out of its range, or the attack cannot start from a potential.
    """
    check_number("warm_start", fade, least=0, below=1)
    if fade:
        attack.check_warm_start()
