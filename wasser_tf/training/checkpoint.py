"""A training run on disk, in one file that is whole or not there: what BackupAndRestore lacks for an exact resumption.

`keras.callbacks.BackupAndRestore` writes weights and epoch one after the other (killed between the two, an epoch is
trained twice) and leaves out the states of random seeds, so that dropout draws other masks after a restart.
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
    """Saves a training run after every epoch, and keeps the best weights of the classifier in it.

    Asked to stop by a signal (`wasser_tf.runtime.interruption`), it saves after the batch at work and ends the run there: the
    metrics of the epoch so far are in the file then, and the batches that are left of it are what to go on with.

    Goes last into `fit(callbacks=...)`, after those that add to the logs.

    Attributes:
      path: The .npz file.
      epochs_done: How many epochs are in the file.
      steps_done: How many steps of the next epoch are in it besides.
      history: The logs of these epochs, each with its number as "epoch", from 1.
      best: The classifier's weights at the epoch of the highest score, in the order of `get_weights`; None before.
      best_epoch: That epoch, from 1.
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
        """Makes the callback, and loads the file if it is there.

        Args:
          path: The .npz file.
          trained: The compiled model whose `fit` is called; it and its optimiser are brought to where the file stands.
          classifier: The classifier in it, or the same model; or another one, such as that of averaged weights, which
            then is saved and brought to where the file stands too.
          omega: An epoch's score is ω · `val_robust_accuracy` + (1 − ω) · `val_accuracy`, as Eq. 10 weighs the two
            losses; of equal scores the one with the lower `val_loss` is the better.
          keep_last: Whether every epoch counts as better than the one before, whatever its score.
          within_epochs: Whether a run that is asked to stop is saved within an epoch. Not where several workers train,
            for only all of them together can read the metrics.

        Raises:
          ValueError: The file is of another model, or broken.
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
        """Gives the metrics the values they had when the epoch was left; Keras has just set them back.

        Raises:
          ValueError: The file has other metrics.
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
        """Counts the step, and saves if the run was asked to stop.

        Raises:
          Interrupted: It was.
        """
        del logs
        self.steps_done += 1
        # After the last step the epoch is saved whole.
        if interruption.is_requested() and batch + 1 < self.params["steps"]:
            if self._within_epochs:
                self._metrics = [np.asarray(variable) for variable in self._trained.metrics_variables]
                self._save()
            interruption.raise_if_requested()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Saves the epoch.

        Raises:
          ValueError: The loss is not finite; the file stays as it was after the last good epoch.
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
        """Saves a training that was done elsewhere: its epochs' logs, and of the one to keep weights and number."""
        self.history, self.best, self.best_epoch = history, best, best_epoch
        self.epochs_done = len(history)
        self.steps_done, self._metrics = 0, []
        self._save()

    def restore_best(self) -> None:
        """Gives the classifier the weights of the best epoch; without an epoch it keeps its own."""
        if self.best is not None:
            self._classifier.set_weights(self.best)

    def _rank(self, logs: dict[str, float]) -> tuple[float, float]:
        natural = logs["val_accuracy"]
        return self._omega * logs.get("val_robust_accuracy", natural) + (1 - self._omega) * natural, -logs["val_loss"]

    def variables(self) -> list[Any]:
        """Returns all that a run goes on from: of the model, of its optimiser, and of what is kept beside it."""
        # A model's variables hold the states of its random seeds, which its weights do not.
        trained = self._trained.variables
        known = {id(variable) for variable in trained}
        beside = [variable for variable in self._classifier.variables if id(variable) not in known]
        return [*trained, *self._trained.optimizer.variables, *beside]

    def _save(self) -> None:
        names = ("epochs_done", "steps_done", "best_epoch", "history")
        state = {name: getattr(self, name) for name in names}
        arrays = {"state": np.array(json.dumps(state))}
        arrays |= {f"variable_{number:04}": np.asarray(value) for number, value in enumerate(self.variables())}
        arrays |= {f"metric_{number:04}": value for number, value in enumerate(self._metrics)}
        arrays |= {f"best_{number:04}": value for number, value in enumerate(self.best or ())}
        with storage.atomic_path(self.path) as beside:
            np.savez(beside, allow_pickle=False, **arrays)

    def _load(self) -> None:
        try:
            arrays = storage.read_arrays(self.path)
            state = json.loads(str(arrays["state"]))
            names = {"epochs_done": int, "best_epoch": int, "history": list}
            if not all(isinstance(state[name], kind) for name, kind in names.items()):
                raise ValueError("its state is another program's")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path} is no checkpoint ({first_line(error)}): start anew with --overwrite."
            ) from error
        saved = [arrays[key] for key in sorted(arrays) if key.startswith("variable_")]
        variables = self.variables()
        if [value.shape for value in saved] != [tuple(variable.shape) for variable in variables]:
            raise ValueError(f"{self.path} is the checkpoint of another model: give another --output_dir.")
        for variable, value in zip(variables, saved, strict=True):
            variable.assign(value)
        self.epochs_done, self.best_epoch, self.history = state["epochs_done"], state["best_epoch"], state["history"]
        # Files of older versions have no steps.
        self.steps_done = state.get("steps_done", 0)
        self._metrics = [arrays[key] for key in sorted(arrays) if key.startswith("metric_")]
        self.best = [arrays[key] for key in sorted(arrays) if key.startswith("best_")] or None
