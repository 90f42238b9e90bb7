"""How the cost of mirror ascent grows with batch, pixels, channels, window and iterations, in a process on one core.

On several cores XLA splits what is large and leaves what is small on one: the time of an image then says how many cores
it had, not what it costs.
"""

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks import material, timing
from wasser_tf import MirrorAscent, ThreatModel

_SHORT, _LONG = 2, 12


def scaling(quick: bool) -> dict[str, Any]:
    """Measures in a process of its own, for TensorFlow takes all cores that it finds at the start."""
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.scaling", *(["quick"] if quick else [])]
    done = subprocess.run(command, env={**os.environ, **one_thread}, capture_output=True, text=True, timeout=3600)
    if done.returncode:
        raise RuntimeError(f"Scaling could not be measured: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(quick: bool) -> dict[str, Any]:
    """Times an iteration with a linear classifier, which costs next to nothing: what is left is transport."""
    batches = (32, 128) if quick else (8, 32, 128, 512, 1024)
    shapes = ((8, 8, 1), (28, 28, 1)) if quick else ((8, 8, 1), (28, 28, 1), (64, 64, 1), (32, 32, 3), (64, 64, 3))
    windows = (3, 5) if quick else (3, 5, 7, 9)
    rounds = 3 if quick else 5
    rows = [{"over": "batch", **_cost((28, 28, 1), batch, 5, rounds)} for batch in batches]
    rows += [{"over": "pixels", **_cost(shape, 32, 5, rounds)} for shape in shapes]
    rows += [{"over": "kernel_size", **_cost((28, 28, 1), 32, size, rounds)} for size in windows]
    return {"rows": rows, "iterations": _by_iterations(rounds)}


def _cost(shape: tuple[int, int, int], batch: int, kernel_size: int, rounds: int) -> dict[str, Any]:
    images, labels = material.images_like(shape, batch)
    classifier = material.build("linear", shape)
    ball = ThreatModel(epsilon=0.5, kernel_size=kernel_size)
    functions = {
        str(iterations): timing.attack(MirrorAscent(ball, iterations=iterations, polish=0), classifier, images, labels)
        for iterations in (_SHORT, _LONG)
    }
    times, first = timing.in_turns(functions, rounds)
    step = timing.median(timing.per_iteration(times[str(_SHORT)], times[str(_LONG)], _LONG - _SHORT))
    height, width, channels = shape
    return {
        "shape": f"{height}×{width}×{channels}",
        "batch": batch,
        "kernel_size": kernel_size,
        "iteration_ms": 1e3 * step,
        "ns_per_pixel": 1e9 * step / (batch * height * width * channels),
        "first_call_s": first[str(_SHORT)],
    }


def _by_iterations(rounds: int) -> list[dict[str, Any]]:
    """Times whole attacks on the LeNet: a line whose slope is an iteration."""
    shape = (28, 28, 1)
    images, labels = material.images_like(shape, 128)
    classifier = material.build("lenet", shape)
    functions = {
        str(iterations): timing.attack(
            MirrorAscent(ThreatModel(epsilon=0.5), iterations=iterations), classifier, images, labels
        )
        for iterations in (5, 10, 20, 40)
    }
    times, _ = timing.in_turns(functions, rounds)
    return [{"iterations": int(key), "attack_ms": 1e3 * timing.median(times[key])} for key in functions]


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(json.dumps(_measure("quick" in sys.argv)))
