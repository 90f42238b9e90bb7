"""Sends SIGINT and SIGTERM to long-running binaries, and checks that they save, report how to resume, and resume."""

import pathlib
import random
import signal
import time
from collections.abc import Sequence
from typing import Any

from reliability import forked, kills

# The output after which a binary is at work, and the share of its run time within which the signal is then sent.
# Exports are missing, because they consist of a single batch.
_AT_WORK = {"train": ("Devices: ", 0.3), "attack": ("[1/", 0.0), "evaluate": ("[1/", 0.03), "reproduce": ("[1/", 0.03)}
BINARIES = tuple(_AT_WORK)
_SECONDS = 900.0


def stops(
    folder: pathlib.Path, model: pathlib.Path, binaries: Sequence[str] = BINARIES, each: int = 2, seed: int = 0
) -> list[dict[str, Any]]:
    """Sends signals at random moments, then resumes each run and lets it finish.

    Args:
      folder: Folder for all files.
      model: Path of a classifier of the digits.
      binaries: Some of `BINARIES`.
      each: Number of signals of each kind.
      seed: Seed of the moments.

    Returns:
      A row for each binary.
    """
    rows = []
    for case in kills.cases(model):
        if case.binary in binaries:
            rows.append(_stopped(case, folder / case.binary, each, random.Random(f"{seed} stop {case.binary}")))
    return rows


def _stopped(case: kills.Case, at: pathlib.Path, each: int, chance: random.Random) -> dict[str, Any]:
    at.mkdir(parents=True)
    started = time.monotonic()
    kills.finish(case, at / "whole", at / "whole.txt", [])
    length, wanted = time.monotonic() - started, case.result(at / "whole")
    reported = finished = alike = 0
    for number in range(2 * each):
        run, log, sent = at / f"run_{number}", at / f"run_{number}.txt", (signal.SIGINT, signal.SIGTERM)[number % 2]
        process = forked.Process(kills.work(case, run, case.again), log)
        code = None
        mark, part = _AT_WORK[case.binary]
        while code is None and not (log.exists() and mark in log.read_text(errors="replace")):
            time.sleep(0.02)
            code = process.ended()
        if code is None:
            time.sleep(chance.uniform(0, part * length))
            code = process.ended()
        if code is None:
            process.kill(sent)
            code, output = process.wait(_SECONDS)
            saved = f"{case.binary}.py: stopped by {sent.name}, what was done is saved: " in output
            reported += (good := code == 128 + sent and saved and "Traceback" not in output)
            finished += code == 0
            if not good and code != 0:
                print(f"{case.binary}, {sent.name}: exit {code}: {output[-500:]}", flush=True)
        else:
            finished += code == 0
        kills.finish(case, run, log, case.again)
        alike += kills.compare(wanted, case.result(run)) <= 1e-6
    return {
        "binary": case.binary,
        "signals": 2 * each,
        "saved and reported, exit 130 or 143": reported,
        "had finished": finished,
        "ends as an uninterrupted run": f"{alike} of {2 * each}",
    }
