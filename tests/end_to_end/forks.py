"""Runs binaries on request, each in a process forked from this one, which has imported TensorFlow but not used it.

A request is a line of JSON. {"binary", "arguments", "folder", "streams", "environment"} starts a binary; the answer is
its process id. {"wait": pid} and {"poll": pid} are answered with its exit code, the latter with null while it runs.
"""

import json
import os
import sys

from tensorflow.python.distribute import collective_all_reduce_strategy as strategies

from reliability import forked

# A worker looks whether the others are there every three seconds instead of thirty.
strategies.CollectiveAllReduceExtended._check_health_interval = 3


def _start(request):
    """Starts a binary and returns its process id."""
    child = os.fork()
    if child == 0:
        code = 98
        try:
            os.chdir(request["folder"])
            os.environ.update(request["environment"])
            for descriptor, stream in zip((1, 2), request["streams"], strict=True):
                os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), descriptor)
            sys.stdout.reconfigure(line_buffering=True)
            code = forked.exit_code(forked.binary(request["binary"], request["arguments"]))
        finally:
            os._exit(code)
    return child


def _answer(request):
    if "binary" in request:
        return _start(request)
    pid = request.get("wait") or request["poll"]
    found, status = os.waitpid(pid, 0 if "wait" in request else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def main():
    forked.import_all()
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
