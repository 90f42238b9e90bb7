"""Architectures of classifiers, by name."""

import math
import numbers
import random
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from wasser_tf.models.applications import PREFIX, build_application, is_application, parse_application
from wasser_tf.runtime.arguments import check_fits, is_whole


def build(
    name: str,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    seed: int | None = None,
    width: float = 1,
) -> keras.Model:
    """Builds an untrained classifier.

    Args:
      name: One of `MODELS`: "lenet", "lenet_wide", "resnet_small", "resnet_coarse", "resnet18", "resnet18_large", "mlp"
        or "linear"; or "keras:NAME" for a classifier of keras.applications, "keras:NAME:weights=FILE" with weights.
      image_shape: The height, width and number of channels of the images, whose values lie in [0, 1].
      num_classes: The number of classes.
      seed: The seed of the initial weights; None draws them from the global random state.
      width: A factor on the number of channels and units of every hidden layer.

    Returns:
      A functional model from the input "image", [n, H, W, C], to the layer "logits", [n, num_classes]. The logits are
      float32 with any precision policy, so that the loss and served outputs keep their precision.

    Raises:
      ValueError: The name is unknown, or an argument is out of its range.

    Example:
    >>> from wasser_tf import models
    >>> models.build("lenet", (8, 8, 1), 10, seed=0).count_params()
    22406
    """
    check_architecture("model", name)
    triple = isinstance(image_shape, (tuple, list)) and len(image_shape) == 3
    if not triple or not all(is_whole(side, 1) for side in image_shape):
        raise ValueError(f"image_shape must be three whole numbers, height, width and channels, got {image_shape!r}.")
    if not is_whole(num_classes, 2):
        raise ValueError(f"num_classes must be a whole number of at least 2, got {num_classes!r}.")
    if seed is not None and not is_whole(seed, 0):
        raise ValueError(f"seed must be a whole number of at least 0, or None, got {seed!r}.")
    if not isinstance(width, numbers.Real) or isinstance(width, bool) or not 0 < width < math.inf:
        raise ValueError(f"width must be a finite number above 0, got {width!r}.")
    if is_application(name):
        shape = (int(image_shape[0]), int(image_shape[1]), int(image_shape[2]))
        return build_application(name, shape, int(num_classes), seed=seed, width=width)
    pixels = math.prod(int(side) for side in image_shape)
    # The largest layer: one weight for each pixel and unit, or the widest convolution.
    units = {"linear": num_classes, "mlp": 64 * width}.get(name, width / 16 * 100 * width)
    check_fits(
        4 * max(pixels * units, (64 * width) ** 2, num_classes),
        f"The weights of {name} for images of {'×'.join(map(str, image_shape))}",
        "use smaller images, fewer classes or a smaller width",
    )
    image = keras.Input(tuple(int(side) for side in image_shape), name="image")
    layers = _Layers(seed, float(width))
    features = MODELS[name](image, layers)
    return keras.Model(image, layers.logits(int(num_classes))(features), name=name)


def check_architecture(name: str, value: Any) -> None:
    """Raises an error unless the value is the name of an architecture.

    Args:
      name: The name of the argument, for the message.
      value: The value to check.

    Raises:
      ValueError: The value is neither one of `MODELS` nor a classifier of keras.applications.

    Example:
    >>> check_architecture("model", "vgg")
    Traceback (most recent call last):
    ValueError: model must be one of ...
    """
    if is_application(value):
        parse_application(value)
    elif not isinstance(value, str) or value not in MODELS:
        raise ValueError(f"{name} must be one of {', '.join(MODELS)} or {PREFIX}NAME, got {value!r}.")


def blurred(classifier: keras.Model, passes: int) -> keras.Model:
    """Puts a fixed blur in front of a classifier: a sequence of 3×3 mean filters.

    In a ball of W1, a linear functional w of the image changes by at most ε · mass · Lip(w) (Kantorovich-Rubinstein
    duality), and the blur makes the functionals that the classifier computes smoother. It does not hide anything from
    an attacker: the blur is a part of the classifier, and gradients flow through it.

    Args:
      classifier: A Keras model of images [n, H, W, C].
      passes: The number of filters, from 0 to 100; 0 returns the classifier itself.

    Returns:
      A classifier with the same weights. At the border, the mean is over the pixels within the image.

    Raises:
      ValueError: `passes` is not a whole number from 0 to 100.

    Example:
    >>> from wasser_tf import models
    >>> classifier = models.build("linear", (8, 8, 1), 10)
    >>> models.blurred(classifier, 2).name
    'linear_blurred'
    """
    if not is_whole(passes, 0) or passes > 100:
        raise ValueError(f"blur must be a whole number of passes from 0 to 100, got {passes!r}.")
    if not passes:
        return classifier
    height, width, channels = classifier.input_shape[1:]
    image = keras.Input((height, width, channels), name="image")
    # The means along rows and along columns commute, so all passes are one matrix on each side. Pooling layers took
    # three times as long as the LeNet after them.
    rows, columns = _mean_of_three(height, passes), _mean_of_three(width, passes)
    x = keras.ops.einsum("ih,bhwc,jw->bijc", rows, image, columns)
    return keras.Model(image, classifier(x), name=f"{classifier.name}_blurred")


def _mean_of_three(length: int, passes: int) -> np.ndarray:
    """Returns the matrix [length, length] that repeatedly replaces each entry by the mean of it and its neighbours."""
    near = np.abs(np.subtract.outer(np.arange(length), np.arange(length))) <= 1
    mean = near / near.sum(axis=1, keepdims=True)
    return np.linalg.matrix_power(mean, passes).astype(np.float32)


class _Layers:
    """Creates layers whose width is multiplied by a factor, each with a different seed."""

    def __init__(self, seed: int | None, width: float) -> None:
        self.width = width
        self._seeds = None if seed is None else random.Random(int(seed))

    def conv(self, channels: int, size: int, strides: int = 1, **options: Any) -> keras.layers.Conv2D:
        return keras.layers.Conv2D(self._scaled(channels), size, strides, **self._seeded("glorot_uniform"), **options)

    def resnet_conv(self, channels: int, size: int, strides: int = 1) -> keras.layers.Conv2D:
        options = self._seeded("he_normal")
        return keras.layers.Conv2D(self._scaled(channels), size, strides, padding="same", use_bias=False, **options)

    def dense(self, units: int, **options: Any) -> keras.layers.Dense:
        return keras.layers.Dense(self._scaled(units), **self._seeded("glorot_uniform"), **options)

    def logits(self, num_classes: int) -> keras.layers.Dense:
        return keras.layers.Dense(num_classes, **self._seeded("glorot_uniform"), dtype="float32", name="logits")

    def _scaled(self, count: int) -> int:
        return max(1, round(count * self.width))

    def _seeded(self, name: str) -> dict[str, Any]:
        seed = None if self._seeds is None else self._seeds.getrandbits(31)
        return {"kernel_initializer": {"class_name": name, "config": {"seed": seed}}}


def _lenet(image: Any, layers: _Layers) -> Any:
    """The LeNet of Wong, Schmidt and Kolter (2019)."""
    if min(image.shape[1:3]) < 4:
        raise ValueError(f"lenet needs images of at least 4×4 pixels, got {image.shape[1]}×{image.shape[2]}.")
    x = keras.layers.ZeroPadding2D(1)(image)
    x = layers.conv(16, 4, 2, activation="relu", name="conv1")(x)
    x = keras.layers.ZeroPadding2D(1)(x)
    x = layers.conv(32, 4, 2, activation="relu", name="conv2")(x)
    return layers.dense(100, activation="relu", name="dense1")(keras.layers.Flatten()(x))


def _lenet_wide(image: Any, layers: _Layers) -> Any:
    """The LeNet with four times the channels and units."""
    layers.width *= 4
    return _lenet(image, layers)


def _resnet_small(image: Any, layers: _Layers) -> Any:
    """A residual network for CPUs, 0.50 M weights: few convolutions, wide on small maps, as in DAWNBench entries.

    A training step takes less time than that of a ResNet-14 with a third of the weights. On a CPU the time is dominated
    by memory access, so maps are halved before they are normalized.
    """
    x = _norm_activation(layers.resnet_conv(16, 3)(_rescaled(image)))
    for channels in (32, 96, 160):
        # Padding "same" supports images of any size.
        x = _norm_activation(keras.layers.MaxPooling2D(padding="same")(layers.resnet_conv(channels, 3)(x)))
        x = keras.layers.Add()([x, _norm_activation(layers.resnet_conv(channels, 3)(x))])
    return keras.layers.GlobalAveragePooling2D()(x)


def _resnet_coarse(image: Any, layers: _Layers) -> Any:
    """A residual network on maps of half the size, 3.8 M weights, for robust training behind a blur.

    An attack changes low spatial frequencies less at the same cost, so robust features are coarse. At half the
    resolution a network of this depth and width takes a third of the time of a ResNet-18. SiLU instead of ReLU, because
    attacks, above all in training, are stronger on smooth functions.
    """
    x = layers.resnet_conv(96, 3, 2)(_rescaled(image))
    for stage, channels in enumerate((96, 192, 256)):
        for block in range(2):
            x = _residual(x, layers, channels, strides=2 if stage and not block else 1, activation="silu")
    return keras.layers.GlobalAveragePooling2D()(_norm_activation(x, "silu"))


def _resnet18(image: Any, layers: _Layers) -> Any:
    """The pre-activation ResNet-18 for 32×32 images (a 3×3 stem, no pooling), 11.2 M weights.

    Identity Mappings in Deep Residual Networks (He et al., 2016): four stages of two blocks, each stage twice as wide.
    """
    return _resnet18_body(layers.resnet_conv(64, 3)(_rescaled(image)), layers)


def _resnet18_large(image: Any, layers: _Layers) -> Any:
    """The same behind a stem for large images (64×64 and above), which reduces height and width to a quarter.

    A 7×7 convolution as in ResNets for ImageNet; then average instead of max pooling, whose gradient XLA supports in
    deterministic runs.
    """
    x = _norm_activation(layers.resnet_conv(64, 7, 2)(_rescaled(image)))
    return _resnet18_body(keras.layers.AveragePooling2D(3, 2, padding="same")(x), layers)


def _resnet18_body(x: Any, layers: _Layers) -> Any:
    for stage in range(4):
        for block in range(2):
            x = _residual(x, layers, 64 * 2**stage, strides=2 if stage and not block else 1)
    return keras.layers.GlobalAveragePooling2D()(_norm_activation(x))


def _mlp(image: Any, layers: _Layers) -> Any:
    return layers.dense(64, activation="relu")(keras.layers.Flatten()(image))


def _linear(image: Any, layers: _Layers) -> Any:
    """No hidden layer: the optimum of the attacks is known in closed form."""
    del layers
    return keras.layers.Flatten()(image)


def _rescaled(image: Any) -> Any:
    # In the model, so that attacks and clients use images in [0, 1]. Mean 0.5 and deviation 0.25 suit most images.
    return keras.layers.Rescaling(1 / 0.25, offset=-0.5 / 0.25)(image)


def _residual(x: Any, layers: _Layers, channels: int, strides: int, activation: str = "relu") -> Any:
    activated = _norm_activation(x, activation)
    first = layers.resnet_conv(channels, 3, strides)
    shortcut = x
    if strides != 1 or x.shape[-1] != first.filters:
        shortcut = layers.resnet_conv(channels, 1, strides)(activated)
    x = _norm_activation(first(activated), activation)
    return keras.layers.Add()([layers.resnet_conv(channels, 3)(x), shortcut])


def _norm_activation(x: Any, activation: str = "relu") -> Any:
    # The default momentum, 0.99, would lag behind in the first few hundred steps.
    normalised = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return keras.layers.Activation(activation)(normalised)


# Functions from the input and a factory of layers to the features [n, d] of which the logits are a linear function.
MODELS: dict[str, Callable[[Any, _Layers], Any]] = {
    "lenet": _lenet,
    "lenet_wide": _lenet_wide,
    "resnet_small": _resnet_small,
    "resnet_coarse": _resnet_coarse,
    "resnet18": _resnet18,
    "resnet18_large": _resnet18_large,
    "mlp": _mlp,
    "linear": _linear,
}
