"""Reads image classification sets of tensorflow-datasets, for `wasser_tf.data.load`."""

import difflib
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from wasser_tf.data.dataset import SPLITS, Dataset, Split, hold_out, no_examples, stratified_order
from wasser_tf.data.random_access import FORMAT, has_random_access, refuse_sequential, stream_split
from wasser_tf.data.reading import ReadingOptions
from wasser_tf.data.sizing import fit, places_of, shape_after, with_channels
from wasser_tf.data.streaming import is_to_stream
from wasser_tf.runtime.arguments import first_line
from wasser_tf.runtime.memory import available_memory, check_available

_USUAL_NAMES = ("mnist", "fashion_mnist", "kmnist", "emnist/letters", "svhn_cropped", "cifar10", "cifar100")
_NAME = re.compile(r"\w+(/[\w.\-]+)?(:\d+\.\d+\.\d+)?")
_READ_BATCH = 1000


def load_prepared(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
    splits: Sequence[str],
    validation_size: int | None,
    reading: ReadingOptions,
) -> Dataset:
    """Loads a set of tensorflow-datasets; see `wasser_tf.data.load`, which checks the last three arguments."""
    builder, root = _find(name, data_dir)
    # All checks that need no data come before the download.
    image_key, label_key = _image_and_label(builder, name)
    label = builder.info.features[label_key]
    shape = builder.info.features[image_key].shape
    if reading.image_size is not None:
        shape = (*reading.image_size, *shape[2:])
    if None in shape:
        raise ValueError(f"The images of {name} differ in size: pass image_size=(height, width) (--image_size=H,W).")
    read_shape, shape = shape, shape_after(shape, reading, name)
    _prepare(builder, name, root, download, reading.streaming == "always")

    def read(source: str, training: bool = False) -> Split:
        needed = 4.0 * builder.info.splits[source].num_examples * int(np.prod(shape, dtype=np.float64))
        what, random_access = f"The images of the {source} split of {name}", has_random_access(builder)
        streamed = is_to_stream(needed, reading, what)
        if streamed and not random_access and (reading.streaming == "always" or needed > (available_memory() or 0)):
            refuse_sequential(name)
        described = (builder, name, source, (image_key, label_key), read_shape, reading, training)
        if not random_access:
            return _read(*described)
        split = stream_split(*described)
        return split if streamed else split._replace(images=split.images[:])

    stored = builder.info.splits
    test_source = next((source for source in ("test", "validation") if source in stored), None)
    own_validation = "validation" in stored and test_source != "validation"
    parts = {key: no_examples(shape) for key in SPLITS}
    if "test" in splits and test_source:
        parts["test"] = read(test_source)
    if "validation" in splits and own_validation:
        parts["validation"] = read("validation")
    from_train = {"train"} | (set() if own_validation else {"validation"}) | (set() if test_source else {"test"})
    if from_train & set(splits):
        if "train" not in stored:
            raise ValueError(f"{name} has no train split, only {', '.join(stored)}: load it with splits=('test',).")
        whole = read("train", "train" in splits)
        count = len(whole.labels)
        validation_count = 0 if own_validation else validation_size or min(count // 12, 5000)
        test_count = 0 if test_source else min(count // 6, 10000)
        order = stratified_order(whole.labels) if builder.info.disable_shuffling else np.arange(count)
        held = hold_out(whole, order, validation_count, test_count, name)
        parts.update({key: held[key] for key in from_train & set(splits)})
        if reading.crop == "random" and "train" in splits and len(from_train & set(splits)) > 1:
            # Images that are held out have their windows in the centre.
            held = hold_out(read("train"), order, validation_count, test_count, name)
            parts.update({key: held[key] for key in from_train & set(splits) - {"train"}})
    names = tuple(label.names) if len(label.names) == label.num_classes else None
    return Dataset(name, **parts, num_classes=label.num_classes, class_names=names, digest=None)


def is_known(name: str) -> bool:
    """Returns whether tensorflow-datasets itself has a set of that name, without access to the network."""
    return re.split("[/:]", name)[0] in tfds.list_builders(with_community_datasets=False)


def _find(name: str, data_dir: str | os.PathLike[str] | None) -> tuple[Any, Any]:
    """Returns the builder of a set and the folder in which it searches, without access to the network."""
    base = re.split("[/:]", name)[0]
    root = tfds.core.Path(data_dir if data_dir is not None else tfds.core.constants.DATA_DIR).expanduser()
    builder = None
    # Names with a namespace ("kaggle:...", "huggingface:...") would access the network.
    if _NAME.fullmatch(name):
        root = _parent_of_sets(root, base)
        try:
            builder = tfds.builder(name, data_dir=str(root))
        except tfds.core.DatasetNotFoundError:
            pass
        except Exception as error:
            raise ValueError(f"tensorflow-datasets cannot build {name!r}: {first_line(error)}.") from error
    if builder is None:
        close = difflib.get_close_matches(name, ["digits", *tfds.list_builders(with_community_datasets=False)])
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise ValueError(
            f"There is no dataset {name!r}{hint}: pass digits, a folder of images, an .npz file, or an image "
            f"classification set of tensorflow-datasets such as {', '.join(_USUAL_NAMES)}."
        )
    return builder, root


def _parent_of_sets(root: Any, base: str) -> Any:
    """Returns the folder that holds mnist/, also if the user passed mnist/ or mnist/3.0.1/."""
    if (root / base).exists():
        return root
    for folder in (root, *root.parents)[:3]:
        if folder.name == base and (any(folder.glob("*/features.json")) or any(folder.glob("*/*/features.json"))):
            logging.info("Reading %s from %s, which holds the folder %s.", base, folder.parent, folder)
            return folder.parent
    return root


def _prepare(builder: Any, name: str, root: Any, download: bool, random_access: bool) -> None:
    if builder.is_prepared():
        return
    if not download:
        raise ValueError(
            f"Dataset {name!r} is not in {root} (looked for {builder.data_dir}): pass --download (download=True) to "
            f"download it, or --data_dir=... (data_dir=...) with the folder that holds {builder.name}/."
        )
    try:
        builder.download_and_prepare(**({"file_format": FORMAT} if random_access else {}))
    except Exception as error:
        why = first_line(_reason(error))
        raise ValueError(
            f"Dataset {name!r} could not be downloaded into {root} ({why}): fix that and try again, or pass "
            f"--data_dir=... (data_dir=...) with a folder that holds {builder.name}/."
        ) from error


def _reason(error: BaseException) -> BaseException:
    """Returns the innermost OSError that caused an error, or the error: libraries wrap it in longer messages."""
    reason, inner = error, error.__cause__ or error.__context__
    while inner is not None:
        reason = inner if isinstance(inner, OSError) else reason
        inner = inner.__cause__ or inner.__context__
    return reason


def _image_and_label(builder: Any, name: str) -> tuple[str, str]:
    features, supervised = builder.info.features, builder.info.supervised_keys
    is_dict = isinstance(features, tfds.features.FeaturesDict)
    # LabeledImage, for segmentation, is a subclass of Image, hence the exact type.
    images = [key for key, feature in features.items() if type(feature) is tfds.features.Image] if is_dict else []
    labels = [key for key, feature in features.items() if type(feature) is tfds.features.ClassLabel] if is_dict else []
    if supervised and len(supervised) == 2 and supervised[0] in images and supervised[1] in labels:
        return supervised[0], supervised[1]
    if len(images) != 1 or len(labels) != 1 or not features[labels[0]].num_classes:
        raise ValueError(
            f"{name} is not an image classification set, which has one image and one class label per example: pass "
            f"digits, or a set such as {', '.join(_USUAL_NAMES)}."
        )
    return images[0], labels[0]


def _read(
    builder: Any,
    name: str,
    source: str,
    keys: tuple[str, str],
    shape: tuple[int, int, int],
    reading: ReadingOptions,
    training: bool,
) -> Split:
    """Reads a stored split in its order, as float32 images in [0, 1]; `shape` is theirs before channels change."""
    features, count = builder.info.features, builder.info.splits[source].num_examples
    dtype = np.dtype(features[keys[0]].np_dtype)
    scale = np.float32(np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1)
    result = (*shape[:2], reading.channels or shape[2])
    needed = 4 * count * int(np.prod(result, dtype=np.float64))
    check_available(
        needed, f"The {count} images of the {source} split of {name}", "choose a smaller image_size or split"
    )
    resize = tuple(features[keys[0]].shape[:2]) != tuple(shape[:2])
    places = places_of(count, reading.crop if training else "none")

    def pick(row: tf.Tensor, example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image = example[keys[0]]
        return fit(image, shape[:2], reading.crop, tf.gather(places, row)) if resize else image, example[keys[1]]

    images, labels, done = np.empty((count, *result), np.float32), np.empty(count, np.int32), 0
    again = f"delete {builder.data_dir} and pass --download (download=True) to download the set again"
    try:
        # Only the two features in use are decoded. A cache would store everything twice.
        examples = builder.as_dataset(
            split=source,
            decoders=tfds.decode.PartialDecoding({key: True for key in keys}),
            read_config=tfds.ReadConfig(try_autocache=False),
            shuffle_files=False,
        )
        for image, label in examples.enumerate().map(pick).batch(_READ_BATCH).as_numpy_iterator():
            images[done : done + len(label)] = with_channels(image / scale, reading.channels)
            labels[done : done + len(label)] = label
            done += len(label)
    except Exception as error:
        raise ValueError(f"The {source} split of {name} cannot be read ({first_line(error)}): {again}.") from error
    if done != count:
        raise ValueError(f"The {source} split of {name} holds {done} examples where {count} are needed: {again}.")
    if resize:
        np.clip(images, 0, 1, out=images)
    elif count and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"The {dtype} images of {name} must lie in [0, 1], got {images.min()} to {images.max()}.")
    if count and not (labels.min() >= 0 and labels.max() < features[keys[1]].num_classes):
        raise ValueError(f"The {source} split of {name} has examples without a label: leave it out of splits=(...).")
    return Split(images, labels, np.arange(count, dtype=np.int32))
