"""The pretrained classifiers of the package: files NAME.keras with model cards, NAME.json and NAME.md.

bin/publish.py creates them, `wasser_tf.load_pretrained` loads them.
"""

import os
import pathlib
from typing import Any

from wasser_tf.runtime import storage

PREFIX = "pretrained:"
FOLDER = pathlib.Path(__file__).parent


def names() -> tuple[str, ...]:
    """Returns the names of all pretrained classifiers, sorted.

    Example:
    >>> from wasser_tf import pretrained
    >>> "mnist_wassertrain" in pretrained.names()
    True
    """
    return tuple(sorted(path.stem for path in FOLDER.glob("*.keras")))


def path_of(name: str) -> pathlib.Path:
    """Returns the .keras file of a pretrained classifier.

    Raises:
      ValueError: The name is unknown; the message lists the known names.
    """
    if name not in names():
        raise ValueError(f"No pretrained classifier is called {name!r}; there are {', '.join(names()) or 'none yet'}.")
    return FOLDER / f"{name}.keras"


def card(name: str) -> dict[str, Any]:
    """Returns the model card of a pretrained classifier: threat model, accuracies, training and attacks.

    Raises:
      ValueError: The name is unknown; the message lists the known names.
    """
    return storage.read_json(path_of(name).with_suffix(".json"))


def resolve(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of a classifier.

    Args:
      path: A path, or "pretrained:NAME".

    Raises:
      ValueError: The name is unknown; the message lists the known names.
    """
    text = os.fspath(path)
    return path_of(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else pathlib.Path(path).expanduser()
