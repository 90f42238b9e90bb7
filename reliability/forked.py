"""Runs binaries in processes forked from one that has imported TensorFlow but not used it, to save the imports."""

import contextlib
import os
import pathlib
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

_ROOT = pathlib.Path(__file__).resolve().parents[1]


class Ended(NamedTuple):
    """The end of a process.

    Attributes:
      code: Its exit code; negative for a signal, None if it ran out of time.
      output: Its standard output and error.
    """

    code: int | None
    output: str


class Process:
    """A forked process. Its standard output and error are appended to one file."""

    def __init__(self, work: Callable[[], object], output: pathlib.Path):
        """Forks and calls `work` in the child, which exits with 0, the code of SystemExit, or 99 after an exception."""
        self.output = output
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(_child(work, output))

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds: float) -> Ended:
        """Waits for the end of the process, and kills it after `seconds`."""
        end = time.monotonic() + seconds
        while (code := self.ended()) is None:
            if time.monotonic() > end:
                self.kill()
                os.waitpid(self.pid, 0)
                return Ended(None, self.output.read_text(errors="replace"))
            time.sleep(0.02)
        return Ended(code, self.output.read_text(errors="replace"))

    def ended(self) -> int | None:
        """Returns the exit code, or None while the process runs. Do not call it again after it returned a code."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return None if pid == 0 else os.waitstatus_to_exitcode(status)


def import_all() -> None:
    """Imports all modules that the binaries need, so that forks start without imports."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
    import sklearn.datasets

    from wasser_tf.commands import _flags  # noqa: F401
    from wasser_tf.paper import experiments  # noqa: F401
    from wasser_tf.runs import (  # noqa: F401
        attack,
        evaluate,
        predict,  # noqa: F401
        publish,  # noqa: F401
        train,  # noqa: F401
    )
    from wasser_tf.serving import export  # noqa: F401

    # The first use of both reads files and imports more modules.
    sklearn.datasets.load_digits()
    matplotlib.figure.Figure().text(0, 0, "ε")


def binary(name: str, arguments: Sequence[str]) -> Callable[[], object]:
    """Returns a function that runs a binary of bin/ with arguments."""

    def work() -> None:
        path = _ROOT / "bin" / f"{name}.py"
        sys.argv = [str(path), *arguments]
        # As Python does for a script, for what the binaries import from their folder.
        sys.path.insert(0, str(path.parent))
        runpy.run_path(str(path), run_name="__main__")

    return work


def exit_code(work: Callable[[], object]) -> int:
    """Calls `work` and returns 0, the code of SystemExit, or 99 after an exception, whose traceback is printed."""
    try:
        work()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _child(work: Callable[[], object], output: pathlib.Path) -> int:
    """Calls `work` and returns the exit code. No exception may escape into the parent's code."""
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        return exit_code(work)
    except BaseException:
        return 98
