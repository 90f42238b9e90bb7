"""What the checks of arguments and files share."""

import math
import numbers
import os
import pathlib
from typing import Any


def is_whole(value: Any, least: int) -> bool:
    """Whether the value is a whole number, Python's or NumPy's, of at least `least`."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def check_number(name: str, value: Any, *, above: float | None = None, least: float | None = None) -> None:
    """Refuses a setting that is no finite number in its range.

    Raises:
      ValueError: It is not.
    """
    needed = "a finite number"
    needed += f" above {above:g}" if above is not None else f" of at least {least:g}" if least is not None else ""
    good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not good or (above is not None and value <= above) or (least is not None and value < least):
        raise ValueError(f"{name} must be {needed}, got {value!r}.")


def check_whole(name: str, value: Any, *, least: int, most: int | None = None) -> None:
    """Refuses a setting that is not a whole number from `least` to `most`.

    Raises:
      ValueError: It is not.
    """
    if not is_whole(value, least) or (most is not None and value > most):
        needed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number {needed}, got {value!r}.")


def check_bool(name: str, value: Any) -> None:
    """Refuses a setting that is not True or False.

    Raises:
      ValueError: It is not.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}.")


def as_path(name: str, value: Any) -> pathlib.Path:
    """Returns a path that was given, with the home folder for a ~.

    Raises:
      ValueError: It is none.
    """
    try:
        return pathlib.Path(value).expanduser()
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{name} must be the path of a file or a folder, got {value!r}.") from error


def check_fits(needed: float, what: str, mend: str) -> None:
    """Refuses what this machine's memory cannot hold, before anything is allocated.

    Args:
      needed: Its bytes, estimated from below.
      what: What it is, in the plural.
      mend: What to do about it.

    Raises:
      ValueError: It does not fit.
    """
    memory = physical_memory()
    if memory is not None and needed > memory:
        raise ValueError(
            f"{what} need about {needed / 2**30:.3g} GiB and this machine has {memory / 2**30:.3g} GiB: {mend}."
        )


def physical_memory() -> int | None:
    """Returns the bytes of memory of this machine, or None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def first_line(error: BaseException, most: int | None = 300) -> str:
    """Returns what an error says in its first line, of so many characters, to be told within a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most].rstrip(". ")
