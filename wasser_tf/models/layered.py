"""A classifier and the conversions around it as one Keras model of layers, for training and certification."""

from typing import Any

import keras
import numpy as np

from wasser_tf.models.classifier import CanonicalClassifier
from wasser_tf.models.description import Description


def as_layers(classifier: Any) -> Any:
    """Returns a canonical classifier as a Keras model of layers, which certification needs.

    Args:
      classifier: A `CanonicalClassifier`; any other classifier is returned unchanged.

    Returns:
      See `converted`; a SavedModel, a subclassed model or a function without the conversions, because certification
      refuses these.

    Raises:
      ValueError: The model takes integers, or one batch size only.

    Example:
    >>> import keras
    >>> from wasser_tf.models import Classifier
    >>> layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    >>> canonical = Classifier(keras.Sequential(layers), input_range=(0, 255)).canonical()
    >>> [type(layer).__name__ for layer in as_layers(canonical).layers]
    ['InputLayer', 'Rescaling', 'Sequential']
    """
    if not isinstance(classifier, CanonicalClassifier):
        return classifier
    model, description = classifier.model, classifier.description
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        return model
    if "int" in str(model.inputs[0].dtype):
        raise ValueError(
            f"The classifier takes {model.inputs[0].dtype} images, and bounds hold for floats only: give its "
            "keras.Input the dtype float32."
        )
    if description.batch_size is not None:
        raise ValueError(
            f"The classifier takes {description.batch_size} images at a time, and certification needs any number: make "
            "its keras.Input without batch_size."
        )
    return converted(model, description)


def converted(model: keras.Model, description: Description) -> keras.Model:
    """Returns a Keras model from images [n, H, W, C] in [0, 1] to [n, classes] around another one.

    It shares the layers and the weights of the other. Of one unit, the outputs are (0, logit of class 1), or the
    probabilities of both classes.

    Args:
      model: The other model.
      description: What that takes and returns.
    """
    image = x = keras.Input(description.image_shape, name="image")
    low, high = description.input_range
    if (low, high) != (0.0, 1.0):
        x = keras.layers.Rescaling(high - low, offset=low)(x)
    if description.data_format == "channels_first":
        x = keras.layers.Permute((3, 1, 2))(x)
    if description.layout != "image":
        x = keras.layers.Reshape(description.own_shape)(x)
    if description.output is not None and getattr(model, "inputs", None):
        # Without the other heads, whose layers may have no rule.
        outputs = keras.Model(model.inputs, description.select(model.output), name=model.name)(x)
    else:
        outputs = description.select(model(x))
    if description.num_units == 1:
        outputs = keras.layers.Reshape((1,))(outputs)
        sign, offset = (-1.0, 1.0) if description.returns == "sigmoid" else (0.0, 0.0)
        other = keras.layers.Dense(1, name="class_0", trainable=False, dtype="float32")
        two = keras.layers.Concatenate(name="two_classes")([other(outputs), outputs])
        other.set_weights([np.array([[sign]], np.float32), np.array([offset], np.float32)])
        outputs = two
    return keras.Model(image, outputs, name=f"{model.name}_of_unit_range")
