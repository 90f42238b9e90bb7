"""Copies of classifiers that compute in another precision."""

from typing import Any

import keras

from wasser_tf.runtime.arguments import check_one_of

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")
# Pixels are scaled in float32: half precision has 8 or 11 bits, and the attack moves less than one of them.
_KEPT = (keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Normalization)


def with_precision(classifier: keras.Model, policy: str) -> keras.Model:
    """Returns a copy of a classifier whose layers compute in another precision.

    On a processor with bfloat16 instructions, training in `mixed_bfloat16` can be almost twice as fast. The copy for
    evaluation, certification and serving is `with_precision(trained, "float32")`.

    Args:
      classifier: A functional or sequential Keras model of images [n, H, W, C].
      policy: `float32`, `mixed_float16` or `mixed_bfloat16`. Weights are float32 with each.

    Returns:
      A model with the same weights, not compiled. The layers that return its outputs, and those that scale pixels,
      compute in float32 with any policy.

    Raises:
      ValueError: `policy` is none of these, or the classifier is neither functional nor sequential.

    Example:
    >>> from wasser_tf import models
    >>> classifier = models.build("linear", (8, 8, 1), 10)
    >>> models.with_precision(classifier, "mixed_bfloat16").get_layer("logits").compute_dtype
    'float32'
    """
    check_one_of("policy", policy, POLICIES)
    if not getattr(classifier, "outputs", None):
        raise ValueError(
            f"{type(classifier).__name__} is not a functional or a built sequential model, whose layers can be copied. "
            f"Build it again under keras.config.set_dtype_policy({policy!r}) and copy the weights."
        )
    outputs = _output_layers(classifier)

    def copied(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.Layer):  # Else an operation, which computes in the precision of its inputs.
            config["dtype"] = "float32" if layer in outputs or isinstance(layer, _KEPT) else policy
        return type(layer).from_config(config)

    copy = keras.models.clone_model(classifier, clone_function=copied, recursive=True)
    copy.set_weights(classifier.get_weights())
    return copy


def _output_layers(classifier: Any) -> set[Any]:
    """Returns the layers that compute the outputs of a model, those of nested models included."""
    found: set[Any] = set()
    for output in classifier.outputs:
        layer = output._keras_history.operation
        found |= _output_layers(layer) if isinstance(layer, keras.Model) else {layer}
    return found
