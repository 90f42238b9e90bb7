"""What WasserTrain makes of the loss and the metrics that it is compiled with."""

import inspect
from typing import Any

import keras
import tensorflow as tf

from wasser_tf import models


class AdversarialScores:
    """The loss and the compiled metrics of adversarial images.

    They are those of a Keras model without layers, so that Keras reads `metrics` here as it reads them there. The model
    hides in a plain object: Keras must not take it for a part of the classifier, nor save it.
    """

    def __init__(self, metrics: Any = None, weighted_metrics: Any = None):
        """Copies metrics, as `compile` takes them.

        Raises:
          ValueError: One cannot be copied.
        """
        self._scorer = _Scorer()
        self._scorer.compile(None, metrics=_copy(metrics), weighted_metrics=_copy(weighted_metrics), jit_compile=False)
        self._built = False

    def build(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> None:
        """Makes the variables of the metrics, if they are not there."""
        if not self._built:
            self.update(x, y, y_pred, sample_weight)

    def update(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> None:
        """Updates the metrics with outputs for adversarial images."""
        self._scorer.compute_metrics(x, y, y_pred, sample_weight)
        self._built = True

    def update_loss(self, loss: tf.Tensor, count: tf.Tensor) -> None:
        """Updates the loss with the mean of `count` images."""
        self._scorer.metrics[0].update_state(loss, sample_weight=count)

    @property
    def variables(self) -> list[Any]:
        """The variables of the loss and the metrics that there are by now."""
        return self._scorer.metrics_variables

    def reset(self) -> None:
        """Sets the loss and the metrics back."""
        self._scorer.reset_metrics()

    def result(self) -> dict[str, tf.Tensor]:
        """Returns their values, named with `adversarial_` before."""
        return {f"adversarial_{name}": value for name, value in self._scorer.get_metrics_result().items()}


class _Scorer(keras.Model):
    """Compiled for its metrics only; the first of them is its loss."""


def loss_takes_logits(classifier: keras.Model, loss: Any) -> bool:
    """Tells whether the classifier returns logits: the loss decides, else the last layer, else they are probabilities.

    Args:
      classifier: The classifier.
      loss: The loss, as `compile` takes it.

    Raises:
      ValueError: The loss says one thing and the activation of the last layer another.
    """
    loss = keras.tree.flatten(loss)[0]
    if isinstance(loss, str):
        # Keras' short names stand for losses of probabilities.
        loss = keras.losses.get("categorical_crossentropy" if loss in ("crossentropy", "ce") else loss)
    says = getattr(loss, "from_logits", None)
    if says is None and inspect.isfunction(loss) and "from_logits" in inspect.signature(loss).parameters:
        says = bool(inspect.signature(loss).parameters["from_logits"].default)
    told = models.returns_logits(classifier)
    if says is None:
        return bool(told)
    if told is not None and told != says and _ends_in_its_last_layer(classifier):
        given, needed = ("logits", "from_logits=True") if told else ("probabilities", "from_logits=False")
        raise ValueError(
            f"The classifier returns {given}, by its last layer {classifier.layers[-1].name!r}, and the loss takes the "
            f"other kind: make the loss with {needed}, as in keras.losses.SparseCategoricalCrossentropy({needed})."
        )
    return bool(says)


def _ends_in_its_last_layer(classifier: keras.Model) -> bool:
    """Whether the output is that of the last layer for sure: a subclass may do with its layers what it likes."""
    try:
        return classifier.layers[-1].output is classifier.output
    except (AttributeError, ValueError):
        return False


def _copy(metrics: Any) -> Any:
    """Copies metrics as `compile` takes them; names and functions serve as they are."""
    if isinstance(metrics, dict):
        return {key: _copy(value) for key, value in metrics.items()}
    if isinstance(metrics, (list, tuple)):
        return [_copy(value) for value in metrics]
    if not isinstance(metrics, keras.metrics.Metric):
        return metrics
    try:
        return type(metrics).from_config(metrics.get_config())
    except (TypeError, NotImplementedError) as error:
        raise ValueError(
            f"The metric {metrics.name!r} cannot be copied for adversarial images ({error}): give it a get_config that "
            "holds the arguments of its constructor."
        ) from error
