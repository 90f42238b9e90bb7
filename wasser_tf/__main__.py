"""`python -m wasser_tf` is `wasser-tf`."""

import os
import sys

# Python has imported wasser_tf, and with it TensorFlow, before it runs this module. What a command sets before
# TensorFlow starts (memory, messages, the backend of Keras) needs a new interpreter, which replaces this one.
_given = sys.argv[1:]
_interpreter = sys.orig_argv[: len(sys.orig_argv) - len(_given) - 1]
os.execv(sys.executable, [*_interpreter, "wasser_tf_command", *_given])
