"""The licences of everything in requirements.lock, from the installed packages' own words: docs/design/licences.md.

python benchmarks/licences.py
"""

import importlib.metadata
import pathlib
import re
from typing import NamedTuple

_ROOT = pathlib.Path(__file__).resolve().parents[1]
LOCK, PAGE = _ROOT / "requirements.lock", _ROOT / "docs" / "design" / "licences.md"
# Packages whose metadata is silent, and where they say it instead.
_SAID_ELSEWHERE = {
    "colorama": "BSD-3-Clause (by its repository; installed on Windows only)",
    "namex": "Apache-2.0 (by the licence file in its wheel)",
}
_LINE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")


class Locked(NamedTuple):
    """An entry of the lock: a package, its version, and how many hashes pin its files."""

    name: str
    version: str
    hashes: int


def locked() -> list[Locked]:
    """Reads the lock."""
    entries: list[Locked] = []
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if match := _LINE.match(line):
            entries.append(Locked(match[1], match[2], 0))
        elif line.strip().startswith("--hash=sha256:"):
            entries[-1] = entries[-1]._replace(hashes=entries[-1].hashes + 1)
    return entries


def licence(name: str) -> str:
    """Returns a package's licence as it states it itself, or an empty text."""
    try:
        about = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return _SAID_ELSEWHERE.get(name, "")
    classifiers = [item.split(" :: ")[-1] for item in about.get_all("Classifier") or [] if item.startswith("License")]
    lines = (about.get("License") or "").strip().splitlines()
    return (
        about.get("License-Expression") or "; ".join(classifiers) or "".join(lines[:1]) or _SAID_ELSEWHERE.get(name, "")
    )


def page() -> str:
    """Returns the page."""
    lines = {f"| {entry.name} | {licence(entry.name)} |" for entry in locked()}
    return (
        "# Licences of what is installed\n\n"
        "Everything that `requirements.lock` names, those of the tests too, in its own words. Written by "
        "`python benchmarks/licences.py`;\n`tests/dependencies_test.py` holds it to the lock.\n\n"
        "| package | licence |\n| :-- | :-- |\n" + "\n".join(sorted(lines)) + "\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Written: {PAGE}")
