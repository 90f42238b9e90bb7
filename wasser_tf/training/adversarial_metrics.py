"""The losses and metrics of a model that is scored on natural and on adversarial images."""

import inspect
from typing import Any

import keras
import tensorflow as tf

from wasser_tf import models
from wasser_tf.models.inspection import describe_classifier, input_spec
from wasser_tf.training import checks
from wasser_tf.training.loss import unscaled
from wasser_tf.training.monitoring import directions_of


class AdversarialScores:
    """The loss and the compiled metrics of adversarial images.

    They belong to a Keras model without layers, so that Keras interprets `metrics` as in any `compile`. That model is
    hidden in a plain object: Keras must not track it as a part of the classifier, nor save it.
    """

    def __init__(self, metrics: Any = None, weighted_metrics: Any = None, prefix: str = "adversarial_"):
        """Copies metrics.

        Args:
          metrics: As for `keras.Model.compile`.
          weighted_metrics: As for `keras.Model.compile`.
          prefix: What the names in `result` begin with.

        Raises:
          ValueError: A metric cannot be copied.
        """
        self._scorer = _Scorer()
        self._scorer.compile(None, metrics=_copy(metrics), weighted_metrics=_copy(weighted_metrics), jit_compile=False)
        self._built = False
        self._prefix = prefix

    def build(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> None:
        """Creates the variables of the metrics, if they do not exist."""
        if not self._built:
            self.update(x, y, y_pred, sample_weight)

    def update(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> None:
        """Updates the metrics with outputs for adversarial images, as `keras.Model.compute_metrics` does."""
        self._scorer.compute_metrics(x, y, y_pred, sample_weight)
        self._built = True

    def update_loss(self, loss: tf.Tensor, count: tf.Tensor) -> None:
        """Updates the mean loss with that of a batch of `count` images."""
        self._scorer.metrics[0].update_state(loss, sample_weight=count)

    @property
    def variables(self) -> list[Any]:
        """The existing variables of the loss and the metrics."""
        return self._scorer.metrics_variables

    def directions(self) -> dict[str, str]:
        """Returns whether smaller ("min") or larger ("max") values are better, by the name in `result`, where known."""
        return directions_of(self._scorer.metrics, self._prefix)

    def reset(self) -> None:
        """Resets the loss and the metrics."""
        self._scorer.reset_metrics()

    def result(self) -> dict[str, tf.Tensor]:
        """Returns the values, with the prefix before the names."""
        return {f"{self._prefix}{name}": value for name, value in self._scorer.get_metrics_result().items()}


class _Scorer(keras.Model):
    """A model that is compiled only for its metrics. The first of them is its loss."""


class NaturalAndAdversarial(keras.Model):
    """A Keras model that reports `natural_loss`, `adversarial_loss` and each compiled metric for both kinds of images.

    A subclass has a `classifier`, and calls `_update_losses` and `_update_metrics` once per step.
    """

    classifier: keras.Model
    _adversarial: AdversarialScores
    # Before the names of the scores of the second kind.
    _prefix = "adversarial_"

    def __init__(self, **kwargs: Any):
        """Creates the metrics.

        Args:
          **kwargs: Arguments of `keras.Model`.
        """
        super().__init__(**kwargs)
        self._natural_loss = keras.metrics.Mean(name="natural_loss")
        self._adversarial = AdversarialScores(prefix=self._prefix)
        self._from_logits = True

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        *,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configures training, as `keras.Model.compile` does.

        Args:
          optimizer: An optimizer or its name.
          loss: The loss L, such as `keras.losses.SparseCategoricalCrossentropy(from_logits=True)`. Its `from_logits`
            holds for attacks too; if it has none, the last layer of the classifier decides. For `CertifiedTrain`, it
            must not fall when all logits but that of the label rise, as cross-entropies do not.
          metrics: Metrics, reported for natural images and for adversarial ones or bounds.
          weighted_metrics: Metrics to which sample weights and class weights apply.
          **kwargs: Arguments of `keras.Model.compile`: run_eagerly, steps_per_execution, jit_compile, auto_scale_loss.

        Raises:
          ValueError: There is no loss, it does not match the outputs of the classifier, or a metric cannot be copied.
        """
        if loss is None:
            raise ValueError(
                f"{type(self).__name__} needs a loss, got None: pass, for example, "
                "loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True) to compile."
            )
        checks.check_scope(self)
        self._from_logits = loss_takes_logits(self.classifier, loss)
        self._adversarial = AdversarialScores(metrics, weighted_metrics, prefix=self._prefix)
        super().compile(optimizer, loss, metrics=metrics, weighted_metrics=weighted_metrics, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was when saved. Keras requires it of models that override `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def reset_metrics(self) -> None:
        """Resets all metrics, natural and adversarial."""
        super().reset_metrics()
        self._adversarial.reset()

    def get_metrics_result(self) -> dict[str, tf.Tensor]:
        """Returns the natural metrics and, with the prefix `adversarial_`, the adversarial ones."""
        return {**super().get_metrics_result(), **self._adversarial.result()}

    @property
    def metrics_variables(self) -> list[Any]:
        """The variables of all metrics, natural and adversarial."""
        return [*super().metrics_variables, *self._adversarial.variables]

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, tf.Tensor]:
        """Updates the compiled metrics with the outputs for natural images."""
        # Under a distribution strategy Keras calls this once, symbolically, to create the variables of all metrics.
        self._adversarial.build(x, y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _update_losses(self, loss: tf.Tensor, natural: tf.Tensor, adversarial: tf.Tensor, count: tf.Tensor) -> None:
        """Updates the mean losses with those of a batch of `count` images."""
        for metric in self.metrics:
            if metric.name in ("loss", "natural_loss"):
                metric.update_state(unscaled(loss if metric.name == "loss" else natural), sample_weight=count)
        self._adversarial.update_loss(unscaled(adversarial), count)

    def _update_metrics(
        self, x: tf.Tensor, y: tf.Tensor, outputs: tuple[tf.Tensor, tf.Tensor], sample_weight: Any
    ) -> dict[str, tf.Tensor]:
        """Updates the compiled metrics with the outputs for natural and adversarial images. Returns all results."""
        # The adversarial metrics first, or `compute_metrics` would build them with the natural outputs.
        self._adversarial.update(x, y, outputs[1], sample_weight)
        self.compute_metrics(x, y, outputs[0], sample_weight)
        return self.get_metrics_result()


def loss_takes_logits(classifier: keras.Model, loss: Any) -> bool:
    """Returns whether a classifier that is trained on a loss returns logits.

    The `from_logits` of the loss decides; if it has none, the graph of the classifier does.

    Args:
      classifier: The classifier.
      loss: The loss, as for `keras.Model.compile`.

    Raises:
      ValueError: The loss and the classifier contradict each other, or neither shows what the classifier returns.
    """
    loss = keras.tree.flatten(loss)[0]
    if isinstance(loss, str):
        # These short names of Keras are losses of probabilities.
        loss = keras.losses.get("categorical_crossentropy" if loss in ("crossentropy", "ce") else loss)
    # Of a loss of Keras, of one around a function, or of a function some of whose arguments are given.
    arguments = {**getattr(loss, "_fn_kwargs", {}), **(getattr(loss, "keywords", None) or {})}
    by_loss = getattr(loss, "from_logits", arguments.get("from_logits"))
    loss = getattr(loss, "func", loss)
    if by_loss is None and inspect.isfunction(loss) and "from_logits" in inspect.signature(loss).parameters:
        by_loss = bool(inspect.signature(loss).parameters["from_logits"].default)
    by_classifier = _returns_logits(classifier)
    if by_loss is None:
        if by_classifier is None:
            raise ValueError(
                "Neither the loss nor the classifier shows whether the classifier returns logits or probabilities: "
                "give the loss an attribute from_logits, True or False, as the losses of Keras have."
            )
        return by_classifier
    if by_classifier is not None and by_classifier != by_loss:
        given, needed = ("logits", "from_logits=True") if by_classifier else ("probabilities", "from_logits=False")
        raise ValueError(
            f"The last layer of the classifier, {classifier.layers[-1].name!r}, returns {given}, but the loss expects "
            f"the opposite: create the loss with {needed}, as in keras.losses.SparseCategoricalCrossentropy({needed})."
        )
    return bool(by_loss)


def _returns_logits(classifier: keras.Model) -> bool | None:
    """Returns whether a classifier returns logits by its graph, or by its last layer if it is not built."""
    spec = input_spec(classifier) if classifier.built else None
    if spec is not None and None not in spec[0][1:]:
        return describe_classifier(classifier, None).returns == "logits"
    # A subclass may use its layers in any way.
    return models.returns_logits(classifier) if isinstance(classifier, keras.Sequential) else None


def _copy(metrics: Any) -> Any:
    """Returns copies of metrics in the structure of `compile`; names and functions are returned unchanged."""
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
            f"The metric {metrics.name!r} cannot be copied for adversarial images ({error}): implement get_config so "
            "that it returns the arguments of the constructor."
        ) from error
