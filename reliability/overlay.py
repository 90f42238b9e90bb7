"""Copies of the project in which one file is mutated, and its tests run on them in forked processes."""

import contextlib
import importlib
import importlib.util
import json
import mmap
import os
import pathlib
import py_compile
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from reliability import concerned, forked, mutations

# Not copied: build outputs at the root of the tree, and caches in any folder.
_LEFT_OUT_AT_ROOT = (".git", ".venv", "runs", "build", "dist", "shared", "*.egg-info")
_LEFT_OUT = ("__pycache__", ".*_cache", ".hypothesis")
# A mutation may ask for any amount of memory, and others need theirs too.
_MEMORY = 16 * 2**30
_REACHED = "_reached_functions"
# Lives in the copy. A file that is mapped into memory keeps what a process wrote that was killed.
_REACHED_SOURCE = """
import mmap
with open({path!r}, "r+b") as _file:
    hit = mmap.mmap(_file.fileno(), 0).__setitem__
"""


class Outcome(NamedTuple):
    """What became of a file of tests.

    Attributes:
      verdict: "passed", "failed" or "timed out".
      seconds: How long it took.
      cpu_seconds: The processors' time in that, which does not depend on what else runs.
      test: The first test that failed, or how the process ended where no test is named.
    """

    verdict: str
    seconds: float
    cpu_seconds: float
    test: str = ""


class Overlay:
    """A copy of a project; what is written there is seen by the tests that run in it and by their subprocesses."""

    def __init__(self, root: pathlib.Path, folder: pathlib.Path, package: str):
        """Copies the project.

        Args:
          root: The project's root.
          folder: A temporary folder, which is filled.
          package: The name of the package, a folder of the root.
        """
        self._origin, self._folder, self._package = root, folder, package
        self.root = folder / "project"
        at_root = shutil.ignore_patterns(*_LEFT_OUT_AT_ROOT, *_LEFT_OUT)
        below = shutil.ignore_patterns(*_LEFT_OUT)
        shutil.copytree(
            root, self.root, ignore=lambda path, names: (at_root if pathlib.Path(path) == root else below)(path, names)
        )
        for path in (self.root / package).rglob("*.py"):
            # Not by time and size: two mutations of a second may have the same of both.
            py_compile.compile(str(path), invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)

    @contextlib.contextmanager
    def mutated(self, path: str, source: str) -> Iterator[None]:
        """Has another source in the place of a file's."""
        before = (self.root / path).read_bytes()
        (self.root / path).write_text(source, encoding="utf-8")
        try:
            yield
        finally:
            (self.root / path).write_bytes(before)

    def run(self, tests: str, seconds: float) -> Outcome:
        """Runs a file of tests up to its first failure.

        Args:
          tests: The file, relative to the root.
          seconds: A limit; it and all processes it started are killed then.

        Returns:
          The outcome. Tests that cannot be collected have failed; if all are skipped, they have passed.
        """
        output = self._folder / "output.txt"
        output.unlink(missing_ok=True)
        started, used = time.monotonic(), _used()
        process = forked.Process(lambda: self._pytest(tests), output)
        try:
            ended = process.wait(seconds)
        finally:
            # It leads a group, in which its subprocesses are.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        spent = (round(time.monotonic() - started, 2), round(_used() - used, 2))
        if ended.code is None:
            return Outcome("timed out", *spent, tests)
        # 5: no test was collected.
        if ended.code in (0, 5):
            return Outcome("passed", *spent)
        named = re.search(r"^(?:FAILED|ERROR) (\S+)", ended.output, re.MULTILINE)
        return Outcome("failed", *spent, named.group(1) if named else f"{tests}: ended with {ended.code}")

    def _pytest(self, tests: str) -> None:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        sys.path[:] = [str(self.root), *(entry for entry in sys.path if not self._is_origin(entry))]
        others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        others = [entry for entry in others if not self._is_origin(entry)]
        os.environ["PYTHONPATH"] = os.pathsep.join([str(self.root), *others])
        os.chdir(self.root)
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        for name, module in list(sys.modules.items()):
            paths = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
            if any(path and self._is_origin(path) for path in paths):
                del sys.modules[name]
        importlib.invalidate_caches()
        import pytest

        arguments = ["-x", "-q", "--tb=short", "-p", "no:cacheprovider"]
        arguments += [f"--rootdir={self.root}", f"--basetemp={self._folder / 'tmp'}"]
        if importlib.util.find_spec("hypothesis"):
            arguments.append("--hypothesis-seed=0")
        raise SystemExit(int(pytest.main([*arguments, tests])))

    def _is_origin(self, path: str) -> bool:
        """Returns whether a path lies in the project that was copied, the environment's packages apart."""
        parts = pathlib.Path(path or os.curdir).absolute()
        return parts.is_relative_to(self._origin) and ".venv" not in parts.relative_to(self._origin).parts


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Unmutated:
    """What each file of tests does without a mutation: measured when it is first needed, and kept in a file.

    The copy it runs in notes which functions of the package are entered, in subprocesses too: a file that enters no
    function of a mutation need not run for it.
    """

    def __init__(self, overlay: Overlay, package: str, path: pathlib.Path, tree: str):
        """Prepares the copy.

        Args:
          overlay: A copy of the project of its own, which is changed.
          package: The name of the package.
          path: The file of JSON lines to keep the findings in.
          tree: A name for the content of the project: findings of other contents are not used.
        """
        self._overlay, self._path, self._tree = overlay, path, tree
        self._plain: dict[str, str] = {}
        self._marked: dict[str, str] = {}
        self._first: dict[str, int] = {}
        self._functions: dict[str, mutations.Functions] = {}
        count = 0
        for file in sorted((overlay.root / package).rglob("*.py")):
            name = file.relative_to(overlay.root).as_posix()
            self._plain[name] = file.read_text(encoding="utf-8")
            functions = self._functions[name] = mutations.Functions(self._plain[name])
            self._first[name] = count
            self._marked[name] = _marked(self._plain[name], functions, count)
            count += len(functions.starts)
        self._map = overlay.root.parent / "reached"
        self._map.write_bytes(bytes(max(count, 1)))
        (overlay.root / f"{_REACHED}.py").write_text(_REACHED_SOURCE.format(path=str(self._map)))
        self._count = count
        self._found = {}
        if path.exists():
            lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            self._found = {line["tests"]: line for line in lines if line["tree"] == tree}

    def measure(self, tests: str, seconds: float = 1800.0) -> dict:
        """Returns {"verdict", "seconds", "reached": functions that the file enters, None if unknown} of a file."""
        if tests not in self._found:
            self._write(self._marked)
            with open(self._map, "r+b") as file:
                file.write(bytes(self._count))
            outcome, reached = self._overlay.run(tests, seconds), None
            if outcome.verdict == "passed":
                with open(self._map, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    reached = [at for at in range(self._count) if content[at]]
            else:
                # It may be the marks that fail it: a test may read the sources.
                self._write(self._plain)
                outcome = self._overlay.run(tests, seconds)
            line = {"tree": self._tree, "tests": tests, **outcome._asdict(), "reached": reached}
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._found[tests] = line
        return self._found[tests]

    def seconds(self, tests: str) -> float:
        """Returns how long a file takes; of one that was not measured yet a guess, by its size and its folder."""
        if tests in self._found:
            return self._found[tests]["seconds"]
        size = (self._overlay.root / tests).stat().st_size / 400
        return size + (100 if "end_to_end" in tests else 0)

    def reaches(self, tests: str, mutation: mutations.Mutation) -> bool:
        """Returns whether a file of tests enters the function that is mutated, as far as is known."""
        reached = self.measure(tests)["reached"]
        return (
            reached is None or self._first[mutation.path] + self._functions[mutation.path].at(mutation.line) in reached
        )

    def _write(self, sources: dict[str, str]) -> None:
        for name, source in sources.items():
            (self._overlay.root / name).write_text(source, encoding="utf-8")


def _marked(source: str, functions: mutations.Functions, first: int) -> str:
    """Returns the source with a line before the first statement of each function that notes its number."""
    lines = source.splitlines(keepends=True)
    marks = [
        (start, column, at)
        for at, (start, column) in enumerate(zip(functions.starts, functions.columns, strict=True))
        if start
    ]
    for start, column, at in sorted(marks, reverse=True):
        lines.insert(start - 1, f'{" " * column}__import__("{_REACHED}").hit({first + at}, 1)\n')
    return "".join(lines)


def preload(root: pathlib.Path, package: str, tests: str = "tests") -> None:
    """Imports what the package and its tests import, other than itself, so that forks need not.

    The conftest.py files go first, for they may set the environment before they import. None of these may be used:
    threads of TensorFlow's runtime do not live on in a fork.
    """
    with open(os.devnull, "wb") as nowhere:
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            _preload(root, package, tests)
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _preload(root: pathlib.Path, package: str, tests: str) -> None:
    for conftest in (root / "conftest.py", root / tests / "conftest.py"):
        spec = importlib.util.spec_from_file_location("_preloaded_conftest", conftest) if conftest.exists() else None
        if spec and spec.loader:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
    own = {package, *(path.stem for path in root.iterdir())}
    names = {"pytest", "hypothesis"}
    for path in (root / package).rglob("*.py"):
        names |= {name for name in concerned.imported(path) if name.partition(".")[0] not in own}
    for name in sorted(names):
        # Some are names within modules, some are optional.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
