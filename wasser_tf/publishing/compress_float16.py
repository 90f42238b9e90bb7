"""Compresses a trained classifier to a small .keras file, which plain Keras can load."""

import io
import os
import pathlib
import zipfile

import keras
import numpy as np

from wasser_tf import models
from wasser_tf.runtime import storage

# A constant date, so that the same classifier gives the same bytes: stored evaluations are found by the file's hash.
_DATE = (1980, 1, 1, 0, 0, 0)
_METADATA = "metadata.json"


def compress_float16(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> keras.Model:
    """Writes a classifier with weights rounded to float16, compressed and without its optimiser.

    The file stores float32 weights. After rounding, 13 bits of each are zero, and zip compression removes them. Measure
    accuracies on the compressed file, so that they include the effect of the rounding. The written classifier computes
    in float32 even if it was trained in mixed precision.

    Args:
      source: The .keras file of a classifier, or of the `WasserTrain` that wraps it.
      path: The .keras file to write.

    Returns:
      The classifier with the rounded weights.

    Raises:
      ValueError: The source is not such a file, or a weight exceeds the range of float16.

    Example:
    >>> import pathlib, tempfile, wasser_tf
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     source, path = pathlib.Path(folder, "best.keras"), pathlib.Path(folder, "small.keras")
    ...     wasser_tf.models.build("mlp", (8, 8, 1), 10, seed=0).save(source)
    ...     classifier = compress_float16(source, path)
    ...     path.stat().st_size < 0.8 * source.stat().st_size
    True
    >>> classifier.weights[0].dtype
    'float32'
    """
    classifier = models.load_keras(source)
    if any(layer.compute_dtype != "float32" for layer in classifier._flatten_layers()):
        classifier = models.with_precision(classifier, "float32")
    rounded = []
    for variable in classifier.weights:
        value = np.asarray(variable)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16).astype(value.dtype)
        if not np.isfinite(half).all():
            raise ValueError(
                f"{variable.path} in {source} contains {np.abs(value).max():g}, which exceeds the range of float16. "
                "Check that the training did not diverge, or publish the file uncompressed."
            )
        rounded.append(half)
    classifier.set_weights(rounded)
    with storage.atomic_path(path) as temporary:
        file = pathlib.Path(temporary)
        classifier.save(file)
        contents = io.BytesIO(file.read_bytes())
        with zipfile.ZipFile(contents) as saved, zipfile.ZipFile(file, "w") as compressed:
            for name in saved.namelist():
                content = saved.read(name)
                if name == _METADATA:
                    content = f'{{"keras_version": "{keras.__version__}", "date_saved": ""}}'.encode()
                compressed.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED, 9)
    return classifier
