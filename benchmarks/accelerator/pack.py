"""Compresses exported trainings for a slow connection to the accelerator, and restores them there.

  python -m benchmarks.accelerator.pack OUT FOLDER…          # here; the FOLDERs of export_training share one parent
  python pack.py --unpack TO OUT                             # on the accelerator; needs only numpy and Pillow

Arrays that occur several times are stored once. Colour images are sorted by brightness and stored in large lossless
WebP pictures: CIFAR-10's 48,000 images take 76 MB instead of 136 MB in an .npz file.
"""

import argparse
import concurrent.futures
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterable

import numpy as np
from PIL import Image

_ARRAYS, _PLACES, _ORDERS = "arrays.npz", "places.json", "orders.npz"
# Rows and columns of images in one picture.
_ROWS, _COLUMNS = 24, 40
# The slowest setting with the smallest files: 6 minutes on two cores for CIFAR-10.
_EFFORT = 6
# Files that the training does not need.
_SKIPPED = ("example.npz", "after.npz")


def pack(out: pathlib.Path, folders: Iterable[pathlib.Path]) -> None:
    """Writes the folders, and the datasets in their parent folder, to the new folder `out`."""
    out.mkdir(parents=True)
    folders = [folder.resolve() for folder in folders]
    arrays: dict[str, np.ndarray] = {}
    places: dict[str, dict[str, str]] = {}
    for folder in folders:
        for file in sorted(file for file in folder.rglob("*") if file.is_file() and file.name not in _SKIPPED):
            name = file.relative_to(folder.parent).as_posix()
            if file.suffix == ".npz":
                places[name] = _put(arrays, file)
            else:
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, out / name)
    orders: dict[str, np.ndarray] = {}
    datasets = {
        folder.parent / f"{json.loads((folder / 'metadata.json').read_text())['dataset']}.npz" for folder in folders
    }
    for file in sorted(datasets):
        with np.load(file) as stored:
            images = stored["images"]
        if images.shape[-1] == 3:
            orders[file.name] = _pack_images(out / file.stem, images)
        places[file.name] = _put(arrays, file, without="images" if file.name in orders else "")
    np.savez_compressed(out / _ARRAYS, **arrays)
    np.savez_compressed(out / _ORDERS, **orders)
    (out / _PLACES).write_text(json.dumps(places))


def unpack(out: pathlib.Path, to: pathlib.Path) -> None:
    """Restores in the folder `to` the files that `pack` compressed to the folder `out`."""
    shutil.copytree(out, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.npz", "*.webp"))
    with np.load(out / _ARRAYS) as stored, np.load(out / _ORDERS) as orders:
        arrays = dict(stored)
        for name, keys in json.loads((out / _PLACES).read_text()).items():
            file = to / name
            file.parent.mkdir(parents=True, exist_ok=True)
            found = {key: arrays[digest] for key, digest in keys.items()}
            if name in orders:
                found["images"] = _unpack_images(out / file.stem, orders[name])
            np.savez(file, **found)


def _put(arrays: dict[str, np.ndarray], file: pathlib.Path, without: str = "") -> dict[str, str]:
    """Adds a file's arrays to `arrays`, by their digests, and returns the digest of each array's name."""
    digests = {}
    with np.load(file) as stored:
        for key in stored.files:
            if key != without:
                value = stored[key]
                digests[key] = hashlib.sha256(value.tobytes() + f"{value.dtype} {value.shape}".encode()).hexdigest()
                arrays[digests[key]] = value
    return digests


def _pack_images(folder: pathlib.Path, images: np.ndarray) -> np.ndarray:
    """Writes uint8 images [n, H, W, 3] as pictures, and returns their order."""
    folder.mkdir()
    order = np.argsort(images.mean(axis=(1, 2, 3)), kind="stable").astype(np.int32)
    height, width = images.shape[1:3]
    many = _ROWS * _COLUMNS

    def write(number: int) -> None:
        # The last picture is filled with repeated images.
        rows = np.resize(order[number * many : (number + 1) * many], many)
        picture = images[rows].reshape(_ROWS, _COLUMNS, height, width, 3).swapaxes(1, 2)
        picture = picture.reshape(_ROWS * height, _COLUMNS * width, 3)
        Image.fromarray(picture).save(folder / f"{number:05}.webp", lossless=True, quality=100, method=_EFFORT)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(write, range(-(-len(images) // many))))
    return order


def _unpack_images(folder: pathlib.Path, order: np.ndarray) -> np.ndarray:
    """Returns the images that `_pack_images` wrote."""

    def read(file: pathlib.Path) -> np.ndarray:
        with Image.open(file) as opened:
            picture = np.asarray(opened)
        height, width = picture.shape[0] // _ROWS, picture.shape[1] // _COLUMNS
        images = picture.reshape(_ROWS, height, _COLUMNS, width, 3).swapaxes(1, 2)
        return images.reshape(_ROWS * _COLUMNS, height, width, 3)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        sorted_images = np.concatenate(list(pool.map(read, sorted(folder.glob("*.webp")))))
    images = np.empty_like(sorted_images[: len(order)])
    images[order] = sorted_images[: len(order)]
    return images


def main() -> None:
    """Packs or unpacks, depending on the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unpack", type=pathlib.Path, metavar="TO")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("folders", nargs="*", type=pathlib.Path)
    given = parser.parse_args()
    if given.unpack:
        unpack(given.out, given.unpack)
    else:
        pack(given.out, given.folders)


if __name__ == "__main__":
    main()
