"""WasserTrain (ICASSP 2022, Eq. 10): a Keras model that trains a classifier on Wasserstein attacks against it."""

import warnings
from typing import Any, Self

import keras
import tensorflow as tf

from wasser_tf import attacks
from wasser_tf.attacks.base import Attack
from wasser_tf.models.inputs import check_arrays, check_images, check_output_shape, num_classes
from wasser_tf.models.logits import as_logits_fn
from wasser_tf.models.step_checks import check_step_labels, failed_requirements
from wasser_tf.training import checks
from wasser_tf.training.adversarial_examples import numbers_of_step, perturb_batch, radii_of_step
from wasser_tf.training.adversarial_metrics import NaturalAndAdversarial
from wasser_tf.training.curriculum import MOST, Curriculum
from wasser_tf.training.loss import divergence_of_outputs, squared_distance_of_outputs
from wasser_tf.training.monitoring import fit_arguments
from wasser_tf.training.schedules import Scheduled
from wasser_tf.training.trainable import as_trainable
from wasser_tf.training.warm_start import NUMBERS_NEEDED, Numbers, WarmStart, check_warm_start

# The attributes that can be changed at any time, and those that cannot.
_SETTINGS = ("attack", "omega", "epsilon", "attack_chunk", "random_radius", "trades_beta", "matching")
_FIXED = ("classifier", "warm_start", "steps_per_epoch")
_NOTHING_TO_TRAIN = "The classifier has no trainable weights (trainable=False?): training only attacks and measures it."


@keras.saving.register_keras_serializable(package="wasser_tf")
class WasserTrain(NaturalAndAdversarial):
    """Trains a classifier on adversarial examples in a Wasserstein ball.

    Minimizes E[ω L(θ, x̃, y) + (1 − ω) L(θ, x, y)] over the weights θ, where the attack finds x̃ against the current θ
    (Eq. 10).

    Every step attacks the batch with the classifier in inference mode, then makes one step of the compiled optimizer on
    the compiled loss. Natural and adversarial images pass through the classifier as one batch of 2B images: batch
    normalization uses the statistics of the mixture, which its moving averages then describe, and layers update their
    state and add their losses once per step. The attack does not change the state of the classifier.

    If the attack cannot perturb (ω = 0, ε = 0 without a schedule, or no iterations), a step equals that of
    `keras.Model`, dropout and batch normalization included.

    With `trades_beta` above 0 the loss is L(θ, x, y) + β KL(f(x) ‖ f(x̃)) for the same x̃ (TRADES, Zhang et al., 2019,
    Eq. 5), which rewards equal outputs for both images, whether they are correct or not.

    With `matching` above 0, λ ‖p(x) − p(x̃)‖² of the probabilities p is added to either loss (the ℓ2 term of GAT,
    Sriramanan et al., NeurIPS 2020): a bounded term that makes the classifier smooth between the two images.

    With `warm_start` above 0 the attack on an image starts where its attack of the epoch before ended (see
    `wasser_tf.training.warm_start`), so that few iterations per step make a strong attack. This needs a number for each
    image: `fit` takes x={"image": images, "number": numpy.arange(len(images))}, or a dataset of such batches.

    `fit` and `evaluate` report `loss` (the mixture), `natural_loss`, `adversarial_loss` and the compiled metrics, those
    of adversarial images with the prefix `adversarial_`. `fit` with ω = 0 does not attack and omits the latter;
    `evaluate` always attacks. `predict` calls the classifier.

    ε and ω may follow a schedule over steps or epochs. `fit` then reports them as `epsilon` and `omega`. The number of
    the step is a weight of the model: after loading, or in another call of `fit`, the schedule continues.

    The settings attack, omega, epsilon, attack_chunk, random_radius, trades_beta and matching can be changed at any
    time, also after `compile` and by a callback of `fit`: the next step is compiled with the new value.

    Attributes:
      classifier: The classifier; it is trained in place.
      attack, omega, epsilon, …, steps_per_epoch: The arguments of the constructor.

    Example:
    >>> import keras
    >>> from wasser_tf import MirrorAscent, ThreatModel, WasserTrain, data, models
    >>> keras.utils.set_random_seed(0)
    >>> train = data.load("digits").train
    >>> attack = MirrorAscent(ThreatModel(epsilon=0.1, kernel_size=3), iterations=2)
    >>> model = WasserTrain(models.build("linear", (8, 8, 1), 10), attack, omega=0.7)
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile("adam", loss, metrics=["accuracy"])
    >>> history = model.fit(train.images[:128], train.labels[:128], batch_size=64, verbose=0)
    >>> sorted(history.history)
    ['accuracy', 'adversarial_accuracy', 'adversarial_loss', 'loss', 'natural_loss']
    >>> model.classifier(train.images[:2]).shape
    TensorShape([2, 10])
    """

    classifier: keras.Model
    attack: Attack
    omega: float | Scheduled
    epsilon: float | Scheduled | None
    attack_chunk: int | None
    random_radius: bool
    trades_beta: float
    matching: float
    warm_start: float
    steps_per_epoch: int | None
    _warm_start: WarmStart | None
    _curriculum: Curriculum | None

    def __init__(
        self,
        classifier: keras.Model,
        attack: Attack,
        omega: float | Scheduled = 0.7,
        *,
        epsilon: float | Scheduled | None = None,
        attack_chunk: int | None = None,
        random_radius: bool = False,
        trades_beta: float = 0.0,
        matching: float = 0.0,
        warm_start: float = 0.0,
        num_examples: int | None = None,
        steps_per_epoch: int | None = None,
        **kwargs: Any,
    ):
        """Wraps a classifier.

        Args:
          classifier: A Keras model from images [B, H, W, C] in [0, 1] to logits or probabilities [B, classes]. It
            contains the normalization of the pixels, if there is any.
          attack: Any `wasser_tf.attacks.Attack`.
          omega: The weight ω, from 0 (standard training) to 1 (adversarial images only). With TRADES, only whether it
            is 0 matters. Or its schedule, such as `wasser_tf.LinearRamp(0, 0.7, epochs=5)`: one of
            `wasser_tf.training.schedules`, or any callable f(step) or f(step, steps_per_epoch) in TensorFlow.
          epsilon: The radius of training, or its schedule, instead of the attack's epsilon, at which `evaluate` (and
            validation) still attacks.
          attack_chunk: The maximum number of images that are attacked at a time. It bounds the memory of a step, most
            of which holds transport plans, and does not change results.
          random_radius: Whether each training image is attacked at its own radius, uniform from 0 to the attack's
            epsilon and new in every step, for one classifier that is robust over a range of radii.
          trades_beta: The weight β of TRADES, at least 0 (1 to 6 in its paper), or 0 for the loss of Eq. 10.
          matching: The weight λ of the squared distance of the probabilities, at least 0 (10 in its paper), or 0.
          warm_start: The factor on an image's final potential of the epoch before, from 0 (attacks from scratch) to
            below 1, such as 0.75. For `MirrorAscent` on a single replica.
          num_examples: With warm_start, the number of training images; their numbers are below it.
          steps_per_epoch: The number of steps of an epoch, for schedules that count epochs (default: that of `fit`).
          **kwargs: Arguments of `keras.Model`, such as `name`.

        Raises:
          ValueError: An argument has the wrong type or is out of its range.
        """
        classifier = as_trainable(classifier)
        settings: dict[str, Any] = {
            "attack": attack,
            "omega": omega,
            "epsilon": epsilon,
            "attack_chunk": attack_chunk,
            "random_radius": random_radius,
            "trades_beta": trades_beta,
            "matching": matching,
        }
        checks.check_training_settings(**settings)
        check_warm_start(warm_start, attack)
        checks.check_steps_per_epoch(steps_per_epoch)
        kwargs.setdefault("dtype", checks.dtype_policy(classifier))
        # The classifier casts its input; a cast here would round the images first.
        super().__init__(autocast=False, **kwargs)
        self.classifier = classifier
        for name, value in settings.items():
            setattr(self, name, value)
        self.warm_start = float(warm_start)
        self._warm_start = WarmStart(num_examples, warm_start, name="warm_start") if warm_start else None
        self.steps_per_epoch = steps_per_epoch
        self._curriculum = Curriculum(self._schedules, steps_per_epoch, name="curriculum") if self._schedules else None
        if classifier.built:
            self.build(getattr(classifier, "input_shape", None))
        self._constructed = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("omega", "epsilon", "trades_beta", "matching") and checks.is_real(value):
            value = float(value)
        if not self.__dict__.get("_constructed", False) or name not in (*_SETTINGS, *_FIXED):
            super().__setattr__(name, value)
            return
        if name not in _SETTINGS:
            raise AttributeError(f"{name} cannot be changed after construction: make a new WasserTrain.")
        checks.check_training_settings(**{**{setting: getattr(self, setting) for setting in _SETTINGS}, name: value})
        check_warm_start(self.warm_start, value if name == "attack" else self.attack)
        if name in MOST and callable(value) and self._curriculum is None:
            raise ValueError(
                f"{name} can become a schedule only in a WasserTrain that was made with one: make a new WasserTrain."
            )
        super().__setattr__(name, value)
        # These were traced with the old value. Within `fit` the next step calls the new functions.
        if self.train_function is not None:
            self.make_train_function(force=True)
        if self.test_function is not None:
            self.make_test_function(force=True)

    def build(self, input_shape: Any) -> None:
        """Builds the classifier if it is not built, and checks its input and output shapes.

        Args:
          input_shape: The shape of the images, (None, H, W, C).

        Raises:
          ValueError: The classifier has a fixed batch size, or does not return [B, classes].
        """
        if not self.classifier.built:
            self.classifier.build(input_shape)
        expected = getattr(self.classifier, "input_shape", None)
        if isinstance(expected, tuple) and expected and expected[0] is not None:
            raise ValueError(
                "The classifier must accept batches of any size, as natural and adversarial images form one batch, "
                f"got the batch size {expected[0]}: make its keras.Input without batch_size."
            )
        output_shape = getattr(self.classifier, "output_shape", None)
        if output_shape is not None:
            check_output_shape(output_shape)
        if self._warm_start is not None:
            self._warm_start.build(expected if isinstance(expected, tuple) else input_shape)
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns the outputs of the classifier, [B, classes], for images [B, H, W, C]."""
        outputs = self.classifier(checks.images_and_numbers(inputs)[0], training=training)
        check_output_shape(getattr(outputs, "shape", None))
        return outputs

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains the classifier, as `keras.Model.fit` does.

        Raises:
          ValueError: The images or labels do not suit the classifier and the attack. Arrays are checked before training
            starts, datasets batch by batch (except pixel values in a step compiled by XLA, which cannot raise errors).
        """
        images, numbers = checks.images_and_numbers(x)
        check_arrays(self.classifier, images, y, getattr(self, "loss", None))
        if self._warm_start is not None:
            self._warm_start.check(None if numbers is None else numbers.number, images)
        first = [] if self._curriculum is None else [self._curriculum.callback(self._schedules, self.steps_per_epoch)]
        given = fit_arguments(super().fit, (x, y, *args), kwargs, first, self._adversarial.directions)
        for name in ("x", "validation_data"):
            given.arguments[name] = checks.checked_dataset(self, given.arguments.get(name))
        with failed_requirements():
            return super().fit(*given.args, **given.kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluates the classifier on natural and adversarial images, as `keras.Model.evaluate` does.

        Raises:
          ValueError: As for `fit`.
        """
        check_arrays(self.classifier, checks.images_and_numbers(x)[0], y, getattr(self, "loss", None))
        with failed_requirements():
            return super().evaluate(checks.checked_dataset(self, x), y, *args, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Attacks a batch and makes one step of the optimizer. Returns the logs."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x, numbers = checks.images_and_numbers(x)
        if self._warm_start is not None and numbers is None:
            raise ValueError(NUMBERS_NEEDED)
        x, y = check_images(x), check_step_labels(y, self._num_classes(x))
        # After the images: a dataset that has ended must not count as a step.
        with tf.control_dependencies([x]):
            now = {} if self._curriculum is None else self._curriculum.advance(self._schedules)
        epsilon, omega = now.get("epsilon", self.epsilon), now.get("omega", self.omega)
        learns_from_attack = "omega" in now or omega > 0
        adversarial = None
        if learns_from_attack and checks.can_perturb(self.attack, self.epsilon):
            index = numbers_of_step(tf.shape(x)[0], self.optimizer.iterations)
            radius = radii_of_step(self.attack, index, self.random_radius, epsilon)
            adversarial = self._adversarial_images(x, y, index, radius, numbers)
        with tf.GradientTape() as tape:
            loss, outputs = self._mixed_loss(x, adversarial, y, sample_weight, omega, training=True)
            scaled_loss = self.optimizer.scale_loss(loss)
        if weights := self.trainable_weights:
            self.optimizer.apply_gradients(zip(tape.gradient(scaled_loss, weights), weights, strict=True))
        else:
            warnings.warn(_NOTHING_TO_TRAIN, stacklevel=2)
        logs = self._update_metrics(x, y, outputs, sample_weight)
        # With ω = 0 the adversarial scores are unknown and omitted, instead of reported as zeros.
        return logs if learns_from_attack else {key: logs[key] for key in logs if key not in self._adversarial.result()}

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Scores a batch of natural images and of their adversarial images. Returns the logs."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = check_images(checks.images_and_numbers(x)[0])
        y = check_step_labels(y, self._num_classes(x))
        adversarial = None
        if self.attack.can_perturb:
            index = tf.range(tf.shape(x)[0])
            adversarial = self._adversarial_images(x, y, index, radii_of_step(self.attack, index, False))
        last = self._last_values()
        _, outputs = self._mixed_loss(x, adversarial, y, sample_weight, last.get("omega", self.omega), training=False)
        logs = self._update_metrics(x, y, outputs, sample_weight)
        return {key: logs[key] for key in logs if key not in last}

    def get_metrics_result(self) -> dict[str, tf.Tensor]:
        """Returns the natural and adversarial metrics, and ε and ω of the last step if they follow a schedule."""
        return {**super().get_metrics_result(), **self._last_values()}

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor as plain Python values."""
        return {
            **super().get_config(),
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "attack": attacks.serialize(self.attack),
            **{name: getattr(self, name) for name in _SETTINGS if name != "attack"},
            **{name: keras.saving.serialize_keras_object(one) for name, one in self._schedules.items()},
            "warm_start": self.warm_start,
            "num_examples": None if self._warm_start is None else self._warm_start.num_examples,
            "steps_per_epoch": self.steps_per_epoch,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Returns a model from the result of `get_config`. Its classifier has new weights."""
        config = dict(config)
        config["classifier"] = keras.saving.deserialize_keras_object(config["classifier"], custom_objects)
        config["attack"] = attacks.deserialize(config["attack"])
        for name in MOST:
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
        return cls(**config)

    @property
    def _schedules(self) -> dict[str, Scheduled]:
        """The schedules among the settings, by name."""
        return {name: value for name in MOST if callable(value := getattr(self, name, None))}

    def _last_values(self) -> dict[str, tf.Tensor]:
        return {} if self._curriculum is None else self._curriculum.last_values(self._schedules)

    def _num_classes(self, x: tf.Tensor) -> int | None:
        # A subclassed model does not have the number.
        return num_classes(self.classifier) or self(x, training=False).shape[1]

    def _adversarial_images(
        self, x: tf.Tensor, y: tf.Tensor, index: tf.Tensor, radius: tf.Tensor, numbers: Numbers | None = None
    ) -> tf.Tensor:
        """Returns the adversarial images x̃, float32 [B, H, W, C]; see `perturb_batch`."""
        if y.shape.rank == 2 and y.shape[1] == 1:
            y = y[:, 0]
        return perturb_batch(
            self.attack,
            # Through `call`, which checks the shape of the outputs.
            as_logits_fn(self, self._from_logits),
            {"images": x, "labels": y, "radius": radius, "index": index},
            chunk=self.attack_chunk,
            warm_start=self._warm_start,
            numbers=numbers,
        )

    def _mixed_loss(
        self, x: tf.Tensor, adversarial: tf.Tensor | None, y: tf.Tensor, sample_weight: Any, omega: Any, training: bool
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
        """Returns the loss and the outputs for natural and for adversarial images (the same without x̃)."""
        if adversarial is None:
            natural_outputs = adversarial_outputs = self(x, training=training)
        else:
            outputs = self(tf.concat([x, adversarial], axis=0), training=training)
            natural_outputs, adversarial_outputs = tf.split(outputs, 2)
        # Each includes the regularization losses; as ω and 1 − ω add up to 1, the mixture includes them once.
        natural_loss = self.compute_loss(x, y, natural_outputs, sample_weight, training=training)
        if adversarial is None:
            loss = adversarial_loss = natural_loss
        else:
            adversarial_loss = self.compute_loss(adversarial, y, adversarial_outputs, sample_weight, training=training)
            loss = omega * adversarial_loss + (1 - omega) * natural_loss
            compared = (natural_outputs, adversarial_outputs, self._from_logits, sample_weight)
            # Scaled to the share of a replica, as Keras scales the other losses.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            if self.trades_beta:
                loss = natural_loss + self.trades_beta * divergence_of_outputs(*compared) / replicas
            if self.matching:
                loss += self.matching * squared_distance_of_outputs(*compared) / replicas
        self._update_losses(loss, natural_loss, adversarial_loss, tf.shape(x)[0])
        return loss, (natural_outputs, adversarial_outputs)
