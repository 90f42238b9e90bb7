"""Dependencies: pinned by hash, consistent and licensed. The tests use no network."""

import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib

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


_ROOT = pathlib.Path(__file__).parents[1]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_INSTALL = (_ROOT / "docs" / "how_to" / "install.md").read_text(encoding="utf-8")


def test_the_page_on_cpu_only_tensorflow_names_every_dependency():
    documented = re.findall(r"'([\w-]+>=[^']+)'", _INSTALL)
    assert sorted(documented) == sorted(
        each.replace("tensorflow>=", "tensorflow-cpu>=") for each in _PROJECT["dependencies"]
    )


def test_the_page_names_every_extra():
    documented = re.findall(r"^\| `(\w+)` \|", _INSTALL, re.MULTILINE)
    # The extra for mutation testing is of use in a clone only.
    assert sorted(documented) == sorted(set(_PROJECT["optional-dependencies"]) - {"mutation"})


def test_the_version_is_in_one_place():
    assert "version" in _PROJECT["dynamic"] and "version" not in _PROJECT
    assert not re.search(r"^version:", (_ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
