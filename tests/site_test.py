"""The sources of the documentation site; `make docs` builds it."""

import importlib.util
import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def load(name):
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / "docs" / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def build():
    return load("build")


def test_links_to_files_outside_the_site_become_text(build):
    text = (
        "[a](../design/house.md#x) ![b](../images/c.png) [d](../../bin/train.py) [e](https://example.org) `[f](g.md)`"
    )
    found = build.with_known_links(text, pathlib.PurePosixPath("docs/how_to"), {"docs/design/house.md"})
    assert found == "[a](../design/house.md#x) b d [e](https://example.org) `[f](g.md)`"


def test_every_room_has_a_page_with_every_module(build):
    pages = build.reference()
    rooms = {path.stem for path in (ROOT / "wasser_tf").iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms - set(build.ROOMS) == {"commands", "starter"}
    for path in (ROOT / "wasser_tf").rglob("[a-z]*.py"):
        room = path.relative_to(ROOT / "wasser_tf").parts[0].removesuffix(".py")
        if room not in ("commands", "starter", "version"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            assert f".. automodule:: {name}\n" in pages[f"{room}.md"]


def test_the_index_names_what_the_package_exports(build):
    import wasser_tf

    named = set(re.findall(r"^\| `(\w+)`", build.reference()["index.md"], re.M))
    assert named == set(wasser_tf.__all__) - {"__version__", "attacks"}


def test_the_leaderboard_embeds_every_entry(build):
    page = build.leaderboard_page()
    data = re.search(r'id="leaderboard-entries">(.*?)</script>', page, re.S)[1]
    stored = [json.loads(path.read_text()) for path in (ROOT / "docs/results/leaderboard").rglob("*.json")]
    found = {(entry["name"], entry["natural_accuracy"], str(entry["robust_accuracy"])) for entry in json.loads(data)}
    assert found == {(entry["name"], entry["natural_accuracy"], str(entry["robust_accuracy"])) for entry in stored}


@pytest.mark.parametrize(
    ("line", "converted"),
    [
        ("Takes `images` and **options, a|b, Φ_k_.", r"Takes ``images`` and \*\*options, a\|b, Φ_k\_."),
        (">>> 2 * 3  # `x`", ">>> 2 * 3  # `x`"),
        ("the `x`s of a`b`", r"the ``x``\ s of a\ ``b``"),
    ],
)
def test_docstrings_become_restructured_text(line, converted):
    assert load("conf").to_restructured_text([line]) == [converted]


def test_fenced_code_becomes_a_literal_block():
    lines = ["Text.", "", "```python", "a = `b` * 2", "```", "More."]
    assert load("conf").to_restructured_text(lines) == ["Text.", "", "", "::", "", "    a = `b` * 2", "", "More."]
