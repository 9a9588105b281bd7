"""The parser: `parse(source)`.

Lark parses (LALR, grammar.lark) and calls the transformer below on each reduction, without an intermediate tree. Raises
`SmalltalkSyntaxError` with the place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from lark import Lark, Transformer
from lark.exceptions import UnexpectedToken

from neuroscope_dsl import nodes
from neuroscope_dsl.errors import SmalltalkSyntaxError
from neuroscope_dsl.lexer import ScannedToken, SmalltalkLexer
from neuroscope_dsl.nodes import (
    Assignment,
    Block,
    BraceArray,
    ByteArrayLiteral,
    Cascade,
    CharacterLiteral,
    Constant,
    LiteralArray,
    Message,
    MethodDefinition,
    Number,
    Return,
    Script,
    Send,
    Sequence,
    String,
    SymbolLiteral,
    Temporaries,
    Variable,
)
from neuroscope_dsl.numerals import number_value
from neuroscope_dsl.source import Source, Span

_RESERVED = frozenset({"self", "super", "nil", "true", "false", "thisContext"})
_LITERAL_NAMES = frozenset({"nil", "true", "false"})

Children = list[Any]


def parse(source: Source | str, file: str = "<script>") -> Script:
    """The tree of a whole script. Raises `SmalltalkSyntaxError`, for a text that is too long as well."""
    if isinstance(source, str):
        source = Source(source, file)
    if len(source.text) > LONGEST_TEXT:
        raise SmalltalkSyntaxError(
            f"A text of {len(source.text):,} characters is too long.",
            remedy=f"At most {LONGEST_TEXT:,}; send data as arguments.",
        )
    try:
        builder, lark = _idle.pop()
    except IndexError:
        builder, lark = _parser()
    builder.source = source
    try:
        return cast(Script, lark.parse(source))
    except UnexpectedToken as error:
        raise _unexpected(source, error) from None
    finally:
        builder.source = _NOTHING
        _idle.append((builder, lark))


#: Longest text of a script in characters.
LONGEST_TEXT = 2_000_000

_NOTHING = Source("")

#: Parsers that no thread is using: a long text must not keep others waiting.
_idle: list[tuple[TreeBuilder, Lark]] = []


def _parser() -> tuple[TreeBuilder, Lark]:
    builder = TreeBuilder()
    grammar = (Path(__file__).parent / "grammar.lark").read_text(encoding="utf-8")
    lark = Lark(
        grammar,
        parser="lalr",
        lexer=SmalltalkLexer,
        start="script",
        transformer=builder,
        keep_all_tokens=True,
        maybe_placeholders=False,
    )
    return builder, lark


class TreeBuilder(Transformer[Any, Script]):
    """One method per alternative of the grammar; `children` are its nodes and tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.source = Source("")

    def _span(self, first: Any, last: Any) -> Span:
        """From the start of one part to the end of another; a part is a token or a node."""
        start = first.start_pos if type(first) is ScannedToken else first.span.start
        end = last.end_pos if type(last) is ScannedToken else last.span.end
        return Span(self.source, start, end)

    def _own(self, token: ScannedToken) -> Span:
        return Span(self.source, token.start_pos, token.end_pos)

    def _name(self, token: ScannedToken) -> str:
        """The text of a token that declares a name; a pseudo variable cannot be declared."""
        if token.value in _RESERVED:
            raise self._error(f"{token.value!r} is a pseudo variable, and cannot be the name of another.", token.start_pos)
        return token.value

    def _error(self, message: str, at: int, remedy: str | None = None) -> SmalltalkSyntaxError:
        return SmalltalkSyntaxError(message, position=self.source.position(at), remedy=remedy)

    # --- lists ----------------------------------------------------------------------------------------------------

    def no_items(self, children: Children) -> list[Any]:
        return []

    def first_item(self, children: Children) -> list[Any]:
        return [children[0]]

    def same_items(self, children: Children) -> list[Any]:
        return children[0]

    def more_items(self, children: Children) -> list[Any]:
        children[0].append(children[1])
        return children[0]

    declared_items = next_item = more_items

    def defined_items(self, children: Children) -> list[Any]:
        children[0] += children[1:]
        return children[0]

    def first_pair(self, children: Children) -> list[Any]:
        return children

    def next_pair(self, children: Children) -> list[Any]:
        children[0] += children[1:]
        return children[0]

    # --- literals -------------------------------------------------------------------------------------------------

    def number(self, children: Children) -> Number:
        token = children[0]
        text = token.value
        if not text.isdigit():
            try:
                number_value(text)
            except (ValueError, OverflowError) as error:
                raise self._error(str(error), token.start_pos) from None
        return Number(text, span=self._own(token))

    def string(self, children: Children) -> String:
        token = children[0]
        return String(token.value[1:-1].replace("''", "'"), span=self._own(token))

    def symbol(self, children: Children) -> SymbolLiteral:
        token = children[0]
        name = token.value[1:]
        if name[0] == "'":
            name = name[1:-1].replace("''", "'")
        return SymbolLiteral(name, span=self._own(token))

    def bare_symbol(self, children: Children) -> SymbolLiteral | Constant:
        token = children[0]
        if token.value in _LITERAL_NAMES:
            return Constant(token.value, span=self._own(token))
        return SymbolLiteral(token.value, span=self._own(token))

    def character(self, children: Children) -> CharacterLiteral:
        token = children[0]
        return CharacterLiteral(token.value[1:], span=self._own(token))

    def literal_array(self, children: Children) -> LiteralArray:
        return LiteralArray(tuple(children[1]), span=self._span(children[0], children[2]))

    def byte_array(self, children: Children) -> ByteArrayLiteral:
        values = bytearray()
        for token in children[1]:
            value = number_value(token.value)
            if not isinstance(value, int) or not 0 <= value <= 255:
                raise self._error(f"{token.value} is not a byte: a ByteArray holds integers from 0 to 255.", token.start_pos)
            values.append(value)
        return ByteArrayLiteral(bytes(values), span=self._span(children[0], children[2]))

    # --- expressions ----------------------------------------------------------------------------------------------

    def variable(self, children: Children) -> Variable:
        token = children[0]
        return Variable(token.value, span=Span(self.source, token.start_pos, token.end_pos))

    def assignment(self, children: Children) -> Assignment:
        token, _, value = children
        variable = Variable(self._name(token), span=self._own(token))
        return Assignment(variable, value, span=Span(self.source, token.start_pos, value.span.end))

    def unary_send(self, children: Children) -> Send:
        receiver, token = children
        return Send(receiver, token.value, span=Span(self.source, receiver.span.start, token.end_pos))

    def binary_send(self, children: Children) -> Send:
        receiver, operator, argument = children
        span = Span(self.source, receiver.span.start, argument.span.end)
        return Send(receiver, operator.value, (argument,), span=span)

    def keyword_send(self, children: Children) -> Send:
        receiver, pairs = children
        selector = pairs[0].value if len(pairs) == 2 else "".join([token.value for token in pairs[::2]])
        span = Span(self.source, receiver.span.start, pairs[-1].span.end)
        return Send(receiver, selector, tuple(pairs[1::2]), span=span)

    def unary_message(self, children: Children) -> Message:
        return Message(children[0].value, span=self._own(children[0]))

    def binary_message(self, children: Children) -> Message:
        operator, argument = children
        return Message(operator.value, (argument,), span=self._span(operator, argument))

    def keyword_message(self, children: Children) -> Message:
        pairs = children[0]
        selector = "".join([token.value for token in pairs[::2]])
        return Message(selector, tuple(pairs[1::2]), span=self._span(pairs[0], pairs[-1]))

    def cascade(self, children: Children) -> Cascade:
        send, _, message = children
        first = Message(send.selector, send.arguments, span=Span(self.source, send.receiver.span.end, send.span.end))
        return Cascade(send.receiver, (first, message), span=self._span(send, message))

    def longer_cascade(self, children: Children) -> Cascade:
        cascade, _, message = children
        return Cascade(cascade.receiver, (*cascade.messages, message), span=self._span(cascade, message))

    def parenthesised(self, children: Children) -> nodes.Expression:
        return children[1]

    def brace_array(self, children: Children) -> BraceArray:
        items = children[1] if len(children) == 3 else [*children[1], children[2]]
        return BraceArray(tuple(items), span=self._span(children[0], children[-1]))

    def block(self, children: Children) -> Block:
        return Block((), children[1], span=self._span(children[0], children[2]))

    def empty_block(self, children: Children) -> Block:
        body = Sequence((), span=self._own(children[2]))
        return Block(self._parameters(children[1]), body, span=self._span(children[0], children[2]))

    def parameter_block(self, children: Children) -> Block:
        return Block(self._parameters(children[1]), children[3], span=self._span(children[0], children[4]))

    def _parameters(self, tokens: list[ScannedToken]) -> tuple[str, ...]:
        names: list[str] = []
        for token in tokens:
            name = token.value[1:].strip()
            if name in _RESERVED:
                raise self._error(f"{name!r} is a pseudo variable, and cannot be the name of another.", token.start_pos)
            if name in names:
                raise self._error(f"Two parameters are called {name!r}.", token.start_pos)
            names.append(name)
        return tuple(names)

    # --- statements, definitions, scripts -------------------------------------------------------------------------

    def answer(self, children: Children) -> Return:
        return Return(children[1], span=self._span(*children))

    def temporaries(self, children: Children) -> Temporaries:
        names = tuple(self._name(token) for token in children[1])
        return Temporaries(names, span=self._span(children[0], children[2]))

    def sequence(self, children: Children) -> Sequence:
        statements = children[0]
        if len(children) == 2:
            statements.append(children[1])
        if not statements:
            return Sequence((), span=Span(self.source, 0, 0))
        return Sequence(tuple(statements), span=self._span(statements[0], statements[-1]))

    def unary_definition(self, children: Children) -> MethodDefinition:
        header, name, body, end = children
        return self._definition(header, name.value, [], body, end)

    def binary_definition(self, children: Children) -> MethodDefinition:
        header, operator, parameter, body, end = children
        return self._definition(header, operator.value, [parameter], body, end)

    def keyword_definition(self, children: Children) -> MethodDefinition:
        header, pairs, body, end = children
        return self._definition(header, "".join(token.value for token in pairs[::2]), pairs[1::2], body, end)

    def _definition(
        self, header: ScannedToken, selector: str, parameters: list[ScannedToken], body: Sequence, end: ScannedToken
    ) -> MethodDefinition:
        names = header.value[:-2].split()
        parameter_names = tuple(self._name(token) for token in parameters)
        if len(set(parameter_names)) != len(parameter_names):
            raise self._error("Two parameters have the same name.", header.start_pos)
        span = Span(self.source, header.start_pos, end.start_pos)
        return MethodDefinition(names[0], len(names) == 2, selector, parameter_names, body, span=span)

    def script(self, children: Children) -> Script:
        items = children[0]
        if len(children) == 2:
            items.append(children[1])
        return Script(tuple(items), span=Span(self.source, 0, len(self.source.text)))


_TOKEN_NAMES = {
    "KEYWORD": "a keyword",
    "KEYWORDS": "a keyword",
    "IDENT": "a name",
    "NUMBER": "a number",
    "STRING": "a string",
    "SYMBOL": "a symbol",
    "CHARACTER": "a character",
    "PARAMETER": "a block parameter",
    "OP": "a binary selector",
    "DEFINE": "a method definition",
    "END_DEFINE": "the end of the method",
    "$END": "the end of the text",
}


def _unexpected(source: Source, error: UnexpectedToken) -> SmalltalkSyntaxError:
    """Lark's error in Smalltalk's terms."""
    token: Any = error.token
    kind = token.type
    at_end = kind in ("$END", "END_DEFINE")
    start = len(source.text.rstrip()) if kind == "$END" else token.start_pos
    expected = set(error.expected)
    found = _TOKEN_NAMES.get(kind, "")
    shown = found if at_end else f"{found} {token.value!r}".strip()
    remedy = None
    if kind == "ASSIGN":
        message = "Only a variable can be assigned to."
    elif at_end and "NUMBER" in expected:
        message = f"An expression is missing before {shown}."
    elif "PERIOD" in expected and (kind in ("IDENT", "NUMBER", "STRING", "SYMBOL", "LPAR", "LSQB", "CARET", "DEFINE")):
        message = f"{shown} cannot follow here."
        remedy = "Is there a period missing between two statements?"
    elif kind == "SEMICOLON":
        message = "A cascade (';') needs a message before it."
    elif "NUMBER" in expected:
        message = f"An expression is expected here, not {shown}."
    elif expected == {"IDENT"} or (kind != "IDENT" and "IDENT" in expected and len(expected) <= 2):
        message = f"A name is expected here, not {shown}."
    else:
        message = f"{shown[:1].upper()}{shown[1:]} is not valid here."
    position = source.position(start)
    return SmalltalkSyntaxError(message, position=position, remedy=remedy, incomplete=at_end)
