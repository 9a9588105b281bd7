"""Building Python's syntax trees, each node carrying a place of the script."""

from __future__ import annotations

import ast
import re
from typing import Any

from neuroscope_dsl import nodes
from neuroscope_dsl.source import Source, Span

#: Keyword arguments that every node of Python's tree takes: its place.
Place = dict[str, Any]

_AFTER_RECEIVER = re.compile(r'(?:[\s\)]|"[^"]*")*')


class Places:
    """Lines and columns of one source for Python's tree nodes."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def at(self, offset: int) -> Place:
        line, column = self.source.line_column(offset)
        return {"lineno": line, "col_offset": column - 1, "end_lineno": line, "end_col_offset": column}

    def of(self, span: Span) -> Place:
        return self.at(span.start)

    def of_selector(self, node: nodes.Send) -> Place:
        """The place of the message's selector, for errors about the message."""
        match = _AFTER_RECEIVER.match(self.source.text, node.receiver.span.end)
        assert match is not None
        return self.at(match.end())


def load(name: str, place: Place) -> ast.Name:
    return ast.Name(name, ast.Load(), **place)


def store(name: str, place: Place) -> ast.Name:
    return ast.Name(name, ast.Store(), **place)


def constant(value: Any, place: Place) -> ast.Constant:
    return ast.Constant(value, **place)


def call(function: str, arguments: list[ast.expr], place: Place) -> ast.Call:
    return ast.Call(load(function, place), arguments, [], **place)


def assign(name: str, value: ast.expr, place: Place) -> ast.Assign:
    return ast.Assign([store(name, place)], value, **place)


def is_(left: ast.expr, right: Any, place: Place) -> ast.expr:
    """`left is right`, decided at once for a literal."""
    if isinstance(left, ast.Constant):
        return constant(left.value is right, place)
    return ast.Compare(left, [ast.Is()], [constant(right, place)], **place)


def is_not(left: ast.expr, right: Any, place: Place) -> ast.expr:
    if isinstance(left, ast.Constant):
        return constant(left.value is not right, place)
    return ast.Compare(left, [ast.IsNot()], [constant(right, place)], **place)


def if_(test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt], place: Place) -> ast.If:
    return ast.If(test, body or [ast.Pass(**place)], orelse, **place)


def function(name: str, parameters: list[str], body: list[ast.stmt], place: Place) -> ast.FunctionDef:
    arguments = ast.arguments(
        posonlyargs=[],
        args=[ast.arg(parameter, **place) for parameter in parameters],
        kwonlyargs=[],
        kw_defaults=[],
        defaults=[],
    )
    return ast.FunctionDef(name, arguments, body or [ast.Pass(**place)], [], **place)
