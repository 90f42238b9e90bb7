"""A training run on disk, in one file that is whole or not there: what BackupAndRestore lacks for an exact resumption.

`keras.callbacks.BackupAndRestore` writes weights and epoch one after the other (killed between the two, an epoch is
trained twice) and leaves out the states of random seeds, so that dropout draws other masks after a restart.
"""

import json
import math
import os
import pathlib
import zipfile
from typing import Any

import keras
import numpy as np

from wasser_tf import storage


class Checkpoint(keras.callbacks.Callback):
    """Saves a training run after every epoch, and keeps the best weights of the classifier in it.

    Goes last into `fit(callbacks=...)`, after those that add to the logs.

    Attributes:
      path: The .npz file.
      epochs_done: How many epochs are in the file.
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
    ):
        """Makes the callback, and loads the file if it is there.

        Args:
          path: The .npz file.
          trained: The compiled model whose `fit` is called; it and its optimiser are brought to where the file stands.
          classifier: The classifier in it, or the same model.
          omega: An epoch's score is ω · `val_robust_accuracy` + (1 − ω) · `val_accuracy`, as Eq. 10 weighs the two
            losses; of equal scores the one with the lower `val_loss` is the better.

        Raises:
          ValueError: The file is of another model, or broken.
        """
        super().__init__()
        self.path = pathlib.Path(path)
        self.epochs_done = 0
        self.history: list[dict[str, float]] = []
        self.best: list[np.ndarray] | None = None
        self.best_epoch = 0
        self._trained, self._classifier, self._omega = trained, classifier, omega
        trained.optimizer.build(trained.trainable_variables)
        if self.path.exists():
            self._load()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Saves the epoch.

        Raises:
          ValueError: The loss is not finite; the file stays as it was after the last good epoch.
        """
        logs = {key: float(value) for key, value in (logs or {}).items()}
        if not math.isfinite(logs["loss"]):
            raise ValueError(f"The loss became {logs['loss']} in epoch {epoch + 1}: lower the learning rate.")
        if self.best is None or self._rank(logs) > self._rank(self.history[self.best_epoch - 1]):
            self.best, self.best_epoch = self._classifier.get_weights(), epoch + 1
        self.history.append({"epoch": epoch + 1, **logs})
        self.epochs_done = epoch + 1
        self._save()

    def restore_best(self) -> None:
        """Gives the classifier the weights of the best epoch; without an epoch it keeps its own."""
        if self.best is not None:
            self._classifier.set_weights(self.best)

    def _rank(self, logs: dict[str, float]) -> tuple[float, float]:
        natural = logs["val_accuracy"]
        return self._omega * logs.get("val_robust_accuracy", natural) + (1 - self._omega) * natural, -logs["val_loss"]

    def _variables(self) -> list[Any]:
        # A model's variables hold the states of its random seeds, which its weights do not.
        return [*self._trained.variables, *self._trained.optimizer.variables]

    def _save(self) -> None:
        state = {"epochs_done": self.epochs_done, "best_epoch": self.best_epoch, "history": self.history}
        arrays = {"state": np.array(json.dumps(state))}
        arrays |= {f"variable_{number:04}": np.asarray(value) for number, value in enumerate(self._variables())}
        arrays |= {f"best_{number:04}": value for number, value in enumerate(self.best or ())}
        with storage.atomic_path(self.path) as beside:
            np.savez(beside, allow_pickle=False, **arrays)

    def _load(self) -> None:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = dict(file)
            state = json.loads(str(arrays["state"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.path} is no checkpoint ({error}): start anew with --overwrite.") from error
        saved = [arrays[key] for key in sorted(arrays) if key.startswith("variable_")]
        variables = self._variables()
        if [value.shape for value in saved] != [tuple(variable.shape) for variable in variables]:
            raise ValueError(f"{self.path} is the checkpoint of another model: give another --output_dir.")
        for variable, value in zip(variables, saved, strict=True):
            variable.assign(value)
        self.epochs_done, self.best_epoch, self.history = state["epochs_done"], state["best_epoch"], state["history"]
        self.best = [arrays[key] for key in sorted(arrays) if key.startswith("best_")]
