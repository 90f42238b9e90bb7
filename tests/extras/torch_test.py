"""PyTorch modules as classifiers: the same logits, gradients and examples as the same network in Keras."""

import os
import pathlib
import time

import numpy as np
import pytest
import tensorflow as tf

import wasser_tf
from tests.extras.conftest import channels_first, to_torch
from wasser_tf import Ensemble, MirrorAscent, ThreatModel, WasserAttack, data, models

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'wasser_tf[torch]'")


def test_logits_and_gradients_are_those_of_keras(classifier, module, images):
    given = wasser_tf.from_torch(module)

    def both(function, batch):
        batch = tf.constant(batch)
        with tf.GradientTape() as tape:
            tape.watch(batch)
            logits = function(batch)
            loss = tf.reduce_sum(tf.nn.log_softmax(logits)[:, 3])
        return logits.numpy(), tape.gradient(loss, batch).numpy()

    ours, theirs = both(given, images), both(classifier, images)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-4)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-4)


@pytest.mark.parametrize(
    "attack",
    [
        MirrorAscent(ThreatModel(epsilon=0.1), iterations=20),
        WasserAttack(ThreatModel(epsilon=0.1), iterations=20),
        Ensemble(ThreatModel(epsilon=0.1), iterations=10),
    ],
    ids=lambda attack: attack.name,
)
def test_the_same_images_are_fooled_as_in_keras(classifier, module, images, labels, attack):
    given = wasser_tf.from_torch(module)
    ours = attack(given, channels_first(images), labels)
    theirs = attack(classifier, images, labels)
    assert ours.adversarial.shape == (48, 1, 8, 8) and ours.feasibility.feasible().all()
    assert 0 < theirs.success.mean() < 1
    np.testing.assert_array_equal(ours.success, theirs.success)
    with torch.no_grad():
        predicted = module(torch.tensor(ours.adversarial)).argmax(1).numpy()
    np.testing.assert_array_equal(predicted != labels, ours.success)


def test_another_range_is_respected(module, images, labels):
    scaled = torch.nn.Sequential(Scale(1 / 255), module)
    attack = MirrorAscent(ThreatModel(epsilon=0.1), iterations=10)
    plain = attack(wasser_tf.from_torch(module), channels_first(images), labels)
    ours = attack(wasser_tf.from_torch(scaled, input_range=(0, 255)), 255 * channels_first(images), labels)
    np.testing.assert_allclose(ours.adversarial, 255 * plain.adversarial, atol=0.05)
    assert ours.adversarial.min() >= 0 and ours.adversarial.max() <= 255


class Scale(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, values):
        return values * self.factor


def test_probabilities_are_recognised(module, images, labels):
    attack = MirrorAscent(ThreatModel(epsilon=0.1), iterations=10)
    given = wasser_tf.from_torch(torch.nn.Sequential(module, torch.nn.Softmax(1)))
    assert given.describe((1, 8, 8)).returns == "probabilities"
    assert attack(given, channels_first(images), labels).success.any()


def test_the_module_keeps_its_mode_and_gets_no_gradients(module, images, labels):
    whole = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.BatchNorm2d(1), module)
    whole.train()
    whole[1].eval()
    given = wasser_tf.from_torch(whole)
    attack = MirrorAscent(ThreatModel(epsilon=0.1), iterations=3)
    # Without dropout, which is random: twice the same.
    ours, again = (attack(given, channels_first(images), labels).adversarial for _ in range(2))
    np.testing.assert_array_equal(ours, again)
    assert whole.training and whole[0].training and not whole[1].training and module.training
    assert all(parameter.grad is None for parameter in whole.parameters())


def test_changed_weights_count_at_once(module, images, labels):
    given = wasser_tf.from_torch(module)
    attack = MirrorAscent(ThreatModel(epsilon=0.1), iterations=3)
    assert not attack(given, channels_first(images), labels, radius=0.0).success.all()
    with torch.no_grad():
        module[-1].bias[:] = torch.where(torch.arange(10) == 3, 1e3, 0.0)
    np.testing.assert_array_equal(attack(given, channels_first(images), labels, radius=0.0).success, labels != 3)


def test_double_precision(module, images, labels):
    given = wasser_tf.from_torch(module.double())
    assert MirrorAscent(ThreatModel(epsilon=0.2), iterations=5)(given, channels_first(images), labels).success.any()


def test_minimal_radii_and_smoothing(module, images, labels):
    from wasser_tf.evaluation.minimal_radius import minimal_radii

    given = wasser_tf.from_torch(module)
    attack = MirrorAscent(ThreatModel(), iterations=10)
    found = minimal_radii(attack, given, channels_first(images[:8]), labels[:8], largest=0.5, resolution=0.1)
    assert found.adversarial.shape == (8, 1, 8, 8) and (found.radius < 0.5).any()


def test_what_is_no_module_is_refused():
    with pytest.raises(ValueError, match=r"module must be a torch.nn.Module, got function"):
        wasser_tf.from_torch(len.__class__ and (lambda images: images))


def test_a_torchscript_file_is_attacked_like_the_module(module, classifier, images, labels, tmp_path):
    from wasser_tf.data.selection import ImageSource
    from wasser_tf.runs.attack import AttackRun, run_attack

    torch.jit.trace(module.eval(), torch.zeros(2, 1, 8, 8)).save(tmp_path / "small.pt")
    attack = MirrorAscent(ThreatModel(epsilon=0.1), iterations=10)
    record = run_attack(
        AttackRun(
            model=str(tmp_path / "small.pt"),
            source=ImageSource(dataset="digits", num_examples=48),
            attack=attack,
            output_dir=str(tmp_path / "attack"),
        )
    )
    theirs = attack(classifier, images, labels)
    assert record.feasible.robust_accuracy == pytest.approx(1 - theirs.success.mean())
    assert record.feasible.feasible_share == 1 and 0 < theirs.success.mean() < 1


def test_pickled_modules_are_refused(tmp_path):
    # Of the library's own classes, which can be pickled.
    torch.save(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), tmp_path / "pickled.pt")
    with pytest.raises(ValueError, match=r"pickled.pt is not a TorchScript module .* torch.jit.trace"):
        models.load_classifier(tmp_path / "pickled.pt")
    with pytest.raises(ValueError, match="output=1 is for Keras models"):
        models.load_classifier(tmp_path / "pickled.pt", output=1)


@pytest.mark.skipif(not os.environ.get("WASSER_TF_SHARED_DATA"), reason="WASSER_TF_SHARED_DATA is not set")
def test_mnist_lenet_has_the_same_robust_images():
    folder = pathlib.Path(os.environ["WASSER_TF_SHARED_DATA"])
    network = models.load_published(sorted(folder.glob("checkpoints/**/*standard*.npz"))[0])
    test = data.load("mnist", data_dir=folder / "tfds", splits=("test",)).test
    images, labels = test.images[:128], test.labels[:128]
    attack = MirrorAscent(ThreatModel(epsilon=0.2), iterations=20)
    routes = {
        "keras": (network, images),
        "torch": (wasser_tf.from_torch(to_torch(network)), channels_first(images)),
    }
    runs = {name: lambda given=given: attack(*given, labels).success for name, given in routes.items()}
    runs["art"] = _art_route(to_torch(network), channels_first(images), labels)
    fooled, seconds = {}, {name: [] for name in runs}
    for run in runs.values():
        run()
    # In turns, so that other work on the machine slows all of them.
    for _ in range(3):
        for name, run in runs.items():
            started = time.process_time()
            fooled[name] = run()
            seconds[name].append(time.process_time() - started)
    print({name: f"{min(value):.2f} s of CPU time" for name, value in seconds.items()}, 1 - fooled["keras"].mean())
    np.testing.assert_array_equal(fooled["torch"], fooled["keras"])
    np.testing.assert_array_equal(fooled["art"], fooled["keras"])
    assert 0 < fooled["keras"].mean() < 1


def _art_route(network, images, labels):
    """Returns a function that attacks an ART estimator of the network and returns which images it then gets wrong."""
    pytest.importorskip("art", reason="ART is not installed: pip install 'wasser_tf[art]'")
    from art.estimators.classification import PyTorchClassifier

    from wasser_tf.bridges.art import WassersteinMirrorAscent

    estimator = PyTorchClassifier(
        network,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=images.shape[1:],
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = WassersteinMirrorAscent(estimator, 0.2, iterations=20, verbose=False)
    return lambda: estimator.predict(attack.generate(images, labels)).argmax(1) != labels
