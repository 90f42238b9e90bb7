"""Classifiers as WasserTrain trains them: Keras models from images in [0, 1], channels last, to classes."""

from typing import Any

import keras

from wasser_tf.models.classifier import Classifier
from wasser_tf.models.inputs import refuse_other_inputs
from wasser_tf.models.inspection import input_spec
from wasser_tf.models.layered import converted


def as_trainable(classifier: Any) -> Any:
    """Returns the Keras model that WasserTrain trains.

    Args:
      classifier: A Keras model of images in [0, 1], which is returned as it is, or a `Classifier` around any Keras
        model. That is returned as a model that converts images in [0, 1] and shares its layers and weights.

    Raises:
      ValueError: A Keras model takes something else, and is not in a `Classifier`; or it cannot be trained.
    """
    if not isinstance(classifier, Classifier):
        if not isinstance(classifier, keras.Model):
            raise ValueError(f"classifier must be a keras.Model, got {type(classifier).__name__}.")
        refuse_other_inputs(classifier)
        return classifier
    model = classifier.model
    if not isinstance(model, keras.Model):
        raise ValueError(f"classifier must be a keras.Model, or a Classifier around one, got {type(model).__name__}.")
    description = classifier.describe()
    if description.plain:
        return model
    if description.batch_size is not None:
        raise ValueError(
            f"The classifier must take batches of any size, got {description.batch_size}: make its keras.Input without "
            "batch_size."
        )
    spec = input_spec(model)
    if spec is not None and spec[1].is_integer:
        raise ValueError(
            f"The classifier takes {spec[1].name} pixels, which cannot be trained on adversarial images: give a model "
            "of the same layers whose keras.Input is float32."
        )
    return converted(model, description)
