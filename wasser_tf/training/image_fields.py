"""The fields of `TrainConfig` that determine the images."""

import dataclasses
from typing import Any

from wasser_tf import data
from wasser_tf.data import ReadingOptions
from wasser_tf.data.reading import BAD_FILES, CROPS, STREAMING
from wasser_tf.training.field_checks import whole_or_none
from wasser_tf.training.setting import setting

READING = tuple(field.name for field in dataclasses.fields(ReadingOptions))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFields:
    """The dataset of a training run and how it is read."""

    dataset: str = setting("Name of the dataset or its path, as in `wasser_tf.data.load`.", "digits")
    data_dir: str | None = setting("Folder of the prepared datasets, as in `wasser_tf.data.load`.", None)
    download: bool = setting("Whether to download a dataset that is not in the folder.", False)
    image_size: tuple[int, int] | None = setting("Height and width of the images (default: their own).", None)
    crop: str = setting(
        "Way to give images of another aspect ratio that size, as in `wasser_tf.data.ReadingOptions`.",
        "none",
        choices=CROPS,
    )
    channels: int | None = setting("Channels of the images, 1 or 3 (default: those of the dataset).", None)
    class_names: tuple[str, ...] | None = setting(
        "Names of the classes, in the order of the labels (default: those of the dataset).", None
    )
    bad_files: str = setting(
        "Treatment of unreadable and other files in a folder of images: refuse or skip.", "refuse", choices=BAD_FILES
    )
    streaming: str = setting(
        "Whether images are read from files as they are needed: always, never, or auto: if the set would take more "
        "than half of the available memory.",
        "auto",
        choices=STREAMING,
    )
    validation_size: int | None = setting(
        "Number of training images held out for validation (default: a twelfth, at most 5000; 200 of the digits).",
        None,
        check=whole_or_none,
    )

    @property
    def reading(self) -> ReadingOptions:
        """The options for reading the images."""
        return ReadingOptions(**{name: getattr(self, name) for name in READING})

    def load_images(self) -> data.Dataset:
        """Loads the dataset.

        Raises:
          ValueError: It is missing or unreadable, see `wasser_tf.data.load`.
        """
        return data.load(
            self.dataset,
            data_dir=self.data_dir,
            download=self.download,
            validation_size=self.validation_size,
            **vars(self.reading),
        )

    def normalize_reading(self) -> None:
        """Checks the fields of `reading`, and replaces lists by tuples.

        Raises:
          ValueError: A field is out of its range.
        """
        for name, value in vars(self.reading).items():
            object.__setattr__(self, name, value)

    def plain_lists(self) -> dict[str, Any]:
        """Returns the fields that are tuples as lists, as they are read back from JSON."""
        values = {name: getattr(self, name) for name in ("image_size", "class_names")}
        return {name: None if value is None else list(value) for name, value in values.items()}
