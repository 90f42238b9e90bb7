"""Starts a command of this clone: bin/train.py is `wasser-tf train`, whether or not the package is installed."""

import importlib.util
import os
import pathlib
import sys


def start(path: str) -> None:
    """Runs the command that has the name of a file in bin/.

    Args:
      path: The path of the file.
    """
    missing = [name for name in ("tensorflow", "wasser_tf") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"{os.path.basename(sys.argv[0])}: {sys.executable} lacks {' and '.join(missing)}: create the environment "
            "with `make env` and run this with .venv/bin/python."
        )
    argv = list(sys.argv)
    # This name makes the package wait with TensorFlow until the command starts.
    sys.argv[0] = "wasser-tf"
    from wasser_tf.starter import run_command

    run_command(pathlib.Path(path).stem, argv)
