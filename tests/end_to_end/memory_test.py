"""The commands keep the memory that was freed."""

import ctypes
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_PROGRAM = """
import resource, sys, threading
if sys.argv[1] == "kept":
    sys.argv[0] = "wasser-tf"
    from wasser_tf.starter import memory
import numpy as np

def work():
    for _ in range(20):
        np.ones(2**22)

for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_reused():
    faults = {}
    for name in ("kept", "given back"):
        command = [sys.executable, "-c", _PROGRAM, name]
        finished = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=60, check=True)
        faults[name] = int(finished.stdout)
    # 32 MB twenty times, in pages of 4 kB or, where the system joins them, 2 MB.
    assert faults["kept"] < 100 < faults["given back"]
