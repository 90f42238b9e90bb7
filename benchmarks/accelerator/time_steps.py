"""Compiles and times the programs of `export_steps` on JAX's first device: `python time_steps.py FOLDER [OUT.json]`.

Compiles all programs concurrently. Then prints, for each program, the median, shortest and longest time of its runs,
and the difference between its first result and TensorFlow's on the CPU.
"""

import concurrent.futures
import json
import pathlib
import sys
import time

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

from runtime import Program  # noqa: E402

_RUNS, _PATIENCE_SECONDS = 25, 2.0


def _compile(folder: pathlib.Path) -> tuple[Program, float]:
    started = time.perf_counter()
    return Program(folder), time.perf_counter() - started


def _time(folder: pathlib.Path, program: Program, compiled: float) -> dict:
    with np.load(folder / "example.npz") as arrays:
        example = dict(arrays)
    arguments = [jax.device_put(example[name]) for name in sorted(example) if name.startswith("argument_")]
    found = jax.block_until_ready(program(*arguments))
    differences = {
        name: float(np.abs(np.asarray(value, np.float64) - example[name]).max())
        for name, value in found.items()
        if name in example
    }
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < _RUNS and (len(times) < 5 or time.perf_counter() < began + _PATIENCE_SECONDS):
        started = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        times.append(1e3 * (time.perf_counter() - started))
    return {
        "program": folder.name,
        "median_ms": round(float(np.median(times)), 3),
        "min_ms": round(min(times), 3),
        "max_ms": round(max(times), 3),
        "runs": len(times),
        "compile_s": round(compiled, 1),
        "difference": differences,
    }


def main(root: pathlib.Path, out: pathlib.Path | None = None) -> None:
    """Prints a line of JSON for each program, and writes all of them to `out`."""
    folders = sorted(path.parent for path in root.glob("*/example.npz"))
    device = jax.devices()[0].device_kind
    print(device, flush=True)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        programs = list(pool.map(_compile, folders))
    rows = []
    for folder, (program, compiled) in zip(folders, programs, strict=True):
        rows.append(_time(folder, program, compiled))
        print(json.dumps(rows[-1]), flush=True)
    if out:
        out.write_text(json.dumps({"device": device, "jax": jax.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
