"""The parser's lexer: lark's terminals in one pattern, plus context-dependent rules.

Lark's lexers build a `Token` (a str subclass with seven attributes) and count lines for each token, which is too slow. This one
implements lark's `Lexer` interface with one compiled pattern and a token of six slots; lines and columns are computed from
offsets on demand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lark.lexer import Lexer, LexerState

from neuroscope_dsl.errors import SmalltalkSyntaxError
from neuroscope_dsl.source import Source

#: Separators of tokens: white space and comments. Possessive: a long gap at the end of a text is read once, not in every way.
_GAP = r'(?:[ \t\r\n\f\v\xa0\ufeff]+|"[^"]*")*+'

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"

#: `Class >> selector` or `Class class >> selector`, alone on its line except for a comment. The group is the DEFINE token.
_HEADER = re.compile(
    rf"([A-Z][A-Za-z0-9_]*(?:[ \t]+class)?[ \t]*>>)[ \t]*"
    rf"(?:{_NAME}:[ \t]*{_NAME}(?:(?:[ \t]|\r?\n[ \t])[ \t]*{_NAME}:[ \t]*{_NAME})*|(?:\|\|?|[-+*/\\<>=~,@%&?!]+)[ \t]*{_NAME}|{_NAME})"
    r'[ \t]*(?:"[^"]*")?[ \t\r]*(?=\n|$)'
)

#: After one of these, a minus sign or `||` is a message; otherwise they start a number or temporaries.
_OPERAND_ENDS = frozenset({"IDENT", "NUMBER", "STRING", "SYMBOL", "CHARACTER", "RPAR", "RSQB", "RBRACE"})

_OPENERS = {"LPAR": ")", "ARRAY": ")", "LSQB": "]", "BYTES": "]", "LBRACE": "}"}
_CLOSERS = frozenset({"RPAR", "RSQB", "RBRACE"})

#: A bound that keeps every later pass (compiler, printer) within Python's stack.
MAX_NESTING = 100


class ScannedToken:
    """A token by its type, text and offsets. Lark reads the remaining attributes of the token before the end."""

    __slots__ = ("end_pos", "start_pos", "type", "value")

    line = column = end_line = end_column = 0

    def __init__(self, type_: str, value: str, start: int, end: int) -> None:
        self.type = type_
        self.value = value
        self.start_pos = start
        self.end_pos = end

    def __repr__(self) -> str:
        return f"ScannedToken({self.type}, {self.value!r})"


class SmalltalkLexer(Lexer):
    """Lark calls this with its terminals once, then with a `Source` for each text."""

    __future_interface__ = 2

    def __init__(self, lexer_conf: Any) -> None:
        terminals = sorted(lexer_conf.terminals, key=lambda terminal: -terminal.priority)
        alternatives = "|".join(f"(?P<{terminal.name}>{terminal.pattern.to_regexp()})" for terminal in terminals)
        self._next = re.compile(f"{_GAP}(?:{alternatives})").match
        self._gap = re.compile(_GAP).match

    def lex(self, lexer_state: LexerState, parser_state: Any) -> Iterator[Any]:
        """The tokens of the source in `lexer_state.text`. Raises `SmalltalkSyntaxError`."""
        source: Source = lexer_state.text  # type: ignore[assignment]
        text = source.text
        size = len(text)
        match = self._next
        position = 0
        previous = ""
        literal_depths: list[bool] = []  # for each open bracket: are we inside a literal array?
        in_literal = False
        opened: list[tuple[str, int]] = []
        in_definition = False
        in_names = False
        pattern_end = 0
        while True:
            found = match(text, position)
            if found is None:
                break
            kind = found.lastgroup
            assert kind is not None
            start, position = found.span(kind)
            if (start == 0 or text[start - 1] == "\n") and (not opened):
                if in_definition:
                    yield ScannedToken("END_DEFINE", "", start, start)
                    in_definition = False
                    previous = ""
                if kind == "IDENT" and previous not in ("ASSIGN", "OP", "BAR", "KEYWORD", "CARET", "SEMICOLON"):
                    header = _HEADER.match(text, start)
                    if header is not None:
                        position = header.end(1)
                        yield ScannedToken("DEFINE", header.group(1), start, position)
                        in_definition = True
                        pattern_end = header.end()
                        previous = "DEFINE"
                        continue
            if start >= pattern_end > 0:  # the first token of a method's body begins a statement
                pattern_end = 0
                previous = ""
            if kind == "OP":
                value = text[start:position]
                if value[-1] == "-" and position < size and text[position] in "0123456789":
                    if len(value) > 1:  # `<-1`: the comparison, then a negative number
                        position -= 1
                        yield ScannedToken("OP", value[:-1], start, position)
                        previous = "OP"
                        continue
                    if in_literal or previous not in _OPERAND_ENDS:
                        found = match(text, position)
                        assert found is not None
                        position = found.end()
                        yield ScannedToken("NUMBER", text[start:position], start, position)
                        previous = "NUMBER"
                        continue
            elif kind == "BAR":
                if in_names:  # the end of a list of temporaries: what follows begins a statement
                    in_names = False
                    yield ScannedToken(kind, "|", start, position)
                    previous = ""
                    continue
                elif in_literal:
                    pass
                elif previous not in _OPERAND_ENDS and previous not in ("DEFINE", "SEMICOLON"):
                    in_names = previous != "PARAMETER"
                elif text.startswith("||", start):
                    kind = "OP"
                    position += 1
            elif kind in _OPENERS:
                opened.append((kind, start))
                if len(opened) > MAX_NESTING:
                    raise SmalltalkSyntaxError(
                        f"Brackets are nested deeper than {MAX_NESTING}.",
                        position=source.position(start),
                        remedy="Assign the inner parts to variables.",
                    )
                literal_depths.append(in_literal)
                in_literal = in_literal or kind in ("ARRAY", "BYTES")
            elif kind in _CLOSERS:
                if opened and _OPENERS[opened[-1][0]] == text[start]:
                    opened.pop()
                    in_literal = literal_depths.pop()
                else:
                    raise self._unbalanced(source, text[start], start, opened)
            yield ScannedToken(kind, text[start:position], start, position)
            previous = kind
        gap = self._gap(text, position)
        assert gap is not None
        position = gap.end()
        if position < size:
            raise self._unreadable(source, position)
        if opened:
            kind, start = opened[-1]
            raise SmalltalkSyntaxError(
                f"This bracket is never closed: {_OPENERS[kind]!r} is missing.",
                position=source.position(start),
                incomplete=True,
            )
        if in_definition:
            yield ScannedToken("END_DEFINE", "", size, size)

    @staticmethod
    def _unbalanced(source: Source, closer: str, at: int, opened: list[tuple[str, int]]) -> SmalltalkSyntaxError:
        if not opened:
            return SmalltalkSyntaxError(f"{closer!r} has no opening bracket.", position=source.position(at))
        kind, start = opened[-1]
        line = source.line_column(start)[0]
        return SmalltalkSyntaxError(
            f"{_OPENERS[kind]!r} is expected before {closer!r}, for the bracket opened in line {line}.",
            position=source.position(at),
        )

    @staticmethod
    def _unreadable(source: Source, at: int) -> SmalltalkSyntaxError:
        text = source.text
        place = source.position(at)
        if text[at] == '"':
            return SmalltalkSyntaxError("This comment is never closed: '\"' is missing.", position=place, incomplete=True)
        if text[at] == "'" or text.startswith("#'", at):
            return SmalltalkSyntaxError('This string is never closed: "\'" is missing.', position=place, incomplete=True)
        if text[at] == "$":
            return SmalltalkSyntaxError("A character must follow '$'.", position=place, incomplete=True)
        return SmalltalkSyntaxError(f"{text[at]!r} is not valid here.", position=place)
