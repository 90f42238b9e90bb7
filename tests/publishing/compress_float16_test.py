import keras
import numpy as np
import pytest

from wasser_tf import ThreatModel, WasserTrain, attacks, models
from wasser_tf.publishing.compress_float16 import compress_float16


def test_compressed_files_are_small_and_open_in_keras(tmp_path):
    classifier = models.build("lenet", (8, 8, 1), 10, seed=0)
    classifier.compile("adam", "mse")
    classifier.optimizer.build(classifier.trainable_variables)
    classifier.save(tmp_path / "whole.keras")
    packed = compress_float16(tmp_path / "whole.keras", tmp_path / "packed.keras")
    # Without the optimiser's two numbers for each weight, and at most 20 of 32 bits of a weight.
    assert (tmp_path / "packed.keras").stat().st_size < 0.65 * 4 * classifier.count_params() + 12_000
    loaded = keras.saving.load_model(tmp_path / "packed.keras")
    for before, after, stored in zip(classifier.get_weights(), packed.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(after, stored)
        np.testing.assert_array_equal(before.astype(np.float16), stored)


def test_the_same_classifier_gives_the_same_bytes(tmp_path):
    classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    classifier.save(tmp_path / "bare.keras")
    wrapped = WasserTrain(classifier, attacks.make("random_plan", ThreatModel()))
    wrapped.save(tmp_path / "wrapped.keras")
    compress_float16(tmp_path / "bare.keras", tmp_path / "one.keras")
    compress_float16(tmp_path / "wrapped.keras", tmp_path / "two.keras")
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()


def test_a_weight_beyond_float16_is_refused(tmp_path):
    classifier = models.build("linear", (8, 8, 1), 10, seed=0)
    classifier.weights[1].assign(np.full(10, 1e5))
    classifier.save(tmp_path / "large.keras")
    with pytest.raises(ValueError, match="contains 100000, which exceeds the range of float16"):
        compress_float16(tmp_path / "large.keras", tmp_path / "packed.keras")
    assert not (tmp_path / "packed.keras").exists()
