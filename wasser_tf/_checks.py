"""What the checks of arguments and files share."""

import numbers
from typing import Any


def is_whole(value: Any, least: int) -> bool:
    """Whether the value is a whole number, Python's or NumPy's, of at least `least`."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def first_line(error: BaseException) -> str:
    """Returns what an error says in its first line, to be told within a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(". ")
