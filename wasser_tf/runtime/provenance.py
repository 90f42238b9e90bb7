"""Where a result comes from: the commit of the code and the command that was run."""

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
    """Returns the commit that this package runs from, with -dirty if files differ from it; None outside a checkout.

    It is read once, at the first call: a checkout may move on while a long run goes.
    """
    folder = pathlib.Path(__file__).parent
    try:
        # A package that was installed may lie below some other repository, which does not know its files.
        for command in (
            ["ls-files", "--error-unmatch", "__init__.py"],
            ["describe", "--always", "--dirty", "--abbrev=40"],
        ):
            done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def command(arguments: list[str] | None = None) -> str:
    """Returns the command line of this process, to be run again from a checkout.

    Absolute paths tell of a machine and not of the run: of each only the last part is left, after "…/".

    Args:
      arguments: The program and what it was given; those of the process by default.
    """
    program, *given = sys.argv if arguments is None else arguments
    script = pathlib.Path(program)
    parts = [f"{script.parent.name}/{script.name}" if script.suffix == ".py" else script.name, *given]
    return " ".join(["python", *(_ABSOLUTE.sub(r"…/\1", shlex.quote(part)) for part in parts)])
