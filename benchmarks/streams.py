r"""Peak memory of the commands on a folder of JPEGs that is read as a stream, and of a run that is killed and resumed.

  python -m benchmarks.streams --folder=runs/streams --results=docs/results

Makes folders of 2,000 and 20,000 JPEGs of 256×256 pixels in 100 classes, trains, attacks and evaluates on both with
--streaming=always, and compares the peak memory of the processes. The training on 2,000 images is also killed within
WasserTrain and resumed. The same command continues; results are stored in the folder.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
from PIL import Image

from wasser_tf.runtime import storage

SIZES = (2000, 20000)
NAMES = ("train", "attack", "evaluate")
CLASSES, SIDE = 100, 256
# The images are reduced to this, so that a CPU can train on them.
_SMALL = 64
_COMMON = (f"--image_size={_SMALL},{_SMALL}", "--streaming=always")
_TRAIN = (
    *_COMMON,
    *("--model=linear", "--standard_epochs=0", "--epochs=1", "--iterations=2", "--epsilon=0.002", "--radii=0.002"),
    *("--batch_size=64", "--report_iterations=2", "--num_attack_examples=64"),
)
_ATTACK = (*_COMMON, "--iterations=2", "--batch_size=100", "--split=test", "--allow_chance_accuracy")
_RADII = "--radii=0.002"


def make_folder(folder: pathlib.Path, count: int) -> None:
    """Writes `count` JPEGs: smooth random pictures, whose mean colour depends on the class."""
    for number in range(count):
        label, part = number % CLASSES, "test" if number // CLASSES % 5 == 4 else "train"
        path = folder / part / f"class{label:03d}" / f"{number:06d}.jpg"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        colour = np.random.default_rng(10**6 + label).uniform(40, 215, 3)
        coarse = np.clip(colour + rng.normal(0, 25, (8, 8, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=85)


def _run(*command: str, kill_when: pathlib.Path | None = None) -> dict[str, Any]:
    """Runs a command of the package; returns its peak memory in MB and its seconds."""
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "wasser_tf", *command],
        stdout=subprocess.PIPE if kill_when else None,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    if kill_when is not None:
        while not kill_when.exists() and process.poll() is None:
            time.sleep(0.05)
        # Within the phase that follows.
        time.sleep(3)
        process.send_signal(signal.SIGINT)
    _, status, usage = os.wait4(process.pid, 0)
    if status and kill_when is None:
        raise RuntimeError(f"{' '.join(command)} ended with {status}")
    return {"megabytes": round(usage.ru_maxrss / 1024), "seconds": round(time.monotonic() - begin)}


def _commands(folder: pathlib.Path, count: int) -> dict[str, tuple[str, ...]]:
    """Returns the commands on one of the folders, by name."""
    runs, data = folder / f"runs_{count}", f"--dataset={folder}/images_{count}/"
    model = f"{runs}/train/best.keras"
    return {
        "train": ("train", data, *_TRAIN, f"--output_dir={runs}/train", "--overwrite"),
        "attack": (
            *("attack", f"--model={model}", data, *_ATTACK, "--attack=mirror_ascent", "--epsilon=0.002"),
            *("--stored_examples=int8", f"--output_dir={runs}/attack", "--overwrite"),
        ),
        "evaluate": (
            *("evaluate", f"--models={model}", data, *_ATTACK, "--attacks=mirror_ascent", _RADII, "--nosanity"),
            *("--stored_examples=none", f"--output_dir={runs}/evaluate", "--overwrite"),
        ),
    }


def measure(folder: pathlib.Path) -> dict[str, Any]:
    """Runs the commands that have no result yet."""
    path = folder / "streams.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for count in SIZES:
        make_folder(folder / f"images_{count}", count)
    for name in NAMES:
        for count in SIZES:
            if f"{name} {count}" not in found:
                found[f"{name} {count}"] = _run(*_commands(folder, count)[name])
                print(name, count, found[f"{name} {count}"], flush=True)
                storage.write_json(path, found)
    if "resumed" not in found:
        found["resumed"] = _resume(folder)
        storage.write_json(path, found)
    return found


def _resume(folder: pathlib.Path) -> float:
    """Interrupts the training on the smaller folder, resumes it, and returns the largest difference of its weights."""
    images, alone, run = (folder / name for name in (f"images_{SIZES[0]}", f"runs_{SIZES[0]}/train", "runs_resumed"))
    command = ("train", f"--dataset={images}/", *_TRAIN, f"--output_dir={run}")
    _run(*command, "--overwrite", kill_when=run / "standard.keras")
    _run(*command, "--resume")
    weights = [np.load(one / "checkpoints" / "wasser_train.npz") for one in (alone, run)]
    keys = [key for key in weights[0].files if key.startswith("variable_")]
    return max(float(np.abs(weights[0][key].astype(np.float64) - weights[1][key]).max()) for key in keys)


def write_page(found: dict[str, Any], path: pathlib.Path) -> None:
    """Writes the table."""
    small, large = SIZES
    lines = [
        "# Folders that do not fit into memory",
        "",
        f"Peak memory of the commands on {small:,} and {large:,} JPEGs of {SIDE}×{SIDE} pixels in {CLASSES} classes, "
        f"four fifths of them for training, with `--streaming=always --image_size={_SMALL},{_SMALL}`: a linear "
        "classifier, one epoch of WasserTrain with 2 iterations; an attack on all test images "
        "(`--stored_examples=int8`); an evaluation of all test images at one radius (`--stored_examples=none`). "
        "On two CPU cores that other processes shared.",
        "",
        f"| command | {small:,} images, MB | {large:,} images, MB | difference, MB | seconds |",
        "| :-- | --: | --: | --: | --: |",
    ]
    for name in NAMES:
        one, other = found[f"{name} {small}"], found[f"{name} {large}"]
        lines.append(
            f"| {name} | {one['megabytes']:,} | {other['megabytes']:,} | {other['megabytes'] - one['megabytes']:,} | "
            f"{one['seconds']} and {other['seconds']} |"
        )
    lines += [
        "",
        f"In memory, the images of the larger folder would take {4 * large * _SMALL**2 * 3 / 2**20:,.0f} MB, and twice "
        "that in training.",
        "",
        "The training on the smaller folder, interrupted within WasserTrain and resumed, ends with the weights of the "
        f"uninterrupted one to {found['resumed']:.1g}.",
        "",
        "Made by `python -m benchmarks.streams --folder=DIR --results=docs/results`.",
        "",
    ]
    storage.write_text(path, "\n".join(lines))


def main() -> None:
    """Measures what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="of the images and the stored results")
    parser.add_argument("--results", type=pathlib.Path, help="where streams.md is written")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    found = measure(given.folder)
    if given.results:
        write_page(found, given.results / "streams.md")


if __name__ == "__main__":
    main()
