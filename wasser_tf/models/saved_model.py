"""SavedModels: loading classifiers from them, whatever program wrote them, and exporting without log messages."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from absl import logging

from wasser_tf.models import graphs
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
    otherwise one with a single output; among several, serving_default first. `signature` and `output` choose another.

    A SavedModel is a program: load only those that you trust.

    Attributes:
      path: The directory that it was loaded from.
      signature: The name of the signature that is called.
      input_name: The name of the input of the signature.
      output: The name of the output that is returned.
      from_logits: True if it returns "logits", False for "probabilities", None if the output has another name.
      input_shape: (None, H, W, C), with None for sizes that the signature does not specify.
      output_shape: (None, num_classes), with None for sizes that the signature does not specify.

    Raises:
      ValueError: The directory is not a SavedModel, is corrupt, or has no signature for a batch of float images.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, signature: str | None = None, output: str | int | None = None
    ) -> None:
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
        self.signature, self.output = _choose(self.path, signatures, signature, output)
        self._function = signatures[self.signature]
        self.input_name, spec = next(iter(self._function.structured_input_signature[1].items()))
        self._dtype = spec.dtype
        self.from_logits = {"logits": True, "probabilities": False}.get(self.output)
        self.input_shape = _shape(spec)
        self.output_shape = _shape(self._function.structured_outputs[self.output])

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
        return tf.cast(self._function(**{self.input_name: images})[self.output], tf.float32)

    @functools.cached_property
    def _inlined(self) -> tuple[Any, Any] | None:
        """A function of the same outputs without calls of other functions, and its output; None where there is none."""
        with tf.init_scope():
            function = graphs.inlined(self._function)
        if function is None or len(function.inputs) != 1:
            return None
        return function, function.outputs[sorted(self._function.structured_outputs).index(self.output)]

    def call_inlined(self, images: tf.Tensor) -> tf.Tensor:
        """Classifies images by operations within the graph at hand, which then shows them, but has no gradients."""
        if self._inlined is None or not tf.inside_function():
            return self(images)
        function, output = self._inlined
        (outputs,) = tf.graph_util.import_graph_def(
            function.graph.as_graph_def(),
            input_map={function.inputs[0].name: tf.cast(images, self._dtype)},
            return_elements=[output.name],
        )
        return outputs

    @functools.cached_property
    def _before_activation(self) -> Any:
        """The function of the input of the final softmax or sigmoid, or None."""
        if self._inlined is None:
            return None
        function, output = self._inlined
        with function.graph.as_default():
            before = graphs.before_activation(output)
        return None if before is None else function.prune(function.inputs, [before])

    def call_before_activation(self, images: tf.Tensor) -> tf.Tensor | None:
        """Returns the input of the softmax or sigmoid that the outputs come from, or None without one."""
        with tf.init_scope():
            function = self._before_activation
        return None if function is None else function(tf.cast(images, self._dtype))[0]


def _choose(
    path: pathlib.Path, signatures: dict[str, Any], signature: str | None, output: str | int | None
) -> tuple[str, str]:
    """Returns the names of the signature and the output that are used.

    Raises:
      ValueError: There is none that can be used, or several can and nothing selects one.
    """
    there = _describe(signatures)
    if signature is not None and signature not in signatures:
        raise ValueError(f"The SavedModel {path} has no signature {signature!r}; it has {there}.")
    names = sorted(signatures, key=lambda name: name != "serving_default") if signature is None else [signature]
    # Those of whole images come before those of flattened ones.
    usable = {name: signatures[name] for name in names if _takes_images(signatures[name], (None, 4))}
    usable |= {name: signatures[name] for name in names if _takes_images(signatures[name], (2, 3))}
    outputs = {name: list(function.structured_outputs) for name, function in usable.items()}
    if output is not None:
        found = [(name, str(output)) for name in usable if str(output) in outputs[name]]
        if isinstance(output, int):
            found = [(name, outputs[name][output]) for name in usable if -1 < output < len(outputs[name])]
    else:
        found = [(name, key) for key in ("logits", "probabilities") for name in usable if key in outputs[name]]
        single = [(name, outputs[name][0]) for name in usable if len(outputs[name]) == 1]
        # The default signature is what the owner has chosen.
        if not found and len(single) > 1 and single[0][0] != "serving_default":
            raise ValueError(
                f"Several signatures of the SavedModel {path} can be used, {there}: choose one with --signature (in "
                "Python, signature=…)."
            )
        found += single
    if not found:
        raise ValueError(
            f"No signature of the SavedModel {path} takes one batch of float images and returns "
            + (f"the output {output!r}" if output is not None else "'logits', 'probabilities' or a single output")
            + f"; it has {there}: choose one with --signature and --output (in Python, signature=… and output=…), or "
            "export the classifier again with such a signature (integers have no gradients)."
        )
    return found[0]


def _describe(signatures: dict[str, Any]) -> str:
    """Returns all signatures with the shapes and dtypes of their inputs and outputs."""

    def tensors(specs: dict[str, Any]) -> str:
        return ", ".join(f"{name} {spec.dtype.name} {_shape_in_words(spec)}" for name, spec in specs.items())

    return (
        "; ".join(
            f"{name}: {tensors(function.structured_input_signature[1])} → {tensors(function.structured_outputs)}"
            for name, function in signatures.items()
        )
        or "none"
    )


def _takes_images(function: Any, ranks: tuple[int | None, ...]) -> bool:
    """Returns whether the only input of a signature can be a batch of float images of one of these ranks."""
    specs = list(function.structured_input_signature[1].values())
    return len(specs) == 1 and specs[0].dtype.is_floating and specs[0].shape.rank in ranks


def _shape(spec: Any) -> tuple[int | None, ...] | None:
    return None if spec.shape.rank is None else tuple(spec.shape)


def _shape_in_words(spec: Any) -> str:
    sides = ("n" if side is None else str(side) for side in _shape(spec) or ("…",))
    return f"[{', '.join(sides)}]"


def _latest_version(path: pathlib.Path) -> pathlib.Path:
    """Returns the highest of the numbered folders of TensorFlow Serving in the path, or the path if there are none."""
    versions = [child for child in path.iterdir() if child.name.isdigit() and child.is_dir()] if path.is_dir() else []
    return max(versions, key=lambda child: int(child.name), default=path)
