"""Loading of datasets by name: digits, folders of images, .npz files, and sets of tensorflow-datasets."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from wasser_tf.data import arrays, folder_loading
from wasser_tf.data.dataset import SPLITS, Dataset, Split, hold_out, no_examples, stratified_order
from wasser_tf.data.reading import ReadingOptions
from wasser_tf.data.sizing import fit_split, shape_after
from wasser_tf.runtime.arguments import check_fits, is_whole


def load(
    name: str | os.PathLike[str] = "digits",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    splits: Sequence[str] = SPLITS,
    validation_size: int | None = None,
    image_size: tuple[int, int] | None = None,
    crop: str = "none",
    channels: int | None = None,
    class_names: Sequence[str] | None = None,
    bad_files: str = "refuse",
    streaming: str = "auto",
) -> Dataset:
    """Loads a dataset. The splits are the same in every call and on every machine; they depend on no seed.

    The digits are the 1,797 images of 8×8 pixels of scikit-learn: 1,197 for training, 200 for validation and 400 for
    test, with the classes in proportion. A folder holds train/, validation/ and test/ (or some of them) with a folder
    of PNG and JPEG files for each class, or only a folder for each class. An .npz file holds x_train, y_train, x_test
    and y_test (and x_validation, y_validation), uint8, uint16 or floats in [0, 1]. For other names, in the order of
    tensorflow-datasets:

    - validation is that of the set, or the last 1/12 of train (at most 5,000: the last 5,000 of MNIST's 60,000);
    - test is that of the set, otherwise its validation split, otherwise the last 1/6 of train (at most 10,000).
      Sets that are stored unshuffled are divided with the classes in proportion instead, as are folders and .npz
      files.

    Args:
      name: "digits"; the path of a folder or an .npz file; or the name of an image classification set of
        tensorflow-datasets, "set", "set/config" or "set:1.2.3". A relative path without ./ in front is read as a folder
        if no set has its name.
      data_dir: The folder that holds the prepared sets (the parent of mnist/). None means the default of
        tensorflow-datasets: the environment variable TFDS_DATA_DIR, or tensorflow_datasets in the home folder.
      download: Whether to download a set that is not in the folder. If False, the network is not accessed.
      splits: The splits to load; the others have no examples.
      validation_size: The number of images held out of train for validation, instead of the size above.
      image_size: The height and width to resize to (bilinear, antialiased). Required if sizes differ within the set.
      crop: "none", "center" or "random", see `ReadingOptions`, as for the next four.
      channels: 1 for greyscale, 3 for colour.
      class_names: The names of the classes, in the order of the labels.
      bad_files: "refuse" or "skip" unreadable and other files of a folder.
      streaming: "always" reads images as they are needed, "never" holds them in memory, "auto" decides by the size.

    Returns:
      The dataset, with float32 images in [0, 1]. Those of a split that is streamed are `streaming.StreamedImages`.

    Raises:
      ValueError: The name is unknown, the set is missing, unreadable or not an image classification set, or an
        argument is out of its range.

    Example:
    >>> from wasser_tf import data
    >>> digits = data.load("digits")
    >>> digits.train.images.shape, digits.image_shape, digits.num_classes
    ((1197, 8, 8, 1), (8, 8, 1), 10)
    """
    if not isinstance(name, (str, os.PathLike)):
        raise ValueError(f"name must be a string such as 'digits' or 'mnist', or a path, got {name!r}.")
    if data_dir is not None and not isinstance(data_dir, (str, os.PathLike)):
        raise ValueError(f"data_dir must be the path of a folder, or None, got {data_dir!r}.")
    if not isinstance(splits, (tuple, list)) or not splits or not all(split in SPLITS for split in splits):
        raise ValueError(f"splits must be some of {', '.join(SPLITS)}, got {splits!r}.")
    if validation_size is not None and not is_whole(validation_size, 1):
        raise ValueError(f"validation_size must be a whole number of at least 1, got {validation_size!r}.")
    reading = ReadingOptions(
        image_size=image_size,
        crop=crop,
        channels=channels,
        class_names=class_names,  # type: ignore[arg-type]  # It checks the type itself.
        bad_files=bad_files,
        streaming=streaming,
    )
    in_memory = name == "digits" or os.fspath(name).endswith(".npz")
    if in_memory and streaming == "always":
        raise ValueError(
            f"streaming=always needs a folder of images or a set of tensorflow-datasets, got {name}: leave it out."
        )
    if name == "digits":
        return _renamed(_load_digits(splits, validation_size or 200, reading), reading)
    if (path := _path_of(name)) is not None:
        if path.is_dir():
            return folder_loading.load_folder(path, str(name), splits, validation_size, reading)
        if path.suffix == ".npz":
            return arrays.load_npz(path, str(name), splits, validation_size, reading)
        raise ValueError(f"There is no folder and no .npz file {path}: give the path of one, or the name of a dataset.")
    from wasser_tf.data import tensorflow_datasets  # Imported here, because the digits do not need tensorflow-datasets.

    prepared = tensorflow_datasets.load_prepared(str(name), data_dir, download, splits, validation_size, reading)
    return _renamed(prepared, reading)


def _path_of(name: str | os.PathLike[str]) -> pathlib.Path | None:
    """Returns the path that a name is, or None for the name of a set of tensorflow-datasets."""
    text = os.fspath(name)
    path = pathlib.Path(name).expanduser()
    marked = text.startswith(("/", "./", "../", "~", "." + os.sep, ".." + os.sep)) or text.endswith(("/", ".npz"))
    if not isinstance(name, str) or marked or path.is_absolute() or text in (".", ".."):
        return path
    if not path.is_dir():
        return None
    from wasser_tf.data import tensorflow_datasets  # Imported here, because it is expensive.

    return None if tensorflow_datasets.is_known(text) else path


def _renamed(dataset: Dataset, reading: ReadingOptions) -> Dataset:
    """Returns the dataset with the names of classes that were given."""
    if reading.class_names is None:
        return dataset
    if len(reading.class_names) != dataset.num_classes:
        raise ValueError(
            f"class_names must name the {dataset.num_classes} classes of {dataset.name}, got "
            f"{len(reading.class_names)} names."
        )
    return dataset._replace(class_names=reading.class_names)


def _load_digits(splits: Sequence[str], validation_size: int, reading: ReadingOptions) -> Dataset:
    import sklearn.datasets  # Imported here, because it takes a second and other datasets do not need it.

    bunch = sklearn.datasets.load_digits()
    images = (bunch.images[..., None] / 16).astype(np.float32)
    image_size = reading.image_size
    if image_size is not None and reading.crop == "none":
        check_fits(4 * len(images) * image_size[0] * image_size[1], "The images", "choose a smaller image_size")
        images = np.clip(tf.image.resize(images, image_size, antialias=True).numpy(), 0, 1)
    labels = bunch.target.astype(np.int32)
    whole = Split(images, labels, np.arange(len(labels), dtype=np.int32))
    parts = hold_out(whole, stratified_order(labels), validation_size, 400, "digits")
    shape = shape_after(images.shape[1:], reading, "digits")
    loaded = {
        key: fit_split(part, reading, key == "train", "digits") if key in splits else no_examples(shape)
        for key, part in parts.items()
    }
    return Dataset("digits", **loaded, num_classes=10, class_names=tuple(map(str, range(10))), digest=None)
