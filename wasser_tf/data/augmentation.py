"""Changes of training images that leave their class as it is: by name, as Keras layers without weights or state.

Each draws from a seed that it is given with every batch, not from a state of its own: Keras' layers count their calls,
and a resumed training would go on with other numbers than the one that was not interrupted.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

# A mirrored character is another one, or none.
_CHARACTERS = ("digits", "mnist", "emnist", "kmnist", "svhn_cropped", "omniglot", "cmaterdb")
# 4 pixels of 32, as is usual on CIFAR-10; 3 of MNIST's 28.
_SHARE = 8


@keras.saving.register_keras_serializable(package="wasser_tf")
class RandomShift(keras.layers.Layer):
    """Shifts each image by whole pixels, evenly distributed and anew in every call: a random crop after padding."""

    def __init__(self, height: int, width: int, fill: str = "constant", **kwargs: object):
        """Makes the layer.

        Args:
          height: The most pixels up or down.
          width: The most pixels left or right.
          fill: What comes in at the borders: zeros ("constant") or the image's mirror image ("reflect").
          **kwargs: Of `keras.layers.Layer`, such as `name`.

        Raises:
          ValueError: There is no such fill.
        """
        super().__init__(**kwargs)
        if fill not in ("constant", "reflect"):
            raise ValueError(f"fill must be constant or reflect, got {fill!r}.")
        self.height, self.width, self.fill = height, width, fill

    def call(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns shifted images [B, H, W, C]; equal seeds (integers [2]) shift alike."""
        count, rows, columns = tf.shape(images)[0], images.shape[1], images.shape[2]

        def offsets(number: int, most: int) -> tf.Tensor:
            own = tf.random.fold_in(seed, number)
            return tf.random.stateless_uniform([count, 1], own, minval=0, maxval=2 * most + 1, dtype=tf.int32)

        margins = [[0, 0], [self.height, self.height], [self.width, self.width], [0, 0]]
        padded = tf.pad(images, margins, self.fill.upper())
        cropped = tf.gather(padded, offsets(0, self.height) + tf.range(rows), axis=1, batch_dims=1)
        cropped = tf.gather(cropped, offsets(1, self.width) + tf.range(columns), axis=2, batch_dims=1)
        return tf.ensure_shape(cropped, images.shape)

    def get_config(self) -> dict[str, object]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "height": self.height, "width": self.width, "fill": self.fill}


@keras.saving.register_keras_serializable(package="wasser_tf")
class RandomMirror(keras.layers.Layer):
    """Mirrors each image left to right, or does not, with equal chances and anew in every call."""

    def call(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns images [B, H, W, C]; equal seeds (integers [2]) mirror alike."""
        mirrored = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], seed) < 0.5
        return tf.where(mirrored, tf.reverse(images, [2]), images)


class Augmentation:
    """Layers in a row, each with numbers of its own."""

    def __init__(self, layers: Sequence[keras.layers.Layer]):
        """Takes layers that are called with images and a seed."""
        self.layers = tuple(layers)

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns augmented images [B, H, W, C] in the range of those given.

        Args:
          images: [B, H, W, C], H and W known when compiling.
          seed: Integers [2]; the result is a function of it and of the images alone.
        """
        for number, layer in enumerate(self.layers):
            images = layer(images, tf.random.fold_in(seed, number))
        return images


def make_augmentation(name: str, image_shape: Sequence[int]) -> Augmentation | None:
    """Makes an augmentation for images of a shape.

    Args:
      name: One of `AUGMENTATIONS`.
      image_shape: Height, width and channels.

    Returns:
      The augmentation, or None for "none".

    Raises:
      ValueError: There is no such augmentation, or the images are too small for it.
    """
    _check_name(name)
    if name == "none":
        return None
    height, width = (side // _SHARE for side in image_shape[:2])
    if not height or not width:
        raise ValueError(
            f"augment={name} shifts by an eighth of the image and needs at least {_SHARE}×{_SHARE} pixels, got "
            f"{image_shape[0]}×{image_shape[1]}: leave it out."
        )
    return Augmentation(AUGMENTATIONS[name](height, width))


def check_suits(name: str, dataset: str) -> None:
    """Refuses an augmentation that makes other images of a dataset's than it has.

    Raises:
      ValueError: There is no such augmentation, or it mirrors characters.
    """
    _check_name(name)
    if name == "crop_flip" and str(dataset).partition("/")[0].partition(":")[0] in _CHARACTERS:
        raise ValueError(f"augment=crop_flip mirrors images, and {dataset} has characters: take augment=shift.")


def _check_name(name: object) -> None:
    if not isinstance(name, str) or name not in AUGMENTATIONS:
        raise ValueError(f"augment must be one of {', '.join(AUGMENTATIONS)}, got {name!r}.")


# By the most rows and columns to shift by. "shift" is for what stands before black; photographs go on at their borders.
AUGMENTATIONS: dict[str, Callable[[int, int], list[keras.layers.Layer]]] = {
    "none": lambda height, width: [],
    "shift": lambda height, width: [RandomShift(height, width)],
    "crop_flip": lambda height, width: [RandomShift(height, width, "reflect"), RandomMirror()],
}
