"""Writes docs/design/licences.md: the licences of all packages in requirements.lock, from their installed metadata.

python benchmarks/licences.py
"""

import importlib.metadata
import pathlib
import re
from typing import NamedTuple

_ROOT = pathlib.Path(__file__).resolve().parents[1]
LOCK, PAGE = _ROOT / "requirements.lock", _ROOT / "docs" / "design" / "licences.md"
# Packages without a licence in their metadata, and where it is stated.
_STATED_ELSEWHERE = {
    "colorama": "BSD-3-Clause (by its repository; installed on Windows only)",
    "namex": "Apache-2.0 (by the licence file in its wheel)",
}
_LINE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")


class Locked(NamedTuple):
    """An entry of requirements.lock.

    Attributes:
      name: Name of the package.
      version: Its version.
      hashes: Number of hashes that pin its files.
    """

    name: str
    version: str
    hashes: int


def locked() -> list[Locked]:
    """Reads requirements.lock."""
    entries: list[Locked] = []
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if match := _LINE.match(line):
            entries.append(Locked(match[1], match[2], 0))
        elif line.strip().startswith("--hash=sha256:"):
            entries[-1] = entries[-1]._replace(hashes=entries[-1].hashes + 1)
    return entries


def licence(name: str) -> str:
    """Returns a package's licence from its metadata, or "" if it is unknown."""
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return _STATED_ELSEWHERE.get(name, "")
    classifiers = [
        item.split(" :: ")[-1] for item in metadata.get_all("Classifier") or [] if item.startswith("License")
    ]
    lines = (metadata.get("License") or "").strip().splitlines()
    return (
        metadata.get("License-Expression")
        or "; ".join(classifiers)
        or "".join(lines[:1])
        or _STATED_ELSEWHERE.get(name, "")
    )


def page() -> str:
    """Returns the page as Markdown."""
    lines = {f"| {entry.name} | {licence(entry.name)} |" for entry in locked()}
    return (
        "# Licences of the dependencies\n\n"
        "The licences of all packages in `requirements.lock`, including those of the tests, from their metadata. "
        "Written by\n`python benchmarks/licences.py`; `tests/dependencies_test.py` compares the list with the lock.\n\n"
        "| package | licence |\n| :-- | :-- |\n" + "\n".join(sorted(lines)) + "\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Written: {PAGE}")
