"""The classifiers that come with the package: of each its file, NAME.keras, and its card, NAME.json and NAME.md.

They are made by bin/publish.py; `wasser_tf.load_pretrained` loads them.
"""

import os
import pathlib
from typing import Any

from wasser_tf.runtime import storage

PREFIX = "pretrained:"
FOLDER = pathlib.Path(__file__).parent


def names() -> tuple[str, ...]:
    """Returns the names there are."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.keras")))


def path_of(name: str) -> pathlib.Path:
    """Returns the file of a classifier.

    Raises:
      ValueError: There is none of this name; the message lists those there are.
    """
    if name not in names():
        raise ValueError(f"No pretrained classifier is called {name!r}; there are {', '.join(names()) or 'none yet'}.")
    return FOLDER / f"{name}.keras"


def card(name: str) -> dict[str, Any]:
    """Returns a classifier's model card: threat model, accuracies, how it was trained and how it was attacked.

    Raises:
      ValueError: There is no such classifier.
    """
    return storage.read_json(path_of(name).with_suffix(".json"))


def resolve(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of a classifier that is given by its path, or as "pretrained:NAME".

    Raises:
      ValueError: There is no pretrained classifier of this name.
    """
    text = os.fspath(path)
    return path_of(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else pathlib.Path(path).expanduser()
