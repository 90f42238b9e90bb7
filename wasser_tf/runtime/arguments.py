"""Validators of arguments: each message says what was given, what is needed and how to fix it."""

import math
import numbers
import os
import pathlib
import re
from collections.abc import Collection
from typing import Any


def is_whole(value: Any, least: int) -> bool:
    """Returns whether the value is a Python or NumPy integer of at least `least`."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Raises an error unless the value is a finite number in its range.

    Args:
      name: The name of the argument, for the message.
      value: The value to check.
      above: A bound that the value must exceed.
      least: The smallest valid value.
      most: The largest valid value; needs `least`.
      below: A bound that the value must not reach; needs `least`.

    Raises:
      ValueError: The value is not a finite number, or is out of range.
    """
    needed = "a finite number"
    if above is not None:
        needed += f" above {above:g}"
    elif most is not None:
        needed += f" from {least:g} to {most:g}"
    elif below is not None:
        needed += f" from {least:g} to below {below:g}"
    elif least is not None:
        needed += f" of at least {least:g}"
    good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if (
        not good
        or (above is not None and value <= above)
        or (least is not None and value < least)
        or (most is not None and value > most)
        or (below is not None and value >= below)
    ):
        raise ValueError(f"{name} must be {needed}, got {value!r}.")


def check_one_of(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raises an error unless the value is one of the choices.

    Args:
      name: The name of the argument, for the message.
      value: The value to check.
      choices: The valid values, in the order in which the message lists them.

    Raises:
      ValueError: The value is not one of the choices.
    """
    # Not `in`, which an unhashable value would make fail, and by type, because True equals 1.
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}.")


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
    """Returns a path with ~ expanded to the home folder.

    Raises:
      ValueError: The value is not a path.
    """
    try:
        return pathlib.Path(value).expanduser()
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{name} must be the path of a file or a folder, got {value!r}.") from error


def check_fits(needed: float, what: str, remedy: str) -> None:
    """Raises an error before something is allocated that does not fit into memory.

    Args:
      needed: A lower estimate of its bytes.
      what: Its name, in the plural.
      remedy: How to fix it.

    Raises:
      ValueError: It needs more than the memory of this machine.
    """
    memory = physical_memory()
    if memory is not None and needed > memory:
        raise ValueError(
            f"{what} need about {needed / 2**30:.3g} GiB and this machine has {memory / 2**30:.3g} GiB: {remedy}."
        )


def physical_memory() -> int | None:
    """Returns the memory of this machine in bytes, or None if the system does not report it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def first_line(error: BaseException, most: int | None = 300) -> str:
    """Returns the first line of an error's message, at most `most` characters, for use within a sentence.

    Of an error within traced code, or within a layer of Keras, it is that of the cause.
    """
    # Keras emphasises by escape codes of terminals.
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line] or [type(error).__name__]
    if lines[0].endswith("in user code:"):
        causes = [place for place, line in enumerate(lines) if re.match(r"\w+(Error|Exception): ", line)]
        lines = lines[causes[-1] :] if causes else lines
        lines[0] = lines[0].partition(": ")[2] if causes else lines[0]
    while len(lines) > 1 and lines[0].startswith("Exception encountered when calling"):
        lines = lines[1:]
    return lines[0][:most].rstrip(". ")
