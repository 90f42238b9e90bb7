"""Training losses: cross-entropies of class indices, smoothed or bounded, and distances of outputs (TRADES, GAT)."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="wasser_tf")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy of class indices with label smoothing (Szegedy et al., CVPR 2016); Keras has it for one-hot labels.

    The target probability is 1 − s + s / K for the class of the label and s / K for each other class.

    Attributes:
      label_smoothing: The smoothing s, from 0 to below 1.
      from_logits: True, because it takes logits; `WasserTrain` reads it.
    """

    from_logits = True

    def __init__(
        self,
        label_smoothing: float,
        reduction: str = "sum_over_batch_size",
        name: str = "smoothed_crossentropy",
        **kwargs: Any,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each image, [B], for labels [B] or [B, 1] and logits [B, K]."""
        one_hot = tf.one_hot(tf.cast(tf.reshape(y_true, [-1]), tf.int32), y_pred.shape[-1], dtype=y_pred.dtype)
        return keras.losses.categorical_crossentropy(
            one_hot, y_pred, from_logits=self.from_logits, label_smoothing=self.label_smoothing
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable(package="wasser_tf")
class GeneralizedCrossEntropy(keras.losses.Loss):
    """The loss (1 − p^q) / q of the probability p of the label (Zhang and Sabuncu, NeurIPS 2018); at most 1 / q.

    It tends to the cross-entropy −log p for q → 0, and is 1 − p for q = 1.

    Attributes:
      exponent: The exponent q, from 0 to 1: a number or a scalar tensor.
      from_logits: True, because it takes logits; `WasserTrain` reads it.

    Example:
    >>> from wasser_tf.training.loss import GeneralizedCrossEntropy
    >>> round(float(GeneralizedCrossEntropy(1.0)([0], [[0.0, 0.0]])), 3)
    0.5
    """

    from_logits = True
    # Below, the quotient loses digits to rounding.
    _SMALLEST = 1e-3

    def __init__(
        self,
        exponent: Any,
        reduction: str = "sum_over_batch_size",
        name: str = "generalized_cross_entropy",
        **kwargs: Any,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.exponent = exponent

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each image, [B], for labels [B] or [B, 1] and logits [B, K]."""
        labels = tf.cast(tf.reshape(y_true, [-1]), tf.int32)
        crossentropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, y_pred)
        exponent = tf.maximum(tf.cast(self.exponent, crossentropy.dtype), self._SMALLEST)
        return -tf.math.expm1(-exponent * crossentropy) / exponent

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "exponent": float(self.exponent)}


def make_loss(label_smoothing: float) -> keras.losses.Loss:
    """Returns the loss for class indices and logits, with label smoothing from 0 to below 1."""
    if label_smoothing:
        return SmoothedCrossentropy(label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def divergence_of_outputs(one: tf.Tensor, two: tf.Tensor, from_logits: bool, sample_weight: Any) -> tf.Tensor:
    """Returns the divergence KL(one ‖ two), averaged over a batch.

    Args:
      one: Logits or probabilities [B, classes].
      two: Logits or probabilities [B, classes].
      from_logits: Whether they are logits.
      sample_weight: Weights of the images [B], or None.
    """

    def log_probabilities(outputs: tf.Tensor) -> tf.Tensor:
        outputs = tf.cast(outputs, tf.float32)
        return tf.nn.log_softmax(outputs) if from_logits else tf.math.log(tf.maximum(outputs, 1e-30))

    log_one, log_two = log_probabilities(one), log_probabilities(two)
    return _weighted_mean(tf.reduce_sum(tf.exp(log_one) * (log_one - log_two), axis=1), sample_weight)


def squared_distance_of_outputs(one: tf.Tensor, two: tf.Tensor, from_logits: bool, sample_weight: Any) -> tf.Tensor:
    """Returns ‖p(one) − p(two)‖² of the probabilities p, averaged over a batch.

    Args:
      one: Logits or probabilities [B, classes].
      two: Logits or probabilities [B, classes].
      from_logits: Whether they are logits.
      sample_weight: Weights of the images [B], or None.
    """
    one, two = (tf.cast(outputs, tf.float32) for outputs in (one, two))
    difference = tf.nn.softmax(one) - tf.nn.softmax(two) if from_logits else one - two
    return _weighted_mean(tf.reduce_sum(difference**2, axis=1), sample_weight)


def _weighted_mean(values: tf.Tensor, sample_weight: Any) -> tf.Tensor:
    if sample_weight is not None:
        values *= tf.cast(tf.reshape(sample_weight, [-1]), tf.float32)
    return tf.reduce_mean(values)


def unscaled(loss: tf.Tensor) -> tf.Tensor:
    """Returns a loss without Keras' division by the number of replicas, whose gradients Keras adds up."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss * replicas if replicas > 1 else loss
