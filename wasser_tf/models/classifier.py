"""`Classifier`: one description of what a classifier takes and returns, given by the user or found by looking at it."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.models.description import Description
from wasser_tf.models.inspection import describe_classifier, input_spec
from wasser_tf.models.probe import call_inline
from wasser_tf.runtime.arguments import is_whole

RETURNS = ("logits", "probabilities", "sigmoid")
DATA_FORMATS = ("channels_last", "channels_first")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ClassifierOptions:
    """What is given about a classifier; None where it is to be found out.

    Attributes: see `Classifier`.

    Raises:
      ValueError: A field is not one of its values.
    """

    input_range: tuple[float, float] | None = None
    data_format: str | None = None
    output: str | int | None = None
    returns: str | None = None
    batch_size: int | None = None
    image_shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.input_range is not None:
            try:
                low, high = (float(value) for value in self.input_range)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"input_range must be the values of a black and a white pixel, such as (0, 255), got "
                    f"{self.input_range!r}."
                ) from error
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"input_range must be two rising finite numbers, such as (0, 255), got {low}, {high}.")
            if low < 0:
                raise ValueError(
                    f"input_range must not begin below 0, got {low:g}: mass is counted from black, so put the "
                    "normalisation inside the model, as a keras.layers.Rescaling or Normalization in front, and give "
                    "the range before it."
                )
            object.__setattr__(self, "input_range", (low, high))
        for name, values in (("data_format", DATA_FORMATS), ("returns", RETURNS)):
            if getattr(self, name) is not None and getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {', '.join(values)}, got {getattr(self, name)!r}.")
        whole_or_name = isinstance(self.output, (str, type(None))) or is_whole(self.output, 0)
        if not whole_or_name:
            raise ValueError(f"output must be the name or the place of an output, got {self.output!r}.")
        if self.batch_size is not None and not is_whole(self.batch_size, 1):
            raise ValueError(f"batch_size must be a whole number of at least 1, or None, got {self.batch_size!r}.")
        if self.image_shape is not None:
            shape = self.image_shape
            if not isinstance(shape, (tuple, list)) or len(shape) != 3 or not all(is_whole(side, 1) for side in shape):
                raise ValueError(f"image_shape must be height, width and channels, got {shape!r}.")
            object.__setattr__(self, "image_shape", tuple(int(side) for side in shape))

    @property
    def given(self) -> dict[str, Any]:
        """The fields that are not None."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(ClassifierOptions)}
        return {name: value for name, value in values.items() if value is not None}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Classifier(ClassifierOptions):
    """A classifier and what it takes and returns. It cannot be changed after construction.

    Attacks, `WasserTrain`, evaluations and exports take it in place of the model. Images are then given in the range
    and the order of the model, and examples come back in them; budgets are defined on [0, 1]. What is not given is
    found out from the model's layers and by one look at a few images, or asked for. A Keras model from images in
    [0, 1] needs no `Classifier`.

    Called with float32 images [n, H, W, C] in [0, 1] it returns float32 logits [n, classes].

    Attributes:
      model: A Keras model, a `SavedModelClassifier`, or any callable (images, training=False) -> outputs.
      input_range: The values of a black and a white pixel, such as (0, 255).
      data_format: "channels_last" for images [n, H, W, C], "channels_first" for [n, C, H, W].
      output: The name or the place of the output with the classes, of a model with several.
      returns: "logits", "probabilities", or "sigmoid": one unit, the probability of class 1 of two.
      batch_size: The only batch size that the model takes.
      image_shape: (H, W, C), of a model that takes flattened images.

    Raises:
      ValueError: A field is not one of its values, or the model is not callable.
    """

    model: Callable[..., Any] = dataclasses.field(kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.model, (ClassifierOptions, CanonicalClassifier)):
            raise ValueError("model must be the model itself, got a Classifier.")
        if not callable(self.model):
            raise ValueError(f"The classifier must be callable, as a Keras model is, got {type(self.model).__name__}.")

    def describe(self, shape: tuple[int, ...] | None = None) -> Description:
        """Returns the full description.

        Args:
          shape: The shape of one image, (H, W, C) or as the model takes it, where the model does not specify it.

        Raises:
          ValueError: Something cannot be found out, or contradicts what was given.
        """
        return describe_classifier(self.model, shape, **self.given)

    def canonical(self, shape: tuple[int, ...] | None = None) -> "CanonicalClassifier":
        """Returns the classifier from images in [0, 1] to logits; see `describe`."""
        return CanonicalClassifier(self.model, self.describe(shape))

    def traced_parts(self) -> dict[str, Any]:
        """Returns what decides which graph is traced from it, see `wasser_tf.models.structure`."""
        return {"model": self.model, **self.given}

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns float32 logits [n, classes] of float32 images [n, H, W, C] in [0, 1], in inference mode."""
        images = tf.convert_to_tensor(images)
        return self.canonical(tuple(images.shape[1:]))(images, training=training)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ModelOptions(ClassifierOptions):
    """What the flags of a binary give about a saved classifier.

    Attributes:
      signature: Of a SavedModel, the signature to call; the others as of `Classifier`.
    """

    signature: str | None = None

    @property
    def of_file(self) -> dict[str, Any]:
        """The arguments of `load_classifier`."""
        given = {"signature": self.signature} if self.signature is not None else {}
        return {**given, "output": self.output} if self.output is not None else given

    def to_json(self) -> dict[str, Any]:
        """Returns {"options": what is given} as plain values, or {} where nothing is."""
        given = {key: list(value) if isinstance(value, tuple) else value for key, value in self.given.items()}
        given |= {"signature": self.signature} if self.signature is not None else {}
        return {"options": given} if given else {}

    def mark(self, fingerprint: str) -> str:
        """Returns the fingerprint of a file, which also depends on what is given about it."""
        given = self.to_json()
        return f"{fingerprint} {json.dumps(given, sort_keys=True)}" if given else fingerprint


class CanonicalClassifier:
    """A classifier from float32 images [n, H, W, C] in [0, 1] to float32 logits [n, classes], around any other.

    Attributes:
      model: The other.
      description: What that takes and returns.
      input_shape: (None, H, W, C).
      output_shape: (None, classes).
      from_logits: True.
      takes_logarithms: Whether the logits are logarithms of probabilities, which lose digits where these are nearly 0;
        None before the first call.
    """

    from_logits = True

    def __init__(self, model: Any, description: Description) -> None:
        self.model, self.description = model, description
        self.input_shape = (None, *description.image_shape)
        self.output_shape = (None, description.num_classes)
        self.takes_logarithms: bool | None = None

    def traced_parts(self) -> dict[str, Any]:
        """Returns what decides which graph is traced from it, see `wasser_tf.models.structure`."""
        return {"model": self.model, "description": dataclasses.astuple(self.description)}

    @property
    def weights(self) -> list[Any]:
        """The weights of the model, as far as it has any."""
        return list(getattr(self.model, "weights", ()))

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the logits of images; the model runs in inference mode."""
        del training
        images = tf.cast(tf.convert_to_tensor(images), tf.float32)
        return self.logits(images) if tf.inside_function() else self._in_graph(images)

    @functools.cached_property
    def _in_graph(self) -> Callable[[tf.Tensor], tf.Tensor]:
        if not self.description.inline:
            return self.logits
        return tf.function(self.logits, autograph=False, reduce_retracing=True)

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """As a call, in the graph at hand."""
        description = self.description
        own, size = description.to_own(images), description.batch_size
        if size is None:
            return self._of_batch(own)
        count = images.shape[0]
        missing = -(tf.shape(own)[0] if count is None else count) % size
        # The last batch is filled up with its last image.
        own = tf.concat([own, tf.repeat(own[-1:], missing, axis=0)], axis=0)
        batches = tf.reshape(own, [-1, size, *description.own_shape])
        found = tf.map_fn(self._of_batch, batches, fn_output_signature=tf.float32)
        return tf.reshape(found, [-1, description.num_classes])[: tf.shape(images)[0]]

    def _of_batch(self, own: tf.Tensor) -> tf.Tensor:
        description = self.description
        if description.inline and tf.inside_function():
            outputs = call_inline(self.model, own)
        elif isinstance(self.model, keras.Model) or not tf.inside_function():
            outputs = self.model(own, training=False)
        else:
            # A function of the user's that may need AutoGraph.
            outputs = tf.function(self.model)(own, training=False)
        logits, self.takes_logarithms = description.to_logits(tf.convert_to_tensor(description.select(outputs)))
        return tf.ensure_shape(logits, [None, description.num_classes])


class PreparedImages(NamedTuple):
    """A classifier and images as attacks take them.

    Attributes:
      classifier: A plain classifier as it was given, else a `CanonicalClassifier`.
      from_logits: Whether it returns logits.
      images: The images, [n, H, W, C] in [0, 1] (not checked).
      restore: Converts such images back to the range and the order of those that were given.
    """

    classifier: Any
    from_logits: bool | None
    images: Any
    restore: Callable[[np.ndarray], np.ndarray]


def prepare(classifier: Any, images: Any, from_logits: bool | None = None) -> PreparedImages:
    """Finds out what a classifier takes and returns, and converts images accordingly.

    Images of a `Classifier` are in its own range and order. Those of any other classifier may be in [0, 1] and channels
    last too, whatever it takes: which of both they are in, their values and shape show.

    Args:
      classifier: Any classifier.
      images: The images.
      from_logits: Whether it returns logits, if that is known.

    Raises:
      ValueError: Something must be given that cannot be found out, or the images do not suit the classifier.
    """
    if isinstance(classifier, CanonicalClassifier) or not callable(classifier):
        return PreparedImages(classifier, True, images, lambda found: found)
    array = np.asarray(images)
    spec = input_spec(getattr(classifier, "model", classifier) if isinstance(classifier, Classifier) else classifier)
    expected = {4} if spec is None else {4, len(spec[0])}
    if array.ndim not in expected or len(array) == 0 or not np.issubdtype(array.dtype, np.number):
        return PreparedImages(classifier, from_logits, images, lambda found: found)
    given = classifier if isinstance(classifier, Classifier) else None
    if given is None:
        returns = None if from_logits is None else "logits" if from_logits else "probabilities"
        given = Classifier(classifier, returns=returns)
    description = given.describe(tuple(array.shape[1:]))
    if description.plain:
        return PreparedImages(given.model, description.returns == "logits", images, lambda found: found)
    own_order = _is_in_own_order(array, description)
    own_range = _is_in_own_range(array, description)
    steps = description if own_range else dataclasses.replace(description, input_range=(0.0, 1.0))
    steps = steps if own_order else dataclasses.replace(steps, data_format="channels_last", layout="image")
    return PreparedImages(
        CanonicalClassifier(given.model, description),
        True,
        _to_canonical(array, steps),
        lambda found: _from_canonical(found, steps),
    )


def _to_canonical(array: np.ndarray, steps: Description) -> np.ndarray:
    if steps.input_range != (0.0, 1.0):
        array = array.astype(np.float32)
    elif steps.own_shape == steps.image_shape or not np.issubdtype(array.dtype, np.floating):
        return array  # Integers in [0, 1] are refused by `check_batch`.
    return steps.from_own(tf.constant(array)).numpy()


def _from_canonical(images: np.ndarray, steps: Description) -> np.ndarray:
    # Rounding must not lead out of the range.
    low, high = steps.input_range
    own = steps.to_own(tf.constant(images)).numpy()
    return np.where(np.reshape((images >= 0) & (images <= 1), -1).all(), np.clip(own, low, high), own)


def _is_in_own_order(array: np.ndarray, description: Description) -> bool:
    if array.shape[1:] == description.own_shape:
        return True
    if array.shape[1:] == description.image_shape:
        return False
    raise ValueError(
        f"The classifier takes images of shape {description.own_shape}"
        + (", channels first" if description.data_format == "channels_first" else " (height, width, channels)")
        + f", got {array.shape[1:]}; images must be channels last unless data_format is channels_first."
    )


def _is_in_own_range(array: np.ndarray, description: Description) -> bool:
    low, high = description.input_range
    if description.input_range == (0.0, 1.0):
        return True
    if not np.isfinite(array.astype(np.float64)).all():
        return False  # `check_batch` refuses them.
    smallest, largest = float(array.min()), float(array.max())
    tolerance = 1e-6 * (high - low)
    if smallest < low - tolerance or largest > high + tolerance:
        unit = "" if description.range_was_given else " (or [0, 1])"
        raise ValueError(
            f"images must lie in [{low:g}, {high:g}]{unit}, the range of the classifier, got values from "
            f"{smallest:.9g} to {largest:.9g}; put any further normalisation inside the classifier."
        )
    within_unit = np.issubdtype(array.dtype, np.floating) and 0 <= smallest and 0 < largest <= 1 < high / 10
    if description.range_was_given and within_unit:
        raise ValueError(
            f"images must lie in [{low:g}, {high:g}], the range of the classifier, got values from {smallest:.9g} to "
            f"{largest:.9g}: multiply them by {high:g}."
        )
    return not within_unit


def canonical_of(classifier: Any, image_shape: tuple[int, ...], from_logits: bool | None = None) -> Any:
    """Returns a classifier that takes images [n, H, W, C] in [0, 1]: itself where it does, else a canonical one.

    Args:
      classifier: Any classifier.
      image_shape: (H, W, C).
      from_logits: Whether it returns logits, if that is known.

    Raises:
      ValueError: Something must be given that cannot be found out.
    """
    if isinstance(classifier, CanonicalClassifier):
        return classifier
    given = classifier if isinstance(classifier, Classifier) else None
    if given is None:
        returns = None if from_logits is None else "logits" if from_logits else "probabilities"
        given = Classifier(classifier, returns=returns)
    height, width, channels = image_shape
    shape = (height, width, channels)
    if given.image_shape is None:
        given = dataclasses.replace(given, image_shape=shape)
    description = given.describe(shape)
    return given.model if description.plain else CanonicalClassifier(given.model, description)
