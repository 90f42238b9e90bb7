"""SavedModels: loading classifiers from them, whatever program wrote them, and exporting without log messages."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from absl import logging

from wasser_tf.runtime import storage
from wasser_tf.runtime.arguments import first_line


@contextlib.contextmanager
def exporting(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hides the log messages of TensorFlow's export, which name temporary paths and generated names.

    Args:
      path: The final path of the SavedModel, for error messages.

    Raises:
      OSError: The SavedModel cannot be written. (TensorFlow raises errors of other types.)
    """
    # With absl's function, because TensorFlow restores the level of absl during the export.
    verbosity, level = logging.get_verbosity(), tf.get_logger().level
    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    try:
        yield
    except tf.errors.OpError as error:
        raise storage.cannot_write(path, error) from error
    finally:
        logging.set_verbosity(verbosity)
        tf.get_logger().setLevel(level)


class SavedModelClassifier:
    """A classifier from a SavedModel, such as an export of Keras or a model of TensorFlow Serving.

    Gradients flow through it. It calls the signature that returns "logits", otherwise one that returns "probabilities",
    otherwise one with a single output; among several, serving_default first.

    A SavedModel is a program: load only those that you trust.

    Attributes:
      path: The directory that it was loaded from.
      from_logits: True if it returns "logits", False for "probabilities", None if the output has another name.
      input_shape: (None, H, W, C), with None for sizes that the signature does not specify.
      output_shape: (None, num_classes), with None for sizes that the signature does not specify.

    Raises:
      ValueError: The directory is not a SavedModel, is corrupt, or has no signature for a batch of float images.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = _latest_version(pathlib.Path(path).expanduser())
        if not any((self.path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
            raise ValueError(
                f"{self.path} does not contain saved_model.pb: give the path of the directory that model.export(...) "
                "wrote."
            )
        try:
            # Kept because it owns the variables that the signature reads.
            self._loaded = tf.saved_model.load(str(self.path))
            signatures = dict(self._loaded.signatures)
        except (
            Exception
        ) as error:  # TensorFlow, protobuf and the file system raise different errors for a corrupt file.
            raise ValueError(
                f"The SavedModel {self.path} cannot be loaded ({first_line(error)}): export it again, or copy it again."
            ) from error
        names = sorted(signatures, key=lambda name: name != "serving_default")
        usable = {name: signatures[name] for name in names if _takes_images(signatures[name])}
        outputs = {name: list(function.structured_outputs) for name, function in usable.items()}
        choices = [(name, key) for key in ("logits", "probabilities") for name in usable if key in outputs[name]]
        choices += [(name, outputs[name][0]) for name in usable if len(outputs[name]) == 1]
        if not choices:
            raise ValueError(
                f"No signature of the SavedModel {self.path} takes one batch of float images and returns 'logits', "
                f"'probabilities' or a single output; it has {', '.join(names) or 'none'}: export the classifier again."
            )
        name, self._output = choices[0]
        self._function = usable[name]
        self._input, spec = next(iter(self._function.structured_input_signature[1].items()))
        self._dtype = spec.dtype
        self.from_logits = {"logits": True, "probabilities": False}.get(self._output)
        self.input_shape = _shape(spec)
        self.output_shape = _shape(self._function.structured_outputs[self._output])

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Classifies images.

        Args:
          images: Images [n, H, W, C] in [0, 1].
          training: Ignored, and accepted for compatibility with Keras models: an exported model is in inference mode.

        Returns:
          Logits or probabilities, float32 [n, num_classes]; see `from_logits`.
        """
        del training
        images = tf.cast(tf.convert_to_tensor(images), self._dtype)
        return tf.cast(self._function(**{self._input: images})[self._output], tf.float32)


def _takes_images(function: Any) -> bool:
    """Returns whether the only input of a signature can be a batch of float images."""
    specs = list(function.structured_input_signature[1].values())
    return len(specs) == 1 and specs[0].dtype.is_floating and specs[0].shape.rank in (None, 4)


def _shape(spec: Any) -> tuple[int | None, ...] | None:
    return None if spec.shape.rank is None else tuple(spec.shape)


def _latest_version(path: pathlib.Path) -> pathlib.Path:
    """Returns the highest of the numbered folders of TensorFlow Serving in the path, or the path if there are none."""
    versions = [child for child in path.iterdir() if child.name.isdigit() and child.is_dir()] if path.is_dir() else []
    return max(versions, key=lambda child: int(child.name), default=path)
