"""What Keras has no callback for; see `wasser_tf.training.checkpoint` for the one that saves."""

import sys
import time

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.attacks import Attack
from wasser_tf.attacks.losses import cross_entropy
from wasser_tf.data import Split
from wasser_tf.models.logits import as_logits_fn

_PREDICT_BATCH = 500
# How often an epoch tells how far it is: on a terminal, where a line covers the one before, and in a log.
_SECONDS_BETWEEN = {True: 0.2, False: 300.0}


class RobustValidation(keras.callbacks.Callback):
    """Adds `val_accuracy`, `val_loss` and, with an attack, `val_robust_accuracy` to the logs of each epoch.

    `fit(validation_data=...)` attacks with the training attack. This one takes an attack of its own: a model is better
    not chosen by the attack it was trained on, and an adaptive radius says nothing about one radius.
    """

    def __init__(
        self,
        classifier: keras.Model,
        split: Split,
        attack: Attack | None = None,
        *,
        radius: float | None = None,
        from_logits: bool = True,
        num_attack_examples: int | None = None,
        batch_size: int = 128,
    ):
        """Makes the callback.

        Args:
          classifier: The classifier, which is being trained.
          split: The validation split.
          attack: The attack; None to measure natural accuracy only.
          radius: Its radius; that of its threat model by default.
          from_logits: Whether the classifier returns logits.
          num_attack_examples: How many of the first images are attacked; all by default.
          batch_size: Images at a time under attack.
        """
        super().__init__()
        self.classifier, self.split, self.attack = classifier, split, attack
        self.radius, self.from_logits, self.num_attack_examples, self.batch_size = (
            radius,
            from_logits,
            num_attack_examples,
            batch_size,
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measures, and adds to the logs; callbacks that come later see it."""
        logs = {} if logs is None else logs
        logs["val_accuracy"], logs["val_loss"] = self._natural()
        if self.attack is not None:
            images, labels = (array[: self.num_attack_examples] for array in (self.split.images, self.split.labels))
            result = self.attack(
                self.classifier,
                images,
                labels,
                radius=self.radius,
                from_logits=self.from_logits,
                batch_size=self.batch_size,
            )
            logs["val_robust_accuracy"] = 1.0 - float(np.mean(result.success))

    def _natural(self) -> tuple[float, float]:
        logits_fn = as_logits_fn(self.classifier, self.from_logits)
        images, labels = self.split.images, self.split.labels
        starts = range(0, len(images), _PREDICT_BATCH)
        logits = tf.concat([logits_fn(tf.constant(images[at : at + _PREDICT_BATCH])) for at in starts], axis=0)
        right = logits.numpy().argmax(axis=1) == labels
        return float(right.mean()), float(tf.reduce_mean(cross_entropy(logits, labels)))


class EpochTable(keras.callbacks.Callback):
    """Prints a short line for each epoch, and now and then how far the epoch is; `history.csv` has the rest.

    Goes after those that add to the logs, into `fit(verbose=0)`.
    """

    # Logs and their headings. Each "attacked" is the accuracy under attack of what stands before it.
    _COLUMNS = {
        "loss": "loss",
        "accuracy": "accuracy",
        "adversarial_accuracy": "attacked",
        "val_accuracy": "validation",
        "val_robust_accuracy": "attacked",
    }

    def __init__(self, epochs: int) -> None:
        """Takes the number of the last epoch: what is left of one that was stopped is a `fit` of its own."""
        super().__init__()
        self._epochs = epochs
        self._epoch = 0
        self._started = self._told = 0.0
        self._headed = False
        # On a terminal every line covers the one that told of the step.
        self._terminal = sys.stdout.isatty()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the clock."""
        del logs
        self._epoch, self._started = epoch, time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Tells of the step: on a terminal a few times a second, in a log every few minutes."""
        del logs
        now = time.monotonic()
        if now - max(self._told, self._started) > _SECONDS_BETWEEN[self._terminal]:
            self._told = now
            step = f"{self._number()}  step {batch + 1}/{self.params['steps']}"
            print(f"\r{step}" if self._terminal else step, end="" if self._terminal else "\n", flush=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Prints the line."""
        logs = logs or {}
        columns = {key: heading for key, heading in self._COLUMNS.items() if key in logs}
        if not self._headed:
            self._headed = True
            self._print(f"{'epoch':>7}", f"{'loss':>7}", *list(columns.values())[1:], "seconds")
        cells = [self._number(), f"{logs['loss']:7.4f}"]
        cells += [f"{100 * logs[key]:{len(heading) - 2}.1f} %" for key, heading in columns.items() if key != "loss"]
        self._print(*cells, f"{time.monotonic() - self._started:7.1f}")

    def _print(self, *cells: str) -> None:
        print(("\r" if self._terminal else "") + "  ".join(cells), flush=True)

    def _number(self) -> str:
        return f"{self._epoch + 1}/{self._epochs}".rjust(7)
