"""Imports TensorFlow without its start-up messages, which would bury a binary's own. To be imported first."""

import contextlib
import os
import sys
from collections.abc import Iterator

import _memory  # noqa: F401


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keeps what native code writes to standard error, by the file descriptor, from being seen."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


# Some messages come before TensorFlow reads the level that hides the others.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with _hushed():
    import tensorflow
# It warns of functions traced for several attacks or shapes, which is what these programs do.
tensorflow.get_logger().setLevel("ERROR")
