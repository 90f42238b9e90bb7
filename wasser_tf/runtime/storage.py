"""Results on disk: atomic files, JSON, and a lock that allows one run at a time in a folder."""

import contextlib
import json
import math
import os
import pathlib
import re
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from wasser_tf.runtime.arguments import as_path, check_fits, first_line

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path next to `path`; when the block ends, the file or folder written there replaces `path`.

    If the block raises, `path` is unchanged and the temporary file is removed. The temporary name keeps the suffix,
    which Keras and NumPy require. `remove_leftovers` removes the temporary files of killed processes.

    Args:
      path: The file or folder to write. An existing one is replaced.

    Raises:
      OSError: The path cannot be written; the message is one sentence.
    """
    path = pathlib.Path(path)
    make_folder(path.parent)
    token = secrets.token_hex(4)
    beside = path.with_name(f".{path.stem}.{token}.partial{path.suffix}")
    aside = path.with_name(f".{path.name}.{token}.replaced")
    try:
        yield beside
        if beside.is_file():
            # Otherwise a power failure may leave an empty file under the new name.
            with open(beside, "rb+") as file:
                os.fsync(file.fileno())
        if path.is_dir():
            # A folder cannot be replaced atomically: move it aside first, so that a crash leaves one whole.
            os.replace(path, aside)
        os.replace(beside, path)
    except CannotWrite:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        for left in (beside, aside):
            remove(left)


def make_folder(path: pathlib.Path) -> None:
    """Creates a folder and its parents if they do not exist.

    Raises:
      OSError: The folder cannot be created; the message is one sentence.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


class CannotWrite(OSError):
    """A path cannot be written; the message is one sentence."""


def cannot_write(path: str | os.PathLike[str], error: Exception) -> CannotWrite:
    """Returns an error whose message says in one sentence that a path cannot be written, and why."""
    # TensorFlow's own errors read "{{node}} path; why [Op:name]", and of some disks it does not say why.
    said = re.sub(r"^\{\{.*?\}\} (\S*; ?)?|\s*\[Op:.*", "", first_line(error, None))[:200]
    why = getattr(error, "strerror", None) or said or _why_not(pathlib.Path(path))
    return CannotWrite(
        f"{path} cannot be written ({why.rstrip('. ')}): free disk space or choose another folder, and start again; "
        "existing files are unchanged."
    )


def _why_not(path: pathlib.Path) -> str:
    there = next((folder for folder in path.parents if folder.exists()), pathlib.Path())
    return "No space left on device" if shutil.disk_usage(there).free < 2**20 else "the disk does not say why"


def remove(path: pathlib.Path) -> None:
    """Removes a file, or a folder with its contents, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: pathlib.Path, *, below: bool = True) -> None:
    """Removes the temporary files that killed processes left in a folder and, with `below`, in its subfolders.

    Raises:
      OSError: A file cannot be removed; the message is one sentence.
    """
    for pattern in (".*.partial*", ".*.replaced"):
        for path in list(folder.rglob(pattern) if below else folder.glob(pattern)):
            try:
                remove(path)
            except OSError as error:
                raise cannot_write(folder, error) from error


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Locks a folder against other processes; the lock ends with the process.

    Systems and file systems without such locks do not exclude other processes.

    Raises:
      ValueError: Another process holds the lock.
    """
    if fcntl is None:
        yield
        return
    # The folder itself: a lock on a file in it would leave that file behind.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"A run that has not ended is writing into {folder}: wait for its end, or give another folder."
                ) from error
        yield
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 file atomically."""
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes plain Python values as standard JSON: numbers that are not finite become strings."""
    write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a file written by `write_json`.

    Raises:
      ValueError: The file is missing or is not JSON.
    """
    file = as_path("path", path)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): give the path of a JSON file.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a JSON file ({error}): it is truncated or of another kind; create it again."
        ) from error


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the named arrays of an .npz file, without pickles, which could run code.

    Raises:
      ValueError: The file is missing, broken or not an .npz file, or unpacks to more than the machine's memory.
    """
    file = as_path("path", path)
    try:
        with zipfile.ZipFile(file) as archive:
            check_fits(
                sum(member.file_size for member in archive.infolist()),
                f"The arrays in {path}",
                "the file may be corrupt or malicious",
            )
        with np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except FileNotFoundError as error:
        raise ValueError(f"There is no file {path}: give the path of an .npz file.") from error
    except Exception as error:  # zipfile, zlib, NumPy and the file system each have their own for a broken file.
        raise ValueError(
            f"{path} cannot be read as an .npz file ({first_line(error)}): it is truncated or of another kind."
        ) from error


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads the array of an .npy file, without pickles.

    Raises:
      ValueError: The file is missing or broken, or shorter than the array it says it holds.
    """
    file = as_path("path", path)
    try:
        # Memory-mapped first, because a header may claim any amount of memory.
        return np.array(np.load(file, mmap_mode="r", allow_pickle=False))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or first_line(error)}).") from error
    except Exception as error:
        raise ValueError(f"{path} cannot be read as an .npy file ({first_line(error)}).") from error


def through_json(value: Any) -> Any:
    """Returns plain Python values as `read_json` would return them: tuples as lists, keys as strings."""
    return json.loads(json.dumps(_finite(value)))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
