"""Measures the peak memory of a training step, each case in its own process.

A single case: python -m benchmarks.memory '{"batch": 64}'
"""

import json
import pathlib
import resource
import subprocess
import sys
from typing import Any

_CASES: list[dict[str, Any]] = [
    {"batch": 64},
    {"batch": 128},
    {"batch": 256},
    {"batch": 512},
    {"batch": 512, "attack_chunk": 64},
    {"batch": 128, "side": 56},
    {"batch": 16, "kernel_size": None},
]


def memory(quick: bool) -> dict[str, Any]:
    """Measures the cases; the defaults are MNIST's image shape, 5×5 windows and the LeNet."""
    rows = []
    for case in _CASES[:2] if quick else _CASES:
        command = [sys.executable, "-m", "benchmarks.memory", json.dumps(case)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise RuntimeError(f"{case} failed: {done.stderr[-2000:]}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return {"rows": rows}


def _measure(batch: int, side: int = 28, kernel_size: int | None = 5, attack_chunk: int | None = None) -> None:
    # Imported here, because the parent process needs none of it.
    import keras
    import tensorflow as tf

    from benchmarks import material
    from wasser_tf import MirrorAscent, ThreatModel, WasserTrain

    shape = (side, side, 1)
    images, labels = (tf.constant(array) for array in material.images_like(shape, batch))
    attack = MirrorAscent(ThreatModel(epsilon=0.5, kernel_size=kernel_size), iterations=3, polish=3)
    model = WasserTrain(material.build("lenet", shape), attack, attack_chunk=attack_chunk)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = _peak_mib()
    for _ in range(2):
        model.train_on_batch(images, labels)
    support = attack.threat_model.kernel_size
    targets = side**2 if support is None else support**2
    row = {
        "shape": f"{side}×{side}×1",
        "batch": batch,
        "kernel_size": kernel_size or "dense",
        "attack_chunk": attack_chunk,
        "peak_mib": _peak_mib(),
        "step_mib": _peak_mib() - before,
        "plan_mib": batch * targets * side**2 * 4 / 2**20,
    }
    print(json.dumps(row))


def _peak_mib() -> float:
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        # On Linux, getrusage starts with the peak of the parent process, so it is not used.
        return int(status.read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    _measure(**json.loads(sys.argv[1]))
