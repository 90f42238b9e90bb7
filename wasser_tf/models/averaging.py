"""The mean of classifiers: of their weights, as in SWA (Izmailov et al., 2018), or of their logits, an ensemble."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from wasser_tf import models
from wasser_tf.runtime import storage
from wasser_tf.runtime.arguments import as_path


def average(sources: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]) -> keras.Model:
    """Saves the classifier whose weights are the mean of the weights of several classifiers.

    The mean is useful if the weights lie in one valley of the loss, like those of continuations of one training, but
    not for classifiers that were trained from different initial weights. The moments of batch normalization are
    averaged like weights.

    Args:
      sources: At least two classifiers of one architecture, as for `models.load_classifier`.
      path: The .keras file to write.

    Returns:
      The classifier.

    Raises:
      ValueError: There are fewer than two classifiers, one is a SavedModel, or their architectures differ.
    """
    target = _target(sources, path)
    loaded = [models.load_keras(source) for source in sources]
    for source, classifier in zip(sources, loaded, strict=True):
        if _architecture(classifier) != _architecture(loaded[0]):
            raise ValueError(
                f"{source} has another architecture than {sources[0]}: both need the same layers and shapes of weights."
            )
    weights = zip(*[classifier.get_weights() for classifier in loaded], strict=True)
    loaded[0].set_weights([np.mean(values, axis=0, dtype=np.float64).astype(values[0].dtype) for values in weights])
    return _saved(loaded[0], target)


def average_logits(sources: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]) -> keras.Model:
    """Saves an ensemble: the classifier whose logits are the mean of the logits of several classifiers.

    The classifiers can have different architectures and trainings. The ensemble takes as long as all of them together.
    It is one differentiable classifier, so attacks and certification treat it like any other.

    Args:
      sources: At least two classifiers of the same images and classes, as for `models.load_classifier`.
      path: The .keras file to write.

    Returns:
      The ensemble, from the input "image", [n, H, W, C], to logits [n, classes].

    Raises:
      ValueError: There are fewer than two classifiers, one is a SavedModel or does not return logits, or their images
        or classes differ.
    """
    target = _target(sources, path)
    loaded = [models.load_keras(source) for source in sources]
    for number, (source, classifier) in enumerate(zip(sources, loaded, strict=True)):
        if models.returns_logits(classifier) is not True:
            raise ValueError(f"{source} must return logits, got probabilities or outputs of another kind.")
        shapes = (classifier.input_shape[1:], classifier.output_shape[1:])
        wanted = (loaded[0].input_shape[1:], loaded[0].output_shape[1:])
        if shapes != wanted:
            raise ValueError(
                f"{source} takes images of {shapes[0]} to {shapes[1][0]} classes, {sources[0]} takes {wanted[0]} to "
                f"{wanted[1][0]}: both need the same."
            )
        # Layers of a model need different names.
        classifier.name = f"member_{number}"
    image = keras.Input(loaded[0].input_shape[1:], name="image")
    mean = keras.layers.Average()([classifier(image) for classifier in loaded])
    # Its linear activation says that these are logits.
    logits = keras.layers.Activation("linear", name="logits")(mean)
    return _saved(keras.Model(image, logits, name="ensemble"), target)


def _target(sources: Any, path: str | os.PathLike[str]) -> pathlib.Path:
    """Checks the arguments, and returns the path of the file to write."""
    target = as_path("path", path)
    if target.suffix != ".keras":
        raise ValueError(f"path must end in .keras, got {target}.")
    if isinstance(sources, (str, os.PathLike)) or len(sources) < 2:
        raise ValueError(f"A mean needs at least two classifiers, got {sources!r}.")
    return target


def _saved(classifier: keras.Model, target: pathlib.Path) -> keras.Model:
    storage.make_folder(target.parent)
    with storage.atomic_path(target) as beside:
        classifier.save(pathlib.Path(beside))
    return classifier


def _architecture(classifier: keras.Model) -> list[tuple[str, list[tuple[int, ...]]]]:
    """Returns the types of layers and the shapes of weights, which must be equal to average weights."""
    return [
        (type(layer).__name__, [tuple(weight.shape) for weight in layer.weights])
        for layer in classifier._flatten_layers(include_self=False)
    ]
