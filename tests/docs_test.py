"""Documents: links lead to files, and commands name flags that exist."""

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Parts of rendered pages: their links are relative to the page, which is in the folder named here.
PARTS = {"notes.md": "..", "frontier.md": "..", "page.md": "../docs/results"}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:python3?|python -m|wasser-tf) (?P<path>[\w/.]+)(?P<rest>[^\n]*)")
FLAG = re.compile(r"(?<![\w-])--(\w+)")
# Of absl, for every binary.
COMMON = {"flagfile", "help", "quiet", "verbosity"}


def pages():
    found = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in found.splitlines() if (ROOT / name).exists()]


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)


def commands(text):
    """Yields (script, flags) for each command in blocks of code and for each `bin/…` in the text."""
    for block in re.findall(r"```(?:bash|sh|text)?\n(.*?)```", text, flags=re.S):
        variables = {}
        for line in block.replace("\\\n", " ").splitlines():
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            if assigned := re.fullmatch(r'(\w+)="(.*)"', line.strip()):
                variables[assigned[1]] = assigned[2]
            for match in COMMAND.finditer(line):
                yield script_of(match), FLAG.findall(re.sub(r"'[^']*'|\"[^\"]*\"", "", match["rest"]))
    for span in re.findall(r"`([^`]*)`", re.sub(r"```.*?```", "", text, flags=re.S)):
        if match := re.search(r"(bin/\w+\.py)(.*)", span, flags=re.S):
            yield match[1], FLAG.findall(match[2])


def script_of(command):
    """Returns the file of bin/ for a command of wasser-tf, and of other commands the script that they name."""
    name = {"demo": "train"}.get(command["path"], command["path"])
    return f"bin/{name}.py" if command[0].startswith("wasser-tf ") else command["path"]


def source_of(script):
    """Returns the source that defines a script's flags, or None if it is no script of ours."""
    path = ROOT / script if script.endswith(".py") else ROOT / (script.replace(".", "/") + ".py")
    if not path.exists():
        return None
    if path.parent == ROOT / "bin":
        path = ROOT / "wasser_tf" / "commands" / path.name
    source = path.read_text() + (ROOT / "wasser_tf" / "commands" / "_flags.py").read_text()
    if "_flags.define_config(TrainConfig" in path.read_text():
        folder = ROOT / "wasser_tf" / "training"
        config = "".join((folder / name).read_text() for name in ("config.py", "image_fields.py"))
        source += " ".join(f'"{name}"' for name in re.findall(r"^    (\w+): [^=\n]+ = setting\(", config, flags=re.M))
    return source


def unknown_flags(text):
    for script, flags in commands(text):
        source = source_of(script)
        for flag in flags if source is not None else ():
            names = (flag, flag.removeprefix("no"))
            if flag not in COMMON and not any(f'"{name}"' in source or f'"--{name}"' in source for name in names):
                yield f"{script} --{flag}"


def dead_links(page, text):
    folder = page.parent / PARTS.get(page.name, ".")
    for target in LINK.findall(without_code(text)):
        path = target.partition("#")[0]
        if path and not re.match(r"[a-z]+:", path) and not (folder / path).exists():
            yield target


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_flags(page):
    text = page.read_text()
    assert list(dead_links(page, text)) == []
    assert list(unknown_flags(text)) == []


def test_broken_links_and_unknown_flags_are_found():
    text = """[here](missing.md) [there](README.md) [far](https://example.org/x.md)
```bash
.venv/bin/python bin/train.py --dataset=digits --no_such_flag=1 \\
  --nosuch --nodeterministic --other="--not_a_flag"
python benchmarks/run.py --quick --slow
python -m benchmarks.serving --requests=3 --nothing
S="--epochs=3 --not_of_train"
python bin/train.py $S --epsilon=1
```
or `bin/average.py --models=a,b --mean`
```bash
wasser-tf attack --model=m.keras --epsilon=0.1 --not_of_attack
wasser-tf demo --epochs=2 --not_of_demo
```
"""
    assert list(dead_links(ROOT / "README.md", text)) == ["missing.md"]
    assert list(unknown_flags(text)) == [
        "bin/train.py --no_such_flag",
        "bin/train.py --nosuch",
        "bin/train.py --other",
        "benchmarks/run.py --slow",
        "benchmarks.serving --nothing",
        "bin/train.py --not_of_train",
        "bin/attack.py --not_of_attack",
        "bin/train.py --not_of_demo",
        "bin/average.py --mean",
    ]


def test_every_page_is_reached_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page.suffix != ".md" or page in seen:
            continue
        seen.add(page)
        for target in LINK.findall(without_code(page.read_text())):
            path = target.partition("#")[0]
            if path and not re.match(r"[a-z]+:", path):
                waiting.append(page.parent / path)
    documents = {page.resolve() for page in pages() if page.is_relative_to(ROOT / "docs") and page.name not in PARTS}
    # The tutorials are reached from the site's table of contents.
    documents = {page for page in documents if not page.is_relative_to(ROOT / "docs" / "site" / "tutorials")}
    assert documents - seen == set()


def test_every_script_of_a_command_exists():
    missing = {
        f"{page.relative_to(ROOT)}: {script}"
        for page in pages()
        for script, _ in commands(page.read_text())
        if script.startswith(("bin/", "benchmarks", "reliability/")) and source_of(script) is None
    }
    assert missing == set()
