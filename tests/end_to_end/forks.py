"""Runs binaries on request, each in a process forked from this one, which has imported TensorFlow but not used it."""

import json
import os
import sys

from reliability import forked


def _answer(request):
    """Runs a binary to its end and returns its exit code."""
    child = os.fork()
    if child == 0:
        code = 98
        try:
            os.chdir(request["folder"])
            for descriptor in (1, 2):
                file = os.open(request["streams"][descriptor - 1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, descriptor)
            code = forked.exit_code(forked.binary(request["binary"], request["arguments"]))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main():
    forked.import_all()
    for line in sys.stdin:
        print(_answer(json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
