"""Exports a classifier as a SavedModel for TensorFlow Serving, in <base_dir>/<name>/<version>/.

The SavedModel contains graphs and weights only; loading it needs neither wasser_tf nor Keras. It is written to a
temporary folder, loaded, compared with the classifier and then renamed. A server that watches base_dir therefore sees a
complete version or none.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from wasser_tf.models.classifier import CanonicalClassifier, Classifier
from wasser_tf.models.conversion import prepare_images
from wasser_tf.models.inputs import outputs_are_logits
from wasser_tf.models.inspection import input_spec
from wasser_tf.models.layered import as_layers
from wasser_tf.models.logits import as_logits_fn
from wasser_tf.models.saved_model import SavedModelClassifier, exporting
from wasser_tf.runtime import storage
from wasser_tf.runtime.arguments import first_line, is_whole
from wasser_tf.serving import deployment, model_card, warmup
from wasser_tf.serving.certified import CertifiedProbe, certified_radius
from wasser_tf.serving.robustness import RobustnessProbe
from wasser_tf.serving.signatures import DEFAULT, make_signatures

# The largest difference, relative to the largest logit, that the order of float32 sums can cause.
_TOLERANCE = 1e-6


class Exported(NamedTuple):
    """The result of an export.

    Attributes:
      path: Folder of the version.
      version: Number of the version.
      signatures: Names of its signatures.
      deployment: Paths of the server's configuration files in the base_dir.
    """

    path: pathlib.Path
    version: int
    signatures: tuple[str, ...]
    deployment: tuple[pathlib.Path, ...]


def export_classifier(
    classifier: Any,
    base_dir: str | os.PathLike[str],
    name: str,
    *,
    version: int | None = None,
    image_shape: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    robustness: RobustnessProbe | None = None,
    certified: CertifiedProbe | None = None,
    card: dict[str, Any] | None = None,
) -> Exported:
    """Exports a classifier for TensorFlow Serving, with warm-up requests and a model card.

    Args:
      classifier: A built keras.Model from images [n, H, W, C] to logits or probabilities [n, classes], a `WasserTrain`
        that wraps one, a `SavedModelClassifier`, or a `Classifier` around any of them. Whatever it takes, the
        signatures take images in [0, 1], channels last.
      base_dir: Folder of all models. The export also writes models.config and deployment templates to it.
      name: Name of the model on the server: letters, digits, "_", "-" and ".", starting with a letter.
      version: A whole number of at least 1; by default the highest existing version plus one.
      image_shape: (H, W, C); needed only if the classifier has no input shape, as subclassed models have not.
      class_names: A name for each class; adds the output "label".
      robustness: Settings of the signature `robustness`; None to leave the signature out.
      certified: Settings of the signature `certified`; None to leave the signature out. Every layer of the classifier
        needs a rule (wasser_tf.certification.rules).
      card: More fields for the model card, such as those that `model_card.of_run` returns.

    Returns:
      The paths, the version and the signatures that were written.

    Raises:
      ValueError: The classifier is not built or does not take images of one fixed shape, its weights are not finite,
        the name, the version or the folder is invalid, or the version already exists. Nothing is written then.

    Example:
    >>> import tempfile, wasser_tf
    >>> classifier = wasser_tf.models.build("linear", (8, 8, 1), 10, seed=0)
    >>> with tempfile.TemporaryDirectory() as base_dir:
    ...     exported = export_classifier(classifier, base_dir, "digits")
    ...     exported.version, exported.path.relative_to(base_dir).as_posix(), sorted(exported.signatures)
    (1, 'digits/1', ['encoded', 'logits', 'serving_default', 'uint8'])
    """
    base_dir = pathlib.Path(base_dir).expanduser()
    folder = base_dir / check_name(name)
    if version is not None and not is_whole(version, 1):
        raise ValueError(f"version must be a whole number of at least 1, got {version!r}.")
    next_version(folder, version)
    deployment.check_deployment(base_dir)
    classifier = getattr(classifier, "classifier", classifier)
    classifier = _canonical(classifier, image_shape)
    shape = check_classifier(classifier, image_shape)
    names = None if class_names is None else tuple(str(label) for label in class_names)
    probes = np.random.default_rng(0).random((2, *shape), np.float32)
    is_logits = prepare_images(classifier, probes).from_logits
    is_logits = outputs_are_logits(classifier, probes) if is_logits is None else is_logits
    logits_fn = as_logits_fn(classifier, is_logits)
    wanted = _call(logits_fn, probes)
    if names is not None and len(names) != wanted.shape[1]:
        raise ValueError(f"class_names must name the {wanted.shape[1]} classes, got {len(names)}: {', '.join(names)}.")
    radius_fn = None
    if certified is not None:
        radius_fn = functools.partial(certified_radius, certified, certified.bounds(as_layers(classifier)))
    signatures = {
        key: tf.function(made.function, input_signature=[made.spec], autograph=False).get_concrete_function()
        for key, made in make_signatures(logits_fn, shape, names, robustness, radius_fn).items()
    }
    with _folder(base_dir), _folder(folder), storage.locked(folder):
        storage.remove_leftovers(folder)
        version = next_version(folder, version)
        with storage.atomic_path(folder / str(version)) as temporary:
            _write(signatures, temporary, folder / str(version))
            warmup.write_warmup(temporary, name, signatures, probes)
            metadata = model_card.describe(name, version, signatures, shape, names, robustness, card or {})
            metadata["certified_signature"] = None if certified is None else certified.get_config()
            model_card.write_model_card(temporary, metadata)
            _verify(temporary, signatures, probes, wanted)
            # Before the folder is renamed: if the process is killed between the two, the same command does both.
            written = deployment.write_deployment(base_dir, name)
    return Exported(folder / str(version), version, tuple(signatures), written)


def check_name(name: str) -> str:
    """Returns the name of a model if it is valid in a path, a URL and a configuration file.

    Raises:
      ValueError: The name is invalid.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name):
        raise ValueError(f"name must be letters, digits, '_', '-' and '.', starting with a letter, got {name!r}.")
    return name


def next_version(folder: pathlib.Path, version: int | None) -> int:
    """Returns the number of the version to write.

    Args:
      folder: The folder of the model, which need not exist.
      version: The wanted version; None for the highest existing one plus one.

    Raises:
      ValueError: The version already exists, or the folder contains other files than versions.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} must be the folder of a model's versions, but it is a file: choose another name.")
    existing = [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    if others := [found for found in existing if not deployment.is_version(found)]:
        raise ValueError(
            f"{folder} contains {', '.join(sorted(others))}, but a server accepts only versions, folders with whole "
            "numbers as names such as 1: move the others away or choose another name."
        )
    if version is None:
        return max(map(int, existing), default=0) + 1
    if str(version) in existing:
        raise ValueError(
            f"{folder / str(version)} already exists, and versions are never replaced: choose another one."
        )
    return version


def _canonical(classifier: Any, image_shape: Sequence[int] | None) -> Any:
    """Returns a classifier of images in [0, 1], where it can be called at all; `check_classifier` refuses others."""
    given = classifier if isinstance(classifier, Classifier) else None
    model = classifier if given is None else given.model
    if not isinstance(model, (keras.Model, SavedModelClassifier)) or not getattr(model, "built", True):
        return model
    spec = input_spec(model)
    known = None if spec is None else spec[0][1:]
    shape: Any = None if image_shape is None else tuple(image_shape)
    unknown = known is None or not all(is_whole(side, 1) for side in known)
    if unknown and (shape is None or len(shape) != 3 or not all(is_whole(side, 1) for side in shape)):
        return model
    given = Classifier(model) if given is None else given
    if known is not None and len(known) == 1 and given.image_shape is None and shape is not None:
        given = dataclasses.replace(given, image_shape=shape)
    description = given.describe(shape)
    return model if description.plain else CanonicalClassifier(model, description)


def check_classifier(classifier: Any, image_shape: Sequence[int] | None = None) -> tuple[int, int, int]:
    """Returns the shape (H, W, C) of the images a classifier takes.

    Args:
      classifier: See `export_classifier`.
      image_shape: The expected shape (H, W, C); None to use the classifier's.

    Raises:
      ValueError: The classifier is not built, does not take images of one fixed shape, takes another shape than
        `image_shape`, or has a weight that is not finite.
    """
    if not isinstance(classifier, (keras.Model, SavedModelClassifier, CanonicalClassifier)):
        raise ValueError(f"classifier must be a keras.Model or a SavedModel, got a {type(classifier).__name__}.")
    if isinstance(classifier, keras.Model) and not classifier.built:
        raise ValueError(
            f"The model {classifier.name!r} is not built, so it has no weights to export. Add a keras.Input to it, or "
            "call it once on images."
        )
    known: Any
    try:
        known = classifier.input_shape
    except AttributeError:  # Subclassed models have no input shape.
        known = None
    known = (None, *image_shape) if known is None and image_shape is not None else known
    if not isinstance(known, tuple) or len(known) != 4 or not all(is_whole(side, 1) for side in known[1:]):
        raise ValueError(
            "The classifier must take one batch of images of a fixed shape [n, height, width, channels], got "
            f"{known or 'an unknown shape: pass image_shape'}."
        )
    shape = int(known[1]), int(known[2]), int(known[3])
    if image_shape is not None and tuple(image_shape) != shape:
        raise ValueError(f"The classifier takes images of shape {shape}, not {tuple(image_shape)}.")
    for weight in getattr(classifier, "weights", ()):
        if not np.isfinite(np.asarray(keras.ops.convert_to_numpy(weight), np.float64)).all():
            raise ValueError(
                f"The weight {weight.path} is not finite, so the training diverged: train the classifier again."
            )
    return shape


def _call(logits_fn: Callable[[tf.Tensor], tf.Tensor], probes: np.ndarray) -> np.ndarray:
    """Returns the classifier's logits [n, classes], float32."""
    try:
        logits = logits_fn(tf.constant(probes))
    except Exception as error:  # A user's model may raise anything.
        raise ValueError(
            f"The classifier cannot be called with images of shape {probes.shape[1:]} ({first_line(error)}). Pass the "
            "image_shape it was built for."
        ) from error
    if logits.shape.rank != 2 or logits.shape[1] < 2:
        raise ValueError(f"The classifier must return [n, classes] with at least 2 classes, got {tuple(logits.shape)}.")
    return logits.numpy()


def _write(signatures: dict[str, Any], path: pathlib.Path, known_as: pathlib.Path) -> None:
    """Writes the SavedModel to a temporary path, which the caller renames to `known_as`."""
    module = tf.Module()
    # Only the variables: a Keras model would add objects that only Keras can restore.
    module.weights = list({id(kept): kept for made in signatures.values() for kept in made.variables}.values())
    try:
        with exporting(known_as):
            tf.saved_model.save(module, str(path), signatures=signatures)
    except AssertionError as error:
        raise ValueError(
            f"The classifier contains resources other than weights, such as a lookup table ({first_line(error)}): "
            "remove them before the export."
        ) from error
    _remove_xla(path)


def _remove_xla(path: pathlib.Path) -> None:
    """Removes the XLA flag from the attacks' functions: TensorFlow Serving has no XLA on a CPU."""
    file = path / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for meta_graph in saved.meta_graphs:
        functions = meta_graph.graph_def.library.function
        nodes = [*meta_graph.graph_def.node, *(node for function in functions for node in function.node_def)]
        for part in (*functions, *nodes):
            if "_XlaMustCompile" in part.attr:
                del part.attr["_XlaMustCompile"]
    # A deterministic order, so that the same classifier gives the same file.
    file.write_bytes(saved.SerializeToString(deterministic=True))
    # The fingerprint is optional, and this one belongs to the previous file.
    (path / "fingerprint.pb").unlink(missing_ok=True)


def _verify(path: pathlib.Path, signatures: dict[str, Any], probes: np.ndarray, wanted: np.ndarray) -> None:
    """Loads the SavedModel, compares it with the classifier, and replays the warm-up requests as the server does."""
    loaded = tf.saved_model.load(str(path))
    if set(loaded.signatures) != set(signatures):
        raise ValueError(f"The export lost signatures: {', '.join(set(signatures) - set(loaded.signatures))}.")
    got = loaded.signatures[DEFAULT](image=tf.constant(probes))["logits"].numpy()
    error = np.abs(got - wanted).max() / max(1.0, np.abs(wanted).max())
    if not error <= _TOLERANCE:
        raise ValueError(
            f"The exported model's logits differ from the classifier's by {error:.1e} (relative), so it is broken or "
            "not deterministic in inference mode: look for layers that draw random numbers."
        )
    warmup.replay_warmup(path, loaded)


@contextlib.contextmanager
def _folder(path: pathlib.Path) -> Iterator[None]:
    """Creates a folder, and removes it if the block fails and leaves it empty."""
    new = not path.exists()
    storage.make_folder(path)
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
