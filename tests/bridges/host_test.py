"""A classifier that computes in Python is attacked like one of TensorFlow. Bridges name the extra that they need."""

import importlib
import sys

import numpy as np
import pytest
import tensorflow as tf

import wasser_tf
from wasser_tf import Classifier, MirrorAscent, ThreatModel, data, models
from wasser_tf.bridges.host import HostClassifier
from wasser_tf.bridges.needed import check_installed
from wasser_tf.models import logits


@pytest.fixture(scope="module")
def linear():
    return models.build("linear", (8, 8, 1), 10, seed=0)


@pytest.fixture(scope="module")
def host(linear):
    kernel, bias = (np.asarray(weight) for weight in linear.weights)
    return HostClassifier(
        lambda images: images.reshape(len(images), -1) @ kernel + bias,
        lambda images, weights: (weights @ kernel.T).reshape(images.shape),
    )


def test_logits_and_gradients(linear, host):
    images = tf.random.uniform([4, 8, 8, 1], seed=1)

    @tf.function
    def of(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(host(images)[:, 2] * tf.constant([1.0, -2.0, 0.5, 0.0]))
        return loss, tape.gradient(loss, images)

    loss, gradient = of(images)
    factors = np.array([1, -2, 0.5, 0], np.float32)
    np.testing.assert_allclose(loss, factors @ linear(images).numpy()[:, 2], rtol=1e-4)
    one = np.asarray(linear.weights[0])[:, 2].reshape(8, 8, 1)
    np.testing.assert_allclose(gradient, factors[:, None, None, None] * one, atol=1e-6)


def test_an_attack_finds_the_same_examples(linear, host):
    test = data.load("digits", splits=("test",)).test
    attack = MirrorAscent(ThreatModel(epsilon=0.1), iterations=10)
    ours, theirs = (attack(each, test.images[:16], test.labels[:16]) for each in (host, linear))
    np.testing.assert_allclose(ours.adversarial, theirs.adversarial, atol=1e-4)
    np.testing.assert_array_equal(ours.success, theirs.success)


def test_images_in_the_order_of_the_package(host):
    first = Classifier(
        HostClassifier(lambda images: host.forward(images.transpose(0, 2, 3, 1)), lambda images, weights: images),
        data_format="channels_first",
    )
    images = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
    np.testing.assert_allclose(first(images), host(images), rtol=1e-5)


def test_xla_is_left_out_around_python(host, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["GPU:0"])
    assert logits.compile_whole_graph(lambda images, training=False: images)
    assert not logits.compile_whole_graph(host)


def test_a_wrong_shape_is_refused():
    wrong = HostClassifier(lambda images: images, lambda images, weights: images)
    with pytest.raises(ValueError, match=r"must return \[n, classes\], got \(1, 8, 8, 1\) for one image"):
        wrong(np.zeros((2, 8, 8, 1), np.float32))


@pytest.mark.parametrize(("module", "extra"), [("art", "art"), ("foolbox", "foolbox")])
def test_a_missing_library_is_named_with_its_extra(module, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, f"wasser_tf.bridges.{module}", raising=False)
    with pytest.raises(ImportError, match=rf"needs {module}.*pip install 'wasser_tf\[{extra}\]'"):
        importlib.import_module(f"wasser_tf.bridges.{module}")


def test_missing_libraries_of_functions(monkeypatch, tmp_path):
    from wasser_tf.bridges.hub import push_to_hub
    from wasser_tf.bridges.tensorboard import AdversarialTensorBoard

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs torch.*'wasser_tf\[torch\]'"):
        wasser_tf.from_torch(None)
    with pytest.raises(ImportError, match=r"needs huggingface_hub.*'wasser_tf\[hub\]'"):
        push_to_hub(None, "me/it")
    with pytest.raises(ImportError, match=r"needs huggingface_hub.*'wasser_tf\[hub\]'"):
        wasser_tf.load_pretrained("hf://me/it")
    with pytest.raises(ImportError, match=r"needs tensorboard.*'wasser_tf\[tensorboard\]'"):
        AdversarialTensorBoard(tmp_path)


def test_what_is_installed_passes():
    check_installed("serving", "numpy", "keras")
