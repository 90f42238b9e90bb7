"""An exponential moving average of a classifier's weights, in a separate classifier.

`use_ema` of Keras' optimizers is not suitable: it excludes the statistics of batch normalization, which then do not
match the averaged weights. It also overwrites the weights with the average at the end of every `fit`, and a run that
resumes within an epoch calls `fit` twice.
"""

import keras
import tensorflow as tf


class WeightAverage(keras.callbacks.Callback):
    """Updates the average: after step t, θ̄ ← m θ̄ + (1 − m) θ with m = min(momentum, (1 + t) / (10 + t)).

    The bound on m shortens the memory in early steps, as in `tf.train.ExponentialMovingAverage`. All floating-point
    weights are averaged, including those of normalization layers; others are copied. The state consists of the averaged
    weights and the optimizer's count of steps. Must come before callbacks that evaluate or save.
    """

    def __init__(self, classifier: keras.Model, averaged: keras.Model, momentum: float):
        """Creates the callback.

        Args:
          classifier: The classifier that is trained.
          averaged: A classifier with the same layers, whose weights become the average.
          momentum: The momentum, from 0 to below 1.
        """
        super().__init__()
        self._pairs = list(zip(averaged.weights, classifier.weights, strict=True))
        self._momentum = momentum
        self._update = tf.function(self.move, autograph=False)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Updates the average, in a graph."""
        del batch, logs
        self._update()

    def move(self) -> None:
        """Updates the average after a step."""
        step = tf.cast(self.model.optimizer.iterations, tf.float32)
        keep = tf.minimum(self._momentum, (1 + step) / (10 + step))
        for mean, weight in self._pairs:
            value = tf.convert_to_tensor(weight)
            if value.dtype.is_floating:
                share = tf.cast(keep, value.dtype)
                value = share * tf.convert_to_tensor(mean) + (1 - share) * value
            mean.assign(value)
