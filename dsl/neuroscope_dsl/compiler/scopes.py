"""Scopes of names, and the names that a block uses.

Statements outside a method (a do-it) keep undeclared names in the workspace; in a method, undeclared lower-case names that it
assigns are local; other names belong to the workspace.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from neuroscope_dsl import nodes
from neuroscope_dsl.runtime.classes import SmalltalkClass

PSEUDO = frozenset({"self", "super", "nil", "true", "false", "thisContext"})


@dataclass
class Function:
    """A Python function under construction: its locals, and the outer names that it assigns."""

    outer: Function | None
    nonlocals: set[str] = field(default_factory=set)
    globals: set[str] = field(default_factory=set)
    used: dict[str, int] = field(default_factory=dict)
    temporaries: int = 0

    def fresh_local(self, name: str) -> str:
        """A Python name for a Smalltalk local; the same name redeclared in an inlined block gets another."""
        count = self.used.get(name, 0)
        self.used[name] = count + 1
        return f"l_{name}" if count == 0 else f"l_{name}__{count}"

    def fresh_temporary(self) -> str:
        self.temporaries += 1
        return f"t_{self.temporaries}"


@dataclass
class Scope:
    """The names declared by one block or method, inlined or not, within the function that holds them."""

    outer: Scope | None
    function: Function
    names: dict[str, str] = field(default_factory=dict)

    def declare(self, name: str) -> str:
        local = self.names.get(name)
        if local is None:
            local = self.names[name] = self.function.fresh_local(name)
        return local

    def find(self, name: str) -> tuple[Scope, str] | None:
        scope: Scope | None = self
        while scope is not None:
            local = scope.names.get(name)
            if local is not None:
                return scope, local
            scope = scope.outer
        return None


@dataclass(frozen=True)
class MethodContext:
    """The class and side that a method is compiled for."""

    owner: SmalltalkClass
    class_side: bool
    selector: str
    instance_variables: frozenset[str]

    @classmethod
    def of(cls, owner: SmalltalkClass, class_side: bool, selector: str) -> MethodContext:
        variables = owner.all_class_instance_variables() if class_side else owner.all_instance_variables()
        return cls(owner, class_side, selector, frozenset(variables))


def children(node: object) -> Iterator[nodes.Node]:
    """The children of a node, in order."""
    match node:
        case nodes.Assignment(variable, value):
            yield variable
            yield value
        case nodes.Send(receiver, _, arguments):
            yield receiver
            yield from arguments
        case nodes.Message(_, arguments):
            yield from arguments
        case nodes.Cascade(receiver, messages):
            yield receiver
            yield from messages
        case nodes.BraceArray(items):
            yield from items
        case nodes.Return(value):
            yield value
        case nodes.Sequence(statements):
            yield from statements
        case nodes.Block(_, body):
            yield body
        case nodes.MethodDefinition(body=body):
            yield body
        case _:
            return


def walk(node: nodes.Node) -> Iterator[nodes.Node]:
    """The node and its descendants. Iterative, since a chain of sends may be long."""
    pending = [node]
    while pending:
        here = pending.pop()
        yield here
        pending.extend(children(here))


def declared_in(node: nodes.Node) -> set[str]:
    """Every name that blocks and temporaries below `node` declare."""
    names: set[str] = set()
    for part in walk(node):
        if isinstance(part, nodes.Temporaries):
            names.update(part.names)
        elif isinstance(part, nodes.Block):
            names.update(part.parameters)
    return names


def mentioned_in(node: nodes.Node) -> set[str]:
    """Every variable name below `node`."""
    return {part.name for part in walk(node) if isinstance(part, nodes.Variable)}


def undeclared_assignments(body: nodes.Sequence, known: set[str]) -> list[str]:
    """The names that a method assigns without any declaration around the assignment, in order."""
    found: dict[str, None] = {}
    pending: list[tuple[nodes.Node, frozenset[str]]] = [(body, frozenset(known))]
    while pending:
        here, names = pending.pop()
        if isinstance(here, nodes.Block):
            names = names.union(here.parameters)
        elif isinstance(here, nodes.Sequence):
            for statement in here.statements:
                if isinstance(statement, nodes.Temporaries):
                    names = names.union(statement.names)
        elif isinstance(here, nodes.Assignment) and here.variable.name not in names:
            found.setdefault(here.variable.name)
        pending.extend((child, names) for child in reversed(list(children(here))))
    return list(found)
