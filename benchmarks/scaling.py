"""Measures how the cost of mirror ascent grows with batch, pixels, channels, window and iterations, on one core.

On several cores, XLA splits large operations and runs small ones on one core, so the time per image would depend on the
number of cores in use.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks import material, timing
from wasser_tf import MirrorAscent, ThreatModel

_SHORT, _LONG = 2, 12
# The classifiers, and the description of what is timed with each.
CLASSIFIERS = {"linear": "transport alone", "lenet": "with the LeNet"}


def scaling(quick: bool) -> dict[str, Any]:
    """Measures in a separate process, because TensorFlow reserves all available cores when it starts."""
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.scaling", *(["quick"] if quick else [])]
    done = subprocess.run(command, env={**os.environ, **one_thread}, capture_output=True, text=True, timeout=3600)
    if done.returncode:
        raise RuntimeError(f"Scaling could not be measured: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(quick: bool) -> dict[str, Any]:
    """Times an iteration with a linear classifier of negligible cost (transport alone) and with the LeNet.

    All cases run in turns and are measured in CPU time, which other programs affect least.
    """
    batches = (32, 128) if quick else (8, 32, 128, 512, 1024)
    shapes = ((8, 8, 1), (28, 28, 1)) if quick else ((8, 8, 1), (28, 28, 1), (64, 64, 1), (32, 32, 3), (64, 64, 3))
    windows = (3, 5) if quick else (3, 5, 7, 9)
    rounds = 3 if quick else 9
    cells = [_Cell("batch", (28, 28, 1), batch, 5) for batch in batches]
    cells += [_Cell("pixels", shape, 32, 5) for shape in shapes]
    cells += [_Cell("kernel_size", (28, 28, 1), 32, size) for size in windows]
    functions: dict[str, Any] = {}
    for cell in cells:
        for name in CLASSIFIERS:
            for iterations in (_SHORT, _LONG):
                # A cell that lies on two axes is measured once.
                if (key := cell.key(name, iterations)) not in functions:
                    functions[key] = cell.attack(name, iterations)
    times, first = timing.in_turns(functions, rounds, clock=time.process_time, patience=300.0)
    rows = [cell.row(times, first) for cell in cells]
    many = [row for row in rows if row["over"] == "batch" and row["batch"] >= 32]
    large = [row for row in rows if row["over"] == "pixels" and row["shape"] in ("28×28×1", "64×64×1")]
    return {
        "rows": rows,
        **{
            f"dearest pixel / cheapest, {what}, {CLASSIFIERS[name]}": max(costs) / min(costs)
            for name in CLASSIFIERS
            for what, chosen in ((f"batch 32 to {batches[-1]}", many), ("28×28 to 64×64", large))
            # With --quick, only one of the two sizes is measured.
            if len(costs := [row[column(name)] for row in chosen]) > 1
        },
        "iterations": _by_iterations(rounds),
    }


class _Cell(NamedTuple):
    """A batch to attack, and the axis of the comparison it belongs to."""

    over: str
    shape: tuple[int, int, int]
    batch: int
    kernel_size: int

    def key(self, classifier: str, iterations: int) -> str:
        return f"{classifier} {self.shape} {self.batch} {self.kernel_size} {iterations}"

    def attack(self, classifier: str, iterations: int) -> Callable[[], Any]:
        images, labels = material.images_like(self.shape, self.batch)
        ball = ThreatModel(epsilon=0.5, kernel_size=self.kernel_size)
        ascent = MirrorAscent(ball, iterations=iterations, polish=0)
        return timing.attack(ascent, material.build(classifier, self.shape), images, labels)

    def row(self, times: timing.Times, first: dict[str, float]) -> dict[str, Any]:
        pixels = self.batch * math.prod(self.shape)
        row: dict[str, Any] = {
            "over": self.over,
            "shape": "×".join(map(str, self.shape)),
            "batch": self.batch,
            "kernel_size": self.kernel_size,
        }
        for name in CLASSIFIERS:
            short, long = (times[self.key(name, iterations)] for iterations in (_SHORT, _LONG))
            step = timing.median(timing.per_iteration(short, long, _LONG - _SHORT))
            row[f"iteration_ms, {CLASSIFIERS[name]}"] = 1e3 * step
            row[column(name)] = 1e9 * step / pixels
        row["first_call_s"] = first[self.key("linear", _SHORT)]
        return row


def column(classifier: str) -> str:
    """Returns the name of the column that contains the cost per pixel with a classifier."""
    return f"ns_per_pixel, {CLASSIFIERS[classifier]}"


def _by_iterations(rounds: int) -> list[dict[str, Any]]:
    """Times complete attacks on the LeNet with different numbers of iterations."""
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
