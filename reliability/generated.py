"""Classifiers of one linear network in many forms, for tests that all of them are attacked alike or refused.

Whatever a form takes and returns, its canonical form is `Generated.reference`: the same weights on float32 images
[n, H, W, C] in [0, 1] with logits as outputs.
"""

import dataclasses
import itertools
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wasser_tf import models
from wasser_tf.models.saved_model import SavedModelClassifier

KINDS = ("functional", "sequential", "nested", "subclassed", "saved_model", "h5")
PIXELS = ("unit", "255", "uint8")
RETURNS = ("logits", "probabilities", "sigmoid")
ORDERS = ("channels_last", "channels_first")
# Beyond the matrix.
_MORE_KINDS = ("function", "tf_function", "unbuilt_sequential", "keras_file")
_SCALINGS = ("rescaling", "normalization", "symmetric", "none")
_ACTIVATIONS = ("activation", "layer", "lambda", "mean")
_BORDERS = (False, False, True)
_HEADS = ("one", "list", "dict")

SHAPE = (4, 5, 3)
_CLASSES = 3


@dataclasses.dataclass(frozen=True)
class Generated:
    """One form of the network.

    Attributes:
      kind: How it is made or stored.
      pixels: "unit", "255" or "uint8".
      returns: "logits", "probabilities" or "sigmoid".
      order: The order of the axes of its images.
      scaling: How it converts pixels of 0..255.
      activation: How its softmax or sigmoid is made.
      heads: Whether its output is the only one, or in a list or dict with another.
      batch_size: The only batch size it takes, or None.
      flat: Whether it takes flattened images.
      border: Whether it surrounds images by zeros before it converts them.
    """

    kind: str
    pixels: str = "unit"
    returns: str = "logits"
    order: str = "channels_last"
    scaling: str = "rescaling"
    activation: str = "activation"
    heads: str = "one"
    batch_size: int | None = None
    flat: bool = False
    border: bool = False

    @property
    def num_classes(self) -> int:
        """The number of classes: two where there is one unit."""
        return 2 if self.returns == "sigmoid" else _CLASSES

    @property
    def given(self) -> dict[str, Any]:
        """The full description, as the user of the classifier could give it."""
        found: dict[str, Any] = {"returns": self.returns, "data_format": self.order}
        if self.pixels != "unit":
            found["input_range"] = (0, 255)
        if self.heads != "one":
            found["output"] = 0 if self.heads == "list" else "classes"
        if self.flat:
            found["image_shape"] = SHAPE
        if self.batch_size is not None:
            found["batch_size"] = self.batch_size
        return found

    def given_for(self, classifier: Any) -> dict[str, Any]:
        """The same of a classifier that may have chosen its output already, as a SavedModel's has."""
        chosen = isinstance(classifier, SavedModelClassifier)
        return {key: value for key, value in self.given.items() if not (chosen and key == "output")}

    def own_images(self, images: np.ndarray) -> np.ndarray:
        """Converts images [n, H, W, C] in [0, 1] to what the classifier takes."""
        own = images if self.pixels == "unit" else images * np.float32(255)
        own = own if self.order == "channels_last" else own.transpose(0, 3, 1, 2)
        return own.reshape(len(own), -1) if self.flat else own

    def unit_images(self, own: np.ndarray) -> np.ndarray:
        """The reverse of `own_images`."""
        height, width, channels = SHAPE
        if self.order == "channels_first":
            own = own.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
        own = own.reshape(-1, *SHAPE)
        return own if self.pixels == "unit" else own / np.float32(255)


def reference(num_classes: int, seed: int = 0) -> keras.Model:
    """Returns the network in canonical form."""
    kernel, bias = _weights(num_classes, seed)
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(num_classes)])
    model.set_weights([kernel, bias])
    return model


def make(case: Generated, folder: pathlib.Path, seed: int = 0) -> Any:
    """Makes a classifier of that form, or loads it from a file in the folder.

    Raises:
      ValueError: wasser_tf refuses the file.
    """
    layers = _layers(case, seed)
    shape = (int(np.prod(SHAPE)),) if case.flat else case.own_images(np.zeros((1, *SHAPE), np.float32)).shape[1:]
    dtype = "uint8" if case.pixels == "uint8" else "float32"

    def functional() -> keras.Model:
        image = keras.Input(shape, batch_size=case.batch_size, dtype=dtype)
        return keras.Model(image, _with_heads(case, _chain(layers, image)))

    if case.kind == "sequential" and case.heads == "one":
        return keras.Sequential([keras.Input(shape, batch_size=case.batch_size, dtype=dtype), *layers])
    if case.kind == "unbuilt_sequential" and case.heads == "one":
        return keras.Sequential(layers)
    if case.kind == "nested" and case.heads == "one":
        return keras.Sequential([keras.Input(shape, batch_size=case.batch_size, dtype=dtype), functional()])
    if case.kind == "subclassed":
        return _Subclassed(layers, case)
    model = functional()
    if case.kind == "function":
        return lambda images, training=False: model(images, training=training)
    if case.kind == "tf_function":
        return tf.function(lambda images, training=False: model(images, training=training))
    path = folder / f"{abs(hash((case, seed)))}"
    if case.kind == "saved_model":
        model.export(path, verbose=False)
        output = "classes" if case.heads == "dict" else None
        # Keras calls the first of a list so.
        return models.load_classifier(path, output="output_0" if case.heads == "list" else output)
    if case.kind in ("h5", "keras_file"):
        file = path.with_suffix(".h5" if case.kind == "h5" else ".keras")
        model.save(file)
        return models.load_classifier(file)
    return model


def matrix() -> Iterator[Generated]:
    """Yields the forms of the matrix test."""
    for kind, pixels, returns, order in itertools.product(KINDS, PIXELS, RETURNS, ORDERS):
        yield Generated(kind, pixels, returns, order)


def random_case(chance: random.Random) -> Generated:
    """Returns any form."""
    return Generated(
        kind=chance.choice((*KINDS, *_MORE_KINDS)),
        pixels=chance.choice(PIXELS),
        returns=chance.choice(RETURNS),
        order=chance.choice(ORDERS),
        scaling=chance.choice(_SCALINGS),
        activation=chance.choice(_ACTIVATIONS),
        heads=chance.choice(("one", *_HEADS)),
        batch_size=chance.choice((None, None, 1, 3)),
        flat=(flat := chance.random() < 0.2),
        border=chance.choice(_BORDERS) and not flat,
    )


def _weights(num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    size = int(np.prod(SHAPE))
    kernel = generator.normal(size=(size, num_classes)).astype(np.float32)
    if num_classes == 2:
        # The logit of a single unit is that of class 1 over class 0.
        kernel[:, 0] = 0
    # Zero on the mean of the images, so that all classes occur.
    return kernel, -0.5 * kernel.sum(axis=0)


def _layers(case: Generated, seed: int) -> list[Any]:
    """Returns the layers from the images as the form takes them to its output."""
    kernel, bias = _weights(case.num_classes, seed)
    if case.returns == "sigmoid":
        kernel, bias = kernel[:, 1:], bias[1:]
    height, width, channels = SHAPE
    made: list[Any] = []
    if case.border:
        made.append(keras.layers.ZeroPadding2D(1, data_format=case.order))
    if case.pixels != "unit":
        scaling, scale, offset = case.scaling, 255.0, 0.0
        if scaling == "rescaling":
            made.append(keras.layers.Rescaling(1 / 255))
            scale = 1.0
        elif scaling == "symmetric":
            made.append(keras.layers.Rescaling(1 / 127.5, offset=-1.0))
            scale, offset = 2.0, -1.0
        elif scaling == "normalization":
            made.append(keras.layers.Normalization(mean=120.0, variance=3600.0, axis=None))
            scale, offset = 255.0 / 60.0, -2.0
        # kernel · x = kernel / scale · (scale x + offset) − kernel / scale · offset
        kernel = kernel / np.float32(scale)
        bias = bias - np.float32(offset) * kernel.sum(axis=0)
    if case.border:
        made.append(keras.layers.Cropping2D(1, data_format=case.order))
    if case.order == "channels_first":
        if case.flat:
            made.append(keras.layers.Reshape((channels, height, width)))
        made.append(keras.layers.Permute((2, 3, 1)))
    made.append(keras.layers.Flatten())
    activation = {"logits": None, "probabilities": "softmax", "sigmoid": "sigmoid"}[case.returns]
    dense = keras.layers.Dense(
        kernel.shape[1],
        activation=activation if case.activation == "activation" else None,
        kernel_initializer=_Constant(kernel),
        bias_initializer=_Constant(bias),
    )
    made.append(dense)
    if activation and case.activation == "layer":
        made.append(keras.layers.Activation(activation))
    if activation and case.activation == "lambda":
        made.append(_AsFunction(activation))
    if activation and case.activation == "mean":
        made.append(_AsFunction(activation, mean=True))
    return made


def _chain(layers: list[Any], tensor: Any) -> Any:
    for layer in layers:
        tensor = layer(tensor)
    return tensor


def _with_heads(case: Generated, outputs: Any) -> Any:
    if case.heads == "one":
        return outputs
    # A linear layer of no operation, so that the first output has a name.
    named = keras.layers.Identity(name="classes")(outputs)
    other = keras.layers.Dense(1, name="other")(outputs)
    return [named, other] if case.heads == "list" else {"classes": named, "other": other}


@keras.saving.register_keras_serializable(package="wasser_tf_reliability")
class _Constant(keras.initializers.Initializer):
    """Initial weights that are given."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values, np.float32)

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        del shape
        return keras.ops.convert_to_tensor(self.values, dtype)

    def get_config(self) -> dict[str, Any]:
        return {"values": self.values.tolist()}


@keras.saving.register_keras_serializable(package="wasser_tf_reliability")
class _AsFunction(keras.layers.Layer):
    """A softmax or sigmoid that Keras does not know as one, as in a Lambda layer, or a mean of two."""

    def __init__(self, function: str, mean: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function, self.mean = function, mean

    def call(self, inputs: Any) -> Any:
        function = {"softmax": tf.nn.softmax, "sigmoid": tf.math.sigmoid}[self.function]
        # As of an ensemble, here of equal members.
        return 0.3 * function(inputs) + 0.7 * function(inputs) if self.mean else function(inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "function": self.function, "mean": self.mean}


class _Subclassed(keras.Model):
    """The layers, called by a model that does not specify what it takes."""

    def __init__(self, layers: list[Any], case: Generated) -> None:
        super().__init__()
        self.chain, self.case = layers, case

    def call(self, images: Any) -> Any:
        outputs = _chain(self.chain, tf.cast(images, tf.float32))
        if self.case.heads == "one":
            return outputs
        other = outputs[:, :1]
        return [outputs, other] if self.case.heads == "list" else {"classes": outputs, "other": other}
