"""Callbacks that validate under attack and print progress; `wasser_tf.training.checkpoint` has the one that saves."""

import time

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.attacks import Attack
from wasser_tf.attacks.losses import cross_entropy
from wasser_tf.certification.differentiable import DifferentiableBounds
from wasser_tf.data import Split
from wasser_tf.data.streaming import in_chunks
from wasser_tf.models.logits import as_logits_fn
from wasser_tf.runtime.progress import Bar, show_progress
from wasser_tf.threat_model import ThreatModel

_PREDICT_BATCH = 500
# Seconds between two lines within an epoch, in a log.
_SECONDS_BETWEEN = 300.0


class RobustValidation(keras.callbacks.Callback):
    """Adds `val_accuracy`, `val_loss` and, with an attack, `val_robust_accuracy` to the logs of each epoch.

    `fit(validation_data=...)` attacks with the training attack. This callback has a separate attack, because a model
    should not be selected by the attack that it was trained on, and an adaptive radius does not measure the robustness
    at one radius.
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
        verbose: bool = False,
    ):
        """Creates the callback.

        Args:
          classifier: The classifier that is trained.
          split: The validation split.
          attack: The attack, or None to measure the natural accuracy only.
          radius: The radius ε of the attack (default: that of its threat model).
          from_logits: Whether the classifier returns logits.
          num_attack_examples: The number of attacked images, the first ones of the split (default: all).
          batch_size: The number of images that are attacked at a time.
          verbose: Whether to show a progress bar of the attack, or lines in a log.
        """
        super().__init__()
        self.verbose = verbose
        self.classifier, self.split, self.attack = classifier, split, attack
        self.radius, self.from_logits, self.num_attack_examples, self.batch_size = (
            radius,
            from_logits,
            num_attack_examples,
            batch_size,
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds the scores to the logs, for later callbacks too."""
        logs = {} if logs is None else logs
        logs["val_accuracy"], logs["val_loss"] = self._natural()
        if self.attack is not None:
            logs["val_robust_accuracy"] = self._robust(self.attack)

    def _robust(self, attack: Attack) -> float:
        count = len(self.split.labels[: self.num_attack_examples])
        success = []
        for rows, images in in_chunks(self.split.images, 4 * self.batch_size):
            kept = max(0, count - rows.start)
            if not kept:
                break
            result = attack(
                self.classifier,
                images[:kept],
                self.split.labels[rows][:kept],
                radius=self.radius,
                index=np.arange(rows.start, rows.start + len(images[:kept])),
                from_logits=self.from_logits,
                batch_size=self.batch_size,
                verbose=self.verbose,
            )
            success.append(result.success)
        return 1.0 - float(np.mean(np.concatenate(success)))

    def _natural(self) -> tuple[float, float]:
        logits_fn = as_logits_fn(self.classifier, self.from_logits)
        images, labels = self.split.images, self.split.labels
        starts = range(0, len(images), _PREDICT_BATCH)
        logits = tf.concat([logits_fn(tf.constant(images[at : at + _PREDICT_BATCH])) for at in starts], axis=0)
        right = logits.numpy().argmax(axis=1) == labels
        return float(right.mean()), float(tf.reduce_mean(cross_entropy(logits, labels)))


class CertifiedValidation(RobustValidation):
    """Adds `val_accuracy`, `val_loss` and `val_certified_accuracy` to the logs of each epoch.

    The latter is the share of validation images that bounds by intervals certify, without the allowance for rounding.
    """

    def __init__(self, classifier: keras.Model, split: Split, threat_model: ThreatModel):
        """Creates the callback.

        Args:
          classifier: The classifier that is trained.
          split: The validation split.
          threat_model: The ball and its radius.
        """
        super().__init__(classifier, split)
        self._bounds = DifferentiableBounds(classifier, threat_model)
        self._epsilon = threat_model.epsilon
        self._worst = tf.function(self._bounds.worst_logits, autograph=False, reduce_retracing=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds the scores to the logs, for later callbacks too."""
        logs = {} if logs is None else logs
        super().on_epoch_end(epoch, logs)
        certified = []
        for start in range(0, len(self.split.labels), _PREDICT_BATCH):
            images, labels = (tf.constant(array[start : start + _PREDICT_BATCH]) for array in self.split[:2])
            worst = self._worst(images, labels, tf.constant(self._epsilon))
            # 0 for the label itself.
            certified.append(tf.reduce_sum(tf.cast(worst >= 0, tf.int32), axis=1).numpy() == 1)
        logs["val_certified_accuracy"] = float(np.mean(np.concatenate(certified)))


class EpochTable(keras.callbacks.Callback):
    """Prints a line for each epoch, and shows the steps within it by a bar; `history.csv` has all scores.

    For `fit(verbose=0)`, after the callbacks that add to the logs.
    """

    # Logs and their headings. Each "attacked" is the accuracy under attack that belongs to the column before it.
    _COLUMNS = {
        "loss": "loss",
        "accuracy": "accuracy",
        "adversarial_accuracy": "attacked",
        "certified_accuracy": "certified",
        "val_accuracy": "validation",
        "val_robust_accuracy": "attacked",
        "val_certified_accuracy": "certified",
        "epsilon": "      ε",
        "omega": "      ω",
        "kappa": "      κ",
        "exponent": "      q",
    }
    # Not percentages.
    _NUMBERS = ("epsilon", "omega", "kappa", "exponent")

    def __init__(self, epochs: int) -> None:
        """Creates the callback.

        Args:
          epochs: The number of the last epoch. (That of `fit` is lower while an interrupted epoch is completed.)
        """
        super().__init__()
        self._epochs = epochs
        self._epoch = 0
        self._started = 0.0
        self._headed = False
        self._bar: Bar | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the clock and the bar."""
        del logs
        self._epoch, self._started = epoch, time.monotonic()
        self._close()
        if self.params.get("steps"):
            self._bar = Bar(self.params["steps"], "step", self._number(), seconds_between_lines=_SECONDS_BETWEEN)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Shows the step, in a log every few minutes."""
        del logs
        if self._bar is None:
            return
        self._bar.update(batch + 1)
        if batch + 1 >= self._bar.total:
            # Validation, which comes next, may have a bar of its own.
            self._close()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Prints the line of the epoch."""
        logs = logs or {}
        columns = {key: heading for key, heading in self._COLUMNS.items() if key in logs}
        if not self._headed:
            self._headed = True
            self._print(f"{'epoch':>7}", f"{'loss':>7}", *list(columns.values())[1:], "seconds")
        cells = [self._number(), f"{logs['loss']:7.4f}"]
        for key, heading in columns.items():
            if key in self._NUMBERS:
                cells.append(f"{logs[key]:{len(heading)}.4f}")
            elif key != "loss":
                cells.append(f"{100 * logs[key]:{len(heading) - 2}.1f} %")
        self._print(*cells, f"{time.monotonic() - self._started:7.1f}")

    def _print(self, *cells: str) -> None:
        show_progress("  ".join(cells))

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Removes the bar of an epoch that was not completed."""
        del logs
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _number(self) -> str:
        return f"{self._epoch + 1}/{self._epochs}".rjust(7)
