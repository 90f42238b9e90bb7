"""Generates mutations of a package's source: Cosmic Ray's operators, and those of `reliability.cuts`."""

import ast
import bisect
import pathlib
import random
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from reliability import cuts

# Families of Cosmic Ray's operators, by the beginnings of their names. Replacements that no number or tensor survives
# (+ by <<) are left out: any test kills those.
_FAMILIES = {
    "binary operator": tuple(
        f"ReplaceBinaryOperator_{pair}"
        for pair in (
            *("Add_Sub", "Add_Mul", "Sub_Add", "Mul_Div", "Mul_Add", "Div_Mul", "FloorDiv_Mul", "Mod_FloorDiv"),
            *("Pow_Mul", "BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitOr"),
        )
    ),
    "comparison": tuple(
        f"ReplaceComparisonOperator_{pair}"
        for pair in (
            *("Eq_NotEq", "NotEq_Eq", "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt"),
            *("Is_IsNot", "IsNot_Is"),
        )
    ),
    "condition": ("AddNot", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceUnaryOperator_Delete_Not"),
    "constant": ("ReplaceTrueWithFalse", "ReplaceFalseWithTrue"),
    "sign": ("ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Invert"),
    "number": ("NumberReplacer",),
    "loop": ("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop"),
}


class Mutation(NamedTuple):
    """A mutated module.

    Attributes:
      path: The module, relative to the project's root.
      line: The first line that differs, from 1.
      kind: What was done, as in "statement dropped".
      source: The whole mutated source.
      diff: The lines that differ, as in a unified diff, with the place in front: three lines at least.
    """

    path: str
    line: int
    kind: str
    source: str
    diff: str


class _Site(NamedTuple):
    """A place, and the ways to mutate it."""

    path: str
    start: int
    kind: str
    ways: list[Callable[[], str | None]]


def sample(
    root: pathlib.Path, paths: list[pathlib.Path], seed: int, count: int, only: Collection[str] = ()
) -> list[Mutation]:
    """Draws mutations: a kind, uniformly; a place of that kind; a way to mutate it. At most one mutation a line.

    Drawing the kind first keeps the numbers and operators, of which there are most, from crowding out the others.

    Args:
      root: The project's root.
      paths: The modules to mutate.
      seed: Of the draw.
      count: How many mutations to draw; fewer are returned where there are no more places.
      only: The kinds to draw from; all if there are none.

    Returns:
      The mutations in the order they were drawn.

    Raises:
      ValueError: A kind is unknown, or Cosmic Ray is needed and not installed.
    """
    if unknown := set(only) - {*_FAMILIES, *cuts.KINDS}:
        raise ValueError(f"kinds must be some of {', '.join([*_FAMILIES, *cuts.KINDS])}, got {', '.join(unknown)}.")
    kinds: dict[str, list[_Site]] = {}
    sources = {}
    for path in sorted(paths):
        name = path.relative_to(root).as_posix()
        sources[name] = path.read_text(encoding="utf-8")
        for site in _sites(name, sources[name], only or {*_FAMILIES, *cuts.KINDS}):
            kinds.setdefault(site.kind, []).append(site)
    order = random.Random(seed)
    drawn: list[Mutation] = []
    taken = set()
    while kinds and len(drawn) < count:
        kind = order.choice(sorted(kinds))
        site = kinds[kind].pop(order.randrange(len(kinds[kind])))
        way = order.choice(site.ways)
        if not kinds[kind]:
            del kinds[kind]
        mutated = way()
        if mutated is None or not _differs(sources[site.path], mutated):
            continue
        mutation = _describe(site, sources[site.path], mutated)
        if (mutation.path, mutation.line) not in taken:
            taken.add((mutation.path, mutation.line))
            drawn.append(mutation)
    return drawn


def _sites(path: str, source: str, only: Collection[str]) -> Iterator[_Site]:
    module = cuts.Source(source)
    ways: dict[tuple[str, int, int], list[Callable[[], str | None]]] = {}
    for kind, start, end, way in (*_operators(module, only), *cuts.cuts(module)):
        if kind in only and not module.is_excluded(start):
            ways.setdefault((kind, start, end), []).append(way)
    for (kind, start, _), found in sorted(ways.items(), key=lambda item: item[0]):
        yield _Site(path, start, kind, found)


def _operators(module: cuts.Source, only: Collection[str]) -> Iterator[cuts.Cut]:
    """Yields (kind, start, end, way) of every occurrence of Cosmic Ray's operators."""
    if not set(only) & set(_FAMILIES):
        return
    try:
        import cosmic_ray.plugins
        from cosmic_ray.ast import ast_nodes, get_ast
        from cosmic_ray.mutating import mutate_code
    except ImportError as error:
        raise ValueError("Mutations need Cosmic Ray: .venv/bin/python -m pip install -e '.[mutation]'.") from error
    nodes = list(ast_nodes(get_ast(module.text)))
    for kind, names in _FAMILIES.items():
        for name in names:
            operator = cosmic_ray.plugins.get_operator(f"core/{name}")()
            positions = (position for node in nodes for position in operator.mutation_positions(node))
            for occurrence, (start, end) in enumerate(positions):
                yield (
                    kind,
                    module.offset(*start),
                    module.offset(*end),
                    # Each occurrence parses anew, for operators change the tree they are given.
                    lambda operator=operator, occurrence=occurrence: mutate_code(module.text, operator, occurrence),
                )


def _differs(source: str, mutated: str) -> bool:
    """Returns whether it compiles, to something else: some edits are parentheses or constants folded to the same."""
    try:
        return ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def _describe(site: _Site, source: str, mutated: str) -> Mutation:
    before, after = source.splitlines(), mutated.splitlines()
    first = next(
        (at for at, (old, new) in enumerate(zip(before, after, strict=False)) if old != new),
        min(len(before), len(after)),
    )
    last = 0
    while last < min(len(before), len(after)) - first and before[-1 - last] == after[-1 - last]:
        last += 1
    lines = [f"{site.path}:{first + 1}: {site.kind}"]
    lines += [f"-{line}" for line in before[first : len(before) - last]]
    lines += [f"+{line}" for line in after[first : len(after) - last]]
    return Mutation(site.path, first + 1, site.kind, mutated, "\n".join(lines))


class Functions:
    """The functions of a module by the lines of their bodies; a module is a function too, of index 0.

    Attributes:
      starts: The line of the first statement of each that a line can be put before, from 1; None of an empty module.
      columns: The indentation of those.
    """

    def __init__(self, source: str):
        """Finds them."""
        tree = ast.parse(source)
        found = [(1, len(source.splitlines()) + 1, _first(tree))]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = _first(node)
                # What stands on the line of its def counts as the enclosing function's.
                if first is not None and first.lineno > node.body[0].lineno - 1 and first.lineno != node.lineno:
                    found.append((node.body[0].lineno, node.end_lineno or 0, first))
        found.sort(key=lambda item: (item[0], -item[1]))
        self._ranges = [(start, end) for start, end, _ in found]
        self.starts = [_line(first) for *_, first in found]
        self.columns = [first.col_offset if first else 0 for *_, first in found]

    def at(self, line: int) -> int:
        """Returns the index of the innermost function that holds a line."""
        at = bisect.bisect_right(self._ranges, (line, 0))
        at = at if at < len(self._ranges) and self._ranges[at][0] == line else at - 1
        while at > 0 and self._ranges[at][1] < line:
            at -= 1
        return max(at, 0)


def _line(first: ast.stmt | None) -> int | None:
    if first is None:
        return None
    # Decorators come before what they decorate.
    return min([first.lineno, *(item.lineno for item in getattr(first, "decorator_list", []))])


def _first(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> ast.stmt | None:
    """Returns the first statement after the docstring and the imports from __future__."""
    for statement in node.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            continue
        return statement
    return None
