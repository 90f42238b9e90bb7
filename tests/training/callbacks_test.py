import keras
import numpy as np
import pytest

from wasser_tf import MirrorAscent, ThreatModel, models
from wasser_tf.data import Split
from wasser_tf.training.callbacks import RobustValidation


def _split(count=12):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count).astype(np.int32)
    return Split(rng.random((count, 5, 4, 1), np.float32), labels, np.arange(count, dtype=np.int32))


def test_measures_natural_accuracy_without_an_attack():
    split, model = _split(), models.build("linear", (5, 4, 1), 3, seed=0)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    expected = model.evaluate(split.images, split.labels, return_dict=True, verbose=0)
    logs = {"loss": 1.0}
    RobustValidation(model, split).on_epoch_end(0, logs)
    assert logs.keys() == {"loss", "val_loss", "val_accuracy"}
    assert logs["val_loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert logs["val_accuracy"] == pytest.approx(expected["accuracy"])


def test_measures_robust_accuracy_with_one_on_current_weights():
    split, model = _split(), models.build("linear", (5, 4, 1), 3, seed=0)
    attack = MirrorAscent(ThreatModel(epsilon=0.3, kernel_size=3), iterations=3, polish=2)
    validation = RobustValidation(model, split, attack, num_attack_examples=8, batch_size=8)
    for _ in range(2):
        logs = {}
        validation.on_epoch_end(0, logs)
        result = attack(model, split.images[:8], split.labels[:8])
        assert logs["val_robust_accuracy"] == pytest.approx(1 - result.success.mean())
        model.set_weights([-weight for weight in model.get_weights()])
