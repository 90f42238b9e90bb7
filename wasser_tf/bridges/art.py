"""The Adversarial Robustness Toolbox (ART): our attacks on its estimators, our classifiers as its estimators."""

from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from wasser_tf.attacks import Attack, make
from wasser_tf.bridges.host import HostClassifier
from wasser_tf.bridges.needed import check_installed
from wasser_tf.models.classifier import Classifier
from wasser_tf.models.conversion import canonical_of
from wasser_tf.threat_model import ThreatModel

check_installed("art", "art")

# ruff: noqa: E402
from art.attacks import EvasionAttack
from art.estimators import BaseEstimator, LossGradientsMixin
from art.estimators.classification import TensorFlowV2Classifier
from art.estimators.classification.classifier import ClassGradientsMixin


class ArtWassersteinAttack(EvasionAttack):
    """An attack of wasser_tf on any ART classifier with class or loss gradients. Every example is feasible.

    Images have the range and the order of the estimator (`clip_values`, `channels_first`); budgets are defined on
    [0, 1]. PyTorch and TensorFlow 2 estimators without preprocessing are differentiated directly, others through
    `class_gradient`, or `loss_gradient` of the cross-entropy where there is none, which takes a backward pass for each
    class.

    Example:
    >>> import wasser_tf
    >>> from wasser_tf import data, models
    >>> test = data.load("digits", splits=("test",)).test
    >>> classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    >>> estimator = to_estimator(classifier, (8, 8, 1))  # Any ART classifier with clip_values.
    >>> ball = wasser_tf.ThreatModel(epsilon=0.1)
    >>> attack = ArtWassersteinAttack(estimator, wasser_tf.MirrorAscent(ball, iterations=5), verbose=False)
    >>> attack.generate(test.images[:4], test.labels[:4]).shape
    (4, 8, 8, 1)
    >>> bool(attack.result.feasibility.feasible().all())
    True
    """

    attack_params: ClassVar[list[str]] = [*EvasionAttack.attack_params, "attack", "batch_size", "targeted", "verbose"]
    # One of the two in the inner tuple.
    _estimator_requirements = (BaseEstimator, (ClassGradientsMixin, LossGradientsMixin))

    def __init__(
        self,
        estimator: Any,
        attack: Attack,
        *,
        batch_size: int = 128,
        targeted: bool = False,
        verbose: bool = True,
    ) -> None:
        """Creates the attack.

        Args:
          estimator: An ART classifier with `clip_values`.
          attack: The attack of wasser_tf, with its ball.
          batch_size: Images at a time.
          targeted: Whether the labels that `generate` is given are the targets.
          verbose: Whether to show a progress bar.

        Raises:
          ValueError: The estimator has no clip_values, or `attack` is not an attack of wasser_tf.
        """
        super().__init__(estimator=estimator)
        self.attack, self.batch_size, self.verbose = attack, batch_size, verbose
        self._targeted = targeted
        self._check_params()
        self._classifier = estimator_classifier(estimator)
        self.result: Any = None

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Returns adversarial examples.

        Args:
          x: Images, in the range and order of the estimator.
          y: Labels, class indices [n] or one-hot [n, classes]; by default the predictions. Targets if `targeted`.
          **kwargs: For `wasser_tf.attacks.Attack.__call__`, such as radius, one number for each image.

        Returns:
          The examples, in the shape and type of x. `result` has their feasibility, losses and successes.

        Raises:
          ValueError: The images are outside clip_values, or a targeted attack has no targets.
        """
        if self.targeted and y is None:
            raise ValueError("A targeted attack needs the target of each image in y, got None.")
        labels = y if y is not None and not self.targeted else self.estimator.predict(x).argmax(axis=1)
        self.result = self.attack(
            self._classifier,
            np.asarray(x),
            labels,
            targets=y if self.targeted else None,
            batch_size=self.batch_size,
            verbose=self.verbose,
            **kwargs,
        )
        return self.result.adversarial.astype(x.dtype)

    def _check_params(self) -> None:
        if not isinstance(self.attack, Attack):
            raise ValueError(f"attack must be an attack of wasser_tf, such as MirrorAscent, got {self.attack!r}.")
        if self.estimator.clip_values is None:
            raise ValueError("The estimator needs clip_values, the values of black and white, such as (0, 1).")


class WassersteinMirrorAscent(ArtWassersteinAttack):
    """Mirror ascent in the Wasserstein ball: `WassersteinMirrorAscent(estimator, epsilon=0.1).generate(x, y)`."""

    def __init__(
        self,
        estimator: Any,
        epsilon: float = 0.1,
        *,
        threat_model: ThreatModel | None = None,
        batch_size: int = 128,
        targeted: bool = False,
        verbose: bool = True,
        **settings: Any,
    ) -> None:
        """Creates the attack.

        Args:
          estimator: An ART classifier with `clip_values`.
          epsilon: The radius of the ball.
          threat_model: The other rules of the ball; those of `ThreatModel` by default.
          batch_size: Images at a time.
          targeted: Whether the labels that `generate` is given are the targets.
          verbose: Whether to show a progress bar.
          **settings: Settings of `wasser_tf.MirrorAscent`, such as iterations and restarts.
        """
        ball = (threat_model or ThreatModel()).with_epsilon(epsilon)
        attack = make("mirror_ascent", ball, **settings)
        super().__init__(estimator, attack, batch_size=batch_size, targeted=targeted, verbose=verbose)


def estimator_classifier(estimator: Any) -> Classifier:
    """Returns an ART classifier with class or loss gradients as a `wasser_tf.Classifier`.

    Args:
      estimator: The ART classifier; its `clip_values` become the range, its `channels_first` the order of the images.
    """
    low, high = (float(np.ravel(value)[0]) for value in estimator.clip_values)
    data_format = "channels_first" if estimator.channels_first else "channels_last"
    return Classifier(_function_of(estimator), input_range=(low, high), data_format=data_format)


def to_estimator(classifier: Any, image_shape: tuple[int, int, int]) -> TensorFlowV2Classifier:
    """Returns a classifier as an ART estimator, from images [n, H, W, C] in [0, 1] to logits.

    Args:
      classifier: A Keras model, a `wasser_tf.Classifier` or any callable (images, training=False) -> [n, classes].
      image_shape: (H, W, C).
    """
    given = canonical_of(classifier, image_shape)

    def logits(images: Any, training: bool = False) -> tf.Tensor:
        return given(tf.cast(images, tf.float32), training=training)

    classes = int(logits(tf.zeros((1, *image_shape))).shape[1])
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return TensorFlowV2Classifier(
        model=logits, nb_classes=classes, input_shape=image_shape, loss_object=loss, clip_values=(0.0, 1.0)
    )


def _function_of(estimator: Any) -> Any:
    """Returns a differentiable function of images in the format of the estimator."""
    if not _preprocesses(estimator) and not estimator.postprocessing_defences:
        if type(estimator).__name__ == "PyTorchClassifier":
            from wasser_tf.bridges.torch import host_classifier

            return host_classifier(estimator.model)
        if isinstance(estimator, TensorFlowV2Classifier):
            model = estimator.model
            return lambda images, training=False: model(images, training=training)

    if not isinstance(estimator, ClassGradientsMixin):
        return _by_loss_gradients(estimator)

    def backward(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
        # [n, classes, …]: the gradient of every output.
        gradients = estimator.class_gradient(images)
        return np.einsum("nk,nk...->n...", weights, gradients)

    return HostClassifier(estimator.predict, backward)


def _by_loss_gradients(estimator: Any) -> HostClassifier:
    """Returns the logarithms of an estimator's probabilities, differentiated by its cross-entropy.

    The cross-entropy of class y is −log p_y, so the gradient of Σ_y w_y log p_y is −Σ_y w_y (its gradient for y).
    """

    def forward(images: np.ndarray) -> np.ndarray:
        outputs = np.asarray(estimator.predict(images), np.float64)
        probabilities = (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-3)
        if probabilities:
            return np.log(np.maximum(outputs, 1e-30)).astype(np.float32)
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        return (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))).astype(np.float32)

    def backward(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
        total = np.zeros(images.shape, np.float64)
        for label in np.flatnonzero(weights.any(axis=0)):
            # One-hot, which all estimators take.
            answers = np.zeros(weights.shape, np.float32)
            answers[:, label] = 1
            gradients = np.asarray(estimator.loss_gradient(images, answers), np.float64)
            largest = np.abs(gradients).reshape(len(images), -1).sum(axis=1).argmax()
            alone = np.abs(estimator.loss_gradient(images[largest : largest + 1], answers[:1])).sum()
            together = np.abs(gradients[largest]).sum()
            # Estimators differ in whether the loss is a sum over the batch or its mean.
            if together and alone / together > 0.5 * (1 + len(images)):
                gradients *= len(images)
            total -= weights[:, label].reshape(-1, *[1] * (images.ndim - 1)) * gradients
        return total.astype(np.float32)

    return HostClassifier(forward, backward)


def _preprocesses(estimator: Any) -> bool:
    """Returns whether the estimator changes images before its model; (0, 1) as mean and deviation changes nothing."""

    def changes(operation: Any) -> bool:
        plain = hasattr(operation, "mean") and hasattr(operation, "std")
        return not (plain and np.all(np.equal(operation.mean, 0)) and np.all(np.equal(operation.std, 1)))

    return any(map(changes, estimator.preprocessing_operations))
