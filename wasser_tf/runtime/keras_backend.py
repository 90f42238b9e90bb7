"""The backend of Keras, which must be TensorFlow. Neither Keras nor TensorFlow is imported to find out."""

import json
import os
import sys


def check_keras_backend() -> None:
    """Checks that Keras has the TensorFlow backend, or will have it when it is imported.

    Keras takes the backend from the environment variable KERAS_BACKEND, otherwise from keras.json in its folder
    (KERAS_HOME, or ~/.keras), and cannot change it later.

    Raises:
      ImportError: It is another one; the message is one sentence that says where it is set and how to change it.
    """
    backend, source = _backend_and_source()
    if backend == "tensorflow":
        return
    late = ""
    if "keras" in sys.modules:
        late = ", in a new process, as Keras is imported already"
    raise ImportError(
        f"wasser_tf needs the TensorFlow backend of Keras, got {backend!r} from {source}: set the environment variable "
        "KERAS_BACKEND=tensorflow before Python starts, or os.environ['KERAS_BACKEND'] = 'tensorflow' before the first "
        f"import of keras or wasser_tf{late}."
    )


def _backend_and_source() -> tuple[str, str]:
    """Returns the backend, and what sets it."""
    from_environment = os.environ.get("KERAS_BACKEND")
    path = os.path.expanduser(os.path.join(os.environ.get("KERAS_HOME", os.path.join("~", ".keras")), "keras.json"))
    source = "KERAS_BACKEND" if from_environment else path
    try:
        # What Keras took when it was imported, whatever was set since.
        config = sys.modules["keras"].config
        used = config.backend()
    except (KeyError, AttributeError):
        return from_environment or _backend_in_file(path), source
    return used, source


def _backend_in_file(path: str) -> str:
    """Returns the backend that a keras.json names, by default TensorFlow."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file).get("backend") or "tensorflow"
    except (OSError, ValueError, AttributeError):
        return "tensorflow"
