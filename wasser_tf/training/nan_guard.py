"""Stops a training when a number is not finite, and saves the batch that caused it."""

import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.runtime import storage


class StopWhenNotFinite(keras.callbacks.Callback):
    """Stops at the first batch after which the loss, a gradient or a weight is NaN or infinite, and saves that batch.

    A gradient that is not finite makes the weights not finite in the same step, unless the optimizer scales the loss
    (mixed_float16). Then the step is skipped and the scale s halved, as intended if the gradient of s · loss overflows.
    If the scale falls below 1, the gradient of the loss itself is not finite, and the training stops as well. A single
    such batch among finite ones is skipped like any other.

    The check costs one pass over the weights per batch. Must come before callbacks that save.

    Attributes:
      path: The .npz file for the batch: the arrays that `batch` returns, and "epoch" and "step", both from 1.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        batch: Callable[[int, int], dict[str, np.ndarray]],
        *,
        first_step: int = 0,
    ):
        """Creates the callback.

        Args:
          path: The .npz file for the batch.
          batch: A function that returns the arrays of a batch, given the numbers of its epoch and step, both from 0.
          first_step: The number of steps of the first epoch that an earlier process has done.
        """
        super().__init__()
        self.path = pathlib.Path(path)
        self._batch, self._step, self._epoch = batch, first_step, 0
        self._finite: Callable[[], Any] | None = None
        self._scale: Any = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Builds the function that checks the weights."""
        del logs
        weights = self.model.trainable_variables

        @tf.function(autograph=False)
        def finite() -> tf.Tensor:
            return tf.stack([tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(weight))) for weight in weights])

        self._finite = finite
        optimizer = self.model.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer.build(weights)
            self._scale = optimizer.dynamic_scale

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes the epoch."""
        del logs
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Checks the loss, the weights and the scale of the loss.

        Raises:
          ValueError: A number is not finite; the message names the file with the batch.
        """
        del batch
        step, self._step = self._step, self._step + 1
        # Keras reports the mean loss of the epoch so far, which stays not finite once it is.
        loss = float((logs or {}).get("loss", 0.0))
        finite = np.ones(0, bool) if self._finite is None else np.asarray(self._finite())
        # Below 1 it was halved at a scale of 1 or less.
        vanished = self._scale is not None and float(np.asarray(self._scale)) < 1
        if math.isfinite(loss) and finite.all() and not vanished:
            return
        broken = [weight.path for weight, good in zip(self.model.trainable_variables, finite, strict=False) if not good]
        problems = ([] if math.isfinite(loss) else [f"the loss is {loss}"]) + (
            [f"{len(broken)} of {len(finite)} weights are not finite, the first {broken[0]}"] if broken else []
        )
        problems += ["the gradient is not finite, though the loss is not scaled up"] if vanished else []
        with storage.atomic_path(self.path) as temporary:
            np.savez_compressed(
                temporary,
                allow_pickle=False,
                **self._batch(self._epoch, step),
                epoch=np.array(self._epoch + 1),
                step=np.array(step + 1),
            )
        raise ValueError(
            f"After step {step + 1} of epoch {self._epoch + 1} {' and '.join(problems)}: inspect the batch in "
            f"{self.path} and lower the learning rate."
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Resets the count of steps."""
        del epoch, logs
        self._step = 0
