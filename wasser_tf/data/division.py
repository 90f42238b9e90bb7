"""The division of the stored parts of a dataset into train, validation and test, before any image is read."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from wasser_tf.data.dataset import SPLITS, stratified_order


def divide(
    stored: Mapping[str, np.ndarray], splits: Sequence[str], validation_size: int | None, name: str
) -> dict[str, tuple[str, np.ndarray]]:
    """Determines the examples of each split, by the rules of `wasser_tf.data.load`.

    What is not stored is held out of train, with the classes in proportion, as a pure function of the order of the
    stored examples.

    Args:
      stored: The labels, int32 [n], of each stored part: "train", "validation" and "test", or some of them.
      splits: The splits that are wanted.
      validation_size: The number of examples to hold out for validation, instead of 1/12 of train (at most 5,000).
      name: The name of the dataset, for messages.

    Returns:
      For each wanted split the stored part and its rows, ascending, int64 [m].

    Raises:
      ValueError: A wanted split needs a train part and there is none, or nothing remains to train on.
    """
    test_part = next((part for part in ("test", "validation") if part in stored), None)
    own_validation = "validation" in stored and test_part != "validation"
    found = {}
    if "test" in splits and test_part:
        found["test"] = (test_part, np.arange(len(stored[test_part])))
    if "validation" in splits and own_validation:
        found["validation"] = ("validation", np.arange(len(stored["validation"])))
    held = [split for split in splits if split not in found]
    if not held:
        return found
    if "train" not in stored:
        raise ValueError(f"{name} has no train split, only {', '.join(stored)}: load it with splits=('test',).")
    count = len(stored["train"])
    validation_count = 0 if own_validation else validation_size or min(count // 12, 5000)
    test_count = 0 if test_part else min(count // 6, 10000)
    train_count = count - validation_count - test_count
    if train_count < 1:
        raise ValueError(
            f"validation_size must leave examples to train on, got {validation_count} of the {count - test_count} in "
            f"{name}: choose a smaller number."
        )
    cuts = np.split(stratified_order(stored["train"]), [train_count, train_count + validation_count])
    rows = {split: np.sort(cut) for split, cut in zip(SPLITS, cuts, strict=True)}
    return found | {split: ("train", rows[split]) for split in held}


def check_classes(
    stored: Mapping[str, np.ndarray],
    divided: Mapping[str, tuple[str, np.ndarray]],
    class_names: Sequence[str],
    name: str,
) -> None:
    """Checks that every class can be learned, and warns of classes that a stored test or validation part lacks.

    Args:
      stored: As for `divide`.
      divided: Its result.
      class_names: The names of the classes.
      name: The name of the dataset, for messages.

    Raises:
      ValueError: A class of another part has no training image, or train is wanted and lacks a class.
    """
    if "train" in stored:
        trained = set(stored["train"].tolist())
        for part, labels in stored.items():
            if unknown := sorted(set(labels.tolist()) - trained):
                raise ValueError(
                    f"{_listed(class_names, unknown)} of the {part} split of {name} has no training image: add some, "
                    f"or remove the class from the {part} split."
                )
    for split, (part, rows) in divided.items():
        missing = sorted(set(range(len(class_names))) - set(stored[part][rows].tolist()))
        if missing and split == "train":
            raise ValueError(
                f"{_listed(class_names, missing)} has no image in the train split of {name}: add some, or leave the "
                "class out."
            )
        # A few images that are held out of train cannot have every class.
        if missing and part != "train":
            warnings.warn(f"{_listed(class_names, missing)} has no image in the {split} split of {name}.", stacklevel=3)


def _listed(class_names: Sequence[str], labels: Sequence[int]) -> str:
    """Returns "class cat" or "class cat, dog and 3 more"."""
    shown = ", ".join(class_names[label] for label in labels[:5])
    return f"class {shown}" + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
