"""Loading of classifiers: .keras files, SavedModels, published checkpoints and pretrained classifiers."""

import importlib.util
import json
import math
import os
import pathlib
import random
import re
import zipfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wasser_tf import pretrained
from wasser_tf.models.applications import is_application, load_application
from wasser_tf.models.architectures import build
from wasser_tf.models.classifier import Classifier
from wasser_tf.models.saved_model import SavedModelClassifier
from wasser_tf.runtime import storage
from wasser_tf.runtime.arguments import as_path, check_fits, first_line, physical_memory

# Layers of a published checkpoint, and the layers of our LeNet with the same kernels and biases.
_PUBLISHED_LAYERS = {"conv1": "conv1", "conv2": "conv2", "dense1": "dense1", "dense2": "logits"}
_NEEDED = "a .keras or .h5 file, a published .npz checkpoint, the directory of a SavedModel or pretrained:NAME"
# Functions that load files of other libraries as a `Classifier`, by suffix; wasser_tf/bridges/ adds them.
OTHER_LIBRARIES: dict[str, Callable[[pathlib.Path], Classifier]] = {}
# The address of a classifier on the Hugging Face hub: hf://user/name.
HUB_PREFIX = "hf://"
_LINEAR_OR_NOT = {keras.activations.linear: True, keras.activations.softmax: False, keras.activations.sigmoid: False}


def load_published(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a published MNIST checkpoint into the LeNet of [14], for 28×28×1 images and 10 classes.

    Args:
      path: An .npz file of the float arrays conv1_kernel [4, 4, 1, 16], conv1_bias [16], conv2_kernel [4, 4, 16, 32],
        conv2_bias [32], dense1_kernel [1568, 100], dense1_bias [100], dense2_kernel [100, 10] and dense2_bias [10].

    Returns:
      The classifier, as `build("lenet", (28, 28, 1), 10)` builds it.

    Raises:
      ValueError: The file is missing or unreadable, or an array is missing, misshapen or not finite.

    Example:
    >>> import tempfile, numpy as np
    >>> shapes = {"conv1": (4, 4, 1, 16), "conv2": (4, 4, 16, 32), "dense1": (1568, 100), "dense2": (100, 10)}
    >>> arrays = {f"{name}_kernel": np.zeros(shape) for name, shape in shapes.items()}
    >>> arrays |= {f"{name}_bias": np.zeros(shape[-1]) for name, shape in shapes.items()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/lenet.npz", **arrays)
    ...     load_published(f"{folder}/lenet.npz").output_shape
    (None, 10)
    """
    arrays = storage.read_arrays(path)
    model = build("lenet", (28, 28, 1), 10, seed=0)
    needed = {
        f"{theirs}_{kind}": weight
        for theirs, ours in _PUBLISHED_LAYERS.items()
        for kind, weight in zip(("kernel", "bias"), model.get_layer(ours).weights, strict=True)
    }
    if missing := [key for key in needed if key not in arrays]:
        raise ValueError(
            f"{path} has no {', '.join(missing)}: a published checkpoint holds {', '.join(needed)}; this file holds "
            f"{', '.join(arrays) or 'no named arrays'}."
        )
    for key, weight in needed.items():
        array = arrays[key]
        if array.shape != tuple(weight.shape):
            raise ValueError(
                f"{key} in {path} must have the shape {tuple(weight.shape)}, got {array.shape}: give a checkpoint of "
                "the LeNet for 28×28×1 images and 10 classes."
            )
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise ValueError(f"{key} in {path} must hold finite floats, got {array.dtype}: copy the file again.")
        weight.assign(array)
    return model


def load_pretrained(name: str) -> keras.Model:
    """Loads a pretrained classifier of the package; `wasser_tf.pretrained.card` returns its robust accuracies.

    Args:
      name: One of `wasser_tf.pretrained.names()`, such as "mnist_wassertrain", or "hf://user/name" for a classifier on
        the Hugging Face hub (`wasser_tf.bridges.hub` uploads them).

    Returns:
      The classifier, from images [n, H, W, C] in [0, 1] to logits [n, classes].

    Raises:
      ImportError: The name is of the hub, and huggingface_hub is not installed.
      ValueError: The name is unknown; the message lists the known names. Or the hub has no such classifier.

    Example:
    >>> import wasser_tf
    >>> classifier = wasser_tf.load_pretrained("mnist_wassertrain")
    >>> classifier.input_shape, classifier.output_shape
    ((None, 28, 28, 1), (None, 10))
    """
    if isinstance(name, str) and name.startswith(HUB_PREFIX):
        return _load_from_hub(name)
    classifier = load_classifier(pretrained.path_of(name))
    assert isinstance(classifier, keras.Model)  # noqa: S101 (a .keras file holds no other)
    return classifier


def _load_from_hub(address: str) -> keras.Model:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ImportError(
            f"{address} needs huggingface_hub, which is not installed: install it with pip install 'wasser_tf[hub]'."
        )
    try:
        return keras.saving.load_model(address, compile=False, safe_mode=True)
    except Exception as error:  # Of the hub, of the network, or of a file.
        raise ValueError(
            f"{address} cannot be loaded ({type(error).__name__}: {first_line(error)}): check the name, the network, "
            "and your login if the repository is private."
        ) from error


def load_classifier(
    path: str | os.PathLike[str], *, signature: str | None = None, output: str | int | None = None
) -> keras.Model | SavedModelClassifier | Classifier:
    """Loads a classifier from a file of any supported kind.

    Args:
      path: A .keras or .h5 file (of a classifier, or of a `WasserTrain` around it), a published .npz checkpoint, the
        directory of a SavedModel (or of its numbered versions, of which the last is loaded), a .pt file of a
        TorchScript module (with the extra torch), "pretrained:NAME", or "keras:NAME:weights=FILE" for a classifier of
        keras.applications.
      signature: The signature of a SavedModel to call.
      output: The output of a SavedModel to return. For Keras models, `Classifier` chooses the output.

    Returns:
      The classifier, a function of images [n, H, W, C] in [0, 1]; see `returns_logits` for its outputs. A TorchScript
      module is a `Classifier` of images [n, C, H, W].

    Raises:
      ImportError: The file needs a library that is not installed.
      ValueError: The file is missing, truncated, of another kind, or needs code that is not registered.

    Example:
    >>> load_classifier("pretrained:mnist_wassertrain").output_shape
    (None, 10)
    """
    if is_application(path):
        return load_application(str(path))
    path = pretrained.resolve(path if isinstance(path, str) else as_path("The classifier", path))
    if not path.exists():
        raise ValueError(f"There is no file {path}: give the path of {_NEEDED}.")
    if path.is_dir():
        return SavedModelClassifier(path, signature=signature, output=output)
    if signature is not None:
        raise ValueError(f"signature={signature!r} is for SavedModels, and {path} is none: leave --signature out.")
    if path.suffix == ".npz":
        return load_published(path)
    if path.suffix in OTHER_LIBRARIES:
        if output is not None:
            raise ValueError(f"output={output!r} is for Keras models and SavedModels: leave it out for {path}.")
        return OTHER_LIBRARIES[path.suffix](path)
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise ValueError(f"{path} is not a classifier: give the path of {_NEEDED}.")
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is truncated or not a .keras file: save it again with model.save(...), or copy it again."
        )
    _check_memory(path)
    try:
        # safe_mode refuses a Lambda layer, which would run code from the file.
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises errors of many types for an unreadable file.
        raise ValueError(f"{path} cannot be loaded: {_how_to_load(error)}") from error
    model = getattr(model, "classifier", model)
    if not isinstance(model, keras.Model):
        raise ValueError(f"{path} must hold a keras.Model, got a {type(model).__name__}: save the whole classifier.")
    return model


def _how_to_load(error: Exception) -> str:
    """Explains why Keras cannot load a file, and what to do."""
    text = str(error)
    if "Lambda" in text and ("safe" in text or "unsafe" in text):
        return (
            "it holds a Lambda layer, which would run code that the file brings. If you trust the file, replace the "
            "Lambda by a registered layer of your own, or load it with keras.models.load_model(..., safe_mode=False) "
            "and write a SavedModel with model.export(folder), which can be loaded without that code."
        )
    own = re.search(r"(?:Could not locate (?:class|function)|Unknown (?:layer|object)[^:]*:) '?([\w>.]+)'?", text)
    if own:
        registered = re.search(r"registered_name(?:'|\")?:? ?(?:'|\")([\w>.]+)", text)
        name = own[1] + (f" (registered as {registered[1]})" if registered and registered[1] != own[1] else "")
        return (
            f"it needs {name}, a layer or function of your own: import the module that registers it, with "
            "--import=my.module or before loading in Python (see keras.saving.register_keras_serializable). Some "
            "layers of Keras itself are only in .keras files, not in .h5."
        )
    if "weights" in text and "config" in text:
        return f"it holds weights without their model ({first_line(error)}): save the model with model.save(...)."
    return (
        f"({first_line(error)}) save it again with model.save(...), and import the module that registers its own "
        "layers, if it has any (--import=my.module)."
    )


def load_keras(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a classifier that is a Keras model: like `load_classifier`, but not from a SavedModel.

    Args:
      path: As for `load_classifier`.

    Raises:
      ValueError: As for `load_classifier`, or the classifier is a SavedModel.

    Example:
    >>> load_keras("pretrained:mnist_wassertrain").output_shape
    (None, 10)
    """
    classifier = load_classifier(path)
    if not isinstance(classifier, keras.Model):
        raise ValueError(f"{path} is not a Keras model: give the .keras file of the classifier.")
    return classifier


def _check_memory(path: pathlib.Path) -> None:
    """Raises an error if the weights of a .keras file do not fit into memory, before Keras allocates them.

    Raises:
      ValueError: The weights do not fit.
    """
    if path.suffix != ".keras":
        check_fits(path.stat().st_size, f"The weights of {path}", "load it on a larger machine")
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            config: Any = (
                json.loads(archive.read("config.json")) if unpacked <= (physical_memory() or unpacked) else None
            )
    except Exception:  # Keras reports the error when it loads the file.
        return
    check_fits(unpacked, f"The parts of {path}", "the file may be corrupt or malicious")
    state = random.getstate()
    try:
        # In a graph, variables allocate no memory.
        with tf.Graph().as_default():
            model = keras.saving.deserialize_keras_object({**config, "compile_config": None}, safe_mode=True)
            needed = sum(math.prod(weight.shape) * tf.as_dtype(weight.dtype).size for weight in model.variables)
    except Exception:  # As above.
        return
    finally:
        # Layers without a seed drew one from it.
        random.setstate(state)
    check_fits(
        needed,
        f"The weights of {path}",
        "the file may be corrupt or malicious; otherwise load it on a larger machine",
    )


def returns_logits(classifier: Any) -> bool | None:
    """Returns whether a classifier returns logits.

    Args:
      classifier: A `keras.Model`, judged by the activation of its last layer, or an object with the attribute
        `from_logits`, such as `SavedModelClassifier`.

    Returns:
      True for logits, False for probabilities, None if it is unknown.

    Example:
    >>> from wasser_tf import models
    >>> models.returns_logits(models.build("linear", (8, 8, 1), 10))
    True
    """
    if isinstance(inner := getattr(classifier, "classifier", None), keras.Model):
        return returns_logits(inner)
    declared = getattr(classifier, "from_logits", None)
    if declared is not None or not isinstance(classifier, keras.Model):
        return declared
    last = classifier.layers[-1] if classifier.layers else None
    if isinstance(last, keras.Model):
        return returns_logits(last)
    if isinstance(last, keras.layers.Softmax):
        return False
    return _LINEAR_OR_NOT.get(getattr(last, "activation", None))


def model_name(path: str) -> str:
    """Returns the name of a classifier's file without its extension, or NAME of "pretrained:NAME".

    Example:
    >>> model_name("runs/digits/best.keras"), model_name("pretrained:mnist_wassertrain")
    ('best', 'mnist_wassertrain')
    """
    return pathlib.Path(path.removeprefix(pretrained.PREFIX)).stem
