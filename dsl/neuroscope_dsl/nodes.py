"""The syntax tree: small frozen dataclasses, each with its span of the source.

Equality ignores spans.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from neuroscope_dsl.source import NOWHERE, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Base of all nodes."""

    span: Span = field(default=NOWHERE, compare=False, repr=False)


# --- literals -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number(Node):
    """A number as written; `neuroscope_dsl.numerals.number_value` computes its value. A sign belongs to the text."""

    text: str


@dataclass(frozen=True, slots=True)
class String(Node):
    value: str


@dataclass(frozen=True, slots=True)
class SymbolLiteral(Node):
    name: str


@dataclass(frozen=True, slots=True)
class CharacterLiteral(Node):
    value: str


@dataclass(frozen=True, slots=True)
class Constant(Node):
    """`nil`, `true` or `false` inside a literal array."""

    name: str


@dataclass(frozen=True, slots=True)
class LiteralArray(Node):
    items: tuple[LiteralNode, ...]


@dataclass(frozen=True, slots=True)
class ByteArrayLiteral(Node):
    values: bytes


LiteralNode: TypeAlias = "Number | String | SymbolLiteral | CharacterLiteral | Constant | LiteralArray | ByteArrayLiteral"


# --- expressions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variable(Node):
    """A name, including the pseudo variables (self super nil true false thisContext)."""

    name: str


@dataclass(frozen=True, slots=True)
class Assignment(Node):
    variable: Variable
    value: Expression


@dataclass(frozen=True, slots=True)
class Send(Node):
    receiver: Expression
    selector: str
    arguments: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True)
class Message(Node):
    """One message of a cascade: a send without its receiver."""

    selector: str
    arguments: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True)
class Cascade(Node):
    """Several messages (at least two) to one receiver; its value is that of the last."""

    receiver: Expression
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class BraceArray(Node):
    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Return(Node):
    value: Expression


@dataclass(frozen=True, slots=True)
class Temporaries(Node):
    """`| a b |`, at the start of a sequence or between two statements."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sequence(Node):
    """Statements and declarations, in order."""

    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Block(Node):
    parameters: tuple[str, ...]
    body: Sequence


Expression: TypeAlias = "LiteralNode | Variable | Assignment | Send | Cascade | BraceArray | Block"
Statement: TypeAlias = "Expression | Return | Temporaries"


# --- definitions and scripts --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MethodDefinition(Node):
    """`Class >> selector` or `Class class >> selector` at column one, with its indented body."""

    class_name: str
    class_side: bool
    selector: str
    parameters: tuple[str, ...]
    body: Sequence


@dataclass(frozen=True, slots=True)
class Script(Node):
    """A whole text: statements, declarations and method definitions, in order."""

    items: tuple[Statement | MethodDefinition, ...]
