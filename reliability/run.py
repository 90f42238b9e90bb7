r"""Checks the reliability of the binaries and the library, and writes docs/results/reliability.md.

  python reliability/run.py             20 kills of each binary, 3,000 bad inputs, 200 epochs, 60,000 images
  python reliability/run.py --resume    only the parts that an interrupted run at this commit did not finish
  python reliability/run.py --quick     3 kills of each binary, 150 bad inputs, 6 epochs
  python reliability/run.py --sections=kills --parts=train,export --output_dir=runs/reliability

The result of each part is saved to reliability.json in the output_dir when the part ends. Parts that are not run keep
their previous results. Takes about an hour on one core.
"""

import argparse
import datetime
import functools
import json
import os
import pathlib
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The checks need no GPU, and forked processes must not share one.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
_ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))

from benchmarks import report  # noqa: E402
from reliability import disks, forked, fuzz, fuzz_classifiers, fuzz_library, kills, stops  # noqa: E402
from wasser_tf.runtime import provenance, storage  # noqa: E402

_SECTIONS = {
    "kills": "kill -9 at random moments",
    "stops": "SIGINT and SIGTERM at random moments",
    "disks": "A disk that is full or read-only",
    "inputs": "Bad input",
    "long": "Long and large",
}
# The parts of each section.
_NAMES = {
    "kills": kills.BINARIES,
    "stops": stops.BINARIES,
    "disks": kills.BINARIES,
    "inputs": ("library", "classifiers", *fuzz.BINARIES),
    "long": ("digits", "mnist"),
}
_PAGE = _ROOT / "reliability" / "page.md"
_MARK = "<!-- {} -->"


def main() -> None:
    """Runs the parts of the sections in forked processes and saves the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="run smaller versions of all parts")
    parser.add_argument("--resume", action="store_true", help="skip the parts that were finished at this commit")
    parser.add_argument("--sections", default=",".join(_SECTIONS), help="the sections to run")
    parser.add_argument("--parts", help="the parts to run: names of binaries, library, digits, mnist")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments and of the bad inputs")
    parser.add_argument("--data_dir", default=_data_dir(), help="the parent of the prepared mnist/")
    parser.add_argument("--output_dir", type=pathlib.Path, default=_ROOT / "docs" / "results")
    given = parser.parse_args()
    if unknown := set(given.sections.split(",")) - set(_SECTIONS):
        parser.error(f"--sections must be some of {', '.join(_SECTIONS)}, got {', '.join(sorted(unknown))}.")
    commit, command = provenance.commit(), provenance.command()
    forked.import_all()
    path = given.output_dir / "reliability.json"
    results = storage.read_json(path) if path.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        _call(lambda: _make_model(folder / "good.keras"), folder, 300)
        for section, parts in _parts(given, folder).items():
            for name, make in parts.items():
                there = results.get(section, {}).get(name)
                if given.resume and there and (there["commit"], there["quick"]) == (commit, given.quick):
                    continue
                started = time.monotonic()
                rows = make()
                print(report.table(rows), flush=True)
                metadata = {"commit": commit, "command": command, "quick": given.quick, "seed": given.seed}
                metadata |= {"date": datetime.date.today().isoformat(), "seconds": round(time.monotonic() - started)}
                results.setdefault(section, {})[name] = {**metadata, "machine": _machine(), "rows": rows}
                storage.write_json(path, results)
                storage.write_text(given.output_dir / "reliability.md", _page(results))


def _parts(given: argparse.Namespace, folder: pathlib.Path) -> dict[str, dict[str, Callable[[], list[dict[str, Any]]]]]:
    """Returns the chosen parts, by section and name, as functions."""
    quick, seed, model = given.quick, given.seed, folder / "good.keras"
    count, rooms = (3, (0.5,)) if quick else (20, disks.ROOMS)
    partial = functools.partial
    parts: dict[str, dict[str, Callable[[], list[dict[str, Any]]]]] = {
        "kills": {name: partial(kills.kills, folder / "kills", model, count, [name], seed) for name in kills.BINARIES},
        "stops": {
            name: partial(stops.stops, folder / "stops", model, [name], 1 if quick else 2, seed)
            for name in stops.BINARIES
        },
        "disks": {name: partial(disks.disks, folder / "disks", model, [name], rooms) for name in kills.BINARIES},
        "inputs": {name: partial(_inputs, folder, name, quick, seed) for name in _NAMES["inputs"]},
        "long": {
            "digits": lambda: [_call(partial(_long_run, quick), folder, 7200)],
            "mnist": lambda: [_call(partial(_large, given.data_dir, quick), folder, 7200)],
        },
    }
    chosen = given.parts.split(",") if given.parts else [name for names in parts.values() for name in names]
    if unknown := set(chosen) - {name for names in parts.values() for name in names}:
        known = sorted({name for names in parts.values() for name in names})
        raise SystemExit(f"--parts must be some of {', '.join(known)}, got {', '.join(sorted(unknown))}.")
    return {
        section: {name: make for name, make in parts[section].items() if name in chosen}
        for section in given.sections.split(",")
    }


def _inputs(folder: pathlib.Path, name: str, quick: bool, seed: int) -> list[dict[str, Any]]:
    """Fuzzes the library or a binary in a separate process."""
    counts = {"library": (100, 3000), "classifiers": (20, 400)}
    count = counts.get(name, (6, 60))[0 if quick else 1]
    at = folder / f"fuzz_{name}"
    at.mkdir()
    (at / "good.keras").write_bytes((folder / "good.keras").read_bytes())

    def work() -> list[list[str]]:
        os.chdir(at)
        if name == "library":
            found = fuzz_library.fuzz_library(at, count, seed)
        elif name == "classifiers":
            found = fuzz_classifiers.fuzz_classifiers(at, count, seed)
        else:
            found = fuzz.fuzz_binary(name, at, count, seed)
        return [list(outcome) for outcome in found]

    outcomes = _call(work, at, 60 + 20 * count)
    # Of generated classifiers, those that are attacked as their canonical form is answer right too.
    right = ("refused", fuzz_classifiers.AGREES, fuzz_classifiers.FLAGGED) if name == "classifiers" else ("refused",)
    bad = [f"{given}: {what}" for what, given in outcomes if what not in right]
    print("\n".join(bad[:50]), flush=True)
    documented = len(outcomes) - len(bad)
    return [{"what": name, "inputs": len(outcomes), "documented": documented, "undocumented": len(bad)}]


def _long_run(quick: bool) -> dict[str, Any]:
    from reliability.long_run import long_run

    return long_run(6, 128, control=True) if quick else long_run(200)


def _large(data_dir: str | None, quick: bool) -> dict[str, Any]:
    from reliability.long_run import large

    return large(data_dir, 2000 if quick else None)


def _data_dir() -> str | None:
    shared = os.environ.get("WASSER_TF_SHARED_DATA")
    return f"{shared}/tfds" if shared else None


def _make_model(path: pathlib.Path) -> None:
    import keras

    from wasser_tf import data, models

    train = data.load(splits=("train",)).train
    model = models.build("linear", (8, 8, 1), 10, seed=0)
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(train.images, train.labels, epochs=5, verbose=0)
    model.save(path)


def _call(work: Callable[[], Any], folder: pathlib.Path, seconds: float) -> Any:
    """Calls a function in a forked process and returns its result, which must be JSON."""
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    ended = forked.Process(lambda: answer.write_text(json.dumps(work())), folder / "output.txt").wait(seconds)
    if ended.code != 0 or not answer.exists():
        raise RuntimeError(f"The forked process ended with {ended.code}: {ended.output[-3000:]}")
    return json.loads(answer.read_text())


def _machine() -> str:
    """Describes the machine: processor, cores, system and versions."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = (f"{name} {sys.modules[name].__version__}" for name in ("tensorflow", "keras", "numpy"))
    return (
        f"{names[0] if names else platform.processor()}, {cores} core{'s' if cores != 1 else ''}, "
        f"{platform.system()}, Python {platform.python_version()}, {', '.join(versions)}"
    )


def _page(results: dict[str, Any]) -> str:
    """Inserts the tables at the marks in the text of the page."""
    page = _PAGE.read_text(encoding="utf-8")
    for section, title in _SECTIONS.items():
        page = page.replace(_MARK.format(section), f"### {title}\n\n{_section(section, results.get(section, {}))}")
    return page


def _section(section: str, parts: dict[str, Any]) -> str:
    if not parts:
        return "Not run yet."

    def every(key: str) -> str:
        return ", ".join(dict.fromkeys(str(part[key]) for part in parts.values()))

    quick = " --quick" if any(part["quick"] for part in parts.values()) else ""
    commits = ", ".join(dict.fromkeys(str(part["commit"])[:12] for part in parts.values()))
    made = (
        f"`python reliability/run.py --sections={section}{quick}`, {every('date')}, commit {commits}, seed "
        f"{every('seed')}; {sum(part['seconds'] for part in parts.values()):,} s on {every('machine')}."
    )
    missing = [name for name in _NAMES[section] if name not in parts]
    made += f" Not run yet: {', '.join(missing)}." if missing else ""
    return f"{report.table([row for part in parts.values() for row in part['rows']])}\n\n{made}"


if __name__ == "__main__":
    main()
