"""Checkpoints of a training run for exact resumption, each one file that is written atomically.

`keras.callbacks.BackupAndRestore` is not exact: it writes weights and epoch in two files (after a kill between the two,
an epoch is trained twice) and omits the states of random seeds, so that dropout draws different masks after a restart.
"""

import json
import math
import os
import pathlib
from typing import Any

import keras
import numpy as np

from wasser_tf.runtime import interruption, storage
from wasser_tf.runtime.arguments import first_line


class Checkpoint(keras.callbacks.Callback):
    """Saves a training run after every epoch, together with the best weights of the classifier.

    If a signal asks the run to stop (`wasser_tf.runtime.interruption`), the callback saves after the current batch and
    ends the run. The file then includes the metrics of the incomplete epoch, and the run resumes with its remaining
    batches.

    Must be the last of `fit(callbacks=...)`, after the callbacks that add to the logs.

    Attributes:
      path: The .npz file.
      epochs_done: The number of saved epochs.
      steps_done: The number of saved steps of the epoch after these.
      history: The logs of the saved epochs, each with its number as "epoch", from 1.
      best: The weights of the classifier after the epoch with the highest score, as in `get_weights`, or None.
      best_epoch: The number of that epoch, from 1; 0 for none.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        trained: keras.Model,
        classifier: keras.Model,
        omega: float,
        *,
        keep_last: bool = False,
        within_epochs: bool = True,
    ):
        """Creates the callback and, if the file exists, restores the run from it.

        Args:
          path: The .npz file.
          trained: The compiled model whose `fit` is called. It is restored with its optimizer.
          classifier: The classifier whose best weights are kept: the one in `trained`, `trained` itself, or a separate
            one, such as that of averaged weights, which is then saved and restored as well.
          omega: The weight ω in the score of an epoch, ω · `val_robust_accuracy` + (1 − ω) · `val_accuracy`, as in
            Eq. 10, with `val_certified_accuracy` instead where it is known. Among equal scores a lower `val_loss` wins.
          keep_last: Whether each epoch counts as better than all earlier ones, whatever its score.
          within_epochs: Whether a run that is asked to stop is saved within an epoch. Not possible with several
            workers, which must read the metrics together.

        Raises:
          ValueError: The file cannot be read, or belongs to another model.
        """
        super().__init__()
        self.path = pathlib.Path(path)
        self.epochs_done = self.steps_done = 0
        self.history: list[dict[str, float]] = []
        self.best: list[np.ndarray] | None = None
        self.best_epoch = 0
        self._trained, self._classifier, self._omega = trained, classifier, omega
        self._keep_last, self._within_epochs = keep_last, within_epochs
        self._metrics: list[np.ndarray] = []
        trained.optimizer.build(trained.trainable_variables)
        if self.path.exists():
            self._load()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Restores the metrics of an interrupted epoch, which Keras has just reset.

        Raises:
          ValueError: The file has the metrics of another model.
        """
        del logs
        if epoch != self.epochs_done or not self.steps_done or not self._within_epochs:
            return
        variables = self._trained.metrics_variables
        if [value.shape for value in self._metrics] != [tuple(variable.shape) for variable in variables]:
            raise ValueError(f"{self.path} has the metrics of another model: give another --output_dir.")
        for variable, value in zip(variables, self._metrics, strict=True):
            variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Counts the step, and saves the run if it was asked to stop.

        Raises:
          Interrupted: The run was asked to stop.
        """
        del logs
        self.steps_done += 1
        # After the last step, `on_epoch_end` saves.
        if interruption.is_requested() and batch + 1 < self.params["steps"]:
            if self._within_epochs:
                self._metrics = [np.asarray(variable) for variable in self._trained.metrics_variables]
                self._save()
            interruption.raise_if_requested()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Saves the epoch.

        Raises:
          ValueError: The loss is not finite. The file still holds the epoch before.
          Interrupted: The run was asked to stop.
        """
        logs = {key: float(value) for key, value in (logs or {}).items()}
        if not math.isfinite(logs["loss"]):
            raise ValueError(f"The loss became {logs['loss']} in epoch {epoch + 1}: lower the learning rate.")
        if self.best is None or self._keep_last or self._rank(logs) > self._rank(self.history[self.best_epoch - 1]):
            self.best, self.best_epoch = self._classifier.get_weights(), epoch + 1
        self.history.append({"epoch": epoch + 1, **logs})
        self.epochs_done, self.steps_done, self._metrics = epoch + 1, 0, []
        self._save()
        interruption.raise_if_requested()

    def finish(self, history: list[dict[str, float]], best: list[np.ndarray], best_epoch: int) -> None:
        """Saves a training that another program completed.

        Args:
          history: The logs of its epochs, each with its number as "epoch", from 1.
          best: The weights of the epoch to keep, in the order of `get_weights`.
          best_epoch: The number of that epoch, from 1.
        """
        self.history, self.best, self.best_epoch = history, best, best_epoch
        self.epochs_done = len(history)
        self.steps_done, self._metrics = 0, []
        self._save()

    def restore_best(self) -> None:
        """Sets the weights of the classifier to those of the best epoch, if there is one."""
        if self.best is not None:
            self._classifier.set_weights(self.best)

    def _rank(self, logs: dict[str, float]) -> tuple[float, float]:
        natural = logs["val_accuracy"]
        robust = logs.get("val_certified_accuracy", logs.get("val_robust_accuracy", natural))
        return self._omega * robust + (1 - self._omega) * natural, -logs["val_loss"]

    def variables(self) -> list[Any]:
        """Returns the variables that are saved: those of the model, its optimizer and a separate classifier."""
        # Variables include the states of random seeds, weights do not.
        trained = self._trained.variables
        known = {id(variable) for variable in trained}
        separate = [variable for variable in self._classifier.variables if id(variable) not in known]
        return [*trained, *self._trained.optimizer.variables, *separate]

    def _save(self) -> None:
        names = ("epochs_done", "steps_done", "best_epoch", "history")
        state = {name: getattr(self, name) for name in names}
        arrays = {"state": np.array(json.dumps(state))}
        arrays |= {f"variable_{number:04}": np.asarray(value) for number, value in enumerate(self.variables())}
        arrays |= {f"metric_{number:04}": value for number, value in enumerate(self._metrics)}
        arrays |= {f"best_{number:04}": value for number, value in enumerate(self.best or ())}
        with storage.atomic_path(self.path) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)

    def _load(self) -> None:
        try:
            arrays = storage.read_arrays(self.path)
            state = json.loads(str(arrays["state"]))
            names = {"epochs_done": int, "best_epoch": int, "history": list}
            if not all(isinstance(state[name], kind) for name, kind in names.items()):
                raise ValueError("its state has the format of another program")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path} is not a checkpoint ({first_line(error)}): start again with --overwrite."
            ) from error
        saved = [arrays[key] for key in sorted(arrays) if key.startswith("variable_")]
        variables = self.variables()
        if [value.shape for value in saved] != [tuple(variable.shape) for variable in variables]:
            raise ValueError(f"{self.path} is the checkpoint of another model: give another --output_dir.")
        for variable, value in zip(variables, saved, strict=True):
            variable.assign(value)
        self.epochs_done, self.best_epoch, self.history = state["epochs_done"], state["best_epoch"], state["history"]
        # Files of older versions do not have it.
        self.steps_done = state.get("steps_done", 0)
        self._metrics = [arrays[key] for key in sorted(arrays) if key.startswith("metric_")]
        self.best = [arrays[key] for key in sorted(arrays) if key.startswith("best_")] or None
