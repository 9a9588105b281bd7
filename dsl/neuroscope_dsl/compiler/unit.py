"""Compiles a tree to Python functions: one unit for each statement outside methods, one for each method."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType
from typing import Any

from neuroscope_dsl import nodes
from neuroscope_dsl.compiler import emit
from neuroscope_dsl.compiler.generator import Environment, Generator
from neuroscope_dsl.compiler.scopes import PSEUDO, MethodContext, undeclared_assignments, walk
from neuroscope_dsl.errors import SmalltalkSyntaxError
from neuroscope_dsl.limits import give_back, raise_recursion_limit
from neuroscope_dsl.runtime.process import SOURCES
from neuroscope_dsl.source import Source

#: Frames needed to generate code for the deepest brackets.
_GENERATOR_FRAMES = 5000


@dataclass(frozen=True)
class Unit:
    """Compiled code and its constants; linking it with the globals of a workspace makes a function."""

    code: CodeType
    constants: tuple[Any, ...]

    def linked(self, variables: dict[str, Any]) -> Callable[..., Any]:
        namespace: dict[str, Any] = {}
        exec(self.code, variables, namespace)
        built: Callable[..., Any] = namespace["unit"](*self.constants)
        return built


def compile_statement(
    node: nodes.Statement, source: Source, environment: Environment, variables: dict[str, Any]
) -> Callable[[], Any]:
    """The function of one statement outside any method; call it in order to run the statement.

    `variables` are the globals of the workspace: its variables and the runtime's helpers.
    """
    generator = Generator(source, environment, None)
    place = generator.places.of(node.span)
    _check_size(node)
    with _room(node):
        value = generator.body([node], place)
        generator.out.append(ast.Return(value, **place))
        body = generator.outer_names(generator.scope.function, place) + generator.out
        function = emit.function("doit", [], body, place)
        built = _unit(function, generator, _file_key(source, variables)).linked(variables)
        built.smalltalk_source = source  # type: ignore[attr-defined]
        return built


def compile_method(
    node: nodes.MethodDefinition, context: MethodContext, source: Source, environment: Environment, variables: dict[str, Any]
) -> Callable[..., Any]:
    """The function of a method: receiver first, then its arguments."""
    built = method_unit(node, context, source, environment, _file_key(source, variables)).linked(variables)
    built.smalltalk_source = source  # type: ignore[attr-defined]  # the registry of sources holds them weakly
    return built


def method_unit(
    node: nodes.MethodDefinition, context: MethodContext, source: Source, environment: Environment, file: str
) -> Unit:
    """The code of a method; `file` is the file name for its positions, if any."""
    generator = Generator(source, environment, context)
    place = generator.places.of(node.span)
    _check_size(node)
    with _room(node):
        parameters = [generator.scope.declare(name) for name in node.parameters]
        declared = {name for item in node.body.statements if isinstance(item, nodes.Temporaries) for name in item.names}
        known = {*node.parameters, *declared, *context.instance_variables, *PSEUDO}
        for name in undeclared_assignments(node.body, known):
            if not name[:1].isupper():
                generator.out.append(emit.assign(generator.scope.declare(name), emit.constant(None, place), place))
        generator.out.append(generator.check(place))
        for statement in node.body.statements:
            generator.statement(statement)
        generator.out.append(ast.Return(emit.load("self", place), **place))
        body = generator.out
        if generator.returns_from_block:
            body = _catching_returns(body, place)
        body = generator.outer_names(generator.scope.function, place) + body
        name = "".join(character if character.isalnum() else "_" for character in node.selector)
        function = emit.function(f"{context.owner.name}_{name}", ["self", *parameters], body, place)
        return _unit(function, generator, file)


def _catching_returns(body: list[ast.stmt], place: emit.Place) -> list[ast.stmt]:
    """`^` inside a block reaches its method as an exception; `home` identifies the method's activation."""
    caught = emit.load("caught", place)
    foreign = ast.Compare(
        ast.Attribute(caught, "home", ast.Load(), **place), [ast.IsNot()], [emit.load("home", place)], **place
    )
    handler = ast.ExceptHandler(
        emit.load("g_NonLocalReturn", place),
        "caught",
        [
            emit.if_(foreign, [ast.Raise(None, None, **place)], [], place),
            ast.Return(ast.Attribute(caught, "value", ast.Load(), **place), **place),
        ],
        **place,
    )
    dead: ast.stmt = ast.Assign(
        [ast.Attribute(emit.load("home", place), "alive", ast.Store(), **place)], emit.constant(False, place), **place
    )
    return [
        emit.assign("home", emit.call("g_Home", [], place), place),
        ast.Try(body, [handler], [], [dead], **place),
    ]


def _unit(function: ast.FunctionDef, generator: Generator, file: str) -> Unit:
    """Compile `def unit(k_1, …): def function…; return function`, so that constants are cells, not globals."""
    place: emit.Place = {"lineno": 1, "col_offset": 0, "end_lineno": 1, "end_col_offset": 0}
    names = [f"k_{index}" for index in range(1, len(generator.constants) + 1)]
    unit = emit.function("unit", names, [function, ast.Return(emit.load(function.name, place), **place)], place)
    return Unit(compile(ast.Module([unit], []), file, "exec", dont_inherit=True), tuple(generator.constants))


#: Largest statement or method, in nodes of the tree: the code of a larger one cannot be interrupted while Python compiles it.
MAX_NODES = 15_000


def _check_size(node: nodes.Node) -> None:
    """Raise `SmalltalkSyntaxError` for a statement or a method that is too long."""
    if node.span.end - node.span.start < MAX_NODES:
        return
    if sum(1 for _ in itertools.islice(walk(node), MAX_NODES + 1)) > MAX_NODES:
        raise SmalltalkSyntaxError(
            f"This statement or method has more than {MAX_NODES:,} parts.",
            position=node.span.position,
            remedy="Split it into several statements or methods; give data as literal arrays.",
        )


def _file_key(source: Source, variables: dict[str, Any]) -> str:
    """The key of this source in code objects; another text with the same file name gets another key."""
    sources: MutableMapping[str, Source] = variables[SOURCES]
    if sources.setdefault(source.key, source) is not source:
        source.key = f"{source.file}#{next(_numbers)}"
        sources[source.key] = source
    return source.key


_numbers = itertools.count(2)


@contextmanager
def _room(node: nodes.Node) -> Iterator[None]:
    """Raise the recursion limit for the generator; deeper nesting is a syntax error at `node`."""
    frames = raise_recursion_limit(_GENERATOR_FRAMES)
    try:
        yield
    except RecursionError:
        raise SmalltalkSyntaxError(
            "This statement is nested too deeply.",
            position=node.span.position,
            remedy="Assign its inner parts to variables.",
        ) from None
    finally:
        give_back(frames)
