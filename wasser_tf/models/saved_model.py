"""SavedModels: classifiers out of them, whatever program wrote them, and writing them quietly."""

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
    """Hides what TensorFlow says while it exports: a path that is renamed next, and names of its own making.

    Args:
      path: What is made, as the user knows it.

    Raises:
      OSError: It cannot be written; TensorFlow has errors of its own for that.
    """
    # By absl's own function: TensorFlow puts back, in the midst of it, the level that this function knows.
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
    """A classifier out of a SavedModel: what Keras exported, or TensorFlow Serving serves. Gradients flow through it.

    Of its signatures, serving_default first, the one that returns "logits" is called; else the one that returns
    "probabilities"; else one with a single output.

    A SavedModel is a program, so load only those you trust.

    Attributes:
      path: The directory it was loaded from.
      from_logits: True when it returns "logits", False for "probabilities", None when the output has another name.
      input_shape: (None, H, W, C), as far as the signature says.
      output_shape: (None, num_classes), as far as the signature says.

    Raises:
      ValueError: The directory is no SavedModel, is broken, or no signature takes a batch of float images.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = _latest_version(pathlib.Path(path).expanduser())
        if not any((self.path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
            raise ValueError(
                f"{self.path} holds no saved_model.pb: give the path of the directory that model.export(...) wrote."
            )
        try:
            # Kept, for it owns the variables that the signature reads.
            self._loaded = tf.saved_model.load(str(self.path))
            signatures = dict(self._loaded.signatures)
        except Exception as error:  # TensorFlow, protobuf and the file system each have their own for a broken file.
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
          images: [n, H, W, C] in [0, 1].
          training: Ignored, and here to be called as Keras models are: what was exported only infers.

        Returns:
          Logits or probabilities, float32 [n, num_classes]; see `from_logits`.
        """
        del training
        images = tf.cast(tf.convert_to_tensor(images), self._dtype)
        return tf.cast(self._function(**{self._input: images})[self._output], tf.float32)


def _takes_images(function: Any) -> bool:
    """Whether the one input of a signature can be a batch of float images."""
    specs = list(function.structured_input_signature[1].values())
    return len(specs) == 1 and specs[0].dtype.is_floating and specs[0].shape.rank in (None, 4)


def _shape(spec: Any) -> tuple[int | None, ...] | None:
    return None if spec.shape.rank is None else tuple(spec.shape)


def _latest_version(path: pathlib.Path) -> pathlib.Path:
    """Returns the highest of TensorFlow Serving's numbered folders in the path, or the path when there are none."""
    versions = [child for child in path.iterdir() if child.name.isdigit() and child.is_dir()] if path.is_dir() else []
    return max(versions, key=lambda child: int(child.name), default=path)
