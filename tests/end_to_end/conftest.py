import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def environment():
    """The environment of a user's process, with the settings of conftest.py for what XLA compiles."""
    return {**os.environ, "PYTHONPATH": str(_ROOT), "CUDA_VISIBLE_DEVICES": ""}


class Forks:
    """Binaries in forks of one process that has imported everything: an import takes longer than most runs."""

    def __init__(self, environment):
        self._server = subprocess.Popen(
            [sys.executable, str(pathlib.Path(__file__).parent / "forks.py")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def ask(self, **request):
        self._server.stdin.write(json.dumps(request) + "\n")
        return json.loads(self._server.stdout.readline())

    def start(self, binary, *arguments, streams, environment=None):
        """Starts a binary whose output and errors go to two files (or to one, given twice)."""
        request = {"binary": binary, "arguments": [str(argument) for argument in arguments], "folder": os.getcwd()}
        streams = [str(stream) for stream in streams]
        return Started(self, self.ask(**request, streams=streams, environment=environment or {}))

    def close(self):
        # Its exit would take seconds, and nothing of it is kept.
        self._server.kill()
        self._server.wait()


class Started:
    """A binary that runs."""

    def __init__(self, forks, pid):
        self._forks, self._pid, self._code = forks, pid, None

    def poll(self):
        """The exit code, or None while it runs."""
        if self._code is None:
            self._code = self._forks.ask(poll=self._pid)
        return self._code

    def wait(self):
        if self._code is None:
            self._code = self._forks.ask(wait=self._pid)
        return self._code

    def kill(self):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self.wait()


@pytest.fixture(scope="session")
def forks(environment):
    made = Forks(environment)
    yield made
    made.close()


@pytest.fixture(scope="session")
def run_binary(forks, tmp_path_factory):
    """A function that runs a binary of bin/ with arguments and returns (exit code, output, errors)."""
    folder = tmp_path_factory.mktemp("streams")
    streams = [folder / "output", folder / "errors"]

    def run(binary, *arguments):
        code = forks.start(binary, *arguments, streams=streams).wait()
        return code, *(stream.read_text() for stream in streams)

    return run
