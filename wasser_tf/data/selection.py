"""Which images are attacked: a dataset's split, and a part of it by count, by positions or in another order."""

import dataclasses
from typing import NamedTuple

import numpy as np

from wasser_tf import data
from wasser_tf.runtime import storage
from wasser_tf.runtime.arguments import as_path, first_line, is_whole


class Selection(NamedTuple):
    """Some images of a split.

    Attributes:
      name: What they are called, such as "mnist test".
      index: Position of each in the split as loaded, int32 [n].
      images: float32 [n, H, W, C] in [0, 1].
      labels: int32 [n].
      class_names: Names of the classes, or None.
    """

    name: str
    index: np.ndarray  # type: ignore[assignment]  # It hides tuple.index, which no one needs here.
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Where the images come from.

    Attributes:
      dataset: See `wasser_tf.data.load`, as for the next two.
      data_dir: The folder of prepared sets.
      download: Whether to fetch a set that is not there.
      split: "train", "validation" or "test".
      num_examples: How many images to take, the first ones; None for all.
      indices: File of the positions in the split to take, in that order.
      original_index: File that gives each image of the split, as loaded, its number in another order; images are then
        taken in that order.

    Raises:
      ValueError: A field is out of its range, or both files are given.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    download: bool = False
    split: str = "test"
    num_examples: int | None = None
    indices: str | None = None
    original_index: str | None = None

    def __post_init__(self) -> None:
        if self.split not in data.SPLITS:
            raise ValueError(f"split must be one of {', '.join(data.SPLITS)}, got {self.split!r}.")
        if self.num_examples is not None and not is_whole(self.num_examples, 1):
            raise ValueError(f"num_examples must be a whole number of at least 1, or None, got {self.num_examples!r}.")
        if self.indices is not None and self.original_index is not None:
            raise ValueError("indices and original_index both choose the order of the images: give one of them.")

    def load(self) -> Selection:
        """Loads the images.

        Raises:
          ValueError: The dataset or a file is missing or unreadable, or asks for images that are not there.
        """
        # Files first: a mistake in them is told before a large set is read.
        positions = None if self.indices is None else read_positions(self.indices)
        numbers = None if self.original_index is None else read_positions(self.original_index)
        dataset = data.load(self.dataset, data_dir=self.data_dir, download=self.download, splits=(self.split,))
        split: data.Split = getattr(dataset, self.split)
        count = len(split.labels)
        if count == 0:
            raise ValueError(f"{self.dataset} has no examples in its {self.split} split: choose another split.")
        order = np.arange(count)
        if positions is not None:
            if positions.max() >= count:
                raise ValueError(
                    f"{self.indices} asks for position {positions.max()}, but the {self.split} split of {self.dataset} "
                    f"has {count} examples, 0 to {count - 1}."
                )
            order = positions
        if numbers is not None:
            if len(numbers) != count or len(np.unique(numbers)) != count:
                raise ValueError(
                    f"{self.original_index} must number each of the {count} examples of the {self.split} split of "
                    f"{self.dataset} differently, got {len(numbers)} numbers, {len(np.unique(numbers))} different."
                )
            order = np.argsort(numbers)
        if self.num_examples is not None:
            if self.num_examples > len(order):
                raise ValueError(
                    f"num_examples must be at most the {len(order)} examples there are, got {self.num_examples}."
                )
            order = order[: self.num_examples]
        name = f"{self.dataset} {self.split}"
        return Selection(name, order.astype(np.int32), split.images[order], split.labels[order], dataset.class_names)


def read_positions(path: str) -> np.ndarray:
    """Reads whole numbers of at least 0 from a file, int64 [n].

    Args:
      path: A .npy file of one integer array, or text: numbers apart by spaces, commas or lines; # begins a comment.

    Raises:
      ValueError: The file is missing, unreadable, empty, or holds something else.
    """
    file = as_path("The file of positions", path)
    try:
        if file.suffix == ".npy":
            numbers = storage.read_array(file)
        else:
            lines = [line.partition("#")[0] for line in file.read_text(encoding="utf-8").splitlines()]
            numbers = np.array([int(word) for line in lines for word in line.replace(",", " ").split()], np.int64)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror or first_line(error)}): give a file of positions."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{path} holds no list of positions ({first_line(error)}): give a .npy file of one integer array, or text."
        ) from error
    if numbers.ndim != 1 or not numbers.size or not np.issubdtype(numbers.dtype, np.integer) or numbers.min() < 0:
        raise ValueError(
            f"{path} must hold a list of whole numbers of at least 0, got {numbers.dtype} of shape {numbers.shape}"
            + (f" with {numbers.min()} in it." if numbers.size and numbers.dtype.kind in "if" else ".")
        )
    return numbers.astype(np.int64)
