"""Attacks in training that go on where they ended an epoch before (ATTA, Zheng et al., CVPR 2020), one for each image.

A plan of mirror ascent is one image-sized potential Φ. With it kept, the few iterations of a step add to those of the
epochs before, and the classifier meets a stronger attack for the same time. What is kept fades by a factor in every
epoch, for it was found against a classifier that is no longer there.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.attacks import Attack
from wasser_tf.runtime.arguments import check_fits, check_number, is_whole

MISSING = 'warm_start must know each image again: fit x={"image": images, "number": numpy.arange(len(images))}.'


class WarmStart(keras.Layer):
    """The potentials of all training images, float16, in one weight that is not trained.

    Attributes:
      num_examples: How many images there are; their numbers are below it.
      fade: What an epoch leaves of a potential, above 0 and below 1.
    """

    def __init__(self, num_examples: Any, fade: float, **kwargs: Any):
        super().__init__(trainable=False, autocast=False, **kwargs)
        if not is_whole(num_examples, 1):
            raise ValueError(f"num_examples must say how many training images there are, got {num_examples!r}.")
        self.num_examples = num_examples
        self.fade = fade

    def build(self, input_shape: Any) -> None:
        """Makes the weight, for images of shape [B, H, W, C]."""
        pixels = tuple(input_shape[1:])
        size = 2 * self.num_examples
        for length in pixels:
            size *= length
        check_fits(size, "The potentials that warm_start keeps", "train without warm_start")
        self._potentials = self.add_weight(
            name="potentials", shape=(self.num_examples, *pixels), dtype="float16", initializer="zeros"
        )
        self.built = True

    def potentials(self, number: tf.Tensor) -> tf.Tensor:
        """Returns what is left of the potentials of the images of these numbers [B], float32 [B, H, W, C]."""
        return self.fade * tf.cast(tf.gather(self._potentials.value, number), tf.float32)

    def keep(self, number: tf.Tensor, potentials: tf.Tensor) -> None:
        """Keeps the potentials [B, H, W, C] of the images of these numbers [B]."""
        self._potentials.value.scatter_update(tf.IndexedSlices(tf.cast(potentials, tf.float16), number))

    def check(self, numbers: Any, images: Any) -> None:
        """Checks what goes into `fit`, as far as it is arrays.

        Raises:
          ValueError: The numbers of the images are missing or not what is needed, or there are several replicas.
        """
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise ValueError("warm_start needs one replica, which alone knows where its attacks ended: leave it out.")
        if not isinstance(images, (np.ndarray, tf.Tensor)):
            return
        if numbers is None:
            raise ValueError(MISSING)
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
    """Checks the fade, and that the attack can start from the potentials of an earlier one.

    Raises:
      ValueError: The fade is out of its range, or the attack cannot.
    """
    check_number("warm_start", fade, least=0)
    if fade >= 1:
        raise ValueError(f"warm_start must be below 1, got {fade!r}: what is kept would never fade.")
    if fade:
        attack.check_warm_start()
