"""Provenance of results: the commit of the code and the command line."""

import functools
import pathlib
import re
import shlex
import subprocess
import sys

# A path from the root of a file system, where an argument or a part of it (name=path, path,path) begins.
_ABSOLUTE = re.compile(r"(?<![^=,:'\s])~?/(?:[^/,=:']+/)*([^/,=:'\s]+)")


@functools.cache
def commit() -> str | None:
    """Returns the commit of the running code, with -dirty if files were changed; None outside a checkout.

    It is read once, at the first call, because the checkout may change during a long run.
    """
    folder = pathlib.Path(__file__).parent
    try:
        # An installed package may lie inside another repository, which does not track its files.
        for command in (
            ["ls-files", "--error-unmatch", "__init__.py"],
            ["describe", "--always", "--dirty", "--abbrev=40"],
        ):
            done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def command(arguments: list[str] | None = None) -> str:
    """Returns the command line of this process, in a form that can be run again.

    Absolute paths depend on the machine: only their last part is kept, after "…/".

    Args:
      arguments: The program and its arguments; those of the process by default.
    """
    program, *given = sys.argv if arguments is None else arguments
    if program.startswith("wasser-tf "):
        return " ".join([program, *(_ABSOLUTE.sub(r"…/\1", shlex.quote(part)) for part in given)])
    script = pathlib.Path(program)
    parts = [f"{script.parent.name}/{script.name}" if script.suffix == ".py" else script.name, *given]
    return " ".join(["python", *(_ABSOLUTE.sub(r"…/\1", shlex.quote(part)) for part in parts)])
