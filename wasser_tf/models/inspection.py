"""Finds out what a classifier takes and returns, or asks for it in one sentence."""

import math
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from wasser_tf.models.description import Description
from wasser_tf.models.outputs import choose_output, what_is_returned
from wasser_tf.models.probe import Look, Step, look_at

_EIGHT_BIT = (0.0, 255.0)
_UNIT = (0.0, 1.0)


def describe_classifier(
    model: Any,
    shape: tuple[int, ...] | None,
    *,
    input_range: tuple[float, float] | None = None,
    data_format: str | None = None,
    output: str | int | None = None,
    returns: str | None = None,
    batch_size: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> Description:
    """Returns the full description of a classifier.

    Args:
      model: Any callable (images, training=False) -> outputs.
      shape: The shape of the images at hand, as (H, W, C) or as the model takes them, or None.
      input_range: What is given of the description; None for what is to be found out, here and below.
      data_format: See `Description`.
      output: See `Description`.
      returns: See `Description`.
      batch_size: See `Description`.
      image_shape: See `Description`.

    Raises:
      ValueError: Something cannot be found out, or contradicts what was given.
    """
    spec = input_spec(model)
    own = _own_shape(spec, shape, image_shape, data_format)
    if batch_size is None and spec and isinstance(spec[0][0], int):
        batch_size = spec[0][0]
    found = look_at(model, own, batch_size)
    data_format = _data_format(own, found, shape, data_format)
    layout, image_shape = _layout(own, shape, image_shape, data_format)
    chosen = choose_output(found, output)
    returned = what_is_returned(model, chosen, returns)
    is_integer = spec is not None and spec[1].is_integer
    if is_integer and not found.inline:
        raise ValueError(
            "The classifier casts its images to integers inside, and integers have no gradients: give a model whose "
            "inner inputs are floats."
        )
    if not found.differentiable:
        raise ValueError("The classifier's output does not depend on its input by differentiable operations.")
    final_range = input_range or _input_range(found, spec[1] if spec else tf.float32)
    units = chosen.values.shape[1] if chosen.values.ndim == 2 else 1
    plain = (
        (final_range, data_format or "channels_last", layout) == (_UNIT, "channels_last", "image")
        and (batch_size, chosen.key, is_integer) == (None, None, False)
        and units > 1
        # Of other softmaxes and sigmoids the logits are in the graph alone.
        and (returned == "logits" or chosen.activation is None or chosen.has_keras_logits)
    )
    return Description(
        input_range=final_range,
        data_format=data_format or "channels_last",
        layout=layout,
        image_shape=image_shape,
        batch_size=batch_size,
        output=chosen.key,
        returns=returned,
        num_units=units,
        inline=found.inline,
        plain=plain,
        range_was_given=input_range is not None,
        range_was_found=is_integer or not found.inline or not _is_unchanged(found),
        graph_error=found.graph_error,
        unstable=found.unstable,
    )


def input_spec(model: Any) -> tuple[tuple[int | None, ...], tf.DType] | None:
    """Returns the shape and dtype of what a model takes, or None where it does not specify it.

    Raises:
      ValueError: It takes several tensors.
    """
    inputs = getattr(model, "inputs", None)
    if isinstance(inputs, (list, tuple)) and inputs:
        if len(inputs) > 1:
            names = ", ".join(f"{getattr(value, 'name', '?')} {tuple(value.shape)}" for value in inputs)
            raise ValueError(
                f"The classifier takes {len(inputs)} inputs ({names}), and an attack needs one, the images: give a "
                "model of the images alone, with the others inside."
            )
        return tuple(inputs[0].shape), tf.as_dtype(inputs[0].dtype)
    try:
        shape = getattr(model, "input_shape", None)
    except Exception:  # Subclassed models of several versions of Keras raise several kinds.
        return None
    return (shape, tf.float32) if isinstance(shape, tuple) and len(shape) in (2, 3, 4) else None


def _own_shape(
    spec: tuple[tuple[int | None, ...], tf.DType] | None,
    shape: tuple[int, ...] | None,
    image_shape: tuple[int, int, int] | None,
    data_format: str | None,
) -> tuple[int, ...]:
    """Returns the shape of one image as the model takes it."""
    known = None if spec is None else spec[0][1:]
    if known is not None and all(isinstance(side, int) for side in known):
        return tuple(side for side in known if side is not None)
    seen = image_shape or shape
    if seen is None:
        raise ValueError("The shape of the classifier's images is unknown: give image_shape=(height, width, channels).")
    if len(seen) == 3 and data_format == "channels_first" and image_shape is not None:
        seen = (seen[2], seen[0], seen[1])
    if known is not None and len(known) == len(seen):
        return tuple(size if side is None else side for side, size in zip(known, seen, strict=True))
    return tuple(seen)


def _data_format(own: tuple[int, ...], found: Look, shape: tuple[int, ...] | None, given: str | None) -> str | None:
    """Returns the order of the axes; None where there is no choice."""
    if len(own) != 3:
        return given
    shown = {True: "channels_first", False: "channels_last", None: None}[found.channels_first]
    if given is not None:
        if shown not in (None, given):
            raise ValueError(
                f"data_format={given!r} was given, but the first operations of the classifier take images of shape "
                f"{own} as {shown}: leave data_format (--data_format) out."
            )
        return given
    few, fewer = own[0] <= 4, own[0] < min(own[1:])
    if not fewer or not (few or found.channels_first or own[2] > 4):
        # No other reading: images have few channels, and fewer than rows or columns.
        return "channels_last"
    if shown is not None:
        return shown
    if shape is not None and len(shape) == 3 and shape != own and (shape[2], shape[0], shape[1]) == own:
        return "channels_first"
    raise ValueError(
        f"The classifier takes images of shape {own}, channels first or of {own[2]} channels: images must be channels "
        "last, or give data_format='channels_first' (--data_format), as in wasser_tf.Classifier(model, "
        "data_format='channels_first')."
    )


def _layout(
    own: tuple[int, ...],
    shape: tuple[int, ...] | None,
    image_shape: tuple[int, int, int] | None,
    data_format: str | None,
) -> tuple[str, tuple[int, int, int]]:
    """Returns the layout, and (H, W, C)."""
    if len(own) == 3:
        return "image", (own[1], own[2], own[0]) if data_format == "channels_first" else (own[0], own[1], own[2])
    if len(own) == 2:
        return "grey", (own[0], own[1], 1)
    seen = image_shape or (shape if shape is not None and len(shape) == 3 else None)
    if len(own) != 1:
        raise ValueError(f"The classifier must take images, got an input of shape {own} for each.")
    if seen is None:
        raise ValueError(
            f"The classifier takes flattened images of {own[0]} numbers: give image_shape=(height, width, channels), "
            "as in wasser_tf.Classifier(model, image_shape=(28, 28, 1))."
        )
    if math.prod(seen) != own[0]:
        raise ValueError(f"The classifier takes flattened images of {own[0]} numbers, got images of shape {seen}.")
    if seen[2] > 1 and data_format is None:
        raise ValueError(
            f"The classifier takes flattened images of {seen[2]} channels: give data_format='channels_last' or "
            "'channels_first' (--data_format), the order they were flattened in."
        )
    return "flat", (seen[0], seen[1], seen[2])


def _input_range(found: Look, dtype: tf.DType) -> tuple[float, float]:
    """Returns the range of pixels that the first operations are made for; without any it is [0, 1]."""
    if _is_unchanged(found):
        if dtype == tf.uint8:
            return _EIGHT_BIT
        if dtype.is_integer:
            _ask_range(f"takes {dtype.name} pixels")
        if found.hidden:
            _ask_range("uses its images in a branch or function that cannot be looked into")
        return _UNIT
    ranges = [_range_of(step, dtype) for step in found.steps]
    if None in ranges or len(set(ranges)) > 1:
        # The same words for steps that differ in rounding.
        words = dict.fromkeys(
            f"multiplies pixels by {step.factor:.4g} and adds {step.offset:.4g}" for step in found.steps
        )
        _ask_range(f"first {', and elsewhere '.join(words)}")
    return ranges[0] or _UNIT


def _range_of(step: Step, dtype: tf.DType) -> tuple[float, float] | None:
    """Returns the range of pixels that a first step is made for, or None if it is not known."""
    factor, offset = step
    if step.is_none:
        return _EIGHT_BIT if dtype == tf.uint8 else _UNIT
    mean, deviation = -offset / factor, 1 / abs(factor)
    ends = sorted((offset, 255 * factor + offset))
    if any(np.allclose(ends, usual, atol=0.02) for usual in ((0, 1), (-1, 1), (-0.5, 0.5))):
        return _EIGHT_BIT
    # Subtracting a mean, and dividing by a standard deviation, of pixels from 0 to 255.
    if (5 <= deviation <= 128 and 10 <= mean <= 245) or (0.9 <= deviation <= 1.1 and 50 <= mean <= 200):
        return _EIGHT_BIT
    return _UNIT if deviation <= 2 and -1 <= mean <= 2 and not dtype.is_integer else None


def _is_unchanged(found: Look) -> bool:
    return all(step.is_none for step in found.steps)


def _ask_range(what: str) -> NoReturn:
    raise ValueError(
        f"The classifier {what}, so the range of its pixels is not known: give input_range (--input_range), as in "
        "wasser_tf.Classifier(model, input_range=(0, 255))."
    )
