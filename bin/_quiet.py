"""Imports TensorFlow fast, and without its start-up messages, which would bury a binary's own. To be imported first."""

import contextlib
import importlib.util
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


@contextlib.contextmanager
def _without(*modules: str) -> Iterator[None]:
    """Makes modules seem missing to those that would import them."""
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


if _missing := [name for name in ("tensorflow", "wasser_tf") if importlib.util.find_spec(name) is None]:
    sys.exit(
        f"{os.path.basename(sys.argv[0])}: {sys.executable} has no {' and no '.join(_missing)}: make the environment "
        "by `make env`, and start this with .venv/bin/python."
    )
# Whatever the environment, or a forgotten ~/.keras/keras.json, sets for other programs.
os.environ["KERAS_BACKEND"] = "tensorflow"
# Some messages come before TensorFlow reads the level that hides the others.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Keras looks for these, for wrappers and pictures of its own that no binary has a use for: a quarter of a start's time.
with _hushed(), _without("sklearn", "matplotlib.pyplot"):
    import tensorflow
# It warns of functions traced for several attacks or shapes, which is what these programs do.
tensorflow.get_logger().setLevel("ERROR")
