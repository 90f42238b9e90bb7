"""Augmentations of training images, by name, as Keras layers without weights or state.

The random numbers of each layer are a function of a seed that is passed with every batch. The random layers of Keras
keep a state instead, so that a resumed training would draw different numbers from an uninterrupted one.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from wasser_tf.data.pixel_sources import PixelSources, unmoved

# Datasets of characters, which horizontal flips change.
_CHARACTERS = ("digits", "mnist", "emnist", "kmnist", "svhn_cropped", "omniglot", "cmaterdb")
# Images are shifted by up to 1/8 of their size: 4 pixels of 32, as is usual for CIFAR-10; 3 of 28 for MNIST.
_SHARE = 8


@keras.saving.register_keras_serializable(package="wasser_tf")
class RandomShift(keras.layers.Layer):
    """Shifts each image by a random number of whole pixels, new in every call (a random crop after padding)."""

    def __init__(self, height: int, width: int, fill: str = "constant", **kwargs: object):
        """Creates the layer.

        Args:
          height: The largest shift up or down, in pixels.
          width: The largest shift left or right, in pixels.
          fill: The padding at the borders: zeros ("constant") or the reflected image ("reflect").
          **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

        Raises:
          ValueError: The fill is unknown.
        """
        super().__init__(**kwargs)
        if fill not in ("constant", "reflect"):
            raise ValueError(f"fill must be constant or reflect, got {fill!r}.")
        self.height, self.width, self.fill = height, width, fill

    def call(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns the shifted images [B, H, W, C], a function of the images and the seed (integers [2])."""
        rows, columns = self._offsets(tf.shape(images)[0], seed)
        margins = [[0, 0], [self.height, self.height], [self.width, self.width], [0, 0]]
        padded = tf.pad(images, margins, self.fill.upper())
        cropped = tf.gather(padded, rows + tf.range(images.shape[1]), axis=1, batch_dims=1)
        cropped = tf.gather(cropped, columns + tf.range(images.shape[2]), axis=2, batch_dims=1)
        return tf.ensure_shape(cropped, images.shape)

    def sources(self, images: tf.Tensor, seed: tf.Tensor) -> PixelSources:
        """Returns where the pixels of the shifted images come from."""
        sources = []
        offsets = self._offsets(tf.shape(images)[0], seed)
        for offset, most, length in zip(offsets, (self.height, self.width), images.shape[1:3], strict=True):
            source = offset - most + tf.range(length)
            if self.fill == "reflect":
                source = length - 1 - tf.abs(length - 1 - tf.abs(source))
            else:
                source = tf.where((source >= 0) & (source < length), source, -1)
            sources.append(source)
        return PixelSources(*sources)

    def _offsets(self, count: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the first row and the first column of each crop of the padded images, int32 [count, 1]."""

        def draw(number: int, most: int) -> tf.Tensor:
            own = tf.random.fold_in(seed, number)
            return tf.random.stateless_uniform([count, 1], own, minval=0, maxval=2 * most + 1, dtype=tf.int32)

        return draw(0, self.height), draw(1, self.width)

    def get_config(self) -> dict[str, object]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "height": self.height, "width": self.width, "fill": self.fill}


@keras.saving.register_keras_serializable(package="wasser_tf")
class RandomMirror(keras.layers.Layer):
    """Flips each image horizontally with probability 1/2, new in every call."""

    def call(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns the images [B, H, W, C], flipped or not, a function of the images and the seed (integers [2])."""
        mirrored = _half_of(images, seed)
        return tf.where(mirrored[:, None, None, None], tf.reverse(images, [2]), images)

    def sources(self, images: tf.Tensor, seed: tf.Tensor) -> PixelSources:
        """Returns where the pixels of the images come from."""
        rows, columns = unmoved(tf.shape(images)[0], *images.shape[1:3])
        return PixelSources(rows, tf.where(_half_of(images, seed)[:, None], tf.reverse(columns, [1]), columns))


def _half_of(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], seed)[:, 0, 0, 0] < 0.5


@keras.saving.register_keras_serializable(package="wasser_tf")
class RandomCutout(keras.layers.Layer):
    """Makes a square at a random place of each image grey, new in every call (cutout, DeVries and Taylor, 2017).

    The centre of the square is uniform over the pixels, so that a part of the square may lie outside the image.
    """

    _GREY = 0.5

    def __init__(self, height: int, width: int, **kwargs: object):
        """Creates the layer.

        Args:
          height: The height of the square, in pixels.
          width: Its width, in pixels.
          **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
        """
        super().__init__(**kwargs)
        self.height, self.width = height, width

    def call(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns the images [B, H, W, C] with their squares, a function of the images and the seed (integers [2])."""
        count, inside = tf.shape(images)[0], []
        for number, (side, length) in enumerate(zip((self.height, self.width), images.shape[1:3], strict=True)):
            own = tf.random.fold_in(seed, number)
            first = tf.random.stateless_uniform([count, 1], own, maxval=length, dtype=tf.int32) - side // 2
            inside.append((tf.range(length) >= first) & (tf.range(length) < first + side))
        square = inside[0][:, :, None] & inside[1][:, None, :]
        return tf.where(square[..., None], tf.cast(self._GREY, images.dtype), images)

    def sources(self, images: tf.Tensor, seed: tf.Tensor) -> PixelSources:
        """Returns where the pixels of the images come from: no pixel moves."""
        del seed
        return unmoved(tf.shape(images)[0], *images.shape[1:3])

    def get_config(self) -> dict[str, object]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "height": self.height, "width": self.width}


class Augmentation:
    """A sequence of layers, each with independent random numbers."""

    def __init__(self, layers: Sequence[keras.layers.Layer]):
        """Creates the augmentation.

        Args:
          layers: Layers that are called with images [B, H, W, C] and a seed (integers [2]), and whose method `sources`
            returns where the pixels come from.
        """
        self.layers = tuple(layers)

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns the augmented images [B, H, W, C], in the same range.

        Args:
          images: Images [B, H, W, C], with H and W known at compile time.
          seed: The seed, integers [2]; the result is a function of it and of the images.
        """
        for number, layer in enumerate(self.layers):
            images = layer(images, tf.random.fold_in(seed, number))
        return images

    def sources(self, images: tf.Tensor, seed: tf.Tensor) -> PixelSources:
        """Returns where the pixels of the augmented images come from.

        Args:
          images: The images [B, H, W, C], of which only the shape counts.
          seed: The seed of the call, integers [2].
        """
        found = unmoved(tf.shape(images)[0], *images.shape[1:3])
        for number, layer in enumerate(self.layers):
            found = layer.sources(images, tf.random.fold_in(seed, number)).after(found)
        return found


def make_augmentation(name: str, image_shape: Sequence[int]) -> Augmentation | None:
    """Creates an augmentation for images of a shape.

    Args:
      name: One of `AUGMENTATIONS`.
      image_shape: Height, width and channels.

    Returns:
      The augmentation, or None for "none".

    Raises:
      ValueError: The name is unknown, or the images are too small.

    Example:
    >>> from wasser_tf import data
    >>> from wasser_tf.data.augmentation import make_augmentation
    >>> augmentation = make_augmentation("shift", (8, 8, 1))
    >>> augmentation(data.load("digits").train.images[:4], seed=(0, 1)).shape
    TensorShape([4, 8, 8, 1])
    """
    _check_name(name)
    if name == "none":
        return None
    height, width = (side // _SHARE for side in image_shape[:2])
    if name != "flip" and not (height and width):
        raise ValueError(
            f"augment={name} shifts images by up to 1/{_SHARE} of their size and needs at least {_SHARE}×{_SHARE} "
            f"pixels, got {image_shape[0]}×{image_shape[1]}: leave it out."
        )
    return Augmentation(AUGMENTATIONS[name](height, width))


def check_suits(name: str, dataset: str) -> None:
    """Raises an error if an augmentation would change the classes of a dataset.

    Args:
      name: The name of the augmentation.
      dataset: The name of the dataset.

    Raises:
      ValueError: The augmentation is unknown, or flips characters.
    """
    _check_name(name)
    if "flip" in name and str(dataset).partition("/")[0].partition(":")[0] in _CHARACTERS:
        raise ValueError(f"augment={name} flips images, which changes the characters of {dataset}: use augment=shift.")


def _check_name(name: object) -> None:
    if not isinstance(name, str) or name not in AUGMENTATIONS:
        raise ValueError(f"augment must be one of {', '.join(AUGMENTATIONS)}, got {name!r}.")


# Functions of the largest shifts in rows and columns. "shift" pads with black, for objects before a black background;
# "crop_flip" reflects, for photographs. "flip" shifts nothing.
AUGMENTATIONS: dict[str, Callable[[int, int], list[keras.layers.Layer]]] = {
    "none": lambda height, width: [],
    "shift": lambda height, width: [RandomShift(height, width)],
    "flip": lambda height, width: [RandomMirror()],
    "crop_flip": lambda height, width: [RandomShift(height, width, "reflect"), RandomMirror()],
    "crop_flip_cutout": lambda height, width: [
        *(RandomShift(height, width, "reflect"), RandomMirror()),
        RandomCutout(2 * height, 2 * width),
    ],
}
