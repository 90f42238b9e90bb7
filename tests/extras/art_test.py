"""ART: our attacks on its estimators, of PyTorch, TensorFlow and others; our classifiers as its estimators."""

import numpy as np
import pytest

import wasser_tf
from tests.extras.conftest import channels_first
from wasser_tf import MirrorAscent, ThreatModel
from wasser_tf.transport.exact import wasserstein_distance

pytest.importorskip("art", reason="ART is not installed: pip install 'wasser_tf[art]'")

from art.attacks.evasion import FastGradientMethod, Wasserstein  # noqa: E402
from art.estimators import BaseEstimator, LossGradientsMixin, NeuralNetworkMixin  # noqa: E402
from art.estimators.classification import PyTorchClassifier  # noqa: E402
from art.estimators.classification.classifier import ClassifierMixin  # noqa: E402

from wasser_tf.bridges.art import ArtWassersteinAttack, WassersteinMirrorAscent, to_estimator  # noqa: E402

BALL = ThreatModel(epsilon=0.1)


@pytest.fixture
def estimator(module):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'wasser_tf[torch]'")
    loss = torch.nn.CrossEntropyLoss()
    return PyTorchClassifier(
        module, loss=loss, input_shape=(1, 8, 8), nb_classes=10, clip_values=(0.0, 1.0), device_type="cpu"
    )


def test_a_pytorch_estimator_is_fooled_on_the_same_images_as_keras(estimator, classifier, images, labels):
    attack = WassersteinMirrorAscent(estimator, 0.1, iterations=20, verbose=False)
    adversarial = attack.generate(channels_first(images), labels)
    theirs = MirrorAscent(BALL, iterations=20)(classifier, images, labels)
    fooled = estimator.predict(adversarial).argmax(1) != labels
    np.testing.assert_array_equal(fooled, theirs.success)
    assert adversarial.dtype == np.float32 and attack.result.feasibility.feasible().all() and 0 < fooled.mean() < 1


def test_one_hot_labels_and_predictions_as_labels(estimator, images, labels):
    attack = WassersteinMirrorAscent(estimator, 0.1, iterations=5, verbose=False)
    batch = channels_first(images)
    one = attack.generate(batch, np.eye(10)[labels])
    np.testing.assert_array_equal(one, attack.generate(batch, labels))
    assert attack.generate(batch).shape == batch.shape


def test_a_targeted_attack_reaches_its_targets(estimator, images, labels):
    attack = ArtWassersteinAttack(estimator, MirrorAscent(ThreatModel(epsilon=0.4), iterations=30), targeted=True)
    attack.verbose = False
    targets = (labels + 1) % 10
    adversarial = attack.generate(channels_first(images), targets)
    before = (estimator.predict(channels_first(images)).argmax(1) == targets).mean()
    assert (estimator.predict(adversarial).argmax(1) == targets).mean() > before + 0.3
    with pytest.raises(ValueError, match="A targeted attack needs the target"):
        attack.generate(channels_first(images))


def test_class_gradients_alone_give_the_same_examples(estimator, images, labels):
    from art.defences.preprocessor import SpatialSmoothing

    direct = WassersteinMirrorAscent(estimator, 0.1, iterations=5, verbose=False)
    preprocessed = PyTorchClassifier(
        estimator.model,
        loss=estimator.loss,
        input_shape=(1, 8, 8),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        preprocessing=(0.5, 0.25),
        device_type="cpu",
    )
    attack = WassersteinMirrorAscent(preprocessed, 0.1, iterations=5, verbose=False)
    adversarial = attack.generate(channels_first(images), labels)
    assert attack.result.feasibility.feasible().all()
    # The loss that the attack saw is that of the estimator with its preprocessing.
    fooled = preprocessed.predict(adversarial).argmax(1) != labels
    np.testing.assert_array_equal(fooled, attack.result.success)
    # Through class_gradient, the plain estimator gives what direct differentiation gives.
    slow = WassersteinMirrorAscent(estimator, 0.1, iterations=5, verbose=False)
    from wasser_tf.bridges import art as bridge

    original = bridge._preprocesses
    bridge._preprocesses = lambda given: True
    try:
        slow._classifier = bridge.estimator_classifier(estimator)
    finally:
        bridge._preprocesses = original
    one, two = (each.generate(channels_first(images), labels) for each in (direct, slow))
    np.testing.assert_allclose(one, two, atol=1e-4)
    assert SpatialSmoothing is not None


class LossGradientsOnly(ClassifierMixin, LossGradientsMixin, NeuralNetworkMixin, BaseEstimator):
    """An estimator around another one that hides its class gradients."""

    estimator_params = BaseEstimator.estimator_params

    def __init__(self, inner, softmax):
        super().__init__(model=inner.model, clip_values=inner.clip_values, channels_first=True, preprocessing=None)
        self.inner, self.softmax, self.nb_classes = inner, softmax, inner.nb_classes

    @property
    def input_shape(self):
        return self.inner.input_shape

    def predict(self, x, **kwargs):
        logits = self.inner.predict(x)
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        return exponentials / exponentials.sum(1, keepdims=True) if self.softmax else logits

    def loss_gradient(self, x, y, **kwargs):
        return self.inner.loss_gradient(x, y)

    def fit(self, x, y, **kwargs):
        raise NotImplementedError

    def get_activations(self, x, layer, batch_size, framework=False):
        raise NotImplementedError


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("softmax", [True, False])
def test_loss_gradients_alone_give_the_same_examples(estimator, images, labels, reduction, softmax):
    import torch

    estimator._loss = torch.nn.CrossEntropyLoss(reduction=reduction)
    direct = WassersteinMirrorAscent(estimator, 0.1, iterations=5, verbose=False)
    attack = WassersteinMirrorAscent(LossGradientsOnly(estimator, softmax), 0.1, iterations=5, verbose=False)
    one, two = (each.generate(channels_first(images[:16]), labels[:16]) for each in (direct, attack))
    assert attack.result.feasibility.feasible().all() and np.abs(one - channels_first(images[:16])).max() > 0.1
    np.testing.assert_allclose(one, two, atol=1e-3)


def test_our_classifier_as_an_estimator(classifier, images, labels):
    estimator = to_estimator(classifier, (8, 8, 1))
    np.testing.assert_allclose(estimator.predict(images), classifier(images).numpy(), atol=1e-5)
    adversarial = FastGradientMethod(estimator, eps=0.2).generate(images, labels)
    assert (estimator.predict(adversarial).argmax(1) == labels).mean() < 0.5
    ours = WassersteinMirrorAscent(estimator, 0.1, iterations=20, verbose=False)
    direct = MirrorAscent(BALL, iterations=20)(classifier, images, labels)
    np.testing.assert_allclose(ours.generate(images, labels), direct.adversarial, atol=1e-4)


def test_arts_own_wasserstein_attack_leaves_the_ball_and_ours_does_not(classifier, images, labels):
    estimator = to_estimator(classifier, (8, 8, 1))
    few, answers = images[:8], labels[:8]
    theirs = Wasserstein(
        estimator, regularization=100, kernel_size=5, eps=0.1, eps_step=0.05, max_iter=10, verbose=False, batch_size=8
    ).generate(few, answers)
    attack = WassersteinMirrorAscent(estimator, 0.1, iterations=20, verbose=False)
    ours = attack.generate(few, answers)
    ball = ThreatModel(epsilon=0.1)
    inside = [wasserstein_distance(one, other, ball) for one, other in zip(few, ours, strict=True)]
    assert max(inside) <= 0.1 * (1 + 1e-5) and ours.max() <= 1
    # Their examples lose or gain mass, exceed the range of pixels, or cost more than the radius.
    mass = np.abs(theirs.sum((1, 2, 3)) - few.sum((1, 2, 3))) / few.sum((1, 2, 3))
    for name, found in (("ART", theirs), ("ours", ours)):
        change = np.abs(found.sum((1, 2, 3)) / few.sum((1, 2, 3)) - 1).max()
        wrong = (estimator.predict(found).argmax(1) != answers).mean()
        pixels = f"pixels {found.min():.3f} to {found.max():.3f}"
        print(f"{name}: fooled {wrong:.1%}, mass changed by up to {change:.2%}, {pixels}")
    print(f"ours: exact distances up to {max(inside):.6f}")
    assert (mass > 1e-4).any() or theirs.max() > 1 + 1e-4, (mass, theirs.max())


def test_what_is_refused(estimator):
    with pytest.raises(ValueError, match="attack must be an attack of wasser_tf"):
        ArtWassersteinAttack(estimator, "mirror_ascent")
    estimator._clip_values = None
    with pytest.raises(ValueError, match="The estimator needs clip_values"):
        ArtWassersteinAttack(estimator, MirrorAscent(BALL))
    assert wasser_tf.__version__
