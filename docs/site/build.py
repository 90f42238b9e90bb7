r"""Builds the documentation site into build/site, with warnings as errors.

  python docs/site/build.py                  with the tutorials executed (minutes)
  python docs/site/build.py --no-execute     without

The sources are copied to build/site_source in the layout of the clone, so that links between pages hold. Links to files
that are no pages become plain text. The reference has a page for each room of the package, and the leaderboard is drawn
from the entries in docs/results/leaderboard/.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE, OUTPUT = ROOT / "build" / "site_source", ROOT / "build" / "site"
ROOMS = {
    "threat_model": "Threat model",
    "attacks": "Attacks",
    "training": "Training",
    "evaluation": "Evaluation",
    "certification": "Certification",
    "models": "Models and classifiers",
    "data": "Data",
    "transport": "Transport",
    "reporting": "Reporting",
    "serving": "Serving",
    "publishing": "Publishing",
    "bridges": "Bridges to other libraries",
    "pretrained": "Pretrained classifiers",
    "runtime": "Runtime",
    "runs": "Runs of the commands",
    "paper": "The paper",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(```.*?```|`[^`\n]*`)", re.S)


def main() -> None:
    """Builds the site; the exit code is that of Sphinx."""
    parser = argparse.ArgumentParser(description="Builds the documentation site into build/site.")
    parser.add_argument("--no-execute", action="store_true", help="Do not execute the tutorials.")
    given = parser.parse_args()
    prepare()
    options = ["-D", "nb_execution_mode=off"] if given.no_execute else []
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", *options]
    sys.exit(subprocess.run([*command, str(SOURCE), str(OUTPUT)], env=variables).returncode)


def prepare() -> None:
    """Writes all sources of the site to build/site_source."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    pages = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md", "docs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    copied = {
        name for name in pages if not name.startswith(("docs/site/", "reliability/", "docs/results/leaderboard/"))
    }
    for name in sorted(copied):
        target = SOURCE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".md"):
            text = (ROOT / name).read_text(encoding="utf-8")
            target.write_text(with_known_links(text, pathlib.PurePosixPath(name).parent, copied), encoding="utf-8")
        else:
            shutil.copyfile(ROOT / name, target)
    shutil.copytree(ROOT / "docs" / "site", SOURCE, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in reference().items():
        path = SOURCE / "reference" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (SOURCE / "leaderboard.md").write_text(leaderboard_page(), encoding="utf-8")


def with_known_links(text: str, folder: pathlib.PurePosixPath, copied: set[str]) -> str:
    """Returns a page in which links to files that are not part of the site are plain text.

    Args:
      text: The page in Markdown.
      folder: Its folder in the clone.
      copied: The files of the site.
    """

    def link(match: re.Match[str]) -> str:
        target = match[3].partition("#")[0]
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        path = os.path.normpath(folder / target)
        return match[0] if path in copied else match[2]

    parts = _FENCE.split(text)
    # Code stays as it is.
    return "".join(part if place % 2 else _LINK.sub(link, part) for place, part in enumerate(parts))


def reference() -> dict[str, str]:
    """Returns the pages of the reference by file name: one for each room, and the index with the public names."""
    pages = {}
    for room, title in ROOMS.items():
        path = ROOT / "wasser_tf" / room
        modules = sorted(path.glob("[a-z]*.py")) if path.is_dir() else [path.with_suffix(".py")]
        names = [".".join(module.relative_to(ROOT).with_suffix("").parts) for module in modules]
        if path.is_dir() and '"""' in (path / "__init__.py").read_text(encoding="utf-8"):
            names = [f"wasser_tf.{room}", *names]
        lines = [f"# {title}", ""]
        for name in names:
            lines += [f"## {name}", "", "```{eval-rst}", f".. automodule:: {name}", "```", ""]
        pages[f"{room}.md"] = "\n".join(lines)
    toctree = "\n".join(ROOMS)
    pages["index.md"] = f"# Reference\n\n{_public_names()}\n\n```{{toctree}}\n:maxdepth: 1\n\n{toctree}\n```\n"
    return pages


def _public_names() -> str:
    """Returns a table of what `import wasser_tf` offers, with links to the reference."""
    source = (ROOT / "wasser_tf" / "__init__.py").read_text(encoding="utf-8")
    rows = ["| `wasser_tf.` | defined in |", "| :-- | :-- |"]
    for module, names in re.findall(r"^ *from (wasser_tf[\w.]*) import ([\w, ]+)$", source, re.M):
        for name in names.split(", "):
            if module != "wasser_tf" and name not in ("check_keras_backend", "is_starting", "__version__"):
                room = module.split(".")[1]
                page = f"[{module}]({room}.md)" if room in ROOMS else module
                rows.append(f"| `{name}` | {page} |")
    return "\n".join([rows[0], rows[1], *sorted(rows[2:], key=str.lower)])


def leaderboard_page() -> str:
    """Returns the page of the leaderboard, whose tables and pictures are drawn in the browser from embedded entries."""
    found = sorted((ROOT / "docs" / "results" / "leaderboard").rglob("*.json"))
    kept = ("name", "description", "dataset", "num_images", "threat_model", "natural_accuracy", "robust_accuracy")
    kept += ("certified", "num_weights", "warnings", "commit")
    entries = []
    for path in found:
        entry = json.loads(path.read_text(encoding="utf-8"))
        entries.append({key: entry[key] for key in kept if key in entry} | {"attacks": sorted(entry["attacks"])})
    # "</" would end the script element.
    data = json.dumps(entries, ensure_ascii=False).replace("</", "<\\/")
    script = (ROOT / "docs" / "site" / "_static" / "leaderboard.js").read_text(encoding="utf-8")
    html = (
        '<div id="leaderboard"></div>\n'
        f'<script type="application/json" id="leaderboard-entries">{data}</script>\n<script>\n{script}</script>'
    )
    intro = (
        "# Leaderboard\n\nAccuracies in %. Select a heading to sort a table by it, and a classifier to draw it alone. "
        "Robust accuracy: the share of test images that no attack fooled, an upper bound. Certified accuracy, where "
        "one is given: the share that provably withstands every attack; the true robust accuracy is between the two. "
        "How the numbers were made: [results](docs/results/leaderboard.md).\n\n"
    )
    return f"{intro}````{{raw}} html\n{html}\n````\n"


if __name__ == "__main__":
    main()
