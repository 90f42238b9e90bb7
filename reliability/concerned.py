"""Which tests concern a module, read from the names of the files and from their imports."""

import ast
import pathlib


def concerned(root: pathlib.Path, path: str, tests: str = "tests") -> list[list[str]]:
    """Returns the files of tests that concern a module, in four groups; a file is in the first that it belongs to.

    Args:
      root: The project's root.
      path: The module, relative to it: package/folder/name.py.
      tests: The folder of tests, relative to the root.

    Returns:
      The file that mirrors the module (tests/folder/name_test.py); those that import it; those of its folder; those of
      end_to_end. Each relative to the root, sorted.
    """
    module = pathlib.PurePosixPath(path)
    folder = pathlib.PurePosixPath(tests, *module.parts[1:-1])
    # A package's root has no folder of tests of its own: tests/ holds those of its modules.
    in_folder = {name.relative_to(root).as_posix() for name in (root / folder).glob("*_test.py")}
    mirror = {(folder / f"{module.stem.strip('_')}_test.py").as_posix()} & in_folder
    files = {name.relative_to(root).as_posix() for name in (root / tests).rglob("*_test.py")}
    names = _names(module)
    importing = {file for file in files if names & imported(root / file)}
    last = {file for file in files if file.startswith(f"{tests}/end_to_end/")}
    groups, seen = [], set()
    for group in (mirror, importing - last, in_folder if len(module.parts) > 2 else set(), last):
        groups.append(sorted(group - seen))
        seen |= group
    return groups


def imported(path: pathlib.Path) -> set[str]:
    """Returns the dotted names that a file imports anywhere, with those of the names it takes from them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {item.name for item in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{item.name}" for item in node.names)}
    return names


def _names(module: pathlib.PurePosixPath) -> set[str]:
    parts = module.with_suffix("").parts
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts)}
