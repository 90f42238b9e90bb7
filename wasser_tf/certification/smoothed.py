"""A classifier that answers with the majority of votes on noisy images, as a Keras model."""

import copy
import os
from collections.abc import Callable
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.certification import votes
from wasser_tf.certification.flow_noise import FlowNoise
from wasser_tf.certification.result import CertificationResult
from wasser_tf.certification.smoothing import certify_smoothed
from wasser_tf.models.inputs import (
    check_arrays,
    check_batch,
    check_images,
    check_output_shape,
    refuse_other_inputs,
)
from wasser_tf.models.step_checks import failed_requirements
from wasser_tf.threat_model import ThreatModel


@keras.saving.register_keras_serializable(package="wasser_tf")
class Smoothed(keras.Model):
    """Wraps a classifier in randomised smoothing for the Wasserstein ball (Levine and Feizi, 2020).

    The base classifier sees x + m(x) · noise, where noise flows between neighbouring pixels and m(x) is the mass of x.
    The smoothed classifier answers with the class that most noisy copies are given, and that majority is what
    `certify` certifies.

    `fit` trains the base classifier on noisy images, one anew for each image and step, and `evaluate` scores it on
    noisy images: losses and metrics are those of the base classifier. Calling the model, and `predict`, return the
    shares of `num_votes` votes, [B, classes], as probabilities without a gradient; `classify` may abstain.

    Attributes:
      base_classifier: The classifier, the very object that was given: it is trained in place.
      noise: The noise on flows.
      num_votes: The votes of an answer, and those that choose the class to be certified.
      num_samples: N, the votes that bound its probability.
      alpha: α, the probability that a certificate, or an answer of `classify`, is wrong, at most.
      seed: Of the noise.
      from_logits: False: what is returned are probabilities.

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data, models
    >>> test = data.load("digits", splits=("test",)).test
    >>> network = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> smoothed = wasser_tf.Smoothed(network, scale=0.01, num_samples=100, num_votes=20)
    >>> smoothed.predict(test.images[:4], verbose=0).sum(axis=1)
    array([1., 1., 1., 1.], dtype=float32)
    >>> result = smoothed.certify(test.images[:4], test.labels[:4], wasser_tf.ThreatModel(epsilon=0.01))
    >>> result.radius.shape, result.confidence
    ((4,), 0.95)
    """

    def __init__(
        self,
        classifier: keras.Model,
        noise: str = "laplace",
        *,
        scale: float = 0.01,
        num_samples: int = 10_000,
        num_votes: int = 100,
        alpha: float = 0.05,
        seed: int = 0,
        **kwargs: Any,
    ):
        """Wraps a classifier.

        Args:
          classifier: A Keras model from images [B, H, W, C] to logits or probabilities [B, classes]. It must take
            pixels below 0 and above 1.
          noise: "laplace" or "uniform".
          scale: In units of the image's mass: the standard deviation σ of a flow for Laplace noise, the half-width λ
            for uniform noise.
          num_samples: N, at least 1.
          num_votes: At least 1.
          alpha: α, above 0 and below 1.
          seed: A whole number of at least 0.
          **kwargs: Of `keras.Model`, such as `name`.

        Raises:
          ValueError: An argument is not what is needed.
        """
        if not isinstance(classifier, keras.Model):
            raise ValueError(f"classifier must be a keras.Model, got {type(classifier).__name__}.")
        refuse_other_inputs(classifier)
        self_noise = FlowNoise(kind=noise, scale=scale)
        votes.check_vote_settings(num_votes, num_samples, alpha, seed)
        kwargs.setdefault("dtype", classifier.dtype_policy)
        # The classifier casts for itself; a cast here would round the images before it sees them.
        super().__init__(autocast=False, **kwargs)
        self.base_classifier = classifier
        self.noise = self_noise
        self.num_samples, self.num_votes = int(num_samples), int(num_votes)
        self.alpha, self.seed = float(alpha), int(seed)
        self.from_logits = False
        if classifier.built:
            self.build(getattr(classifier, "input_shape", None))

    def build(self, input_shape: Any) -> None:
        """Builds the classifier, if it is not, and checks what it returns."""
        if not self.base_classifier.built:
            self.base_classifier.build(input_shape)
        output_shape = getattr(self.base_classifier, "output_shape", None)
        if output_shape is not None:
            check_output_shape(output_shape)
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns the shares of votes, [B, classes], or what the base classifier returns in training."""
        if training:
            return self.base_classifier(inputs, training=True)
        seed = votes.seed_for(self.seed, votes.PREDICTION)
        return votes.shares(self.base_classifier, self.noise, seed, inputs, self.num_votes)

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Returns the class of each image, int64 [n], or −1 where `num_votes` votes do not settle it at level α.

        Args:
          images: Float [n, H, W, C] in [0, 1].

        Raises:
          ValueError: Images are not what the classifier takes.
        """
        images, _ = check_batch(self.base_classifier, images, np.zeros(len(images), np.int32))
        counts = np.rint(self.predict(images, verbose=0) * self.num_votes)
        return votes.majority(counts, self.alpha)

    def certify(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        threat_model: ThreatModel,
        *,
        index: np.ndarray | None = None,
        batch_size: int = 1024,
        folder: str | os.PathLike[str] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> CertificationResult:
        """Certifies images, each at confidence 1 − α; see `certify_smoothed` for the arguments.

        Raises:
          ValueError: The input is not what is needed.
        """
        return certify_smoothed(
            self.base_classifier,
            images,
            labels,
            threat_model,
            noise=self.noise.kind,
            scale=self.noise.scale,
            num_samples=self.num_samples,
            num_votes=self.num_votes,
            alpha=self.alpha,
            seed=self.seed,
            index=index,
            batch_size=batch_size,
            folder=folder,
            progress=progress,
        )

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains the base classifier on noisy images, as `keras.Model.fit` does.

        Raises:
          ValueError: Images are not what the classifier takes. Arrays are looked at before the start, datasets batch by
            batch.
        """
        check_arrays(self.base_classifier, x, y)
        with failed_requirements():
            return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluates the base classifier on noisy images, as `keras.Model.evaluate` does.

        Raises:
          ValueError: As by `fit`.
        """
        check_arrays(self.base_classifier, x, y)
        with failed_requirements():
            return super().evaluate(x, y, *args, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Learns from a noisy batch."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        # By the step, so that a resumed training goes on with the noise that it would have had.
        step = tf.cast(self.optimizer.iterations, tf.int32)
        noisy = self._noisy(x, votes.TRAINING, step)
        return super().train_step((noisy, y, sample_weight))

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Scores the base classifier on a noisy batch, with the same noise in each evaluation."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        noisy = self._noisy(x, votes.EVALUATION, 0)
        outputs = self.base_classifier(noisy, training=False)
        loss = self.compute_loss(noisy, y, outputs, sample_weight, training=False)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        for metric in self.metrics:
            if metric.name == "loss":
                # Keras divides a loss by the number of replicas.
                metric.update_state(loss * replicas, sample_weight=tf.shape(noisy)[0])
        return self.compute_metrics(noisy, y, outputs, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Returns the classifier and the settings in plain Python values."""
        return {
            **super().get_config(),
            "classifier": keras.saving.serialize_keras_object(self.base_classifier),
            "noise": self.noise.kind,
            "scale": self.noise.scale,
            "num_samples": self.num_samples,
            "num_votes": self.num_votes,
            "alpha": self.alpha,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Makes the model that `get_config` described, its classifier with new weights."""
        # Keras takes parts out of what it is given.
        config = copy.deepcopy(config)
        config["classifier"] = keras.saving.deserialize_keras_object(config["classifier"], custom_objects)
        return cls(**config)

    def _noisy(self, x: Any, use: int, number: int | tf.Tensor) -> tf.Tensor:
        """Returns x + m(x) · noise, float32 [B, H, W, C], of other noise for each number and replica."""
        x = check_images(x)
        seed = tf.random.fold_in(votes.seed_for(self.seed, use), number)
        replica = tf.distribute.get_replica_context()
        if replica is not None:
            seed = tf.random.fold_in(seed, replica.replica_id_in_sync_group)
        total = tf.reduce_sum(x, axis=(1, 2, 3), keepdims=True)
        return x + total * self.noise.sample(seed, tf.shape(x)[0], tuple(x.shape[1:]))
