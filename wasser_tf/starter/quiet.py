"""Imports TensorFlow quickly and without its start-up messages. Import it first."""

import contextlib
import os
import sys
from collections.abc import Iterator

from wasser_tf.starter import memory  # noqa: F401


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Discards what native code writes to standard error, by redirecting the file descriptor."""
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
    """Makes modules appear missing to code that imports them conditionally."""
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


# Instead of what the environment, or a forgotten ~/.keras/keras.json, sets for other programs.
os.environ["KERAS_BACKEND"] = "tensorflow"
# Set before the import, because some messages are written before TensorFlow reads its own log level.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Keras imports these for wrappers and plots that no command uses; they take a quarter of the start-up time.
with _hushed(), _without("sklearn", "matplotlib.pyplot"):
    import tensorflow
# It warns of functions retraced for several attacks or shapes, which is intended here.
tensorflow.get_logger().setLevel("ERROR")
