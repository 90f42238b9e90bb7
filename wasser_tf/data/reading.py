"""The options for reading images: their size, cropping, channels and classes, and the treatment of bad files."""

import dataclasses
from typing import Any

from wasser_tf.runtime.arguments import check_one_of, is_whole

CROPS = ("none", "center", "random")
BAD_FILES = ("refuse", "skip")
STREAMING = ("auto", "always", "never")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How images are read, the same for every kind of dataset.

    Attributes:
      image_size: The height and width of the images, or None to keep their size, which must then be the same for all.
      crop: How an image of another aspect ratio gets that size. "none" resizes it, which changes the ratio. "center"
        resizes it to the smallest size that covers `image_size` and keeps the ratio, then takes the window in the
        centre. "random" does the same for validation and test images, but takes a random window of each training
        image, which is the same in every epoch and in every run.
      channels: 1 for greyscale, 3 for colour, or None for that of the dataset. A folder is read in colour if any of its
        images has colours.
      class_names: The names of the classes, in the order of the labels, or None for those of the dataset. For a folder
        these are the names of class folders; otherwise they replace the names of the dataset.
      bad_files: The treatment of files of a folder that are not readable PNG or JPEG images in a class folder: "refuse"
        raises an error that names and counts them, "skip" leaves them out with a warning.
      streaming: "always" reads the images of a folder or of tensorflow-datasets as they are needed, "never" holds them
        in memory. "auto" streams a set that would take more than half of the available memory. The images are the same.

    Raises:
      ValueError: A field is out of its range.

    Example:
    >>> ReadingOptions(image_size=(64, 64), crop="center", channels=3).to_json()
    {'image_size': [64, 64], 'crop': 'center', 'channels': 3}
    """

    image_size: tuple[int, int] | None = None
    crop: str = "none"
    channels: int | None = None
    class_names: tuple[str, ...] | None = None
    bad_files: str = "refuse"
    streaming: str = "auto"

    def __post_init__(self) -> None:
        size = self.image_size
        if size is not None:
            pair = isinstance(size, (tuple, list)) and len(size) == 2
            if not pair or not all(is_whole(side, 1) for side in size):
                raise ValueError(f"image_size must be two whole numbers, height and width, got {size!r}.")
            object.__setattr__(self, "image_size", (int(size[0]), int(size[1])))
        check_one_of("crop", self.crop, CROPS)
        if self.crop != "none" and size is None:
            raise ValueError(f"crop={self.crop} needs the size of the crop: give image_size=(height, width) as well.")
        check_one_of("channels", self.channels, (None, 1, 3))
        check_one_of("bad_files", self.bad_files, BAD_FILES)
        check_one_of("streaming", self.streaming, STREAMING)
        names = self.class_names
        if names is not None:
            if not isinstance(names, (tuple, list)) or not all(isinstance(name, str) and name for name in names):
                raise ValueError(f"class_names must be a list of names that are not empty, got {names!r}.")
            if len(names) < 2 or len(set(names)) < len(names):
                raise ValueError(f"class_names must be at least two different names, got {', '.join(names)}.")
            object.__setattr__(self, "class_names", tuple(names))

    def to_json(self) -> dict[str, Any]:
        """Returns the fields that determine the images and differ from their defaults, as plain Python values."""
        values = {field.name: (getattr(self, field.name), field.default) for field in dataclasses.fields(self)}
        # The images are the same.
        values.pop("streaming")
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, (value, default) in values.items()
            if value != default
        }
