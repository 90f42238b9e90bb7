"""One look at a classifier: its graph, and its outputs for a few images. It is kept while its structure is the same."""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from wasser_tf.models import graphs
from wasser_tf.models.saved_model import SavedModelClassifier
from wasser_tf.models.structure import Structure, structure_of
from wasser_tf.runtime.arguments import first_line

# Black, white, and random images: enough for the affine step, and for the sums of the outputs.
_IMAGES = 8


class Output(NamedTuple):
    """One output of a classifier.

    Attributes:
      key: Its name in a dict, its place in a list, or None for the only output.
      name: What it is called in messages and by `Classifier(output=…)`.
      values: Of the probe, [b, …].
      activation: "softmax", "sigmoid", "log_softmax" or None where the graph shows none.
      operation: The type of the operation it comes from, or "" where no graph was seen.
      has_keras_logits: Whether Keras keeps the logits of the softmax with the output.
    """

    key: str | int | None
    name: str
    values: np.ndarray
    activation: str | None
    operation: str
    has_keras_logits: bool


class Look(NamedTuple):
    """What a look at a classifier showed.

    Attributes:
      outputs: Its outputs.
      scale: The smallest and the largest factor by which the first operations multiply a pixel; (1, 1) for none.
      offset: What they add to it, accordingly.
      channels_first: Whether they take images [n, C, H, W]; None where they do not depend on the order.
      inline: Whether the classifier was traced as it is, and not by AutoGraph or eagerly.
      differentiable: Whether its outputs depend on its images by differentiable operations; not looked at, and True,
        where it takes any batch size.
      num_images: The number of images that the outputs belong to.
      graph_error: Why it cannot be part of a graph, in which attacks call it; empty where it can.
    """

    outputs: tuple[Output, ...]
    scale: tuple[float, float]
    offset: tuple[float, float]
    channels_first: bool | None
    inline: bool
    differentiable: bool = True
    num_images: int = _IMAGES
    graph_error: str = ""


_looks: "weakref.WeakKeyDictionary[Any, dict[Any, tuple[Structure, Look]]]" = weakref.WeakKeyDictionary()


def look_at(model: Any, image_shape: tuple[int, ...], batch_size: int | None) -> Look:
    """Traces a classifier once and calls it on a few images; the same classifier is not looked at again.

    Args:
      model: Any callable (images, training=False) -> outputs.
      image_shape: The shape of one image, in the order of the classifier.
      batch_size: The only batch size it takes, or None for any.

    Raises:
      ValueError: It cannot be called with such images.
    """
    key = (image_shape, batch_size)
    try:
        known = _looks.setdefault(model, {})
    except TypeError:  # Neither hashable nor weakly referenced.
        return _look(model, image_shape, batch_size)
    # A function's calls count as use of it, so the structure is that before the look.
    structure = structure_of(model)
    if key not in known or known[key][0] != structure:
        found = _look(model, image_shape, batch_size)
        known[key] = (structure_of(model), found)
    return known[key][1]


def call_inline(model: Any, images: tf.Tensor) -> Any:
    """Calls a classifier in inference mode within the graph at hand; floats stay floats, so that gradients pass."""
    inputs = getattr(model, "inputs", None) if isinstance(model, keras.Model) else None
    if inputs and len(inputs) == 1 and tf.as_dtype(inputs[0].dtype).is_integer:
        # Not model(images), which casts to the integers that its input declares.
        outputs = model.outputs if len(model.outputs) > 1 else model.outputs[0]
        return keras.Function(inputs, outputs)([images])
    if isinstance(model, SavedModelClassifier):
        return model.call_inlined(images)
    # At the root of a graph TensorFlow refuses the scope of a model whose class begins with an underscore.
    with tf.name_scope("classifier"):
        return model(images, training=False)


def _look(model: Any, image_shape: tuple[int, ...], batch_size: int | None) -> Look:
    count = batch_size or _IMAGES
    random = np.random.default_rng(0).random((_IMAGES, *image_shape), np.float32)
    random[0], random[1] = 0.0, 1.0
    if isinstance(model, keras.Model) and not model.built:
        _call(model, tf.constant(random[:1]))
    try:
        return _look_at_graph(model, random, count, batch_size is not None)
    except Exception:  # Whatever a model of someone else's raises while it is traced.
        outputs = _call(model, tf.constant(np.resize(random, (count, *image_shape))))
    named = _named(model, outputs)
    return Look(
        tuple(Output(key, name, np.asarray(value), None, "", False) for key, name, value in named),
        (1.0, 1.0),
        (0.0, 0.0),
        None,
        False,
        num_images=count,
        graph_error=_graph_error(model, (count, *image_shape)),
    )


def _look_at_graph(model: Any, images: np.ndarray, count: int, fixed: bool) -> Look:
    seen: dict[str, Any] = {}

    def traced(batch: tf.Tensor) -> Any:
        named = [
            (key, name, tf.convert_to_tensor(value)) for key, name, value in _named(model, call_inline(model, batch))
        ]
        step = graphs.first_step(batch)
        seen["channels_first"] = step.channels_first
        if fixed:
            # Batch after batch in a loop, gradients that are not there seem to be 0.
            seen["differentiable"] = tf.gradients([value for _, _, value in named], batch)[0] is not None
        seen["outputs"] = [
            (
                key,
                name,
                graphs.last_activation(value),
                graphs.last_operation(value),
                getattr(value, "_keras_logits", None) is not None,
            )
            for key, name, value in named
        ]
        return [value for _, _, value in named], step.tensor

    function = tf.function(traced, autograph=False).get_concrete_function(
        tf.TensorSpec([count, *images.shape[1:]], tf.float32)
    )
    values, first = [], []
    for start in range(0, len(images), count):
        rows = np.minimum(np.arange(start, start + count), len(images) - 1)
        outputs, step = function(tf.constant(images[rows]))
        values.append([np.asarray(value) for value in outputs])
        first.append(np.asarray(step, np.float64).reshape(count, -1) if step.shape.rank else np.zeros((count, 1)))
    step = np.concatenate(first)
    scale, offset = step[1] - step[0], step[0]
    return Look(
        tuple(
            Output(key, name, np.concatenate([batch[place] for batch in values]), activation, operation, has_logits)
            for place, (key, name, activation, operation, has_logits) in enumerate(seen["outputs"])
        ),
        (float(np.abs(scale).min()), float(np.abs(scale).max())),
        (float(offset.min()), float(offset.max())),
        seen["channels_first"],
        True,
        seen.get("differentiable", True),
        len(values) * count,
    )


def _call(model: Callable[..., Any], images: tf.Tensor) -> Any:
    """Calls a classifier eagerly.

    Raises:
      ValueError: It cannot be called.
    """
    try:
        return model(images, training=False)
    except TypeError as error:
        raise ValueError(f"The classifier must take (images, training=False), but: {first_line(error)}.") from error
    except Exception as error:
        raise ValueError(
            f"The classifier cannot be called with images of shape {tuple(images.shape)} ({first_line(error)}): give "
            "it images of the shape it was built for."
        ) from error


def _graph_error(model: Callable[..., Any], shape: tuple[int, ...]) -> str:
    """Returns why a classifier cannot be part of a graph; empty if it can."""
    try:
        tf.function(lambda images: model(images, training=False)).get_concrete_function(
            tf.TensorSpec(shape, tf.float32)
        )
    except Exception as error:  # Whatever a model of the user's raises while it is traced.
        return first_line(error)
    return ""


def _named(model: Any, outputs: Any) -> list[tuple[str | int | None, str, Any]]:
    """Returns (key, name, value) of each output."""
    if isinstance(outputs, dict):
        return [(key, str(key), value) for key, value in outputs.items()]
    if isinstance(outputs, (list, tuple)):
        names = list(getattr(model, "output_names", None) or ())
        names = names if len(names) == len(outputs) else [str(place) for place in range(len(outputs))]
        return [(place, name, value) for place, (name, value) in enumerate(zip(names, outputs, strict=True))]
    return [(None, "output", outputs)]
