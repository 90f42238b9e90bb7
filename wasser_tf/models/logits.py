"""The logits of a classifier in inference mode, and whether XLA compiles whole attacks on it."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

# Keras imports it from this module as well.
from tensorflow.python.framework.config import is_op_determinism_enabled

from wasser_tf.models.classifier import CanonicalClassifier

LogitsFn = Callable[[tf.Tensor], tf.Tensor]


def as_logits_fn(classifier: Callable[..., tf.Tensor], from_logits: bool) -> LogitsFn:
    """Returns a function from images to the logits of a classifier in inference mode.

    If the classifier ends in a softmax of Keras, the function returns the inputs of the softmax, because a saturated
    softmax has no gradient. Of other probabilities it returns the logarithms, which are logits as well.

    Args:
      classifier: A function from images [B, H, W, C] to logits or probabilities [B, classes].
      from_logits: Whether the classifier returns logits.

    Returns:
      A function from images [B, H, W, C] to logits, float32 [B, classes].
    """
    if isinstance(classifier, CanonicalClassifier):
        return classifier
    # Graphs are built without AutoGraph, whose conversion takes as long as XLA. A user's callable may need it; a Keras
    # model does not, as in `fit` of Keras.
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
    """Returns whether XLA compiles whole attacks on a classifier, which it does on a GPU.

    On a CPU a convolution in an XLA loop runs three times slower than outside of it, so XLA compiles only the transport
    steps in the loop. The same holds on a GPU for classifiers with max pooling if operations must be deterministic,
    because XLA has no deterministic gradient of max pooling and TensorFlow has one. Classifiers of other libraries
    compute in Python (wasser_tf/bridges/), which XLA cannot compile.
    """
    if not tf.config.list_logical_devices("GPU") or _calls_python(classifier):
        return False
    return not (is_op_determinism_enabled() and _pools_by_max(classifier))


def _calls_python(classifier: Any) -> bool:
    model = classifier.model if isinstance(classifier, CanonicalClassifier) else classifier
    return getattr(model, "calls_python", False)


def _pools_by_max(layer: Any) -> bool:
    """Returns whether a layer is max pooling or contains it, as far as Keras tracks its sublayers."""
    layer = layer.model if isinstance(layer, CanonicalClassifier) else layer
    pooling = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)
    return isinstance(layer, pooling) or any(map(_pools_by_max, getattr(layer, "layers", ())))
