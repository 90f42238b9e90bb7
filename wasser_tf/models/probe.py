"""One look at a classifier: its graph, and its outputs for a few images. It is kept while its structure is the same."""

import contextlib
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
      mixed: Whether it is put together of the outputs of softmaxes or sigmoids.
    """

    key: str | int | None
    name: str
    values: np.ndarray
    activation: str | None
    operation: str
    has_keras_logits: bool
    mixed: bool = False


class Step(NamedTuple):
    """What the first operations do to a pixel x: factor · x + offset.

    Attributes:
      factor: The factor; the middle one, where they treat pixels differently.
      offset: The offset, accordingly.
    """

    factor: float
    offset: float

    @property
    def is_none(self) -> bool:
        """Whether the pixel stays as it is."""
        return bool(np.allclose(self, (1, 0), atol=1e-6))


class Look(NamedTuple):
    """What a look at a classifier showed.

    Attributes:
      outputs: Its outputs.
      steps: What the first operations do to a pixel, in each way in which the classifier uses its images.
      channels_first: Whether they take images [n, C, H, W]; None where they do not depend on the order.
      inline: Whether the classifier was traced as it is, and not by AutoGraph or eagerly.
      differentiable: Whether its outputs depend on its images by differentiable operations; not looked at, and True,
        where it takes any batch size.
      num_images: The number of images that the outputs belong to.
      graph_error: Why it cannot be part of a graph, in which attacks call it; empty where it can.
      unstable: How the outputs of an image vary, at random or with its batch; empty where they do not.
      hidden: Whether some of what it does with its images cannot be looked into.
    """

    outputs: tuple[Output, ...]
    steps: tuple[Step, ...]
    channels_first: bool | None
    inline: bool
    differentiable: bool = True
    num_images: int = _IMAGES
    graph_error: str = ""
    unstable: str = ""
    hidden: bool = False


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
    fixed = batch_size is not None
    try:
        return _look_at_graph(model, random, count, fixed, inline=True)
    except Exception:  # Whatever a model of someone else's raises while it is traced.
        outputs = _call(model, tf.constant(np.resize(random, (count, *image_shape))))
    graph_error = _graph_error(model, (count, *image_shape))
    if not graph_error:
        with contextlib.suppress(Exception):  # As above.
            return _look_at_graph(model, random, count, fixed, inline=False)
    named = [(key, name, np.asarray(value)) for key, name, value in _named(model, outputs)]
    others = []
    if not fixed:
        again = _call(model, tf.constant(np.resize(random[: count // 2], random.shape)))
        others = [np.asarray(value) for _, _, value in _named(model, again)]
    return Look(
        tuple(Output(key, name, value, None, "", False) for key, name, value in named),
        (),
        None,
        False,
        num_images=count,
        graph_error=graph_error,
        unstable=_how_unstable([value for _, _, value in named], others, in_halves=True),
    )


def _look_at_graph(model: Any, images: np.ndarray, count: int, fixed: bool, inline: bool) -> Look:
    seen: dict[str, Any] = {}

    def traced(batch: tf.Tensor) -> Any:
        # A function of the user's may need AutoGraph.
        outputs = call_inline(model, batch) if inline else tf.function(model)(batch, training=False)
        named = [(key, name, tf.convert_to_tensor(value)) for key, name, value in _named(model, outputs)]
        seen["names"] = [(key, name) for key, name, _ in named]
        seen["has_logits"] = [getattr(value, "_keras_logits", None) is not None for _, _, value in named]
        values = [value for _, _, value in named]
        seen["steps"] = graphs.first_steps(batch)
        seen["shown"] = [_shown(value) for value in values]
        if fixed:
            # Batch after batch in a loop, gradients that are not there seem to be 0.
            seen["differentiable"] = tf.gradients(values, batch)[0] is not None
        return values, seen["steps"].tensors

    function = tf.function(traced, autograph=False).get_concrete_function(
        tf.TensorSpec([count, *images.shape[1:]], tf.float32)
    )
    batches = [
        images[np.minimum(np.arange(start, start + count), len(images) - 1)] for start in range(0, len(images), count)
    ]
    found = [function(tf.constant(batch)) for batch in batches]
    values = [np.concatenate([np.asarray(part[0][place]) for part in found]) for place in range(len(seen["names"]))]
    steps, shown = [part[1] for part in found], seen["shown"]
    opened = graphs.opened(function)
    if opened is not None and len(opened.inputs) == 1:
        shown = [_shown(value) for value in opened.outputs[: len(values)]]
        seen["steps"] = graphs.first_steps(opened.inputs[0])
        look = opened.prune(opened.inputs, seen["steps"].tensors)
        steps = [look(tf.constant(batch)) for batch in batches]
    repeated = batches[0] if fixed else np.resize(images[: count // 2], images.shape)
    others = [np.asarray(value) for value in function(tf.constant(repeated))[0]]
    return Look(
        tuple(
            Output(key, name, value, activation, operation, has_logits, mixed)
            for (key, name), value, has_logits, (activation, operation, mixed) in zip(
                seen["names"], values, seen["has_logits"], shown, strict=True
            )
        ),
        _steps(steps, count),
        seen["steps"].channels_first,
        inline,
        seen.get("differentiable", True),
        len(batches) * count,
        unstable=_how_unstable(values, others, in_halves=not fixed),
        hidden=seen["steps"].hidden,
    )


def _shown(value: tf.Tensor) -> tuple[str | None, str, bool]:
    return graphs.last_activation(value), graphs.last_operation(value), graphs.mixes_activations(value)


def _steps(found: list[Any], count: int) -> tuple[Step, ...]:
    """Returns what becomes of a black and a white pixel, the first images of the probe, at each tensor."""
    steps = []
    for parts in zip(*found, strict=True):
        if tf.size(parts[0]) % count == 0:
            black, white = np.concatenate([np.asarray(part, np.float64).reshape(count, -1) for part in parts])[:2]
            # Others are not of the image, such as zeros around it.
            used = np.abs(white - black) > 1e-12
            if used.any():
                factors, offsets = (white - black)[used], black[used]
                factor = float(factors[np.argsort(factors)[len(factors) // 2]])
                steps.append(Step(factor, float(np.median(offsets / factors)) * factor))
    return tuple(steps)


def _how_unstable(values: list[np.ndarray], others: list[np.ndarray], in_halves: bool) -> str:
    """Describes how outputs vary.

    Args:
      values: The outputs of some images.
      others: Those of the first of them once more.
      in_halves: Whether the others are of the first half of the images, twice.
    """
    for value, other in zip(values, others, strict=False):
        if value.dtype.kind not in "fiuV":
            continue
        one, two = value.astype(np.float64)[: len(other)], other.astype(np.float64)
        tolerance = 1e-2 * max(float(np.abs(one).max(initial=0)), 1e-6)
        half = len(two) // 2
        # False for NaN.
        if np.any(np.abs(two[:half] - two[half:]) > tolerance if in_halves else np.abs(one - two) > tolerance):
            return "are random"
        if in_halves and np.any(np.abs(one[:half] - two[:half]) > tolerance):
            return "depend on the other images of its batch"
    return ""


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
        names = list(getattr(model, "output_names", None) or getattr(outputs, "_fields", None) or ())
        names = names if len(names) == len(outputs) else [str(place) for place in range(len(outputs))]
        return [(place, name, value) for place, (name, value) in enumerate(zip(names, outputs, strict=True))]
    return [(None, "output", outputs)]
