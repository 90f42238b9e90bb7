r"""Puts the binaries under fire and writes docs/reliability.md, the table of what they withstood.

  python benchmarks/reliability.py                       20 kills of each binary, 1,500 bad inputs, 200 epochs
  python benchmarks/reliability.py --quick               one kill each, 100 bad inputs, 6 epochs
  python benchmarks/reliability.py --sections=kills --output_dir=runs/reliability

Sections that are not asked for keep what is in the output_dir's reliability.json.
"""

import argparse
import collections
import datetime
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Nothing here needs a GPU, and forks must not share one.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
_ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))

from benchmarks import forked, fuzz, kills, report  # noqa: E402
from wasser_tf import storage  # noqa: E402

_SECTIONS = {
    "kills": "kill -9 at random moments",
    "inputs": "Bad input",
    "long run": "A long run",
}
_INTRODUCTION = """# Reliability

What the library and its binaries withstood, by `python benchmarks/reliability.py` (a small version is in `make test`).

- **Kills**: SIGKILL at moments drawn uniformly over an undisturbed run, five in a row, then the run is left to end.
  "Recovered" counts kills after which checkpoints agree to 1e-6, histories, examples and tables exactly, and nothing
  half-written is left. All attacks are the control here: what is saved is under test, not what is attacked.
- **Bad input**: generated flags, arguments and files. Documented are ValueError and OSError of the library, and of the
  binaries a message with the exit code 1.
- **A long run**: WasserTrain on the digits with validation and checkpoints; traces are counted in Python.
"""


def main() -> None:
    """Runs the sections, each in forked processes, and saves after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--sections", default=",".join(_SECTIONS), help="some of them")
    parser.add_argument("--binaries", default=",".join(kills.BINARIES), help="which of them are killed")
    parser.add_argument("--output_dir", type=pathlib.Path, default=_ROOT / "docs")
    given = parser.parse_args()
    chosen = given.sections.split(",")
    if unknown := set(chosen) - set(_SECTIONS):
        parser.error(f"--sections must be some of {', '.join(_SECTIONS)}, got {', '.join(sorted(unknown))}.")
    killed = given.binaries.split(",")
    if unknown := set(killed) - set(kills.BINARIES):
        parser.error(f"--binaries must be some of {', '.join(kills.BINARIES)}, got {', '.join(sorted(unknown))}.")
    forked.import_all()
    path = given.output_dir / "reliability.json"
    results = storage.read_json(path) if path.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        _call(lambda: _make_model(folder / "good.keras"), folder, 300)
        make: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "kills": lambda: kills.kills(folder / "kills", folder / "good.keras", 1 if given.quick else 20, killed),
            "inputs": lambda: _inputs(folder, given.quick),
            "long run": lambda: [_call(lambda: _long_run(given.quick), folder, 7200)],
        }
        for section in chosen:
            started = time.monotonic()
            rows = make[section]()
            results[section] = {
                "date": datetime.date.today().isoformat(),
                "quick": given.quick,
                "seconds": round(time.monotonic() - started),
                "rows": rows,
            }
            storage.write_json(path, results)
            storage.write_text(given.output_dir / "reliability.md", _page(results))
            print(report.table(rows), flush=True)


def _inputs(folder: pathlib.Path, quick: bool) -> list[dict[str, Any]]:
    """Fuzzes the library and each binary, each in a process of its own."""
    rows = []
    for name in ("library", *fuzz.BINARIES):
        count = (60 if name == "library" else 8) if quick else (1000 if name == "library" else 100)
        at = folder / f"fuzz_{name}"
        at.mkdir()
        (at / "good.keras").write_bytes((folder / "good.keras").read_bytes())

        def work(name: str = name, at: pathlib.Path = at, count: int = count) -> list[list[str]]:
            os.chdir(at)
            found = fuzz.fuzz_library(at, count) if name == "library" else fuzz.fuzz_binary(name, at, count)
            return [list(outcome) for outcome in found]

        outcomes = _call(work, at, 60 + 20 * count)
        bad = [f"{given}: {what}" for what, given in outcomes if what != "refused"]
        print("\n".join(bad[:50]), flush=True)
        answered = collections.Counter(what for what, _ in outcomes)
        rows.append(
            {"what": name, "inputs": len(outcomes), "documented": answered["refused"], "undocumented": len(bad)}
        )
    return rows


def _long_run(quick: bool) -> dict[str, Any]:
    from benchmarks.long_run import long_run

    return long_run(6, 128) if quick else long_run(200)


def _make_model(path: pathlib.Path) -> None:
    import keras

    from wasser_tf import data, models

    train = data.load(splits=("train",)).train
    model = models.build("linear", (8, 8, 1), 10, seed=0)
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(train.images, train.labels, epochs=5, verbose=0)
    model.save(path)


def _call(work: Callable[[], Any], folder: pathlib.Path, seconds: float) -> Any:
    """Returns what a function returns in a forked process, through JSON."""
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    ended = forked.Process(lambda: answer.write_text(json.dumps(work())), folder / "output.txt").wait(seconds)
    if ended.code != 0 or not answer.exists():
        raise RuntimeError(f"It ended with {ended.code}: {ended.output[-3000:]}")
    return json.loads(answer.read_text())


def _page(results: dict[str, Any]) -> str:
    parts = [_INTRODUCTION]
    for section, title in _SECTIONS.items():
        if section in results:
            found = results[section]
            about = f"{found['date']}, {found['seconds']} s" + (", quick" if found["quick"] else "")
            parts.append(f"## {title}\n\n{about}\n\n{report.table(found['rows'])}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
