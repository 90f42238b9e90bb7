"""Reads a folder of images, into memory or as a stream, for `wasser_tf.data.load`."""

import gc
import hashlib
import json
import multiprocessing.pool
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from wasser_tf.data.dataset import SPLITS, STREAMED, Dataset, Split, no_examples
from wasser_tf.data.decode import Header, decode_image, read_header
from wasser_tf.data.division import check_classes, divide
from wasser_tf.data.folder import ImageFile, Listing, list_folder
from wasser_tf.data.reading import ReadingOptions
from wasser_tf.data.sizing import fit, places_of, with_channels
from wasser_tf.data.streaming import StreamedImages, is_to_stream
from wasser_tf.runtime.arguments import first_line

# The number of files that messages name.
_NAMED = 10


def load_folder(
    root: pathlib.Path,
    name: str,
    splits: Sequence[str],
    validation_size: int | None,
    reading: ReadingOptions,
) -> Dataset:
    """Loads a folder of images; `wasser_tf.data.load` checks the arguments.

    Args:
      root: The folder.
      name: The name of the dataset.
      splits: The splits to load.
      validation_size: The number of images held out of train, if the folder has no validation split.
      reading: How images are read.

    Returns:
      The dataset. The `index` of an image is its position among the files of its folder's split, in ascending order.

    Raises:
      ValueError: The folder has another structure, its images differ in size, or it has bad files.
    """
    # The pipeline of an interrupted run ends here, and not while its own threads or those below hold a lock.
    gc.collect()
    try:
        listing = list_folder(root, reading.class_names)
    except OSError as error:
        raise ValueError(f"{root} cannot be read ({error.strerror or first_line(error)}): check the folder.") from error
    labels = {
        part: np.array([file.label for file in files], np.int32).reshape(-1) for part, files in listing.parts.items()
    }
    divided = divide(labels, splits, validation_size, name)
    check_classes(labels, divided, listing.class_names, name)
    needed = {part for part, _ in divided.values()}
    bad = _BadFiles(root, sum(map(len, listing.parts.values())))
    bad.reasons.update(dict.fromkeys(listing.alien, "not a PNG or JPEG image in a folder of a class"))
    shape = _scan(listing, needed, reading, name, bad)
    count = sum(len(rows) for _, rows in divided.values())
    needed_bytes = 4.0 * count * shape[0] * shape[1] * shape[2]
    read = _stream if (streamed := is_to_stream(needed_bytes, reading, f"The {count} images of {name}")) else _read
    digest = hashlib.sha256(json.dumps([shape, reading.crop, listing.class_names]).encode())
    loaded = {key: no_examples(shape) for key in SPLITS}
    for split in SPLITS:
        if split in divided:
            part, rows = divided[split]
            chosen = [(row, listing.parts[part][row]) for row in rows]
            chosen = [(row, file) for row, file in chosen if file.name not in bad.reasons]
            digest.update(split.encode())
            loaded[split] = read(chosen, shape, reading, split == "train", bad, digest)
    bad.report(reading)
    for split, (_, rows) in divided.items():
        if len(rows) and not len(loaded[split].labels):
            raise ValueError(f"{name} has no readable image in its {split} split: add some, or choose another split.")
    return Dataset(
        name,
        **loaded,
        num_classes=len(listing.class_names),
        class_names=listing.class_names,
        digest=(STREAMED if streamed else "") + digest.hexdigest(),
    )


def _scan(
    listing: Listing, needed: set[str], reading: ReadingOptions, name: str, bad: "_BadFiles"
) -> tuple[int, int, int]:
    """Reads the headers of the files; returns the height, width and channels that the images get."""
    # Otherwise a split that is loaded alone could have other channels or another size.
    scanned = needed if reading.channels and reading.image_size else set(listing.parts)
    files = [file for part in SPLITS if part in scanned for file in listing.parts[part]]
    headers = _each(read_header, [file.path for file in files])
    found = [header for file, header in zip(files, headers, strict=True) if bad.passes(file, header)]
    bad.report(reading)
    return _shape_of(found, [file for file in files if file.name not in bad.reasons], reading, name)


def _shape_of(
    headers: Sequence[Header], files: Sequence[ImageFile], reading: ReadingOptions, name: str
) -> tuple[int, int, int]:
    """Returns the height, width and channels that the images get."""
    if not headers:
        raise ValueError(f"{name} has no readable image.")
    channels = reading.channels or (3 if any(header.colour for header in headers) else 1)
    if reading.image_size is not None:
        return *reading.image_size, channels
    first = headers[0]
    for header, file in zip(headers, files, strict=True):
        if header[:2] != first[:2]:
            raise ValueError(
                f"The images of {name} differ in size ({files[0].name} is {first.height}×{first.width}, {file.name} is "
                f"{header.height}×{header.width}): pass --image_size=H,W (image_size=(H, W)) to make them equal."
            )
    return first.height, first.width, channels


def _read(
    files: Sequence[tuple[int, ImageFile]],
    shape: tuple[int, int, int],
    reading: ReadingOptions,
    training: bool,
    bad: "_BadFiles",
    digest: Any,
) -> Split:
    """Decodes files into one split, in parallel; files that cannot be decoded are added to `bad` and left out."""
    images = np.empty((len(files), *shape), np.float32)
    places = places_of(len(files), reading.crop if training else "none")

    def read(position: int) -> bytes:
        content = pathlib.Path(files[position][1].path).read_bytes()
        images[position] = _image(content, shape, reading.crop, places[position])
        return hashlib.sha256(content).digest()

    kept = []
    for position, outcome in enumerate(_each(read, range(len(files)))):
        _, file = files[position]
        if bad.passes(file, outcome):
            digest.update(json.dumps([file.name, file.label]).encode() + outcome)
            kept.append(position)
    if len(kept) < len(files):
        images = images[kept]
    labels = np.array([files[position][1].label for position in kept], np.int32)
    return Split(images, labels, np.array([files[position][0] for position in kept], np.int32))


def _stream(
    files: Sequence[tuple[int, ImageFile]],
    shape: tuple[int, int, int],
    reading: ReadingOptions,
    training: bool,
    bad: "_BadFiles",
    digest: Any,
) -> Split:
    """Returns files as one split that is read as it is needed.

    Files that cannot be decoded are only known beforehand if all files are decoded, which is done if they are to be
    skipped. Otherwise they are refused when they are read.
    """
    places = places_of(len(files), reading.crop if training else "none")
    paths = [file.path for _, file in files]

    def read(position: int) -> np.ndarray:
        try:
            return _image(pathlib.Path(paths[position]).read_bytes(), shape, reading.crop, places[position])
        except MemoryError:
            raise
        except Exception as error:  # Pillow and TensorFlow raise many types for a broken file.
            raise ValueError(
                f"{paths[position]} cannot be read ({first_line(error, 100)}): repair or remove it, or pass "
                "--bad_files=skip (bad_files='skip') to leave out such files."
            ) from error

    def size(position: int) -> int:
        if reading.bad_files == "skip":
            content = pathlib.Path(paths[position]).read_bytes()
            _image(content, shape, reading.crop, places[position])
            return len(content)
        return os.stat(paths[position]).st_size

    kept = []
    for position, outcome in enumerate(_each(size, range(len(files)))):
        _, file = files[position]
        if bad.passes(file, outcome):
            digest.update(json.dumps([file.name, file.label, outcome]).encode())
            kept.append(position)
    labels = np.array([files[position][1].label for position in kept], np.int32)
    index = np.array([files[position][0] for position in kept], np.int32)
    return Split(StreamedImages(read, np.array(kept, np.int64), shape), labels, index)  # type: ignore[arg-type]


def _image(content: bytes, shape: tuple[int, int, int], crop: str, place: np.ndarray) -> np.ndarray:
    """Returns an image of the given shape, float32 in [0, 1]."""
    pixels, most = decode_image(content)
    values: Any = pixels
    if pixels.shape[:2] != shape[:2]:
        with tf.device("CPU:0"):
            values = fit(pixels, shape[:2], crop, place).numpy()
    scaled = np.clip(values / np.float32(most), 0, 1, dtype=np.float32)
    return with_channels(scaled, shape[2])


class _BadFiles:
    """The files that cannot be used, and why."""

    def __init__(self, root: pathlib.Path, count: int):
        self.root, self.count = root, count
        self.reasons: dict[str, str] = {}
        self._reported: set[str] = set()

    def passes(self, file: ImageFile, outcome: Any) -> bool:
        """Returns whether a file was processed without an error, and notes the error otherwise."""
        if isinstance(outcome, Exception):
            why = outcome.strerror if isinstance(outcome, OSError) and outcome.strerror else first_line(outcome, 100)
            # Pillow repeats the path of a file that it cannot identify.
            self.reasons[file.name] = "not a PNG or JPEG image" if "cannot identify" in why else why
        return not isinstance(outcome, Exception)

    def report(self, reading: ReadingOptions) -> None:
        """Raises an error about the bad files that were not reported yet, or warns if they are to be skipped."""
        new = sorted((name, why) for name, why in self.reasons.items() if name not in self._reported)
        if not new:
            return
        self._reported.update(self.reasons)
        shown = "; ".join(f"{name} ({why})" for name, why in new[:_NAMED])
        more = f"; and {len(new) - _NAMED} more" if len(new) > _NAMED else ""
        text = f"{len(new)} of the files in {self.root}, which holds {self.count} images"
        if reading.bad_files == "refuse":
            raise ValueError(
                f"{text}, cannot be used: {shown}{more}. Repair or remove them, or pass --bad_files=skip "
                "(bad_files='skip') to leave them out."
            )
        warnings.warn(f"{text}, are skipped: {shown}{more}.", stacklevel=4)


def _each(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Returns the result of the work for each item, or the exception that it raised, in order."""

    def guarded(item: Any) -> Any:
        try:
            return work(item)
        except MemoryError:
            raise
        except Exception as error:  # Pillow and TensorFlow raise many types for a broken file.
            return error

    # Pillow releases the interpreter lock while it decodes.
    with multiprocessing.pool.ThreadPool(min(32, 2 * (os.cpu_count() or 1))) as pool:
        return pool.map(guarded, items)
