import json
import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def environment():
    """The environment of a user's process, with the settings of conftest.py for what XLA compiles."""
    return {**os.environ, "PYTHONPATH": str(_ROOT), "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="session")
def run_binary(environment, tmp_path_factory):
    """A function that runs a binary of bin/ with arguments and returns (exit code, output, errors).

    All runs are forks of one process that has imported everything: an import takes longer than most runs.
    """
    folder = tmp_path_factory.mktemp("streams")
    streams = [folder / "output", folder / "errors"]
    command = [sys.executable, str(pathlib.Path(__file__).parent / "forks.py")]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:

        def run(binary, *arguments):
            request = {
                "binary": binary,
                "arguments": [str(argument) for argument in arguments],
                "folder": os.getcwd(),
                "streams": [str(stream) for stream in streams],
            }
            process.stdin.write(json.dumps(request) + "\n")
            code = int(process.stdout.readline())
            return code, *(stream.read_text() for stream in streams)

        yield run
        # Its exit would take seconds, and nothing of it is kept.
        process.kill()
