import keras
import numpy as np
import pytest
import tensorflow as tf

from wasser_tf import MirrorAscent, ThreatModel, WasserTrain, models
from wasser_tf.attacks import inputs
from wasser_tf.runtime import arguments
from wasser_tf.transport.neighbourhood import make_support


@pytest.fixture
def small_machine(monkeypatch):
    monkeypatch.setattr(arguments, "physical_memory", lambda: 2**20)


def _attack(kernel_size):
    return MirrorAscent(ThreatModel(epsilon=0.1, kernel_size=kernel_size), iterations=2, polish=2)


def test_the_error_states_the_memory_that_plans_need(small_machine):
    # 784 targets for each of 784 pixels, 4 bytes each, four plans at once, 64 images: 586 MiB.
    with pytest.raises(ValueError, match=r"784 targets a pixel for 64 images of 28×28×1 need about 0.586 GiB and this"):
        inputs.check_memory(make_support(ThreatModel(kernel_size=None), (28, 28, 1)), 64)
    # Each channel has plans of its own.
    with pytest.raises(ValueError, match=r"1024 targets a pixel for 2 images of 32×32×3 need about 0.0938 GiB"):
        inputs.check_memory(make_support(ThreatModel(kernel_size=None), (32, 32, 3)), 2)
    inputs.check_memory(make_support(ThreatModel(kernel_size=3), (28, 28, 1)), 8)


def test_attacks_refuse_before_they_start(small_machine):
    classifier = models.build("linear", (16, 16, 1), 3, seed=0)
    images, labels = np.random.default_rng(0).random((8, 16, 16, 1), np.float32), np.zeros(8, np.int32)
    with pytest.raises(ValueError, match="give a smaller batch_size"):
        _attack(None)(classifier, images, labels)
    assert len(_attack(3)(classifier, images, labels, batch_size=4).success) == 8
    model = WasserTrain(classifier, _attack(None))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="or attack_chunk, in training"):
        model.fit(tf.data.Dataset.from_tensors((images, labels)), verbose=0)


def test_physical_memory_is_that_of_the_machine():
    memory = arguments.physical_memory()
    assert memory is None or memory > 2**28
