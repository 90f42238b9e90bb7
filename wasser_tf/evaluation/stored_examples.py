"""Smaller files of adversarial examples: changes of 16 or 8 bits, or only the first few examples."""

import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wasser_tf.runtime import storage

# "float32": the clean image, the feasible and the raw example. "int16", "int8": the changes from the clean image, which
# is not stored. "none": no images, except for those that are drawn.
STORED = ("float32", "int16", "int8", "none")
# The number of examples, counted from the first of a set, that are drawn, and therefore stored in any case.
PICTURES = 8
_CHANGED = ("adversarial", "raw")
_LEVELS = {"int16": 32767, "int8": 127}


def pack(arrays: dict[str, np.ndarray], stored: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a file, with changes instead of images.

    A change is a whole number of steps; a step is the largest change of the image divided by 32767 or 127. The stored
    example so differs from the scored one by half a step at most.

    Args:
      arrays: The arrays of `Examples.to_arrays`.
      stored: One of `STORED`; "float32" and "none" leave the arrays as they are.
    """
    if stored not in _LEVELS:
        return arrays
    packed = {name: array for name, array in arrays.items() if name != "image" and name not in _CHANGED}
    for name in _CHANGED:
        change = arrays[name] - arrays["image"]
        step = np.abs(change).max(axis=(1, 2, 3), initial=0) / np.float32(_LEVELS[stored])
        divisor = np.where(step > 0, step, np.float32(1))[:, None, None, None]
        packed[f"{name}_change"] = np.rint(change / divisor).astype(stored)
        packed[f"{name}_step"] = step.astype(np.float32)
    return packed


def unpack(
    arrays: dict[str, np.ndarray], clean: Callable[[int], np.ndarray] | None, count: int | None
) -> dict[str, np.ndarray]:
    """Returns the arrays that `pack` was given, with the images of the first `count` examples.

    Args:
      arrays: The arrays of a file.
      clean: Returns that number of clean images of the file, the first ones, [m, H, W, C]; None for no images.
      count: The number of images; None for all.
    """
    if f"{_CHANGED[0]}_change" not in arrays:
        return arrays
    arrays = dict(arrays)
    count = len(arrays["label"]) if count is None else min(count, len(arrays["label"]))
    count = 0 if clean is None else count
    shape = arrays[f"{_CHANGED[0]}_change"].shape[1:]
    images = clean(count) if clean is not None and count else np.zeros((0, *shape), np.float32)
    for name, prefix in zip(_CHANGED, ("", "raw_"), strict=True):
        change, step = arrays.pop(f"{name}_change")[:count], arrays.pop(f"{name}_step")[:count]
        low, high = (arrays[f"{prefix}{end}_pixel"][:count, None, None, None] for end in ("min", "max"))
        arrays[name] = np.clip(images + change * step[:, None, None, None], low, high).astype(np.float32)
    return {**arrays, "image": images}


def check_exact(arrays: dict[str, np.ndarray]) -> None:
    """Raises an error if a file does not hold the images of all examples, exactly as they were scored.

    Raises:
      ValueError: It holds changes, or not all images.
    """
    if "image" not in arrays or len(arrays["image"]) < len(arrays["label"]):
        raise ValueError("it does not hold the exact images, which need --stored_examples=float32")


def concatenate_files(paths: Sequence[Any], path: Any, skip: Sequence[str] = ()) -> None:
    """Concatenates .npz files along the first axis of their arrays, one array of one file at a time, atomically.

    Args:
      paths: The files, with the same arrays.
      path: The file to write.
      skip: The names of arrays to leave out.

    Raises:
      ValueError: A file is unreadable.
      OSError: The file cannot be written.
    """
    counts: dict[str, int] = {}
    for each in paths:
        with np.load(each, allow_pickle=False) as arrays:
            for name in arrays.files:
                if name not in skip:
                    counts[name] = counts.get(name, 0) + len(arrays[name])
    with storage.atomic_path(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, count in counts.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                for number, each in enumerate(paths):
                    with np.load(each, allow_pickle=False) as arrays:
                        part = np.ascontiguousarray(arrays[name])
                    if not number:
                        header = np.lib.format.header_data_from_array_1_0(part)
                        np.lib.format.write_array_header_1_0(member, {**header, "shape": (count, *part.shape[1:])})
                    member.write(part.tobytes())
