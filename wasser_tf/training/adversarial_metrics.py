"""What WasserTrain makes of the loss and the metrics that it is compiled with."""

import inspect
from typing import Any

import keras
import tensorflow as tf

from wasser_tf import models
from wasser_tf.models.inspection import describe_classifier, input_spec


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
    """Returns whether the classifier returns logits: as the loss specifies, else as the classifier shows.

    Args:
      classifier: The classifier.
      loss: The loss, as `compile` takes it.

    Raises:
      ValueError: The loss specifies one and the classifier shows the other, or neither shows anything.
    """
    loss = keras.tree.flatten(loss)[0]
    if isinstance(loss, str):
        # Keras' short names stand for losses of probabilities.
        loss = keras.losses.get("categorical_crossentropy" if loss in ("crossentropy", "ce") else loss)
    takes = getattr(loss, "from_logits", None)
    if takes is None and inspect.isfunction(loss) and "from_logits" in inspect.signature(loss).parameters:
        takes = bool(inspect.signature(loss).parameters["from_logits"].default)
    found = _returns_logits(classifier)
    if takes is None:
        if found is None:
            raise ValueError(
                "Neither the loss nor the classifier shows whether the classifier returns logits or probabilities: give "
                "the loss an attribute from_logits, True or False, as the losses of Keras have."
            )
        return found
    if found is not None and found != takes:
        given, needed = ("logits", "from_logits=True") if found else ("probabilities", "from_logits=False")
        raise ValueError(
            f"The classifier returns {given}, by its last layer {classifier.layers[-1].name!r}, and the loss takes the "
            f"other kind: make the loss with {needed}, as in keras.losses.SparseCategoricalCrossentropy({needed})."
        )
    return bool(takes)


def _returns_logits(classifier: keras.Model) -> bool | None:
    """Returns whether a classifier returns logits, by one look at its graph, or its last layer where it is not built."""
    spec = input_spec(classifier) if classifier.built else None
    if spec is not None and None not in spec[0][1:]:
        return describe_classifier(classifier, None).returns == "logits"
    # A subclass may do with its layers what it likes.
    return models.returns_logits(classifier) if isinstance(classifier, keras.Sequential) else None


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
