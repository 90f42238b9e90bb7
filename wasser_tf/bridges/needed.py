"""The error for a library that a bridge needs and that is not installed."""

import importlib.util


def check_installed(extra: str, *modules: str) -> None:
    """Checks that the library of a bridge is installed, without importing it.

    Args:
      extra: The extra of wasser_tf that installs it.
      modules: Its modules.

    Raises:
      ImportError: One is missing; the message has the command that installs it.

    Example:
    >>> check_installed("serving", "numpy")
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"This bridge of wasser_tf needs {' and '.join(missing)}, which is not installed: install the extra with "
            f"pip install 'wasser_tf[{extra}]', or in a clone with pip install '.[{extra}]'."
        )
