"""The callback for TensorBoard, by what TensorBoard reads."""

import keras
import numpy as np
import pytest

from wasser_tf import MirrorAscent, ThreatModel, WasserTrain

pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'wasser_tf[tensorboard]'")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from wasser_tf.bridges.tensorboard import AdversarialTensorBoard  # noqa: E402


def values(found, tag):
    return [float(np.asarray(event.tensor_proto.float_val or np.frombuffer(event.tensor_proto.tensor_content, "f4"))[0])
            for event in found.Tensors(tag)]  # fmt: skip


def test_scalars_images_and_radii_are_written(classifier, digits, images, labels, tmp_path):
    attack = MirrorAscent(ThreatModel(epsilon=0.1), iterations=5)
    copy = keras.models.clone_model(classifier)
    copy.set_weights(classifier.get_weights())
    model = WasserTrain(copy, attack)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    watch = AdversarialTensorBoard(tmp_path, attack, images[:16], labels[:16], every=2, num_images=3, largest=0.5)
    history = model.fit(digits.train.images[:64], digits.train.labels[:64], epochs=3, verbose=0, callbacks=[watch])
    found = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    tags = set(found.Tags()["tensors"])
    assert tags >= {"loss", "adversarial/robust_accuracy", "adversarial/examples", "adversarial/minimal_radius"}
    np.testing.assert_allclose(values(found, "loss"), history.history["loss"], rtol=1e-5)
    assert [event.step for event in found.Tensors("adversarial/examples")] == [0, 2]
    # Width and height, then the pictures.
    strings = found.Tensors("adversarial/examples")[0].tensor_proto.string_val
    assert list(strings[:2]) == [b"16", b"8"] and len(strings) == 5


def test_what_is_refused(tmp_path, images):
    with pytest.raises(ValueError, match="An attack needs images and labels"):
        AdversarialTensorBoard(tmp_path, MirrorAscent(ThreatModel(), iterations=1), images)
    with pytest.raises(ValueError, match="every must be a whole number of epochs, at least 1, got 0"):
        AdversarialTensorBoard(tmp_path, every=0)
