"""The mutants of a module: its syntax tree with one small fault.

arithmetic      + ↔ −, * ↔ /, // → /, % → *, ** → *, & ↔ |, a / b → a, −a → a
comparison      < ↔ <=, > ↔ >=, < → >=, > → <=, == ↔ !=, is ↔ is not, in ↔ not in
constant        an integer plus one, a fraction doubled (nought becomes one), True ↔ False
boolean         and ↔ or, not a → a, if a → if not a
return          return a → return None
statement       an assignment to an element, or one with an operator, is left out

Left alone, since no behaviour hangs on it: texts, annotations, what is only for type checkers, assertions, error messages, what
prints, the layout of JSON, `strict` of a zip, reports of progress, sizes of batches, the sides of a coin, and guards against divisions by nought
(numbers of 1e-6 and less).
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_COMPARISON: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
#: Functions that only make text for people.
_PRINTING = frozenset({"__repr__", "__str__", "print_string"})
#: Arguments that change how a text is laid out, where a warning points, or what is only checked.
_LAYOUT = frozenset({"indent", "ensure_ascii", "sort_keys", "stacklevel", "strict"})
_PROGRESS = frozenset({"progress", "advance"})
#: How the names of constants end that say how many rows are computed together.
_BATCHES = ("_BATCH", "_AT_ONCE")
_GUARD = 1e-6
_COMPOUND = (ast.If, ast.While, ast.For, ast.With, ast.Try, ast.Match, ast.ClassDef, ast.FunctionDef)


@dataclass(frozen=True)
class Mutant:
    """One fault.

    number: its place among the module's mutants. before, after: the changed piece as source, on one line. lines: first and last of
    the statement whose run runs it. at_import: it runs when the module is imported, not in a function. same: how many like it stand
    before it in its function.
    """

    module: str
    number: int
    line: int
    function: str
    before: str
    after: str
    lines: tuple[int, int]
    at_import: bool
    same: int = 0

    @property
    def key(self) -> str:
        """What names it as long as the piece and its function stay as they are, wherever the lines go."""
        again = f" ({self.same + 1})" if self.same else ""
        return f"{self.module}:{self.function}: {self.before} → {self.after}{again}"


def mutants_of(module: str, path: Path) -> list[Mutant]:
    """Every mutant of a module, in the order of the source."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    spans: dict[ast.AST, tuple[tuple[int, int], bool]] = {}
    _place(tree, (1, 1), False, spans)
    found, seen = [], Counter[tuple[str, str, str]]()
    for number, (node, function, changed) in enumerate(_faults(tree)):
        told = function, _shown(node), _shown(changed) if changed else "(left out)"
        found.append(Mutant(module, number, node.lineno, *told, *spans[node], seen[told]))
        seen[told] += 1
    return found


def _place(node: ast.AST, lines: tuple[int, int], inside: bool, found: dict[ast.AST, tuple[tuple[int, int], bool]]) -> None:
    """Note for each piece the lines of its statement (of a compound one, its own) and whether it runs at import."""
    if isinstance(node, ast.stmt) and not isinstance(node, _COMPOUND):
        lines = (node.lineno, node.end_lineno or node.lineno)
    elif isinstance(node, ast.expr) and lines[1] == 0:
        lines = (lines[0], node.end_lineno or node.lineno)
    found[node] = (lines if lines[1] else (lines[0], lines[0]), not inside)
    if isinstance(node, _COMPOUND):
        lines = (node.lineno, 0)
    if isinstance(node, ast.FunctionDef) and not inside:
        # A default is made at import and met where the body begins.
        body = next((each for each in node.body if not _is_left_alone(each)), node.body[-1])
        _place(node.args, (body.lineno, body.end_lineno or body.lineno), False, found)
        for inner in node.body:
            _place(inner, lines, True, found)
        return
    for child in ast.iter_child_nodes(node):
        _place(child, lines, inside or isinstance(node, ast.Lambda), found)


def mutated(path: Path, number: int) -> ast.Module:
    """The module's tree with the mutant of that number in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for at, (node, _, changed) in enumerate(_faults(tree)):
        if at == number:
            _Replacement(node, changed).visit(tree)
            return ast.fix_missing_locations(tree)
    raise IndexError(f"{path} has no mutant {number}.")


class _Replacement(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST | None) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._old:
            return ast.copy_location(self._new or ast.Pass(), node)
        return self.generic_visit(node)


def _shown(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 120 else text[:117] + "…"


def _faults(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str, ast.AST | None]]:
    """Every piece with the function that holds it and what replaces it; None leaves a statement out."""
    yield from _within(tree, "module")


def _within(node: ast.AST, function: str) -> Iterator[tuple[ast.expr | ast.stmt, str, ast.AST | None]]:
    if isinstance(node, (ast.expr, ast.stmt)):
        for changed in _changes(node):
            yield node, function, changed
    if isinstance(node, (ast.If, ast.IfExp, ast.While)) and not isinstance(node.test, (ast.Compare, ast.UnaryOp, ast.Constant)):
        # Comparisons and negations have mutants of their own.
        yield node.test, function, ast.UnaryOp(ast.Not(), node.test)
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        function = node.name if function == "module" else f"{function}.{node.name}"
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_left_alone(child):
                yield from _within(child, function)


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, (ast.Assert, ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return True
    if isinstance(node, ast.FunctionDef):
        return node.name in _PRINTING
    if isinstance(node, ast.keyword):
        return node.arg in _LAYOUT
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr in _PROGRESS
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Name) and node.targets[0].id.endswith(_BATCHES)
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)  # a docstring
    return False


def _changes(node: ast.expr | ast.stmt) -> Iterator[ast.AST | None]:
    if isinstance(node, ast.BinOp):
        yield from _arithmetic(node)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and not _is_coin(node):
        for other in _COMPARISON[type(node.ops[0])]:
            yield _with(node, ops=[other()])
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield _with(node, value=ast.Constant(None))
    elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript)):
        yield None


def _is_coin(node: ast.Compare) -> bool:
    """Whether it is `random() < 0.5`, either side of which is as likely."""
    call, half = node.left, node.comparators[0]
    named = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "random"
    return named and isinstance(half, ast.Constant) and half.value == 0.5


def _arithmetic(node: ast.BinOp) -> Iterator[ast.AST]:
    if isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
        return
    if isinstance(node.op, ast.BitOr) and (_is_none(node.left) or _is_none(node.right)):
        return  # a type
    other = _ARITHMETIC.get(type(node.op))
    if other is not None:
        yield _with(node, op=other())
    if isinstance(node.op, ast.Div):
        yield node.left


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node.value, float) and not 0 < node.value <= _GUARD:
        yield ast.Constant(node.value * 2 or 1.0)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed
