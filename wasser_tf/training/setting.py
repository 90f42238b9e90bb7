"""Declaration of the fields of a config: default, range, choices and description in one place."""

import dataclasses
import functools
import textwrap
from collections.abc import Callable, Collection
from typing import Any

from wasser_tf.runtime.arguments import check_one_of


def setting(
    help: str,  # noqa: A002 (the name that flags have for it)
    default: Any = dataclasses.MISSING,
    *,
    check: Callable[[str, Any], None] | None = None,
    choices: Collection[Any] | None = None,
) -> Any:
    """Declares a field of a config (a dataclass).

    Args:
      help: The description, for the docstring of the config and for --help of the binaries.
      default: The default value.
      check: Called with the field's name and value; raises a ValueError if the value is not valid.
      choices: The valid values, if they are enumerable; replaces `check`.

    Returns:
      A `dataclasses.Field` whose metadata holds "help", "check" and "choices".
    """
    if choices is not None:
        check = functools.partial(check_one_of, choices=tuple(choices))
    return dataclasses.field(default=default, metadata={"help": help, "check": check, "choices": choices})


def document_fields(config: Any) -> None:
    """Appends the descriptions of the fields to the docstring of a config."""
    lines = []
    for field in dataclasses.fields(config):
        choices = field.metadata["choices"]
        suffix = "" if choices is None else f" One of {', '.join(map(str, choices))}."
        lines.append(f"  {field.name}: {field.metadata['help']}{suffix}")
    wrapped = [textwrap.fill(line, 116, subsequent_indent="    ", break_on_hyphens=False) for line in lines]
    config.__doc__ = f"{config.__doc__ or ''}\n{textwrap.indent(chr(10).join(['Attributes:', *wrapped]), '    ')}\n"
