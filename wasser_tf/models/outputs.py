"""Which output of a classifier holds the classes, and what it is: logits, probabilities or one sigmoid unit."""

from typing import Any

import numpy as np

from wasser_tf.models.probe import Look, Output

# Last operations whose values may be of any size: what they return are logits, even where a few lie in [0, 1].
_UNBOUNDED = ("BiasAdd", "MatMul", "BatchMatMulV2", "Einsum", "Add", "AddV2", "AddN", "Sub", "Mul", "Relu", "Mean")


def choose_output(found: Look, given: str | int | None) -> Output:
    """Returns the output with the classes."""
    if not found.outputs:
        raise ValueError("The classifier returns no outputs: it must return [n, classes], logits or probabilities.")
    if given is None and len(found.outputs) == 1:
        return _checked(found.outputs[0], found.num_images)
    for place, candidate in enumerate(found.outputs):
        if given is not None and given in (candidate.name, candidate.key, place, str(place)):
            return _checked(candidate, found.num_images)
    names = ", ".join(f"{one.name} {['n', *one.values.shape[1:]]}".replace("'", "") for one in found.outputs)
    raise ValueError(
        f"The classifier has {len(found.outputs)} output{'s' if len(found.outputs) > 1 else ''}: {names}"
        + (f", and none is {given!r}" if given is not None else "")
        + ": choose the one with the classes by output (--output), as in wasser_tf.Classifier(model, "
        f"output={found.outputs[0].name!r})."
    )


def _checked(output: Output, num_images: int) -> Output:
    values = output.values
    if values.ndim not in (1, 2) or len(values) != num_images or (values.ndim == 2 and values.shape[1] < 1):
        raise ValueError(
            f"The classifier must return [n, classes] with at least 2 classes, or [n, 1], got {values.shape} for "
            f"{num_images} images: return one row for each image."
        )
    if not (np.issubdtype(values.dtype, np.floating) or np.issubdtype(values.dtype, np.integer)):
        # What TensorFlow has and NumPy has not, such as bfloat16, is of kind V.
        if values.dtype.kind != "V":
            raise ValueError(
                f"The classifier must return numbers, got {values.dtype}: return logits or probabilities, [n, classes]."
            )
    elif np.issubdtype(values.dtype, np.integer) and (values.ndim == 1 or values.shape[1] == 1):
        raise ValueError(
            f"The classifier returns one {values.dtype} for each image, the number of a class: return logits or "
            "probabilities, [n, classes]; classes alone have no gradients."
        )
    return output


def what_is_returned(model: Any, output: Output, given: str | None) -> str:
    """Returns what an output is, "logits", "probabilities" or "sigmoid"."""
    units = output.values.shape[1] if output.values.ndim == 2 else 1
    activation = output.activation
    declared = getattr(model, "from_logits", None)
    told = given
    if told is None and declared is not None:
        told = "logits" if declared else "probabilities"
    if units == 1 and told == "probabilities":
        told = "sigmoid"
    if told == "sigmoid" and units > 1:
        raise ValueError(f"returns='sigmoid' is for one unit, and the classifier returns {units}.")
    if told == "logits" and activation in ("softmax", "sigmoid"):
        raise ValueError(
            f"The classifier returns probabilities, the outputs of a {activation}, where logits were announced: leave "
            "from_logits (or returns) out, or give from_logits=False."
        )
    if told in ("probabilities", "sigmoid"):
        check_probabilities(output.values, told)
        return told
    if told is not None:
        return told
    if units == 1:
        return _of_one_unit(output)
    if activation in ("softmax", "sigmoid"):
        if activation == "sigmoid":
            raise ValueError(
                f"The classifier returns {units} sigmoid units, whose probabilities do not add up to 1: give it a "
                "softmax or no activation, so that it returns logits."
            )
        return "probabilities"
    if activation == "log_softmax":
        return "logits"
    within = bool((output.values >= 0).all() and (output.values <= 1).all())
    if within and _sums_to_one(output.values):
        return "probabilities"
    if within and output.operation and (output.mixed or output.operation not in _UNBOUNDED):
        raise ValueError(
            f"The classifier returns values in [0, 1] that do not add up to 1 (last operation {output.operation}), "
            "neither probabilities nor known logits: give returns='logits' (--returns) if they are scores."
        )
    return "logits"


def _of_one_unit(output: Output) -> str:
    if output.activation == "sigmoid":
        return "sigmoid"
    within = bool((output.values >= 0).all() and (output.values <= 1).all())
    if not within or (output.operation in _UNBOUNDED and not output.mixed):
        return "logits"
    raise ValueError(
        "The classifier returns one number for each image: give returns='sigmoid' if it is the probability of class 1, "
        "or returns='logits' if it is its logit (--returns)."
    )


def check_probabilities(values: np.ndarray, kind: str = "probabilities") -> None:
    """Checks outputs that were announced as probabilities.

    Args:
      values: Outputs of a few images, [n, classes], or of one unit.
      kind: "probabilities" or "sigmoid".

    Raises:
      ValueError: Some are negative or above 1, or they do not add up to 1.
    """
    if not np.isfinite(values).all():
        return
    outside = bool((values < 0).any() or (values > 1 + 1e-2).any())
    if outside or (kind == "probabilities" and not _sums_to_one(values)):
        sums = "" if kind == "sigmoid" or outside else f", whose sums reach from {values.sum(1).min():.4g} to "
        sums += f"{values.sum(1).max():.4g}" if sums else ""
        raise ValueError(
            f"The classifier's outputs are no probabilities: they reach from {values.min():.4g} to {values.max():.4g}"
            f"{sums}; if they are logits, give from_logits=True (or returns='logits', --returns=logits)."
        )


def _sums_to_one(values: np.ndarray) -> bool:
    return values.ndim == 2 and bool(np.allclose(values.sum(axis=1), 1, atol=1e-2))
