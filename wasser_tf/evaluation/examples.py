"""Adversarial examples as arrays and in .npz files; wasser_tf/evaluation/stored_examples.py has the smaller files."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from wasser_tf.attacks import AttackResult
from wasser_tf.evaluation import stored_examples
from wasser_tf.evaluation.metrics import Predictions
from wasser_tf.runtime import storage
from wasser_tf.runtime.arguments import first_line
from wasser_tf.transport.feasibility import Feasibility

# Without the radius, which is the same for the feasible and the raw example and is stored once.
_FEASIBILITY_FIELDS = tuple(field for field in Feasibility._fields if field != "radius")


class Examples(NamedTuple):
    """Attacked images with the attack's result and the classifier's predictions on the clean images.

    Attributes:
      index: Positions in the split as loaded, int32 [n].
      images: The clean images, float32 [n, H, W, C].
      labels: The classes of the images, int32 [n].
      clean: The predictions on the clean images.
      result: The attack's result, as arrays.
    """

    index: np.ndarray  # type: ignore[assignment]  # It hides tuple.index, which is not needed here.
    images: np.ndarray
    labels: np.ndarray
    clean: Predictions
    result: AttackResult

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns the named arrays of the file.

        Each array has one entry per image: index, image, label, adversarial, success, loss, radius, iterations, and
        cost and the other fields of the feasibility record; raw, raw_success, raw_loss, raw_cost and so on for the
        examples before rounding; flagged, clean_prediction and clean_loss. An image that is misclassified clean counts
        as a success, also in raw_success.
        """
        result, wrong = self.result, self.clean.wrong
        return {
            "index": self.index,
            "image": self.images,
            "label": self.labels,
            "adversarial": result.adversarial,
            "success": result.success | wrong,
            "loss": result.loss,
            "radius": result.radius,
            "iterations": result.iterations,
            **{name: getattr(result.feasibility, name) for name in _FEASIBILITY_FIELDS},
            "raw": result.raw,
            "raw_success": result.raw_success | wrong,
            "raw_loss": result.raw_loss,
            "flagged": result.flagged,
            **{f"raw_{name}": getattr(result.raw_feasibility, name) for name in _FEASIBILITY_FIELDS},
            "clean_prediction": self.clean.predicted,
            "clean_loss": self.clean.loss,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Examples":
        """Makes examples from the arrays of `to_arrays`.

        Raises:
          KeyError: An array is missing.
        """
        predicted, labels = arrays["clean_prediction"], arrays["label"]
        return cls(
            index=arrays["index"],
            images=arrays["image"],
            labels=labels,
            clean=Predictions(predicted, predicted != labels, arrays["clean_loss"]),
            result=AttackResult(
                adversarial=arrays["adversarial"],
                feasibility=_feasibility(arrays, ""),
                success=arrays["success"],
                loss=arrays["loss"],
                radius=arrays["radius"],
                iterations=arrays["iterations"],
                raw=arrays["raw"],
                raw_feasibility=_feasibility(arrays, "raw_"),
                raw_success=arrays["raw_success"],
                raw_loss=arrays["raw_loss"],
                # Files of older versions lack this array.
                flagged=arrays.get("flagged", np.zeros_like(arrays["success"])),
            ),
        )


def write_examples(path: str | os.PathLike[str], examples: Examples, stored: str = "float32", **extra: Any) -> None:
    """Writes examples to an .npz file, atomically.

    Args:
      path: The file to write.
      examples: The examples.
      stored: The form of the images, one of `stored_examples.STORED`.
      **extra: More arrays to store in the file.

    Raises:
      OSError: The file cannot be written.
    """
    with storage.atomic_path(path) as beside:
        arrays = stored_examples.pack(examples.to_arrays(), stored)
        np.savez_compressed(beside, allow_pickle=False, **{**arrays, **extra})


def read_examples(
    path: str | os.PathLike[str],
    clean: Callable[[int], np.ndarray] | None = None,
    images: int | None = None,
    exact: bool = False,
) -> tuple[Examples, dict[str, np.ndarray]]:
    """Reads examples from an .npz file.

    Args:
      path: A file written by `write_examples`.
      clean: Returns the first clean images of the file, for a file of changes. Without it, the images of such a file
        are left out.
      images: The number of examples whose images are kept, counted from the first; None for all.
      exact: Whether the images must be those that were scored.

    Returns:
      The examples, and the other arrays in the file by name.

    Raises:
      ValueError: The file is missing or unreadable, or an array is missing from it.
    """
    try:
        arrays = storage.read_arrays(path)
        if exact:
            stored_examples.check_exact(arrays)
        arrays = stored_examples.unpack(arrays, clean, images)
        examples = Examples.from_arrays(arrays)
    except KeyError as error:
        raise ValueError(f"{path} has no array {error}: give a file of adversarial examples.") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({first_line(error)}): delete it and run the attack again.") from error
    known = examples.to_arrays()
    if images is not None:
        examples = keep_images(examples, images)
    return examples, {name: array for name, array in arrays.items() if name not in known}


def concatenate(parts: list[Examples]) -> Examples:
    """Concatenates examples of the same attack along the first axis."""
    return tf.nest.map_structure(lambda *fields: np.concatenate(fields), *parts)


def first(whole: Examples, count: int) -> Examples:
    """Returns the first `count` examples."""
    return tf.nest.map_structure(lambda field: field[:count], whole)


def take(whole: Examples, rows: np.ndarray) -> Examples:
    """Returns the examples at some positions.

    Args:
      whole: The examples, n of them; their images may be kept for the first few only, see `keep_images`.
      rows: The positions, in ascending order, [m].

    Returns:
      The m examples, with the images of those whose images are kept.
    """
    return tf.nest.map_structure(lambda field: field[rows[rows < len(field)]], whole)


def keep_images(whole: Examples, count: int) -> Examples:
    """Returns all examples, with the images of the first `count` only, to save memory.

    Scores and worst cases do not need the images.
    """
    if count >= len(whole.images):
        return whole
    # Copies, because a view would keep the whole arrays in memory.
    images, adversarial, raw = (
        array[:count].copy() for array in (whole.images, whole.result.adversarial, whole.result.raw)
    )
    return whole._replace(images=images, result=whole.result._replace(adversarial=adversarial, raw=raw))


def _feasibility(arrays: dict[str, np.ndarray], prefix: str) -> Feasibility:
    return Feasibility(radius=arrays["radius"], **{name: arrays[prefix + name] for name in _FEASIBILITY_FIELDS})
