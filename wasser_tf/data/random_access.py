"""Sets of tensorflow-datasets whose images are read as they are needed, through files with random access."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from wasser_tf.data.dataset import Split
from wasser_tf.data.reading import ReadingOptions
from wasser_tf.data.sizing import fit, places_of, with_channels
from wasser_tf.data.streaming import StreamedImages
from wasser_tf.runtime.arguments import first_line

FORMAT = "array_record"
# Records that are read at a time for their labels.
_BATCH = 256


def has_random_access(builder: Any) -> bool:
    """Returns whether the files of a prepared set can be read in any order."""
    return bool(builder.info.available_file_formats() & tfds.core.file_adapters.FileFormat.with_random_access())


def refuse_sequential(name: str) -> None:
    """Raises an error about a set whose files can only be read from their beginning.

    Raises:
      ValueError: Always.
    """
    raise ValueError(
        f"{name} is to be streamed, and its files have no random access: prepare it in another folder by "
        f"`tfds build {name} --file_format={FORMAT} --data_dir=FOLDER`, or by --download --streaming=always, and give "
        "--data_dir=FOLDER."
    )


def stream_split(
    builder: Any,
    name: str,
    source: str,
    keys: tuple[str, str],
    shape: tuple[int, int, int],
    reading: ReadingOptions,
    training: bool,
) -> Split:
    """Returns a stored split in its order, whose images are read as they are needed.

    All records are read once for their labels.

    Args:
      builder: The builder of a prepared set with random access.
      name: The name of the set, for messages.
      source: The stored split.
      keys: The names of the features with image and label.
      shape: The shape of the images before channels change.
      reading: The size, crop and channels.
      training: Whether these are training images, of which crop="random" takes random windows.

    Raises:
      ValueError: The split cannot be read, or an example has no label.
    """
    image_key, label_key = keys
    features = builder.info.features
    # Images stay encoded, and are decoded by TensorFlow as those in memory are.
    records = builder.as_data_source(split=source, decoders={image_key: tfds.decode.SkipDecoding()})
    count = len(records)
    places = places_of(count, reading.crop if training else "none")
    dtype = np.dtype(features[image_key].np_dtype)
    scale = np.float32(np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1)
    resize = tuple(features[image_key].shape[:2]) != tuple(shape[:2])

    def read(row: int) -> np.ndarray:
        with tf.device("CPU:0"):
            image = features[image_key].decode_example(records[row][image_key])
            values = (fit(image, shape[:2], reading.crop, places[row]) if resize else image).numpy() / scale
        values = np.clip(values, 0, 1) if resize else values
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"The {dtype} images of {name} must lie in [0, 1], got {values.min()} to {values.max()}.")
        return with_channels(values.astype(np.float32), reading.channels)

    try:
        labels = np.fromiter(_labels(records, label_key), np.int32, count)
    except Exception as error:  # array_record has its own.
        raise ValueError(f"The {source} split of {name} cannot be read ({first_line(error)}).") from error
    if count and not (labels.min() >= 0 and labels.max() < features[label_key].num_classes):
        raise ValueError(f"The {source} split of {name} has examples without a label: leave it out of splits=(...).")
    images = StreamedImages(read, np.arange(count), (*shape[:2], reading.channels or shape[2]))
    return Split(images, labels, np.arange(count, dtype=np.int32))  # type: ignore[arg-type]


def _labels(records: Any, key: str) -> Iterator[int]:
    for start in range(0, len(records), _BATCH):
        for record in records.__getitems__(range(start, min(start + _BATCH, len(records)))):
            yield int(record[key])
