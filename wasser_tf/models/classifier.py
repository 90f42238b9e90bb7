"""`Classifier`: one description of what a classifier takes and returns, given by the user or found by looking at it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from wasser_tf.models.description import Description
from wasser_tf.models.inspection import describe_classifier
from wasser_tf.models.options import ClassifierOptions
from wasser_tf.models.probe import call_inline
from wasser_tf.models.saved_model import SavedModelClassifier


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

    Example:
    >>> import keras
    >>> import wasser_tf
    >>> image = keras.Input((8, 8, 1))
    >>> layers = [image, keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(10)]
    >>> classifier = wasser_tf.Classifier(keras.Sequential(layers), input_range=(0, 255))
    >>> classifier.describe().returns, classifier.describe().image_shape
    ('logits', (8, 8, 1))
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
        shape = tuple(images.shape[1:])
        # Of these images the order is known, whatever the order of the model.
        given = self if self.image_shape else dataclasses.replace(self, image_shape=shape)
        return given.canonical(shape)(images, training=training)


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

    Example:
    >>> import keras
    >>> from wasser_tf.models import Classifier
    >>> layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
    >>> canonical = Classifier(keras.Sequential(layers), input_range=(0, 255)).canonical()
    >>> canonical.input_shape, canonical(keras.ops.zeros((2, 8, 8, 1))).shape
    ((None, 8, 8, 1), TensorShape([2, 10]))
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
        if isinstance(self.model, SavedModelClassifier):
            before = self.model.call_before_activation(own) if description.returns != "logits" else None
            if before is not None:
                self.takes_logarithms = False
                return description.of_classes(before)
            outputs = self.model(own)
        elif description.inline and tf.inside_function():
            outputs = call_inline(self.model, own)
        elif isinstance(self.model, keras.Model) or not tf.inside_function():
            outputs = self.model(own, training=False)
        else:
            # A function of the user's that may need AutoGraph.
            outputs = tf.function(self.model)(own, training=False)
        logits, self.takes_logarithms = description.to_logits(tf.convert_to_tensor(description.select(outputs)))
        return tf.ensure_shape(logits, [None, description.num_classes])
