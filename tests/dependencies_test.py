"""Dependencies: pinned by hash, consistent and licensed. The tests use no network."""

import importlib.metadata
import re
import subprocess
import sys

from benchmarks import licences

# Anything that asks more of a user than to be named, or than its own files to stay open, is to be looked at first.
_ALLOWED = re.compile(
    r"Apache|MIT|BSD|PSF|Python Software Foundation|MPL|Mozilla Public License 2\.0|ISC|0BSD|Zlib|CC0|Unlicense|HPND"
)


def test_everything_is_pinned_by_hash():
    entries = licences.locked()
    assert len(entries) > 50
    assert [entry.name for entry in entries if not entry.hashes] == []


def test_the_installed_packages_are_the_locked_ones():
    versions = {}
    for entry in licences.locked():
        versions.setdefault(entry.name, set()).add(entry.version)
    for name, allowed in versions.items():
        try:
            assert importlib.metadata.version(name) in allowed, name
        except importlib.metadata.PackageNotFoundError:
            # Of another system.
            assert name in ("colorama", "array-record", "librt"), name


def test_installed_packages_have_no_conflicts():
    checked = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, timeout=300)
    assert checked.returncode == 0, checked.stdout


def test_every_licence_is_known_permissive_and_listed():
    for entry in licences.locked():
        said = licences.licence(entry.name)
        assert _ALLOWED.search(said), f"{entry.name}: {said!r}"
        assert not re.search(r"\bA?GPL|\bLGPL|proprietary", said, re.IGNORECASE), f"{entry.name}: {said!r}"
    listed = re.findall(r"^\| ([\w.-]+) \|", licences.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(listed) - {"package"} == {entry.name for entry in licences.locked()}
