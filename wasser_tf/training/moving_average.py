"""An exponential moving average of a classifier's weights, in a classifier of its own.

Keras' own (`use_ema` of its optimisers) leaves the statistics of batch normalisation out, which then are not those of
the averaged weights, and at the end of every `fit` writes the average over the weights: a training that goes on within
an epoch, which takes two, would not be the one that was not interrupted.
"""

import keras
import tensorflow as tf


class WeightAverage(keras.callbacks.Callback):
    """Keeps the average: after step t, θ̄ ← m θ̄ + (1 − m) θ with m = min(momentum, (1 + t) / (10 + t)).

    The bound lets early steps go quickly, as in `tf.train.ExponentialMovingAverage`. All floating weights are averaged,
    those of normalisation too; others are copied. The state is the averaged classifier's weights and the optimiser's
    count of steps. Goes before callbacks that evaluate or save.
    """

    def __init__(self, classifier: keras.Model, averaged: keras.Model, momentum: float):
        """Makes the callback.

        Args:
          classifier: The classifier, which is being trained.
          averaged: Another one of the same layers, which holds the average.
          momentum: From 0 to below 1.
        """
        super().__init__()
        self._pairs = list(zip(averaged.weights, classifier.weights, strict=True))
        self._momentum = momentum
        self._update = tf.function(self.move, autograph=False)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Moves the average, in a graph."""
        del batch, logs
        self._update()

    def move(self) -> None:
        """Moves the average, after a step."""
        step = tf.cast(self.model.optimizer.iterations, tf.float32)
        keep = tf.minimum(self._momentum, (1 + step) / (10 + step))
        for mean, weight in self._pairs:
            value = tf.convert_to_tensor(weight)
            if value.dtype.is_floating:
                share = tf.cast(keep, value.dtype)
                value = share * tf.convert_to_tensor(mean) + (1 - share) * value
            mean.assign(value)
