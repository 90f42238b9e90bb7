"""The images of a training run: how they are read, and that a resumed run reads the same."""

import numpy as np
import pytest

from wasser_tf import MirrorAscent, ThreatModel
from wasser_tf.runtime import storage
from wasser_tf.training import run_folder
from wasser_tf.training.config import TrainConfig


def _config(**fields):
    return TrainConfig(**{"output_dir": "runs/x", "attack": MirrorAscent(ThreatModel(epsilon=0.1)), **fields})


def test_images_are_read_as_the_fields_say(tmp_path):
    images, labels = np.zeros((24, 6, 6), np.uint8), np.arange(24) % 2
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels)
    config = _config(dataset=str(tmp_path / "a.npz"), image_size=[4, 3], class_names=["a", "b"], validation_size=5)
    assert (config.image_size, config.class_names) == ((4, 3), ("a", "b"))
    loaded = config.load_images()
    assert loaded.image_shape == (4, 3, 1) and loaded.class_names == ("a", "b") and len(loaded.validation.labels) == 5
    assert config.identity()["image_size"] == [4, 3]


def test_a_run_is_not_resumed_with_other_images(tmp_path):
    run_folder.check_dataset(tmp_path, _config(resume=True), "digest")
    storage.write_json(tmp_path / run_folder.CONFIG, {run_folder.DATASET_DIGEST: "digest"})
    run_folder.check_dataset(tmp_path, _config(resume=True), "digest")
    run_folder.check_dataset(tmp_path, _config(), "another")
    for other in ("another", None):
        with pytest.raises(ValueError, match="needs the images of the run in .*, but the files of digits have changed"):
            run_folder.check_dataset(tmp_path, _config(resume=True), other)
    # Runs on named datasets have none.
    storage.write_json(tmp_path / run_folder.CONFIG, {})
    run_folder.check_dataset(tmp_path, _config(resume=True), None)
