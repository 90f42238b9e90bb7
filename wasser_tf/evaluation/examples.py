"""Adversarial examples in files: one .npz of named arrays, an entry for each image in every array."""

import os
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from wasser_tf.attacks import AttackResult
from wasser_tf.evaluation.metrics import Predictions
from wasser_tf.runtime import storage
from wasser_tf.runtime.arguments import first_line
from wasser_tf.transport.feasibility import Feasibility

# The radius is the same for the feasible and the raw example, so it is stored once.
_CERTIFICATE = tuple(field for field in Feasibility._fields if field != "radius")


class Examples(NamedTuple):
    """Attacked images: which they are, what the attack made of them, and what the classifier says of the clean ones.

    Attributes:
      index: Position in the split as loaded, int32 [n].
      images: The clean images, float32 [n, H, W, C].
      labels: Their classes, int32 [n].
      clean: The classifier's predictions for them.
      result: The attack's result, as arrays.
    """

    index: np.ndarray  # type: ignore[assignment]  # It hides tuple.index, which no one needs here.
    images: np.ndarray
    labels: np.ndarray
    clean: Predictions
    result: AttackResult

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns the named arrays of the file.

        index, image, label, adversarial, success, loss, radius, iterations, cost and the other fields of the
        feasibility record; raw, raw_success, raw_loss, raw_cost and so on for what the attack made before it was feasible;
        flagged, clean_prediction and clean_loss. An image that is misclassified clean is a success, raw_success too.
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
            **{name: getattr(result.feasibility, name) for name in _CERTIFICATE},
            "raw": result.raw,
            "raw_success": result.raw_success | wrong,
            "raw_loss": result.raw_loss,
            "flagged": result.flagged,
            **{f"raw_{name}": getattr(result.raw_feasibility, name) for name in _CERTIFICATE},
            "clean_prediction": self.clean.predicted,
            "clean_loss": self.clean.loss,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Examples":
        """Makes the examples that `to_arrays` described."""
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
                # Files of older versions have none.
                flagged=arrays.get("flagged", np.zeros_like(arrays["success"])),
            ),
        )


def write_examples(path: str | os.PathLike[str], examples: Examples, **extra: Any) -> None:
    """Writes examples to an .npz file, whole or not at all; `extra` arrays go beside them."""
    with storage.atomic_path(path) as beside:
        np.savez_compressed(beside, allow_pickle=False, **{**examples.to_arrays(), **extra})


def read_examples(path: str | os.PathLike[str]) -> tuple[Examples, dict[str, np.ndarray]]:
    """Reads examples, and whatever else is in their file.

    Raises:
      ValueError: The file is missing, unreadable, or lacks an array.
    """
    try:
        arrays = storage.read_arrays(path)
        examples = Examples.from_arrays(arrays)
    except KeyError as error:
        raise ValueError(f"{path} has no array {error}: give a file of adversarial examples.") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({first_line(error)}): delete it and make it again.") from error
    known = examples.to_arrays()
    return examples, {name: array for name, array in arrays.items() if name not in known}


def concatenate(parts: list[Examples]) -> Examples:
    """Joins examples of the same attack."""
    return tf.nest.map_structure(lambda *fields: np.concatenate(fields), *parts)


def first(whole: Examples, count: int) -> Examples:
    """Returns the first few examples."""
    return tf.nest.map_structure(lambda field: field[:count], whole)


def take(whole: Examples, rows: np.ndarray) -> Examples:
    """Returns the examples at these places, rising; of images, where only the first few are kept, those that are."""
    return tf.nest.map_structure(lambda field: field[rows[rows < len(field)]], whole)


def keep_images(whole: Examples, count: int) -> Examples:
    """Returns all examples, but the images of the first few only; scores and worst cases need no others."""
    if count >= len(whole.labels):
        return whole
    # Copies, for a view would keep all of them.
    images, adversarial, raw = (
        array[:count].copy() for array in (whole.images, whole.result.adversarial, whole.result.raw)
    )
    return whole._replace(images=images, result=whole.result._replace(adversarial=adversarial, raw=raw))


def _feasibility(arrays: dict[str, np.ndarray], prefix: str) -> Feasibility:
    return Feasibility(radius=arrays["radius"], **{name: arrays[prefix + name] for name in _CERTIFICATE})
