"""The cross-entropy that a training run minimises, of class indices, with or without label smoothing."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="wasser_tf")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy with smoothed labels (Szegedy et al., CVPR 2016) of class indices; Keras has that of one-hot ones.

    The label's class is asked for with 1 − s + s / K, each other one with s / K.

    Attributes:
      label_smoothing: s, from 0 to below 1.
      from_logits: That it is given logits; WasserTrain asks.
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
        """Returns the loss of each image, [B], of labels [B] or [B, 1] and logits [B, K]."""
        one_hot = tf.one_hot(tf.cast(tf.reshape(y_true, [-1]), tf.int32), y_pred.shape[-1], dtype=y_pred.dtype)
        return keras.losses.categorical_crossentropy(
            one_hot, y_pred, from_logits=self.from_logits, label_smoothing=self.label_smoothing
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def make_loss(label_smoothing: float) -> keras.losses.Loss:
    """Returns the loss of a classifier that returns logits."""
    if label_smoothing:
        return SmoothedCrossentropy(label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
