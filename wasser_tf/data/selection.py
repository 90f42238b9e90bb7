"""Selection of the images to attack: a split of a dataset, and a part of it by count, positions or another order."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from wasser_tf import data
from wasser_tf.data import streaming
from wasser_tf.runtime import storage
from wasser_tf.runtime.arguments import as_path, first_line, is_whole


class Selection(NamedTuple):
    """Selected images of a split.

    Attributes:
      name: The name of the dataset and the split, such as "mnist test".
      index: The position of each image in the split as loaded, int32 [n].
      images: The images, float32 [n, H, W, C] in [0, 1], possibly `streaming.StreamedImages`.
      labels: The classes, int32 [n].
      class_names: The names of the classes, or None.
      digest: The digest of the dataset, see `wasser_tf.data.Dataset`.
    """

    name: str
    index: np.ndarray  # type: ignore[assignment]  # It hides tuple.index, which is not used.
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] | None
    digest: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSource:
    """The source of the images to attack.

    Attributes:
      dataset: The name of the dataset, as in `wasser_tf.data.load`.
      data_dir: The folder of prepared datasets, as in `wasser_tf.data.load`.
      download: Whether to download a dataset that is not in the folder.
      split: "train", "validation" or "test".
      num_examples: The number of images, the first ones, or None for all.
      indices: The file of the positions in the split to select, in that order, or None.
      original_index: The file with the number of each image of the split in another order, which the selection then
        follows, or None.
      reading: The size, cropping, channels and classes of the images, and the treatment of bad files.

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
    reading: data.ReadingOptions = data.ReadingOptions()

    def __post_init__(self) -> None:
        if self.split not in data.SPLITS:
            raise ValueError(f"split must be one of {', '.join(data.SPLITS)}, got {self.split!r}.")
        if self.num_examples is not None and not is_whole(self.num_examples, 1):
            raise ValueError(f"num_examples must be a whole number of at least 1, or None, got {self.num_examples!r}.")
        if self.indices is not None and self.original_index is not None:
            raise ValueError(
                "indices and original_index both determine the order of the images: give only one of them."
            )

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as plain Python values; `reading` only if it differs from its defaults."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        reading = values.pop("reading").to_json()
        return {**values, "reading": reading} if reading else values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ImageSource":
        """Returns the source of which `to_json` returned the values.

        Raises:
          ValueError: A value is out of its range.
          TypeError: A field is unknown.
        """
        return cls(**{**values, "reading": data.ReadingOptions(**values.get("reading", {}))})

    def load(self) -> Selection:
        """Loads the images.

        Raises:
          ValueError: The dataset or a file is missing or unreadable, or the selection exceeds the split.
        """
        # Files first, so that errors in them are reported before a large set is read.
        positions = None if self.indices is None else read_positions(self.indices)
        numbers = None if self.original_index is None else read_positions(self.original_index)
        dataset = data.load(
            self.dataset,
            data_dir=self.data_dir,
            download=self.download,
            splits=(self.split,),
            **dataclasses.asdict(self.reading),
        )
        split: data.Split = getattr(dataset, self.split)
        count = len(split.labels)
        if count == 0:
            raise ValueError(f"{self.dataset} has no examples in its {self.split} split: choose another split.")
        order = np.arange(count)
        if positions is not None:
            if positions.max() >= count:
                raise ValueError(
                    f"{self.indices} must hold positions from 0 to {count - 1}, because the {self.split} split of "
                    f"{self.dataset} has {count} examples, got {positions.max()}."
                )
            order = positions
        if numbers is not None:
            if len(numbers) != count or len(np.unique(numbers)) != count:
                raise ValueError(
                    f"{self.original_index} must hold a different number for each of the {count} examples of the "
                    f"{self.split} split of {self.dataset}, got {len(numbers)} numbers, of which "
                    f"{len(np.unique(numbers))} differ."
                )
            order = np.argsort(numbers)
        if self.num_examples is not None:
            if self.num_examples > len(order):
                raise ValueError(
                    f"num_examples must be at most the number of examples, {len(order)}, got {self.num_examples}."
                )
            order = order[: self.num_examples]
        name = f"{self.dataset} {self.split}"
        return Selection(
            name,
            order.astype(np.int32),
            streaming.select_images(split.images, order),
            split.labels[order],
            dataset.class_names,
            dataset.digest,
        )


def read_positions(path: str) -> np.ndarray:
    """Reads whole numbers of at least 0 from a file, int64 [n].

    Args:
      path: A .npy file of one integer array [n], or a text file of numbers that are separated by spaces, commas or line
        breaks, with comments after #.

    Raises:
      ValueError: The file is missing, unreadable or empty, or has other content.
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
            f"{path} is not a list of positions ({first_line(error)}): give a .npy file of one integer array, or text."
        ) from error
    if numbers.ndim != 1 or not numbers.size or not np.issubdtype(numbers.dtype, np.integer) or numbers.min() < 0:
        raise ValueError(
            f"{path} must hold a list of whole numbers of at least 0, got {numbers.dtype} of shape {numbers.shape}"
            + (f" with the number {numbers.min()}." if numbers.size and numbers.dtype.kind in "if" else ".")
        )
    return numbers.astype(np.int64)
