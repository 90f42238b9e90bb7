"""The architecture: folders import only earlier folders, modules are short, and old names do not occur."""

import ast
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "wasser_tf"
# Each may import what stands before it. docs/design/house.md says what each is for.
ROOMS = (
    "version",
    "threat_model",
    "runtime",
    "pretrained",
    "data",
    "models",
    "transport",
    "certification",
    "attacks",
    "training",
    "evaluation",
    "reporting",
    "serving",
    "publishing",
    "runs",
    "paper",
    "bridges",
    "commands",
    "starter",
    "__main__",
)


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path):
    """Yields (line, dotted name) for every import of the package, those within functions too."""
    known = {name_of(module) for module in modules()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "wasser_tf":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node.lineno, full if full in known else node.module
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "wasser_tf":
                    yield node.lineno, alias.name


def test_every_folder_has_a_place_in_the_order():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} <= set(ROOMS)


def test_folders_import_only_earlier_folders():
    wrong = []
    for path in modules():
        if path == PACKAGE / "__init__.py":
            continue
        room = ROOMS.index(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
        for line, imported in imports_of(path):
            parts = imported.split(".")
            if len(parts) == 1:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports the root")
            elif ROOMS.index(parts[1]) > room:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles():
    graph = {name_of(path): {name for _, name in imports_of(path)} - {name_of(path)} for path in modules()}
    # Where a package's __init__ imports its modules for the user, they do not import it.
    done: dict[str, bool] = {}

    def visit(name, trail):
        if done.get(name):
            return
        assert name not in trail, " → ".join([*trail[trail.index(name) :], name])
        for imported in sorted(graph.get(name, ())):
            visit(imported, [*trail, name])
        done[name] = True

    for name in graph:
        visit(name, [])


def test_no_module_imports_by_name():
    # The flag --import imports modules of the user.
    named = [path for path in modules() if "import_module(" in path.read_text()]
    assert named == [PACKAGE / "commands" / "_objects.py"]


@pytest.mark.parametrize("limit, share", [(400, 0.0), (300, 0.06)])
def test_modules_are_short(limit, share):
    long = [str(path.relative_to(ROOT)) for path in modules() if len(path.read_text().splitlines()) > limit]
    assert len(long) <= share * len(modules()), long


def test_every_parameter_can_be_passed_by_name():
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.Lambda)):
                assert not node.args.posonlyargs, f"{path}:{node.lineno}"


def test_no_function_name_has_two_meanings():
    places: dict[str, list[str]] = {}
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                if node.name == "main" and path.parent.name == "commands":
                    continue
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert not {name: found for name, found in places.items() if len(found) > 1}


OLD_NAMES = re.compile(
    r"\b(Certificate|raw_certificate|only_standing|legal_share|round_to_legal|legal_plan|legal|illegal|Workshop|Artefact|"
    r"alone_as_in_company|with_more|score_certified|"
    r"Bench|_under_fire|about\.json|"
    r"artefacts?|check_transports|TRANSPORT_ATTACKS|page_dir|tell|about=|pipeline\.py|finite\.py|compiled\.py|phase\.py|"
    r"even_spread|lost_workers_told|_mend_level)\b"
)
CERTIFIED = re.compile(r"\b[Cc]ertif(y|ied|ies|icates?|ying)\b")


def tracked(*patterns):
    found = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in found.split() if (ROOT / name).exists()]


def test_old_names_do_not_occur():
    found = []
    for path in tracked("*.py", "*.md", "*.json", "*.csv", "*.toml", "Makefile"):
        if path == pathlib.Path(__file__) or "docs/log" in str(path):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if OLD_NAMES.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)
