"""WasserTrain (ICASSP 2022, Eq. 10): a Keras model that trains a classifier on a Wasserstein attack against itself."""

from collections.abc import Callable
from typing import Any, Self

import keras
import tensorflow as tf

from wasser_tf import attacks
from wasser_tf.attacks.base import Attack
from wasser_tf.models.logits import as_logits_fn
from wasser_tf.training import checks
from wasser_tf.training.adversarial_metrics import AdversarialScores, loss_takes_logits
from wasser_tf.training.even_spread import spread_evenly
from wasser_tf.training.loss import divergence_of_outputs, unscaled
from wasser_tf.training.trainable import as_trainable
from wasser_tf.training.warm_start import MISSING, WarmStart, check_warm_start

# What may be set at any time.
_SETTINGS = ("attack", "omega", "attack_chunk", "random_radius", "trades_beta")


@keras.saving.register_keras_serializable(package="wasser_tf")
class WasserTrain(keras.Model):
    """Trains a classifier by min_θ E[ω L(θ, x̃, y) + (1 − ω) L(θ, x, y)], x̃ from an attack on the current θ (Eq. 10).

    Every step attacks the batch with the classifier in inference mode, then makes one step of the compiled optimiser on
    the compiled loss. Natural and adversarial images go through the classifier together, as one batch of 2B: batch
    normalisation sees the very mixture that its moving statistics, which inference uses, will describe, and whatever a
    layer updates or adds to the loss happens once a step. The attack itself changes nothing in the classifier.

    Where there is nothing to learn from an attack (ω = 0, ε = 0 without a schedule, or no iterations), a step is that
    of plain Keras, dropout and batch normalisation included.

    With `trades_beta` above 0 the loss is that of TRADES instead (Zhang et al., 2019, Eq. 5), on the same x̃:
    L(θ, x, y) + β KL(f(x) ‖ f(x̃)), which asks that the classifier keeps its answer, right or wrong.

    With `warm_start` above 0 the attack on an image goes on where it ended an epoch before (see
    `wasser_tf.training.warm_start`): few iterations a step are then a strong attack. Each image needs a number for
    that, so `fit` takes {"image": images, "number": numpy.arange(len(images))} for x, or a dataset of such batches.

    `fit` and `evaluate` show `loss` (the mixture), `natural_loss`, `adversarial_loss`, the compiled metrics on natural
    images under their own names, and the same on adversarial images with `adversarial_` before them. `fit` with ω = 0
    attacks nothing and leaves the adversarial ones out; `evaluate` always attacks. `predict` is the classifier alone.

    Every setting but the classifier and the warm start may be set at any time, also after `compile` and by a callback
    of `fit`: the next step uses it, and is compiled anew.

    Attributes:
      classifier: The classifier, the very object that was given: it is trained in place.
      attack: The attack.
      omega: ω, the weight of the adversarial loss.
      attack_chunk: The most images of a step that are attacked at a time, or None for all at once.
      random_radius: Whether each image is attacked, in training, at a radius of its own.
      trades_beta: β of TRADES, or 0 for Eq. 10.
      warm_start: What an epoch leaves of an image's potential, or 0 where every attack starts anew.
    """

    classifier: keras.Model
    attack: Attack
    omega: float
    attack_chunk: int | None
    random_radius: bool
    trades_beta: float
    warm_start: float
    _warm_start: WarmStart | None
    _adversarial: AdversarialScores
    _from_logits: bool

    def __init__(
        self,
        classifier: keras.Model,
        attack: Attack,
        omega: float = 0.7,
        *,
        attack_chunk: int | None = None,
        random_radius: bool = False,
        trades_beta: float = 0.0,
        warm_start: float = 0.0,
        num_examples: int | None = None,
        **kwargs: Any,
    ):
        """Wraps a classifier.

        Args:
          classifier: A Keras model from images [B, H, W, C] in [0, 1] to logits or probabilities [B, classes]. Any
            normalisation of the pixels belongs into it.
          attack: Any `wasser_tf.attacks.Attack`.
          omega: ω, from 0 (plain training) to 1 (adversarial images only). TRADES has no other use for it.
          attack_chunk: The most images that are attacked at a time. It bounds the memory of a step, which plans
            dominate, and changes no result.
          random_radius: Whether an image is attacked, in training, anywhere from 0 to the attack's epsilon, evenly
            distributed and anew in every step, instead of at epsilon: one model for a range of radii.
          trades_beta: β of TRADES, at least 0; its authors take 1 to 6. 0 for the loss of Eq. 10.
          warm_start: What the attack keeps, from 0 (nothing: it starts anew) to below 1, of the potential that an
            image's plan ended with an epoch before. For `MirrorAscent` alone, on one replica; 0.75 is a good value.
          num_examples: With warm_start, how many training images there are; their numbers are below it.
          **kwargs: Of `keras.Model`, such as `name`.

        Raises:
          ValueError: An argument is not what is needed.
        """
        classifier = as_trainable(classifier)
        settings: dict[str, Any] = {
            "attack": attack,
            "omega": omega,
            "attack_chunk": attack_chunk,
            "random_radius": random_radius,
            "trades_beta": trades_beta,
        }
        checks.check_training_settings(**settings)
        check_warm_start(warm_start, attack)
        kwargs.setdefault("dtype", checks.dtype_policy(classifier))
        # The classifier casts for itself; a cast here would round the images before it sees them.
        super().__init__(autocast=False, **kwargs)
        self.classifier = classifier
        for name, value in settings.items():
            setattr(self, name, value)
        self.warm_start = float(warm_start)
        self._warm_start = WarmStart(num_examples, warm_start, name="warm_start") if warm_start else None
        self._natural_loss = keras.metrics.Mean(name="natural_loss")
        self._adversarial = AdversarialScores()
        self._from_logits = True
        if classifier.built:
            self.build(getattr(classifier, "input_shape", None))
        self._constructed = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("omega", "trades_beta") and checks.is_real(value):
            value = float(value)
        if not self.__dict__.get("_constructed", False) or name not in (*_SETTINGS, "classifier", "warm_start"):
            super().__setattr__(name, value)
            return
        if name not in _SETTINGS:
            raise AttributeError(f"{name} cannot be changed after construction: make a new WasserTrain.")
        checks.check_training_settings(**{**{setting: getattr(self, setting) for setting in _SETTINGS}, name: value})
        check_warm_start(self.warm_start, value if name == "attack" else self.attack)
        super().__setattr__(name, value)
        # Traced with the old value. Within `fit` the next step calls the new functions.
        if self.train_function is not None:
            self.make_train_function(force=True)
        if self.test_function is not None:
            self.make_test_function(force=True)

    def build(self, input_shape: Any) -> None:
        """Builds the classifier, if it is not, and checks that it takes and returns what is needed."""
        if not self.classifier.built:
            self.classifier.build(input_shape)
        expected = getattr(self.classifier, "input_shape", None)
        if isinstance(expected, tuple) and expected and expected[0] is not None:
            raise ValueError(
                f"The classifier must take batches of any size (natural and adversarial images go through it as one), "
                f"got {expected[0]}: make its keras.Input without batch_size."
            )
        output_shape = getattr(self.classifier, "output_shape", None)
        if output_shape is not None:
            checks.check_output_shape(output_shape)
        if self._warm_start is not None:
            self._warm_start.build(expected if isinstance(expected, tuple) else input_shape)
        self.built = True

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        *,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configures training as `keras.Model.compile` does.

        Args:
          optimizer: An optimiser or its name.
          loss: L of Eq. 10, such as `keras.losses.SparseCategoricalCrossentropy(from_logits=True)`. What it says about
            logits holds for the attack too; where it says nothing, the classifier's last layer is asked.
          metrics: Metrics, shown for natural and for adversarial images.
          weighted_metrics: Those that sample and class weights apply to.
          **kwargs: Of `keras.Model.compile`: run_eagerly, steps_per_execution, jit_compile, auto_scale_loss.

        Raises:
          ValueError: There is no loss, it does not suit the classifier's outputs, or a metric cannot be copied.
        """
        if loss is None:
            raise ValueError(
                "WasserTrain needs a loss, got None: pass for example "
                "loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True) to compile."
            )
        self._from_logits = loss_takes_logits(self.classifier, loss)
        self._adversarial = AdversarialScores(metrics, weighted_metrics)
        super().compile(optimizer, loss, metrics=metrics, weighted_metrics=weighted_metrics, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as the saved model was; Keras leaves this to models that have a `compile` of their own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns what the classifier returns, [B, classes]."""
        outputs = self.classifier(checks.images_and_numbers(inputs)[0], training=training)
        checks.check_output_shape(getattr(outputs, "shape", None))
        return outputs

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains as `keras.Model.fit` does.

        Raises:
          ValueError: Images are not what the classifier and the attack take. Arrays are looked at before the start. Of
            datasets each batch is, but for a step that XLA compiles, in which nothing can be raised.
        """
        images, numbers = checks.images_and_numbers(x)
        checks.check_arrays(self.classifier, images, y)
        if self._warm_start is not None:
            self._warm_start.check(numbers, images)
        with checks.pixel_errors():
            return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluates as `keras.Model.evaluate` does, on natural images and under attack.

        Raises:
          ValueError: As by `fit`.
        """
        checks.check_arrays(self.classifier, checks.images_and_numbers(x)[0], y)
        with checks.pixel_errors():
            return super().evaluate(x, y, *args, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Attacks a batch and learns from it, once."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x, number = checks.images_and_numbers(x)
        if self._warm_start is not None and number is None:
            raise ValueError(MISSING)
        x = checks.check_images(x)
        adversarial = None
        if self.attack.can_perturb and self.omega > 0:
            # Numbers that never come again, so that an attack with a random start draws a new one in every step.
            # Replicas have batches of one size, and draw what one replica with all images would.
            count = tf.shape(x)[0]
            context = tf.distribute.get_replica_context()
            batch = tf.cast(self.optimizer.iterations, tf.int32) * context.num_replicas_in_sync
            index = (batch + context.replica_id_in_sync_group) * count + tf.range(count)
            radius = tf.fill([count], tf.constant(self.attack.threat_model.epsilon, tf.float32))
            if self.random_radius:
                radius *= spread_evenly(index)
            adversarial = self._adversarial_images(x, y, index, radius, number)
        with tf.GradientTape() as tape:
            loss, outputs = self._mixed_loss(x, adversarial, y, sample_weight, training=True)
            scaled_loss = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(scaled_loss, weights), weights, strict=True))
        logs = self._update_metrics(x, y, outputs, sample_weight)
        # With ω = 0 no one knows the adversarial scores: leaving them out is better than showing zeros.
        return logs if self.omega > 0 else {key: logs[key] for key in logs if key not in self._adversarial.result()}

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Scores a batch, natural and attacked."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = checks.check_images(checks.images_and_numbers(x)[0])
        adversarial = None
        if self.attack.can_perturb:
            count = tf.shape(x)[0]
            radius = tf.fill([count], tf.constant(self.attack.threat_model.epsilon, tf.float32))
            adversarial = self._adversarial_images(x, y, tf.range(count), radius)
        _, outputs = self._mixed_loss(x, adversarial, y, sample_weight, training=False)
        return self._update_metrics(x, y, outputs, sample_weight)

    def reset_metrics(self) -> None:
        """Sets all metrics back, the adversarial ones too."""
        super().reset_metrics()
        self._adversarial.reset()

    def get_metrics_result(self) -> dict[str, tf.Tensor]:
        """Returns the natural metrics, and the adversarial ones with `adversarial_` before their names."""
        return {**super().get_metrics_result(), **self._adversarial.result()}

    @property
    def metrics_variables(self) -> list[Any]:
        """The variables of all metrics, the adversarial ones too."""
        return [*super().metrics_variables, *self._adversarial.variables]

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, tf.Tensor]:
        """Updates the compiled metrics with natural outputs."""
        # Under a distribution strategy Keras calls this once, symbolically, to make the variables of all metrics.
        self._adversarial.build(x, y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Returns the classifier, the attack and ω in plain Python values."""
        return {
            **super().get_config(),
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "attack": attacks.serialize(self.attack),
            "omega": self.omega,
            "attack_chunk": self.attack_chunk,
            "random_radius": self.random_radius,
            "trades_beta": self.trades_beta,
            "warm_start": self.warm_start,
            "num_examples": None if self._warm_start is None else self._warm_start.num_examples,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Makes the model that `get_config` described, its classifier with new weights."""
        config = dict(config)
        config["classifier"] = keras.saving.deserialize_keras_object(config["classifier"], custom_objects)
        config["attack"] = attacks.deserialize(config["attack"])
        return cls(**config)

    def _adversarial_images(
        self, x: tf.Tensor, y: tf.Tensor, index: tf.Tensor, radius: tf.Tensor, number: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns x̃, float32 [B, H, W, C], without a way back for gradients.

        Args:
          x: The images, [B, H, W, C].
          y: Their labels.
          index: What their random starts depend on, [B].
          radius: Their radii, [B].
          number: With `warm_start`, in training, their numbers among all examples, [B].
        """
        if y.shape.rank == 2 and y.shape[1] == 1:
            y = y[:, 0]
        # Through `call`, which checks what comes out.
        logits_fn = as_logits_fn(self, self._from_logits)
        given = {"images": x, "labels": y, "radius": radius, "index": index}
        if self._warm_start is None or number is None:

            def attack(given: dict[str, tf.Tensor]) -> tuple[tf.Tensor]:
                return (self.attack.run(logits_fn, **given).adversarial,)

            return tf.stop_gradient(self._in_chunks(attack, given, (tf.float32,))[0])

        given["potential"] = self._warm_start.potentials(number)

        def resume(given: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            potential = given.pop("potential")
            return self.attack.resume(self.attack.problem(logits_fn, **given), potential)

        adversarial, potential = self._in_chunks(resume, given, (tf.float32, tf.float32))
        self._warm_start.keep(number, potential)
        return tf.stop_gradient(adversarial)

    def _in_chunks(
        self, attack: Callable[[dict[str, tf.Tensor]], tuple], given: dict[str, tf.Tensor], dtypes: tuple
    ) -> tuple:
        """Calls the attack on a batch, `attack_chunk` images at a time; both take and return one row an image."""
        images = given["images"]
        if self.attack_chunk is None:
            return attack(dict(given))
        count = images.shape[0] or tf.shape(images)[0]
        # Chunks of one size; the last is filled up with the last image.
        chunks = -(-count // self.attack_chunk)
        size = -(-count // chunks)
        rows = tf.minimum(tf.reshape(tf.range(chunks * size), [chunks, size]), count - 1)
        found = tf.map_fn(
            lambda rows: attack({name: tf.gather(value, rows) for name, value in given.items()}),
            rows,
            parallel_iterations=1,
            fn_output_signature=dtypes,
        )
        return tuple(tf.reshape(parts, [-1, *parts.shape[2:]])[:count] for parts in found)

    def _mixed_loss(
        self, x: tf.Tensor, adversarial: tf.Tensor | None, y: tf.Tensor, sample_weight: Any, training: bool
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
        """Returns the loss, and the outputs for natural and for adversarial images (the same without x̃)."""
        if adversarial is None:
            natural_outputs = adversarial_outputs = self(x, training=training)
        else:
            outputs = self(tf.concat([x, adversarial], axis=0), training=training)
            natural_outputs, adversarial_outputs = tf.split(outputs, 2)
        # Each carries the regularisation losses, and ω and 1 − ω add up to 1: the mixture has them once.
        natural_loss = self.compute_loss(x, y, natural_outputs, sample_weight, training=training)
        if adversarial is None:
            loss = adversarial_loss = natural_loss
        else:
            adversarial_loss = self.compute_loss(adversarial, y, adversarial_outputs, sample_weight, training=training)
            loss = self.omega * adversarial_loss + (1 - self.omega) * natural_loss
            if self.trades_beta:
                # In the share of a replica, as Keras has the losses beside it.
                divergence = divergence_of_outputs(
                    natural_outputs, adversarial_outputs, self._from_logits, sample_weight
                )
                loss = natural_loss + self.trades_beta * divergence / tf.distribute.get_strategy().num_replicas_in_sync
        count = tf.shape(x)[0]
        for metric in self.metrics:
            if metric.name in ("loss", "natural_loss"):
                metric.update_state(unscaled(loss if metric.name == "loss" else natural_loss), sample_weight=count)
        self._adversarial.update_loss(unscaled(adversarial_loss), count)
        return loss, (natural_outputs, adversarial_outputs)

    def _update_metrics(
        self, x: tf.Tensor, y: tf.Tensor, outputs: tuple[tf.Tensor, tf.Tensor], sample_weight: Any
    ) -> dict[str, tf.Tensor]:
        # The adversarial ones first: they are then built when `compute_metrics` would build them with natural outputs.
        self._adversarial.update(x, y, outputs[1], sample_weight)
        self.compute_metrics(x, y, outputs[0], sample_weight)
        return self.get_metrics_result()
