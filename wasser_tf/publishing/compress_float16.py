"""A trained classifier as a small .keras file, which any Keras opens."""

import io
import os
import pathlib
import zipfile

import keras
import numpy as np

from wasser_tf import models
from wasser_tf.runtime import storage

# Of the same classifier the same file, byte for byte: without it, evaluations of the file would not be found again.
_WHEN = (1980, 1, 1, 0, 0, 0)
_METADATA = "metadata.json"


def compress_float16(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> keras.Model:
    """Writes a classifier with its weights rounded to float16, compressed, without optimiser.

    Weights stay float32 in the file; those that float16 holds have 13 zero bits, which compression takes out. What the
    rounding costs is in every number that is measured on the file.

    Args:
      source: The .keras file of a classifier, or of the `WasserTrain` around it.
      path: The .keras file to write.

    Returns:
      The classifier, as it is in the file.

    Raises:
      ValueError: The source is no such file, or a weight does not fit into float16.
    """
    classifier = models.load_keras(source)
    rounded = []
    for variable in classifier.weights:
        value = np.asarray(variable)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16).astype(value.dtype)
        if not np.isfinite(half).all():
            raise ValueError(
                f"{variable.path} in {source} holds {np.abs(value).max():g}, which float16 does not: the classifier "
                "diverged, or needs a file of its own."
            )
        rounded.append(half)
    classifier.set_weights(rounded)
    with storage.atomic_path(path) as beside:
        whole = pathlib.Path(beside)
        classifier.save(whole)
        contents = io.BytesIO(whole.read_bytes())
        with zipfile.ZipFile(contents) as saved, zipfile.ZipFile(whole, "w") as packed:
            for name in saved.namelist():
                content = saved.read(name)
                if name == _METADATA:
                    content = f'{{"keras_version": "{keras.__version__}", "date_saved": ""}}'.encode()
                packed.writestr(zipfile.ZipInfo(name, _WHEN), content, zipfile.ZIP_DEFLATED, 9)
    return classifier
