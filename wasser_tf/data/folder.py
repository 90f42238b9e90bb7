"""The structure of a folder of images: its splits, classes and files, in an order that no file system changes."""

import os
import pathlib
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

SUFFIXES = (".png", ".jpg", ".jpeg")
_SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
# Files that systems put into folders of images. Names that begin with a dot are ignored as well.
_OF_SYSTEMS = ("thumbs.db", "desktop.ini")


class ImageFile(NamedTuple):
    """An image file of a folder.

    Attributes:
      path: The path to open.
      name: The path relative to the folder, with / and Unicode NFC, which is the same on every system.
      label: The class, from 0.
    """

    path: str
    name: str
    label: int


class Listing(NamedTuple):
    """The structure of a folder of images.

    Attributes:
      parts: The files of each stored split, in ascending order of their names.
      class_names: The names of the classes, in the order of the labels.
      alien: Names of files and folders that are no images of a class, in ascending order.
    """

    parts: dict[str, list[ImageFile]]
    class_names: tuple[str, ...]
    alien: list[str]


def list_folder(root: pathlib.Path, class_names: Sequence[str] | None = None) -> Listing:
    """Finds the splits, classes and image files of a folder.

    The folder holds train/, validation/ (or valid/, val/) and test/, or some of them, with a folder for each class in
    each; or it holds a folder for each class. Folders within a class are searched as well.

    Args:
      root: The folder.
      class_names: The names of the classes in the order of their labels; by default all names, ascending.

    Returns:
      The structure.

    Raises:
      ValueError: The folder has another structure, two folders of one class, or classes that are not in `class_names`.
      OSError: The folder cannot be read.
    """
    alien: list[str] = []
    parts = _parts_of(root, alien)
    found: dict[str, dict[str, pathlib.Path]] = {}
    for part, folder in parts.items():
        found[part] = {}
        for child in _children(folder):
            if not child.is_dir():
                alien.append(_name(child, root))
                continue
            name = _normal(child.name)
            if name in found[part]:
                raise ValueError(
                    f"{folder} holds two folders of the class {name!r}, in two Unicode spellings: {_MERGE}."
                )
            found[part][name] = child
    names = sorted(set().union(*found.values()))
    _check_names(root, names, class_names)
    labels = {name: label for label, name in enumerate(class_names or names)}
    files: dict[str, list[ImageFile]] = {part: [] for part in parts}
    for part, folders in found.items():
        for class_name, folder in folders.items():
            for file in _files_below(folder):
                if file.suffix.lower() in SUFFIXES:
                    files[part].append(ImageFile(str(file), _name(file, root), labels[class_name]))
                else:
                    alien.append(_name(file, root))
        files[part].sort(key=lambda file: file.name)
    if not any(files.values()):
        raise ValueError(f"{root} holds no PNG or JPEG images in folders of classes: {_LAYOUT}.")
    return Listing({part: found for part, found in files.items() if found}, tuple(labels), sorted(alien))


_LAYOUT = (
    "give a folder with train/, validation/ and test/ (or some of them) that hold a folder of images for each class, "
    "or a folder that holds a folder for each class"
)
_MERGE = "merge them, or rename one"


def _parts_of(root: pathlib.Path, alien: list[str]) -> dict[str, pathlib.Path]:
    """Returns the folder of each stored split; a folder of classes alone is {"train": root}."""
    children = _children(root)
    folders = [child for child in children if child.is_dir()]
    named = [folder for folder in folders if folder.name.lower() in _SPLIT_NAMES]
    # A class may be called train; the folder of a split holds folders.
    splits = [folder for folder in named if any(child.is_dir() for child in _children(folder))]
    if not splits:
        if named and len(named) == len(folders):
            raise ValueError(f"{named[0]} holds no folders of classes: {_LAYOUT}.")
        return {"train": root}
    parts: dict[str, pathlib.Path] = {}
    for folder in splits:
        part = _SPLIT_NAMES[folder.name.lower()]
        if part in parts:
            raise ValueError(f"{parts[part]} and {folder} are both the {part} split: {_MERGE}.")
        parts[part] = folder
    alien += [_name(child, root) + ("/" if child.is_dir() else "") for child in children if child not in splits]
    return parts


def _check_names(root: pathlib.Path, names: Sequence[str], class_names: Sequence[str] | None) -> None:
    """Checks that the names of class folders differ in more than case, and are among those that are given."""
    spelt: dict[str, str] = {}
    for name in names:
        if (other := spelt.setdefault(name.casefold(), name)) != name:
            raise ValueError(
                f"{root} has the classes {other!r} and {name!r}, which are one folder on some systems: {_MERGE}."
            )
    if class_names is None:
        if len(names) < 2:
            raise ValueError(
                f"{root} must hold the folders of at least two classes, got {', '.join(names) or 'none'}: {_LAYOUT}."
            )
    elif unknown := [name for name in names if name not in set(class_names)]:
        raise ValueError(
            f"class_names must hold the name of every class folder in {root}, and lacks {', '.join(unknown[:5])}: add "
            "it, or remove the folder."
        )


def _children(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns what a folder holds, in ascending order, without hidden files and those of systems."""
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted((path for path in shown if path.name.lower() not in _OF_SYSTEMS), key=lambda path: _normal(path.name))


def _files_below(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the files in a folder and its subfolders; links to folders are followed, each folder is read once."""
    seen: set[str] = set()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        real = os.path.realpath(current)
        if real in seen:
            continue
        seen.add(real)
        for child in _children(current):
            if child.is_dir():
                waiting.append(child)
            else:
                yield child


def _name(path: pathlib.Path, root: pathlib.Path) -> str:
    return _normal(path.relative_to(root).as_posix())


def _normal(name: str) -> str:
    # Some file systems decompose accents.
    return unicodedata.normalize("NFC", name)
