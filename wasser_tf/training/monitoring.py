"""Directions of the metrics that Keras does not know: for EarlyStopping, ModelCheckpoint and ReduceLROnPlateau.

With mode="auto" these callbacks look the metric they monitor up among the compiled ones, which those of adversarial
images are not.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

# Of all metrics that are not compiled: whether smaller or larger values are better.
_DIRECTIONS = {"natural_loss": "min", "adversarial_loss": "min", "robust_accuracy": "max"}


class MonitoredDirections(keras.callbacks.Callback):
    """Sets the `mode` of callbacks that monitor such a metric with mode="auto". Goes before them."""

    def __init__(self, callbacks: Iterable[keras.callbacks.Callback], directions: Callable[[], Mapping[str, str]]):
        """Makes the callback.

        Args:
          callbacks: The callbacks of `fit`.
          directions: Returns "min" or "max" by the name of the metric. It is called after the first step, before which
            Keras has not made the metrics.
        """
        super().__init__()
        self._waiting = [one for one in callbacks if hasattr(one, "monitor") and getattr(one, "mode", None) == "auto"]
        self._directions = directions

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the modes, once."""
        del batch, logs
        if not self._waiting:
            return
        directions = {**_DIRECTIONS, **self._directions()}
        for callback in self._waiting:
            mode = directions.get(str(callback.monitor).removeprefix("val_"))
            if mode is not None:
                callback.mode = mode
        self._waiting = []


def directions_of(metrics: Iterable[Any], prefix: str) -> dict[str, str]:
    """Returns "min" or "max" for each metric that says which, by its name after a prefix.

    Args:
      metrics: Keras metrics, or containers of metrics.
      prefix: What the names are reported with.
    """
    found = {}
    for metric in metrics:
        if inner := getattr(metric, "metrics", None):
            found.update(directions_of(inner, prefix))
        direction = getattr(metric, "_direction", None)
        if direction in ("up", "down"):
            found[f"{prefix}{metric.name}"] = "max" if direction == "up" else "min"
    return found


def with_first(callback: keras.callbacks.Callback, callbacks: Any) -> Any:
    """Returns the callbacks of `fit`, in the form they were given in, with one more before them."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callback.set_model(callbacks.model)
        callback.set_params(callbacks.params)
        callbacks.callbacks.insert(0, callback)
        return callbacks
    return [callback, *listed(callbacks)]


def listed(callbacks: Any) -> list[keras.callbacks.Callback]:
    """Returns the callbacks of `fit` as a list."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return [one for one in keras.tree.flatten(callbacks) if one is not None]
