"""Files that are whole or not there: written beside their place, then renamed into it."""

import contextlib
import json
import math
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a path beside `path` to write a file or a folder to; when the block ends it takes the place of `path`.

    If the block raises, `path` is as it was and what was written is removed. The name beside it keeps the suffix, which
    writers such as Keras' and NumPy's go by.

    Args:
      path: Where the file or folder shall be. An old one is replaced.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    beside = path.with_name(f".{path.stem}.{token}.partial{path.suffix}")
    aside = path.with_name(f".{path.name}.{token}.replaced")
    try:
        yield beside
        if path.is_dir():
            # A folder cannot be replaced in one go; aside first, so that a crash leaves one of the two whole.
            os.replace(path, aside)
        os.replace(beside, path)
    finally:
        for left in (beside, aside):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 file, whole or not at all."""
    with atomic_path(path) as beside:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes plain Python values as JSON that every reader takes: numbers that are not finite become strings."""
    write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads what `write_json` wrote.

    Raises:
      ValueError: The file is missing or no JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): give the path of a JSON file.") from error
    except ValueError as error:
        raise ValueError(
            f"{path} is no JSON file ({error}): it is cut short or something else, make it again."
        ) from error


def through_json(value: Any) -> Any:
    """Returns plain Python values as they come back from a file: tuples as lists, keys as strings."""
    return json.loads(json.dumps(_finite(value)))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
