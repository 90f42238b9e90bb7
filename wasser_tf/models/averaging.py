"""Averaging of classifiers, such as the results of the cycles of a training (SWA, Izmailov et al., 2018)."""

import os
import pathlib
from collections.abc import Sequence

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
    target = as_path("path", path)
    if target.suffix != ".keras":
        raise ValueError(f"path must end in .keras, got {target}.")
    if isinstance(sources, (str, os.PathLike)) or len(sources) < 2:
        raise ValueError(f"An average needs at least two classifiers, got {sources!r}.")
    loaded = [models.load_keras(source) for source in sources]
    for source, classifier in zip(sources, loaded, strict=True):
        if _architecture(classifier) != _architecture(loaded[0]):
            raise ValueError(
                f"{source} has another architecture than {sources[0]}: both need the same layers and shapes of weights."
            )
    weights = zip(*[classifier.get_weights() for classifier in loaded], strict=True)
    loaded[0].set_weights([np.mean(values, axis=0, dtype=np.float64).astype(values[0].dtype) for values in weights])
    storage.make_folder(target.parent)
    with storage.atomic_path(target) as beside:
        loaded[0].save(pathlib.Path(beside))
    return loaded[0]


def _architecture(classifier: keras.Model) -> list[tuple[str, list[tuple[int, ...]]]]:
    """Returns the types of layers and the shapes of weights, which must be equal to average weights."""
    return [
        (type(layer).__name__, [tuple(weight.shape) for weight in layer.weights])
        for layer in classifier._flatten_layers(include_self=False)
    ]
