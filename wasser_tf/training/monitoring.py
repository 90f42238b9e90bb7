"""Directions of the metrics that Keras does not know: for EarlyStopping, ModelCheckpoint and ReduceLROnPlateau.

With mode="auto" these callbacks look the metric they monitor up among the compiled ones, which those of adversarial
images are not.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

# Of all metrics that are not compiled: whether smaller or larger values are better.
_DIRECTIONS = {
    "natural_loss": "min",
    "adversarial_loss": "min",
    "certified_loss": "min",
    "robust_accuracy": "max",
    "certified_accuracy": "max",
}


class MonitoredDirections(keras.callbacks.Callback):
    """Sets the `mode` of callbacks that monitor such a metric with mode="auto". Goes before them."""

    # Keras does not have to wait for it in every step.
    async_safe = True

    def __init__(self, callbacks: Iterable[keras.callbacks.Callback], directions: Callable[[], Mapping[str, str]]):
        """Makes the callback.

        Args:
          callbacks: The callbacks, of mode "auto".
          directions: Returns "min" or "max" by the name of the metric. It is called after the first step, before which
            Keras has not made the metrics.
        """
        super().__init__()
        self._waiting = list(callbacks)
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


def fit_arguments(
    fit: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    first: list[keras.callbacks.Callback],
    directions: Callable[[], Mapping[str, str]],
) -> inspect.BoundArguments:
    """Returns the arguments of `fit` with callbacks before those that were given.

    Args:
      fit: `keras.Model.fit`.
      args: Its positional arguments.
      kwargs: Its keyword arguments.
      first: The callbacks that go first.
      directions: See `MonitoredDirections`, which is added if a given callback needs it.
    """
    given = inspect.signature(fit).bind_partial(*args, **kwargs)
    callbacks: Any = given.arguments.get("callbacks")
    inside = isinstance(callbacks, keras.callbacks.CallbackList)
    listed = callbacks.callbacks if inside else [one for one in keras.tree.flatten(callbacks) if one is not None]
    if monitors := [one for one in listed if hasattr(one, "monitor") and getattr(one, "mode", None) == "auto"]:
        first = [*first, MonitoredDirections(monitors, directions)]
    if inside:
        for callback in first:
            callback.set_model(callbacks.model)
            callback.set_params(callbacks.params)
        callbacks.callbacks[:0] = first
    elif first:
        given.arguments["callbacks"] = [*first, *listed]
    return given
