"""kill -9 at random moments of every binary that writes: does the run, started again, end as if nothing had been?"""

import json
import pathlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import forked

_SECONDS = 900.0
# Kills before a run is left to end: what a chain of them would break, one of them would break too.
_CHAIN = 5
_TRAIN = """--model=linear --attack=random_plan --standard_epochs=1 --epochs=3 --batch_size=128 --learning_rate=0.01
    --radii=0.1 --report_iterations=1 --num_attack_examples=8""".split()
_ATTACK = "--dataset=digits --attack=random_plan --num_examples=48 --batch_size=8 --epsilon=0.1".split()
_EVALUATE = """--attacks=random_plan,random_plan:seed=1 --radii=0.1,0.3 --num_examples=24 --batch_size=8
    --nosanity""".split()


class Case(NamedTuple):
    """A binary under fire.

    Attributes:
      binary: Its name.
      arguments: Its arguments, from the folder it writes to.
      again: What is added to start it again.
      result: Reads what it ended with from the folder; two equal runs have equal results.
    """

    binary: str
    arguments: Callable[[pathlib.Path], list[str]]
    again: list[str]
    result: Callable[[pathlib.Path], Any]


def cases(model: pathlib.Path) -> list[Case]:
    """Returns the cases; `model` is a classifier of the digits."""
    return [
        Case("train", lambda folder: [*_TRAIN, f"--output_dir={folder}"], ["--resume"], _trained),
        Case("attack", lambda folder: [*_ATTACK, f"--model={model}", f"--output_dir={folder}"], [], _attacked),
        Case("evaluate", lambda folder: [*_EVALUATE, f"--models=a={model}", f"--output_dir={folder}"], [], _evaluated),
        Case(
            "export",
            lambda folder: [f"--model={model}", "--name=m", "--version=1", f"--base_dir={folder}"],
            [],
            _exported,
        ),
    ]


BINARIES = ("train", "attack", "evaluate", "export")


def kills(
    folder: pathlib.Path, model: pathlib.Path, count: int, binaries: Sequence[str] = BINARIES, seed: int = 0
) -> list[dict[str, Any]]:
    """Kills binaries so many times each.

    Args:
      folder: For what they write.
      model: A classifier of the digits.
      count: Kills of each binary.
      binaries: Some of `BINARIES`.
      seed: Of the moments.

    Returns:
      A row for each binary.
    """
    chosen = [case for case in cases(model) if case.binary in binaries]
    return [_under_fire(case, folder / case.binary, count, random.Random(f"{seed} {case.binary}")) for case in chosen]


def _under_fire(case: Case, folder: pathlib.Path, count: int, chance: random.Random) -> dict[str, Any]:
    folder.mkdir(parents=True)
    started = time.monotonic()
    whole = folder / "whole"
    _finish(case, whole, folder / "whole.txt", [])
    length = time.monotonic() - started
    wanted = case.result(whole)
    killed = recovered = 0
    done_when_killed = []
    while killed < count:
        run, log, chain = folder / f"run_{killed}", folder / f"run_{killed}.txt", min(_CHAIN, count - killed)
        tries = 0
        hits = 0
        while hits < chain and tries < 4 * chain:
            tries += 1
            process = forked.Process(_work(case, run, case.again), log)
            time.sleep(chance.uniform(0.0, length))
            if (code := process.ended()) is not None:
                # It was through before: a moment that killed nothing.
                if code:
                    raise RuntimeError(f"{case.binary} failed with {code}: {log.read_text()[-2000:]}")
                break
            process.kill()
            process.wait(60)
            hits += 1
            done_when_killed.append(sum(1 for path in run.rglob("*") if path.is_file()) if run.exists() else 0)
        _finish(case, run, log, case.again)
        killed += hits
        difference = _difference(wanted, case.result(run))
        left = [path.name for path in run.rglob(".*")]
        if difference <= 1e-6 and not left:
            recovered += hits
        elif hits:
            print(f"{case.binary}: {run} differs by {difference}, left behind: {left}", flush=True)
    return {
        "binary": case.binary,
        "kills": killed,
        "recovered": recovered,
        "files there when killed": f"{min(done_when_killed)} to {max(done_when_killed)}",
        "seconds of an undisturbed run": round(length, 1),
    }


def _work(case: Case, run: pathlib.Path, again: list[str]) -> Callable[[], object]:
    """The binary, with the control for every attack: what is saved is under test, and this compiles quickly."""
    binary = forked.binary(case.binary, [*case.arguments(run), *again])

    def work() -> None:
        from wasser_tf import pipeline
        from wasser_tf.attacks import RandomPlan

        # bin/train.py validates and reports by mirror ascent, which takes a minute to compile.
        pipeline.MirrorAscent = lambda ball, seed, **_: RandomPlan(ball, seed=seed)  # type: ignore
        binary()

    return work


def _finish(case: Case, run: pathlib.Path, log: pathlib.Path, again: list[str]) -> None:
    """Runs the binary to its end; one that is through already may say that it is."""
    ended = forked.Process(_work(case, run, again), log).wait(_SECONDS)
    there = "holds another run" in ended.output or "is there already" in ended.output
    if ended.code != 0 and not (ended.code == 1 and there):
        raise RuntimeError(f"{case.binary} ended with {ended.code}: {ended.output[-2000:]}")


def _difference(wanted: Any, got: Any) -> float:
    """Returns the largest difference of numbers in two equal structures, infinite where anything else differs."""
    if isinstance(wanted, Mapping):
        if not isinstance(got, Mapping) or wanted.keys() != got.keys():
            return float("inf")
        return max((_difference(wanted[key], got[key]) for key in wanted), default=0.0)
    if isinstance(wanted, np.ndarray) and wanted.dtype.kind == "f":
        if np.shape(got) != wanted.shape:
            return float("inf")
        return float(np.abs(wanted - got).max(initial=0.0))
    return 0.0 if np.array_equal(wanted, got) else float("inf")


def _exactly(array: np.ndarray) -> Any:
    """Makes an array that has to come out bit by bit, as examples have."""
    return array.tobytes()


def _trained(folder: pathlib.Path) -> dict[str, Any]:
    found: dict[str, Any] = {"history": (folder / "history.csv").read_text()}
    for name in ("standard", "wasser_train"):
        with np.load(folder / "checkpoints" / f"{name}.npz") as file:
            found |= {f"{name} {key}": file[key] for key in file.files}
    found["tables"] = _tables(folder / "report.json")
    return found


def _attacked(folder: pathlib.Path) -> dict[str, Any]:
    with np.load(folder / "adversarial.npz") as file:
        found = {key: _exactly(file[key]) for key in file.files}
    return {**found, "report": _tables(folder / "report.json")}


def _evaluated(folder: pathlib.Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted((folder / "cells").rglob("*.npz")):
        with np.load(path) as file:
            found |= {f"{path.name} {key}": _exactly(file[key]) for key in file.files if key != "seconds"}
    return {**found, "report": _tables(folder / "report.json")}


def _exported(folder: pathlib.Path) -> dict[str, Any]:
    from wasser_tf import storage

    path = folder / "m" / "1"
    # The graph, the weights, the card and the warm-up; the checkpoint's index orders nothing by time.
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    card = next(path.rglob("*.json"), None)
    weights = (path / "variables" / "variables.data-00000-of-00001").read_bytes()
    return {
        "names": names,
        "card": None if card is None else _without_time(storage.read_json(card)),
        "weights": weights,
    }


def _tables(path: pathlib.Path) -> str:
    return json.dumps(_without_time(json.loads(path.read_text())), sort_keys=True)


def _without_time(value: Any) -> Any:
    """Leaves out what no two runs have in common: how long they took, and when they were."""
    if isinstance(value, dict):
        times = ("seconds", "created", "date", "output_dir", "exported")
        return {key: _without_time(item) for key, item in value.items() if key not in times}
    return [_without_time(item) for item in value] if isinstance(value, list) else value
