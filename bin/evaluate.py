"""`wasser-tf evaluate` in a clone. Its flags are defined in wasser_tf/commands/evaluate.py."""

import _start

if __name__ == "__main__":
    _start.start(__file__)
