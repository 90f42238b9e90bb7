"""CertifiedTrain: a Keras model that trains a classifier so that much of it can be proved robust."""

from typing import Any, Self

import keras
import tensorflow as tf

from wasser_tf import attacks
from wasser_tf.attacks.base import Attack
from wasser_tf.certification.differentiable import DifferentiableBounds
from wasser_tf.models.inputs import check_arrays, check_images, num_classes
from wasser_tf.models.logits import as_logits_fn
from wasser_tf.models.provable import project_potentials
from wasser_tf.models.step_checks import check_step_labels, failed_requirements
from wasser_tf.runtime.arguments import check_bool, check_number
from wasser_tf.threat_model import ThreatModel
from wasser_tf.training import checks
from wasser_tf.training.adversarial_examples import numbers_of_step, perturb_batch, spread_evenly
from wasser_tf.training.adversarial_metrics import NaturalAndAdversarial
from wasser_tf.training.curriculum import MOST, Curriculum
from wasser_tf.training.loss import GeneralizedCrossEntropy, unscaled
from wasser_tf.training.monitoring import fit_arguments
from wasser_tf.training.schedules import Scheduled, check_schedule
from wasser_tf.training.trainable import as_trainable

# The settings that may follow a schedule.
_SCHEDULED = ("epsilon", "kappa", "exponent")


@keras.saving.register_keras_serializable(package="wasser_tf")
class CertifiedTrain(NaturalAndAdversarial):
    """Trains a classifier on bounds of its loss over a Wasserstein ball by interval bound propagation.

    Minimizes E[κ L(f(x), y) + (1 − κ) L(z̄(x), y)] over the weights, where z̄_j is an upper bound of z_j − z_y over the
    ball of radius ε, so that the second term is at least the worst loss in the ball (Gowal et al., 2019). It suits
    classifiers whose first layer is `TransportPotentials` (`wasser_tf.models.provable.build_provable`); any classifier
    that `wasser_tf.certify` has rules for can be trained.

    With an `exponent` q above 0 the second term is the generalized cross-entropy (1 − p̄^q) / q instead (Zhang and
    Sabuncu, NeurIPS 2018), where p̄ is the probability of the label by the bounds. It is bounded, so that images that
    cannot be certified do not dominate; at q → 0 it is the cross-entropy, with which training should start.

    The bounds are those of inference: dropout does nothing in them, and batch normalization uses its moving averages.
    They are float32 with any precision policy, and do not allow for rounding: `wasser_tf.certify` certifies the trained
    classifier.

    With `attack` and `attack_weight` β above 0 the second term is (1 − β) L(z̄(x), y) + β L(f(x̃), y) for the attack's
    example x̃ at the radius of the step (MTL-IBP, De Palma et al., ICLR 2024).

    `fit` and `evaluate` report `loss`, `natural_loss`, `certified_loss` and the compiled metrics, those of the bounds
    with the prefix `certified_`: `certified_accuracy` is the share of images whose answer cannot change in the ball.
    `fit` takes ε of the step, `evaluate` that of the threat model. With an attack, `adversarial_accuracy` is the
    accuracy under it.

    ε, κ and q may follow a schedule over steps or epochs; `fit` then reports them as `epsilon`, `kappa` and `exponent`.
    The number of the step is a weight of the model: after loading, or in another call of `fit`, the schedule continues.

    Attributes:
      classifier: The classifier; it is trained in place.
      threat_model, kappa, …, steps_per_epoch: The arguments of the constructor.

    Example:
    >>> import keras
    >>> from wasser_tf import CertifiedTrain, LinearRamp, ThreatModel, data
    >>> from wasser_tf.models.provable import build_provable
    >>> keras.utils.set_random_seed(0)
    >>> train, ball = data.load("digits").train, ThreatModel(epsilon=0.05)
    >>> classifier = build_provable((8, 8, 1), 10, ball, potentials=16, hidden=(16,), seed=0)
    >>> model = CertifiedTrain(classifier, ball, kappa=0.5, epsilon=LinearRamp(0, 0.05, steps=2))
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    >>> history = model.fit(train.images[:128], train.labels[:128], batch_size=64, verbose=0)
    >>> sorted(history.history)
    ['accuracy', 'certified_accuracy', 'certified_loss', 'epsilon', 'loss', 'natural_loss']
    """

    _prefix = "certified_"

    def __init__(
        self,
        classifier: keras.Model,
        threat_model: ThreatModel,
        kappa: float | Scheduled = 0.2,
        *,
        epsilon: float | Scheduled | None = None,
        exponent: float | Scheduled = 0.0,
        random_radius: bool = False,
        box_fraction: float = 1.0,
        attack: Attack | None = None,
        attack_weight: float = 0.5,
        steps_per_epoch: int | None = None,
        **kwargs: Any,
    ):
        """Wraps a classifier.

        Args:
          classifier: A Keras model made of layers that have a rule, from images [B, H, W, C] in [0, 1] to logits or
            probabilities [B, classes].
          threat_model: The ball. `evaluate` takes its epsilon.
          kappa: The weight κ of the natural loss, from 0 to 1, or its schedule.
          epsilon: The radius of training, or its schedule, instead of the threat model's.
          exponent: The exponent q of the loss of the bounds, from 0 to 1, or its schedule; 0 for the compiled loss.
          random_radius: Whether each training image has its own radius, uniform from 0 to ε and new in every step.
          box_fraction: The share τ of the radius that boxes have in training, in (0, 1]; below 1 they are moved to
            where the loss is high (SABR).
          attack: An attack to train on as well, or None.
          attack_weight: Its weight β, from 0 to 1.
          steps_per_epoch: The number of steps of an epoch, for schedules that count epochs (default: that of `fit`).
          **kwargs: Arguments of `keras.Model`, such as `name`.

        Raises:
          ValueError: An argument is out of its range, or a layer has no rule.
        """
        classifier = as_trainable(classifier)
        if not isinstance(threat_model, ThreatModel):
            raise ValueError(f"threat_model must be a wasser_tf.ThreatModel, got {threat_model!r}.")
        for name, value in (("kappa", kappa), ("epsilon", epsilon), ("exponent", exponent)):
            if callable(value):
                check_schedule(name, value, most=MOST[name])
            elif value is not None or name != "epsilon":
                check_number(name, value, least=0, most=MOST[name])
        check_bool("random_radius", random_radius)
        check_number("box_fraction", box_fraction, above=0, most=1)
        check_number("attack_weight", attack_weight, least=0, most=1)
        if attack is not None and not isinstance(attack, Attack):
            raise ValueError(f"attack must be a wasser_tf.attacks.Attack or None, got {attack!r}.")
        if attack is not None and attack.schedule is not None:
            raise ValueError("attack must have a fixed radius, for CertifiedTrain sets it: leave its schedule out.")
        checks.check_steps_per_epoch(steps_per_epoch)
        kwargs.setdefault("dtype", checks.dtype_policy(classifier))
        super().__init__(autocast=False, **kwargs)
        self.classifier = classifier
        self.threat_model = threat_model
        self.kappa, self.epsilon, self.exponent = kappa, epsilon, exponent
        self.random_radius = random_radius
        self.box_fraction = float(box_fraction)
        self.attack, self.attack_weight = attack, float(attack_weight)
        self.steps_per_epoch = steps_per_epoch
        self._curriculum = Curriculum(self._schedules, steps_per_epoch, name="curriculum") if self._schedules else None
        self._bounds = DifferentiableBounds(classifier, threat_model)
        self._attacked_accuracy = keras.metrics.Mean(name="adversarial_accuracy") if attack is not None else None
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns the outputs of the classifier, [B, classes], for images [B, H, W, C]."""
        return self.classifier(inputs, training=training)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains the classifier, as `keras.Model.fit` does. After each epoch, potentials have Lip ≤ 1 exactly.

        Raises:
          ValueError: The images or labels do not suit the classifier.
        """
        check_arrays(self.classifier, x, y)
        project = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: project_potentials(self.classifier))
        first: list[keras.callbacks.Callback] = [project]
        if self._curriculum is not None:
            first.append(self._curriculum.callback(self._schedules, self.steps_per_epoch))
        given = fit_arguments(super().fit, (x, y, *args), kwargs, first, self._adversarial.directions)
        for name in ("x", "validation_data"):
            given.arguments[name] = checks.checked_dataset(self, given.arguments.get(name))
        with failed_requirements():
            return super().fit(*given.args, **given.kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluates the classifier at the radius of the threat model, as `keras.Model.evaluate` does.

        Raises:
          ValueError: As for `fit`.
        """
        check_arrays(self.classifier, x, y)
        with failed_requirements():
            return super().evaluate(checks.checked_dataset(self, x), y, *args, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Makes one step of the optimizer on the natural loss and the loss of the bounds. Returns the logs."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x, y = check_images(x), check_step_labels(y, num_classes(self.classifier))
        # After the images: a dataset that has ended must not count as a step.
        with tf.control_dependencies([x]):
            now = {} if self._curriculum is None else self._curriculum.advance(self._schedules)
        epsilon = now.get("epsilon", self.threat_model.epsilon if self.epsilon is None else self.epsilon)
        index = numbers_of_step(tf.shape(x)[0], self.optimizer.iterations)
        radius = tf.fill(tf.shape(index), tf.cast(epsilon, tf.float32))
        if self.random_radius:
            radius *= spread_evenly(index)
        adversarial = self._attacked(x, y, index, radius)
        with tf.GradientTape() as tape:
            settings = {name: now.get(name, getattr(self, name)) for name in ("kappa", "exponent")}
            loss, outputs = self._natural_and_certified(
                x, y, sample_weight, radius, adversarial=adversarial, training=True, **settings
            )
            scaled_loss = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(scaled_loss, weights), weights, strict=True))
        return self._update_metrics(x, y, outputs, sample_weight)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Scores a batch at the radius of the threat model. Returns the logs."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x, y = check_images(x), check_step_labels(y, num_classes(self.classifier))
        index = tf.range(tf.shape(x)[0])
        radius = tf.fill(tf.shape(index), self.threat_model.epsilon)
        last = self._last_values()
        adversarial = self._attacked(x, y, index, radius)
        settings = {name: last.get(name, getattr(self, name)) for name in ("kappa", "exponent")}
        _, outputs = self._natural_and_certified(
            x, y, sample_weight, radius, adversarial=adversarial, training=False, **settings
        )
        logs = self._update_metrics(x, y, outputs, sample_weight)
        return {key: logs[key] for key in logs if key not in last}

    def get_metrics_result(self) -> dict[str, tf.Tensor]:
        """Returns the natural and certified metrics, and ε, κ and q of the last step if they follow a schedule."""
        return {**super().get_metrics_result(), **self._last_values()}

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor as plain Python values."""
        return {
            **super().get_config(),
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "threat_model": self.threat_model.get_config(),
            "kappa": self.kappa,
            "epsilon": self.epsilon,
            "exponent": self.exponent,
            **{name: keras.saving.serialize_keras_object(one) for name, one in self._schedules.items()},
            "random_radius": self.random_radius,
            "box_fraction": self.box_fraction,
            "attack": None if self.attack is None else attacks.serialize(self.attack),
            "attack_weight": self.attack_weight,
            "steps_per_epoch": self.steps_per_epoch,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Returns a model from the result of `get_config`. Its classifier has new weights."""
        config = dict(config)
        config["classifier"] = keras.saving.deserialize_keras_object(config["classifier"], custom_objects)
        config["threat_model"] = ThreatModel.from_config(config["threat_model"])
        if config["attack"] is not None:
            config["attack"] = attacks.deserialize(config["attack"])
        for name in _SCHEDULED:
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
        return cls(**config)

    @property
    def _schedules(self) -> dict[str, Scheduled]:
        """The schedules among the settings, by name."""
        return {name: value for name in _SCHEDULED if callable(value := getattr(self, name))}

    def _last_values(self) -> dict[str, tf.Tensor]:
        return {} if self._curriculum is None else self._curriculum.last_values(self._schedules)

    def _attacked(self, x: tf.Tensor, y: tf.Tensor, index: tf.Tensor, radius: tf.Tensor) -> tf.Tensor | None:
        """Returns the attack's examples, float32 [B, H, W, C], or None without an attack."""
        if self.attack is None:
            return None
        batch = {"images": x, "labels": _indices(y), "radius": radius, "index": index}
        return perturb_batch(self.attack, as_logits_fn(self, self._from_logits), batch)

    def _natural_and_certified(
        self,
        x: tf.Tensor,
        y: tf.Tensor,
        sample_weight: Any,
        radius: tf.Tensor,
        *,
        kappa: Any,
        exponent: Any,
        adversarial: tf.Tensor | None,
        training: bool,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
        """Returns the loss, and the outputs for natural images and of the bounds."""
        count = tf.shape(x)[0]
        together = x if adversarial is None else tf.concat([x, adversarial], axis=0)
        outputs = self(together, training=training)
        natural = self.compute_loss(x, y, outputs[:count], sample_weight, training=training)
        worst = self._bounds.worst_logits(x, _indices(y), radius, self.box_fraction if training else 1.0)
        bounded = tf.is_tensor(exponent) or exponent > 0
        if bounded:
            certified = GeneralizedCrossEntropy(exponent)(_indices(y), worst, sample_weight)
        worst = worst if self._from_logits else tf.nn.softmax(worst)
        if not bounded:
            certified = self.compute_loss(x, y, worst, sample_weight, training=training)
        robust = certified
        if adversarial is not None and self._attacked_accuracy is not None:
            attacked = self.compute_loss(adversarial, y, outputs[count:], sample_weight, training=training)
            robust = (1.0 - self.attack_weight) * certified + self.attack_weight * attacked
            right = tf.argmax(outputs[count:], axis=1, output_type=tf.int32) == _indices(y)
            self._attacked_accuracy.update_state(tf.cast(right, tf.float32))
        loss = kappa * natural + (1.0 - kappa) * robust
        for metric in self.metrics:
            if metric.name in ("loss", "natural_loss"):
                metric.update_state(unscaled(loss if metric.name == "loss" else natural), sample_weight=count)
        self._adversarial.update_loss(unscaled(certified), count)
        return loss, (outputs[:count], worst)


def _indices(y: tf.Tensor) -> tf.Tensor:
    """Returns class indices, int32 [B], of labels [B], [B, 1] or one-hot [B, classes]."""
    if y.shape.rank == 2 and y.shape[1] != 1:
        return tf.argmax(y, axis=1, output_type=tf.int32)
    return tf.cast(tf.reshape(y, [-1]), tf.int32)
