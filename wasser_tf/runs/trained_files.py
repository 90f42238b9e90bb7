"""The files of trained classifiers: .keras and SavedModel, each whole or absent."""

import pathlib

import keras
import tensorflow as tf

from wasser_tf.models.saved_model import exporting
from wasser_tf.runtime import storage


def save_classifier(model: keras.Model, path: pathlib.Path) -> None:
    """Saves a classifier as a .keras file, atomically."""
    with storage.atomic_path(path) as beside:
        model.save(beside)


def export_saved_model(classifier: keras.Model, path: pathlib.Path) -> None:
    """Writes a SavedModel with the input "image" and the output "logits"."""
    archive = keras.export.ExportArchive()
    archive.track(classifier)
    archive.add_endpoint(
        "serve",
        lambda image: {"logits": classifier(image, training=False)},
        input_signature=[tf.TensorSpec([None, *classifier.input_shape[1:]], tf.float32, name="image")],
    )
    with storage.atomic_path(path) as beside, exporting(path):
        archive.write_out(str(beside), verbose=False)
