"""Kills every binary that writes at random moments (SIGKILL), and checks that restarted runs end with equal results."""

import io
import json
import pathlib
import random
import re
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reliability import forked

_SECONDS = 900.0
# Number of kills of a run before it may finish.
_CHAIN = 5
_TRAIN = """--model=linear --attack=random_plan --standard_epochs=1 --epochs=2 --batch_size=128 --learning_rate=0.01
    --radii=0.1 --report_iterations=1 --num_attack_examples=8""".split()
_ATTACK = "--dataset=digits --attack=random_plan --num_examples=48 --batch_size=8 --epsilon=0.1".split()
_EVALUATE = """--attacks=random_plan,random_plan:seed=1 --radii=0.1 --num_examples=32 --batch_size=8
    --nosanity""".split()
# All classifiers are given, because reproduce trains in the same way as bin/train.py.
_REPRODUCE = """--experiment=table1,fig4 --dataset=digits --quick --radii=0.1 --num_examples=24 --batch_size=8
    --attacks=random_plan""".split()


class Case(NamedTuple):
    """A binary to test.

    Attributes:
      binary: Name of the binary.
      arguments: Returns its arguments for an output folder.
      again: Additional arguments to resume a run.
      result: Reads the result from the output folder; equal runs have equal results.
    """

    binary: str
    arguments: Callable[[pathlib.Path], list[str]]
    again: list[str]
    result: Callable[[pathlib.Path], Any]


def cases(model: pathlib.Path) -> list[Case]:
    """Returns the cases; `model` is the path of a classifier of the digits."""
    return [
        Case("train", lambda folder: [*_TRAIN, f"--output_dir={folder}"], ["--resume"], _trained),
        Case("attack", lambda folder: [*_ATTACK, f"--model={model}", f"--output_dir={folder}"], [], _attacked),
        Case("evaluate", lambda folder: [*_EVALUATE, f"--models=a={model}", f"--output_dir={folder}"], [], _evaluated),
        Case(
            "reproduce",
            lambda folder: [
                *_REPRODUCE,
                *(f"--{role}={model}" for role in ("standard", "pgd", "wasser_train")),
                f"--output_dir={folder}",
            ],
            [],
            _reproduced,
        ),
        Case(
            "export",
            lambda folder: [f"--model={model}", "--name=m", "--version=1", f"--base_dir={folder}"],
            [],
            _exported,
        ),
    ]


BINARIES = ("train", "attack", "evaluate", "reproduce", "export")


def kills(
    folder: pathlib.Path, model: pathlib.Path, count: int, binaries: Sequence[str] = BINARIES, seed: int = 0
) -> list[dict[str, Any]]:
    """Kills each binary `count` times.

    Args:
      folder: Folder for all files.
      model: Path of a classifier of the digits.
      count: Number of kills of each binary.
      binaries: Some of `BINARIES`.
      seed: Seed of the moments.

    Returns:
      A row for each binary.
    """
    chosen = [case for case in cases(model) if case.binary in binaries]
    return [_killed(case, folder / case.binary, count, random.Random(f"{seed} {case.binary}")) for case in chosen]


def _killed(case: Case, folder: pathlib.Path, count: int, chance: random.Random) -> dict[str, Any]:
    folder.mkdir(parents=True)
    started = time.monotonic()
    whole = folder / "whole"
    finish(case, whole, folder / "whole.txt", [])
    length = time.monotonic() - started
    wanted = case.result(whole)
    killed = recovered = half_written = 0
    there_when_killed = []
    while killed < count:
        run, log, chain = folder / f"run_{killed}", folder / f"run_{killed}.txt", min(_CHAIN, count - killed)
        tries = 0
        hits = 0
        while hits < chain and tries < 4 * chain:
            tries += 1
            process = forked.Process(work(case, run, case.again), log)
            time.sleep(chance.uniform(0.0, length))
            if (code := process.ended()) is not None:
                # The run finished before the kill.
                if code and not (code == 1 and is_finished(log.read_text())):
                    raise RuntimeError(f"{case.binary} failed with {code}: {log.read_text()[-2000:]}")
                break
            process.kill()
            process.wait(60)
            hits += 1
            there = visible(run)
            there_when_killed.append(len(there))
            half_written += len(bad := unreadable(run))
            if bad:
                print(f"{case.binary}: in {run} cannot be read: {bad}", flush=True)
        finish(case, run, log, case.again)
        killed += hits
        difference = compare(wanted, case.result(run))
        left = [path.name for path in run.rglob(".*")]
        if difference <= 1e-6 and not left:
            recovered += hits
        elif hits:
            print(f"{case.binary}: {run} differs by {difference}, left behind: {left}", flush=True)
    return {
        "binary": case.binary,
        "kills": killed,
        "recovered": recovered,
        "half-written files": half_written,
        "files there when killed": f"{min(there_when_killed)} to {max(there_when_killed)}",
        "seconds of an undisturbed run": round(length, 1),
    }


def work(case: Case, run: pathlib.Path, again: list[str]) -> Callable[[], object]:
    """Returns a function that runs the binary with a control in place of every attack: only saving is tested."""
    binary = forked.binary(case.binary, [*case.arguments(run), *again])

    def done() -> None:
        from wasser_tf import attacks
        from wasser_tf.attacks import RandomPlan
        from wasser_tf.runs import train
        from wasser_tf.training import loop

        # The run is short then, and spends its time on reading and writing rather than on compilation.
        RandomPlan.run = _shift  # type: ignore[method-assign]
        for module in (train, loop):
            module.MirrorAscent = lambda ball, seed, **_: RandomPlan(ball, seed=seed)  # type: ignore
        if case.binary == "reproduce":
            attacks.make = lambda name, ball, seed=0, **_: RandomPlan(ball, seed=seed)
        binary()

    return done


def _shift(self: Any, logits_fn: Any, images: Any, labels: Any, radius: Any, index: Any, targets: Any = None) -> Any:
    """Replaces `Attack.run`: moves a share of each image, by its index, the seed and the radius, one pixel right."""
    import tensorflow as tf

    from wasser_tf.attacks import AttackResult
    from wasser_tf.attacks.losses import cross_entropy
    from wasser_tf.transport.feasibility import measure_feasibility_without_plan

    del targets
    share = radius * tf.cast(tf.math.floormod(tf.cast(index + self.seed, tf.float64) * 0.618, 1.0), tf.float32)
    moved = images + share[:, None, None, None] * (tf.roll(images, 1, axis=2) - images)
    logits, labels = logits_fn(moved), tf.cast(tf.reshape(labels, [-1]), tf.int32)
    known = measure_feasibility_without_plan(moved, images, radius)._replace(cost=share, column_error=0 * share)
    wrong, loss = tf.argmax(logits, axis=1, output_type=tf.int32) != labels, cross_entropy(logits, labels)
    return AttackResult(moved, known, wrong, loss, radius, 0 * labels, moved, known, wrong, loss, wrong & False)


def finish(case: Case, run: pathlib.Path, log: pathlib.Path, again: list[str]) -> None:
    """Runs the binary to its end. It may also exit with 1 because the run is already finished."""
    ended = forked.Process(work(case, run, again), log).wait(_SECONDS)
    if ended.code != 0 and not (ended.code == 1 and is_finished(ended.output)):
        raise RuntimeError(f"{case.binary} ended with {ended.code}: {ended.output[-2000:]}")


def is_finished(output: str) -> bool:
    """Returns whether a binary reported that the run is already finished, or that the version already exists."""
    return re.search(r"(holds|contains) another run|already exists", output) is not None


def compare(wanted: Any, got: Any) -> float:
    """Returns the largest difference of the numbers in two structures, or infinity if anything else differs."""
    if isinstance(wanted, Mapping):
        if not isinstance(got, Mapping) or wanted.keys() != got.keys():
            return float("inf")
        return max((compare(wanted[key], got[key]) for key in wanted), default=0.0)
    if isinstance(wanted, np.ndarray) and wanted.dtype.kind == "f":
        if np.shape(got) != wanted.shape:
            return float("inf")
        return float(np.abs(wanted - got).max(initial=0.0))
    return 0.0 if np.array_equal(wanted, got) else float("inf")


def _exactly(array: np.ndarray) -> Any:
    """Returns the bytes of an array, for arrays that must be equal bit by bit, such as examples."""
    return array.tobytes()


def visible(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files below a folder, without temporary ones (hidden, or in a hidden folder)."""
    if not folder.exists():
        return []
    hidden = {path for path in folder.rglob(".*")}
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if not hidden & {path, *path.parents})


def unreadable(folder: pathlib.Path) -> list[str]:
    """Returns the visible files that are incomplete or corrupt, with the reasons."""
    found = []
    for path in visible(folder):
        try:
            if path.suffix in (".npz", ".keras"):
                with zipfile.ZipFile(path) as archive:
                    if broken := archive.testzip():
                        found.append(f"{path}: {broken}")
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".png" and b"IEND" not in path.read_bytes()[-12:]:
                found.append(f"{path}: cut short")
            elif path.name == "saved_model.pb" and not list((path.parent / "variables").glob("variables.index")):
                found.append(f"{path}: without its variables")
            elif not path.stat().st_size:
                found.append(f"{path}: empty")
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            found.append(f"{path}: {error}")
    return found


def _names(folder: pathlib.Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in visible(folder)]


def _trained(folder: pathlib.Path) -> dict[str, Any]:
    found: dict[str, Any] = {"names": _names(folder), "history": (folder / "history.csv").read_text()}
    for path in sorted((folder / "checkpoints").glob("*.npz")):
        with np.load(path) as file:
            found |= {f"{path.stem} {key}": file[key] for key in file.files}
    for name in ("standard", "best"):
        found |= {f"{name}.keras {key}": value for key, value in _weights(folder / f"{name}.keras").items()}
    found["tables"] = _tables(folder / "report.json")
    return found


def _weights(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the weights of a .keras file without Keras, which would start TensorFlow and break later forks."""
    import h5py

    found: dict[str, np.ndarray] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(keep)
    return found


def _reproduced(folder: pathlib.Path) -> dict[str, Any]:
    found: dict[str, Any] = {"names": _names(folder)}
    for run in sorted((folder / "evaluations").iterdir()):
        found |= {f"{run.name} {key}": value for key, value in _evaluated(run).items()}
    return found | {path.stem: _tables(path) for path in sorted((folder / "outputs").glob("*.json"))}


def _attacked(folder: pathlib.Path) -> dict[str, Any]:
    with np.load(folder / "adversarial.npz") as file:
        found = {key: _exactly(file[key]) for key in file.files}
    return {**found, "names": _names(folder), "report": _tables(folder / "report.json")}


def _evaluated(folder: pathlib.Path) -> dict[str, Any]:
    found: dict[str, Any] = {"names": _names(folder)}
    for path in sorted((folder / "cells").rglob("*.npz")):
        with np.load(path) as file:
            found |= {f"{path.name} {key}": _exactly(file[key]) for key in file.files if key != "seconds"}
    return {**found, "report": _tables(folder / "report.json")}


def _exported(folder: pathlib.Path) -> dict[str, Any]:
    from wasser_tf.runtime import storage

    path = folder / "m" / "1"
    # Names, card and weights; other files contain times.
    card = next(path.rglob("*.json"), None)
    weights = (path / "variables" / "variables.data-00000-of-00001").read_bytes()
    return {
        "names": _names(folder),
        "card": None if card is None else _without_time(storage.read_json(card)),
        "weights": weights,
    }


def _tables(path: pathlib.Path) -> str:
    return json.dumps(_without_time(json.loads(path.read_text())), sort_keys=True)


def _without_time(value: Any) -> Any:
    """Removes the values that differ between equal runs: durations, dates, folders and commands."""
    if isinstance(value, dict):
        times = ("seconds", "created", "date", "output_dir", "exported", "command")
        return {key: _without_time(item) for key, item in value.items() if key not in times}
    return [_without_time(item) for item in value] if isinstance(value, list) else value
