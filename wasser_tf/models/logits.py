"""How attacks see a classifier: logits in inference mode, and whether XLA takes an attack on it whole."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

# Keras takes it from there too.
from tensorflow.python.framework.config import is_op_determinism_enabled

from wasser_tf.models.classifier import CanonicalClassifier

LogitsFn = Callable[[tf.Tensor], tf.Tensor]


def as_logits_fn(classifier: Callable[..., tf.Tensor], from_logits: bool) -> LogitsFn:
    """Returns the classifier in inference mode with float32 logits out, whatever it gives itself.

    Logits that a Keras softmax was made of are taken where they can be had, because a saturated softmax has no
    gradient; otherwise logarithms of the probabilities, which are logits too.
    """
    if isinstance(classifier, CanonicalClassifier):
        return classifier
    # No graph here is made by AutoGraph, whose conversion takes as long as XLA. A callable of a user may need it, a
    # Keras model does without, as in Keras' own `fit`.
    in_graph = classifier if isinstance(classifier, keras.Model) else tf.function(classifier)

    def logits_fn(images: tf.Tensor) -> tf.Tensor:
        # At the root of a graph TensorFlow refuses the scope of a model whose class begins with an underscore.
        with tf.name_scope("classifier"):
            outputs = (in_graph if tf.inside_function() else classifier)(images, training=False)
        if from_logits:
            return tf.cast(outputs, tf.float32)
        before_softmax = getattr(outputs, "_keras_logits", None)
        if before_softmax is not None:
            return tf.cast(before_softmax, tf.float32)
        logits_fn.takes_logarithms = True  # type: ignore[attr-defined]
        return tf.math.log(tf.maximum(tf.cast(outputs, tf.float32), 1e-30))

    return logits_fn


def compile_whole_graph(classifier: Any) -> bool:
    """Returns whether whole attacks on a classifier are compiled by XLA: on a GPU.

    On a CPU a convolution inside an XLA loop runs three times slower than outside one, so there the loop is a graph and
    only the transport steps in it are compiled. The same goes on a GPU for a classifier with max pooling where
    operations shall be deterministic: XLA has no such gradient of it and refuses, TensorFlow has one.
    """
    if not tf.config.list_logical_devices("GPU"):
        return False
    return not (is_op_determinism_enabled() and _pools_by_max(classifier))


def _pools_by_max(layer: Any) -> bool:
    """Whether a layer is max pooling or has some in it, as far as Keras knows its parts."""
    layer = layer.model if isinstance(layer, CanonicalClassifier) else layer
    pooling = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)
    return isinstance(layer, pooling) or any(map(_pools_by_max, getattr(layer, "layers", ())))
