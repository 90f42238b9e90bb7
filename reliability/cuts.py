"""Mutations that cut a wire: what is computed is not used, or not handed on. Cosmic Ray has none of these."""

import ast
import functools
import itertools
import re
from collections.abc import Callable, Iterator

KINDS = (
    *("statement dropped", "call left out", "arguments swapped", "argument not handed on", "another variable"),
    *("another attribute", "element dropped", "operand dropped", "condition dropped"),
)
# Of calls: what they do has no place in a result. Of keywords: speed, or the look of text.
_LOGS = {"print", "log", "warn", "warning", "info", "debug", "error", "write_line"}
_NO_BEHAVIOUR = {
    *("jit_compile", "autograph", "reduce_retracing", "strict", "encoding", "indent", "flush", "stacklevel"),
    *("help", "description", "parallel_iterations", "errors", "check", "verbose"),
}
# Calls that return something like their first argument: without them the code still runs.
_UNWRAPPED = {
    *("abs", "min", "max", "sorted", "reversed", "set", "round", "maximum", "minimum", "clip_by_value", "clip", "exp"),
    *("log", "log1p", "expm1", "sqrt", "square", "sign", "floor", "ceil", "stop_gradient", "relu", "softmax"),
    *("log_softmax", "cumsum", "reverse", "roll", "sort", "argsort", "where", "identity", "nan_to_num", "transpose"),
}
_COMMUTE = {"maximum", "minimum", "max", "min", "isinstance", "issubclass", "hasattr", "zip", "logical_and", "add"}
_MODULES = {"tf", "np", "keras", "math", "os", "scipy", "json", "pathlib"}

Cut = tuple[str, int, int, Callable[[], str | None]]


class Source:
    """A module's text and tree, with places as offsets of characters.

    Attributes:
      text: The source.
      tree: Its syntax tree.
    """

    def __init__(self, text: str):
        """Parses it."""
        self.text = text
        self.tree = ast.parse(text)
        self._lines = text.splitlines(keepends=True)
        self._starts = [0, *itertools.accumulate(map(len, self._lines))]
        self._excluded = [self.span(node) for node in _excluded(self.tree)]

    def offset(self, line: int, column: int) -> int:
        """Returns the offset of a line, from 1, and a column in characters, from 0."""
        return self._starts[line - 1] + column

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Returns the offsets of a node."""
        return self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)

    def _at(self, line: int, column: int) -> int:
        return self.offset(line, len(self._lines[line - 1].encode()[:column].decode()))

    def segment(self, node: ast.AST) -> str:
        """Returns the text of a node."""
        start, end = self.span(node)
        return self.text[start:end]

    def is_excluded(self, offset: int) -> bool:
        """Returns whether a mutation there is equivalent by construction: of an annotation, a message, a decorator."""
        return any(start <= offset < end for start, end in self._excluded)

    def replaced(self, *edits: tuple[int, int, str]) -> str:
        """Returns the source with texts in the place of others."""
        text = self.text
        for start, end, new in sorted(edits, reverse=True):
            text = text[:start] + new + text[end:]
        return text


def _excluded(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from node.decorator_list
            names = " ".join(map(ast.dump, node.decorator_list))
            if "abstractmethod" in names or "overload" in names or node.name in ("__repr__", "__str__"):
                yield node
            if node.returns:
                yield node.returns
        elif isinstance(node, ast.ClassDef):
            yield from (*node.decorator_list, *node.bases)
        elif isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            yield node.annotation
        elif isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert):
            yield node
        elif isinstance(node, ast.Assign) and any(getattr(item, "id", "") == "__all__" for item in node.targets):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield node
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield node.exc
        elif isinstance(node, ast.Call) and _name(node) in _LOGS and isinstance(node.func, ast.Name | ast.Attribute):
            if not (isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") in _MODULES | {"tf"}):
                yield node
        elif isinstance(node, ast.keyword) and node.arg in _NO_BEHAVIOUR:
            yield node


def cuts(module: Source) -> Iterator[Cut]:
    """Yields (kind, start, end, the function that makes the mutated source) of every cut."""
    # Inside an f-string Python 3.11 gives places that are not those of the text.
    inside = {id(part) for node in ast.walk(module.tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    yield from _functions(module, inside)
    for node in ast.walk(module.tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Call):
            yield from _calls(module, node)
        elif isinstance(node, ast.List | ast.Tuple) and isinstance(node.ctx, ast.Load) and len(node.elts) > 1:
            for item in node.elts:
                if not isinstance(item, ast.Constant | ast.Slice):
                    yield _cut(module, "element dropped", item, functools.partial(_without, module, item))
        elif isinstance(node, ast.BinOp):
            for kept in (node.left, node.right):
                yield _cut(module, "operand dropped", node, _kept(module, node, kept))
        elif isinstance(node, ast.BoolOp):
            for kept in node.values:
                yield _cut(module, "condition dropped", node, _kept(module, node, kept))


def _calls(module: Source, node: ast.Call) -> Iterator[Cut]:
    name = _name(node)
    if name in _UNWRAPPED and node.args and not isinstance(node.args[0], ast.Starred | ast.GeneratorExp):
        yield _cut(module, "call left out", node, _kept(module, node, node.args[0]))
    for one, two in itertools.pairwise(node.args):
        if isinstance(one, ast.Starred) or isinstance(two, ast.Starred) or name in _COMMUTE:
            continue
        if not (isinstance(one, ast.Constant) and isinstance(two, ast.Constant)):
            edits = ((*module.span(one), module.segment(two)), (*module.span(two), module.segment(one)))
            yield _cut(module, "arguments swapped", one, functools.partial(module.replaced, *edits))
    for keyword in node.keywords:
        if keyword.arg is not None:
            yield _cut(module, "argument not handed on", keyword, functools.partial(_without, module, keyword))


def _functions(module: Source, inside: set[int]) -> Iterator[Cut]:
    for function in ast.walk(module.tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        yield from _statements(module, function, {item.arg for item in arguments})
        nodes = [node for node in ast.walk(function) if id(node) not in inside]
        yield from _attributes(module, nodes)
        types: dict[str, list[str]] = {}
        for item in arguments:
            if item.annotation:
                types.setdefault(ast.dump(item.annotation), []).append(item.arg)
        other = {name: after for names in types.values() if len(names) > 1 for name, after in _next(names)}
        for node in nodes:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in other:
                edit = (*module.span(node), other[node.id])
                yield _cut(module, "another variable", node, functools.partial(module.replaced, edit))


def _statements(module: Source, function: ast.AST, bound: set[str]) -> Iterator[Cut]:
    """Statements that can be dropped and leave every name bound."""
    branches = {id(child) for node in ast.walk(function) if isinstance(node, ast.If) for child in node.body}
    bound = set(bound)
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
    for node in sorted(statements, key=lambda node: (node.lineno, node.col_offset)):
        targets = node.targets if isinstance(node, ast.Assign) else []
        names = {item.id for target in targets for item in ast.walk(target) if isinstance(item, ast.Name)}
        if (
            (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
            or isinstance(node, ast.AugAssign)
            or (isinstance(node, ast.Raise | ast.Return) and id(node) in branches)
            or (isinstance(node, ast.Assign) and names <= bound and not _sets_attribute(node))
        ):
            edit = (*module.span(node), "pass")
            yield _cut(module, "statement dropped", node, functools.partial(module.replaced, edit))
        bound |= names


def _sets_attribute(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Attribute) for target in node.targets)


def _attributes(module: Source, nodes: list[ast.AST]) -> Iterator[Cut]:
    """An attribute for another that the function reads of the same object: the test split for the training split."""
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    read: dict[str, dict[str, list[ast.Attribute]]] = {}
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and id(node) not in called:
            owner = module.segment(node.value)
            if owner.split(".")[0] not in _MODULES:
                read.setdefault(owner, {}).setdefault(node.attr, []).append(node)
    for attributes in read.values():
        if len(attributes) > 1:
            for name, other in _next(list(attributes)):
                for node in attributes[name]:
                    start, end = module.span(node)
                    edit = (end - len(name), end, other)
                    cut = functools.partial(module.replaced, edit)
                    yield "another attribute", start, end, cut


def _next(names: list[str]) -> list[tuple[str, str]]:
    return list(zip(names, names[1:] + names[:1], strict=True))


def _cut(module: Source, kind: str, node: ast.AST, way: Callable[[], str | None]) -> Cut:
    return (kind, *module.span(node), way)


def _kept(module: Source, node: ast.expr, kept: ast.expr) -> Callable[[], str]:
    text = module.segment(kept)
    if not isinstance(kept, ast.Name | ast.Attribute | ast.Call | ast.Subscript | ast.Constant):
        text = f"({text})"
    return functools.partial(module.replaced, (*module.span(node), text))


def _without(module: Source, item: ast.AST) -> str | None:
    """Returns the source without an element of a list or of arguments, and without its comma."""
    start, end = module.span(item)
    if before := re.search(r",\s*$", module.text[:start]):
        return module.replaced((before.start(), end, ""))
    after = re.match(r"\s*,\s*", module.text[end:])
    return module.replaced((start, end + (after.end() if after else 0), ""))


def _name(node: ast.Call) -> str:
    """Returns the last name of what is called."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))
