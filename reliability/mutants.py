"""Mutates lines of wasser_tf/ one at a time and counts the mutations that the tests notice.

  python reliability/mutants.py                                 100 mutations of the whole package
  python reliability/mutants.py --paths=wasser_tf/attacks       of some folders or modules, separated by commas
  python reliability/mutants.py --list                          what would be tried

A mutation is killed by the first test that fails, and survives if all that concern it pass: docs/design/testing.md.
Results are kept in the output_dir as they come; the same command resumes the run, unless a file has changed.
"""

import argparse
import collections
import contextlib
import hashlib
import json
import os
import pathlib
import signal
import sys
import tempfile
import time
import traceback

_ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))
# Forks must not share a GPU.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from reliability import concerned, mutations, overlay  # noqa: E402

_HASHED = (".py", ".toml", ".json", ".md")


def main(arguments: list[str] | None = None) -> int:
    """Draws the mutations, runs those without a result and prints the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--sample", type=int, default=100, help="how many mutations")
    parser.add_argument("--paths", default="", help="only these modules and folders, separated by commas")
    parser.add_argument("--kinds", default="", help="only these kinds of mutations, separated by commas")
    parser.add_argument("--list", action="store_true", help="print the mutations and the tests that concern them")
    parser.add_argument("--jobs", type=int, default=1, help="processes that run tests at the same time")
    parser.add_argument("--without_end_to_end", action="store_true", help="a quick look: leave tests/end_to_end out")
    parser.add_argument("--time_limit", type=float, default=300, help="seconds of tests for a mutation")
    parser.add_argument("--patience", type=float, default=30, help="seconds more than usual before tests are stopped")
    parser.add_argument("--output_dir", type=pathlib.Path, default=pathlib.Path("runs/mutants"))
    parser.add_argument("--root", type=pathlib.Path, default=_ROOT, help="the project")
    parser.add_argument("--package", default="wasser_tf", help="its package, a folder of the root")
    given = parser.parse_args(arguments)
    given.root = given.root.resolve()
    try:
        kinds = given.kinds.split(",") if given.kinds else ()
        drawn = mutations.sample(given.root, _modules(given), given.seed, given.sample, kinds)
    except ValueError as error:
        parser.error(str(error))
    if given.list:
        for mutation in drawn:
            groups = _groups(given, mutation)
            print(mutation.diff, *("  " + " ".join(group) for group in groups if group), sep="\n", end="\n\n")
        return 0
    # As with Ctrl-C, what runs is stopped and the copies are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    given.output_dir.mkdir(parents=True, exist_ok=True)
    # What XLA compiles is kept too: most tests of a mutation compile what they compile without it.
    compiled = f"--tf_xla_persistent_cache_directory={given.output_dir.resolve() / 'xla'}"
    os.environ.setdefault("TF_XLA_FLAGS", f"{compiled} --tf_xla_persistent_cache_device_types=CPU,XLA_CPU_JIT")
    tree = _tree(given.root)
    results = given.output_dir / "results.jsonl"
    done = _read(results, given, tree)
    left = [mutation for mutation in drawn if _key(mutation) not in done]
    if left:
        overlay.preload(given.root, given.package)
        _run_all(given, left, tree)
    done = _read(results, given, tree)
    summary = summarise([done[key] for key in map(_key, drawn) if key in done])
    (given.output_dir / "summary.md").write_text(summary, encoding="utf-8")
    print(summary)
    return 0


def _modules(given: argparse.Namespace) -> list[pathlib.Path]:
    found = sorted((given.root / given.package).rglob("*.py"))
    if not given.paths:
        return found
    asked = [given.root / path for path in given.paths.split(",")]
    for path in asked:
        if not path.exists():
            raise ValueError(
                f"--paths must be modules and folders of {given.root}, got {path.relative_to(given.root)}."
            )
    return [path for path in found if any(path == one or one in path.parents for one in asked)]


def _groups(given: argparse.Namespace, mutation: mutations.Mutation) -> list[list[str]]:
    groups = concerned.concerned(given.root, mutation.path)
    return groups[:-1] if given.without_end_to_end else groups


def _tree(root: pathlib.Path) -> str:
    """Returns a hash of the sources: results hold for them alone."""
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name not in ("runs", "shared", "build")
        )
        for name in sorted(names):
            # What is written about the result does not change it.
            if name.endswith(_HASHED) and name != "testing.md":
                path = pathlib.Path(folder, name)
                digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _key(mutation: mutations.Mutation) -> str:
    return hashlib.sha256(f"{mutation.path}\0{mutation.source}".encode()).hexdigest()[:16]


def _read(path: pathlib.Path, given: argparse.Namespace, tree: str) -> dict[str, dict]:
    """Returns the results by their keys. A survivor of fewer tests than asked for is not one, nor is half a line."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            result = json.loads(line)
        except ValueError:
            continue
        fewer = result["without_end_to_end"] > given.without_end_to_end or result["time_limit"] < given.time_limit
        if result["tree"] == tree and not (result["verdict"] == "survived" and fewer):
            found[result["key"]] = result
    return found


def _run_all(given: argparse.Namespace, left: list[mutations.Mutation], tree: str) -> None:
    """Runs the mutations in jobs, each a forked process with copies of its own."""
    if given.jobs == 1:
        _run(given, left, tree)
        return
    pids = []
    for job in range(given.jobs):
        sys.stdout.flush()
        if (pid := os.fork()) == 0:
            code = 1
            try:
                _run(given, left[job :: given.jobs], tree)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        pids.append(pid)
    codes = []
    try:
        codes += [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    finally:
        for pid in pids if not codes else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    if any(codes):
        raise SystemExit("A job failed. The same command resumes the run.")


def _run(given: argparse.Namespace, left: list[mutations.Mutation], tree: str) -> None:
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        folder = pathlib.Path(temporary).resolve()
        mutated = overlay.Overlay(given.root, folder / "mutated", given.package)
        plain = overlay.Overlay(given.root, folder / "plain", given.package)
        unmutated = overlay.Unmutated(plain, given.package, given.output_dir / "unmutated.jsonl", tree)
        for mutation in left:
            started = time.monotonic()
            result = {"tree": tree, "key": _key(mutation), "place": f"{mutation.path}:{mutation.line}"}
            result |= {"kind": mutation.kind, "diff": mutation.diff, "time_limit": given.time_limit}
            result["without_end_to_end"] = given.without_end_to_end
            result |= judge(mutation, mutated, unmutated, _groups(given, mutation), given.time_limit, given.patience)
            result["wall_seconds"] = round(time.monotonic() - started, 1)
            with open(given.output_dir / "results.jsonl", "a", encoding="utf-8") as file:
                file.write("\n" * _is_cut(given.output_dir / "results.jsonl") + json.dumps(result) + "\n")
            told = f"{result['verdict']:9} {result['wall_seconds']:6.1f} s  {result['place']} {mutation.kind}"
            print(told, result["test"], flush=True)


def _is_cut(path: pathlib.Path) -> bool:
    """Returns whether the last line of a file has no end."""
    return path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0


def judge(
    mutation: mutations.Mutation,
    mutated: overlay.Overlay,
    unmutated: overlay.Unmutated,
    groups: list[list[str]],
    time_limit: float,
    patience: float,
) -> dict:
    """Runs the tests that concern a mutation, group by group, in each the cheapest file first, up to the first failure.

    A file that fails, or hangs, without a mutation cannot judge one. A file has timed out when it takes four times as
    long as without the mutation, and `patience` more. Files for which the time limit leaves no time are not run: the
    mutation has survived then as far as is known.

    Returns:
      {"verdict": "killed", "timed out" or "survived", "test": what noticed it, "seconds" and "cpu_seconds": of tests,
      "files": that ran, "not_run": that there was no time for, "unfit": that fail without a mutation}.
    """
    ran, not_run, unfit, spent, cpu = [], [], [], 0.0, 0.0

    def result(verdict: str, test: str = "") -> dict:
        times = {"seconds": round(spent, 1), "cpu_seconds": round(cpu, 1)}
        return {"verdict": verdict, "test": test, **times, "files": ran, "not_run": not_run, "unfit": unfit}

    with mutated.mutated(mutation.path, mutation.source):
        for group in groups:
            for tests in sorted(group, key=unmutated.seconds):
                usual = unmutated.measure(tests)
                if usual["verdict"] != "passed":
                    unfit.append(tests)
                    continue
                if not unmutated.reaches(tests, mutation):
                    continue
                if spent + usual["seconds"] > time_limit:
                    not_run.append(tests)
                    continue
                outcome = mutated.run(tests, 4 * usual["seconds"] + patience)
                spent, cpu = spent + outcome.seconds, cpu + outcome.cpu_seconds
                ran.append(tests)
                if outcome.verdict != "passed":
                    return result("killed" if outcome.verdict == "failed" else "timed out", outcome.test)
    return result("survived")


def summarise(results: list[dict]) -> str:
    """Returns the counts, and the mutations that survived or timed out, as Markdown."""
    counts = collections.Counter(result["verdict"] for result in results)
    killed = counts["killed"] + counts["timed out"]
    share = f"{100 * killed / len(results):.0f} %" if results else "none"
    lines = [
        f"{len(results)} mutations: {counts['killed']} killed, {counts['timed out']} timed out (count as killed), "
        f"{counts['survived']} survived: {share} killed.",
        f"{sum(result['wall_seconds'] for result in results) / 60:.0f} minutes, of which "
        f"{sum(result['seconds'] for result in results) / 60:.0f} of tests on mutations; the rest went into measuring "
        "tests without one.",
    ]
    if unfit := sorted({tests for result in results for tests in result["unfit"]}):
        lines.append(f"Fail without a mutation and were not used: {', '.join(unfit)}.")
    for verdict in ("survived", "timed out"):
        for result in results:
            if result["verdict"] == verdict:
                late = f" (no time for {', '.join(result['not_run'])})" if result["not_run"] else ""
                lines.append(f"\n{verdict}{late}:\n```diff\n{result['diff']}\n```")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
