"""Stopping a training whose numbers are no longer finite, with the batch that made them so."""

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

    A gradient that is not finite makes the weights so in the same step, unless the optimiser scales the loss
    (mixed_float16): then the step is left out and the scale s halved, which is what the scaling is for, as long as it
    is s · loss whose gradient overflows. One that is not finite at s ≤ 1 is so of the loss itself, and no scale mends
    it: that stops too. Such a gradient in a single batch among good ones is left out as any other.

    To look costs one pass over the weights a batch. Goes before callbacks that save.

    Attributes:
      path: The .npz that the batch goes to: what `batch` returns, with epoch and step, both from 1.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        batch: Callable[[int, int], dict[str, np.ndarray]],
        *,
        first_step: int = 0,
    ):
        """Makes the callback.

        Args:
          path: Where the batch shall be saved.
          batch: Returns the arrays of a batch from the numbers of its epoch and step, both from 0.
          first_step: The steps of the first epoch that were done before, by an earlier process.
        """
        super().__init__()
        self.path = pathlib.Path(path)
        self._batch, self._step, self._epoch = batch, first_step, 0
        self._finite: Callable[[], Any] | None = None
        self._scale: Any = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Makes the function that looks at the weights."""
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
        """Looks.

        Raises:
          ValueError: A number is not finite; the batch is saved, and the sentence says where.
        """
        del batch
        step, self._step = self._step, self._step + 1
        # Keras' loss is the mean of the epoch so far: one that is not finite stays so.
        loss = float((logs or {}).get("loss", 0.0))
        finite = np.ones(0, bool) if self._finite is None else np.asarray(self._finite())
        # It was halved from 1 or less.
        vanished = self._scale is not None and float(np.asarray(self._scale)) < 1
        if math.isfinite(loss) and finite.all() and not vanished:
            return
        broken = [weight.path for weight, good in zip(self.model.trainable_variables, finite, strict=False) if not good]
        what = ([] if math.isfinite(loss) else [f"the loss is {loss}"]) + (
            [f"{len(broken)} of {len(finite)} weights are not finite, the first {broken[0]}"] if broken else []
        )
        what += ["the gradient is not finite, though the loss is not scaled any more"] if vanished else []
        with storage.atomic_path(self.path) as beside:
            np.savez_compressed(
                beside,
                allow_pickle=False,
                **self._batch(self._epoch, step),
                epoch=np.array(self._epoch + 1),
                step=np.array(step + 1),
            )
        raise ValueError(
            f"After step {step + 1} of epoch {self._epoch + 1} {' and '.join(what)}: look at the batch, which is in "
            f"{self.path}, and lower the learning rate."
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Counts from the first step again."""
        del epoch, logs
        self._step = 0
