"""Printing a tree and parsing it again is the identity; any text at all parses or is a positioned syntax error."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroscope_dsl import SmalltalkSyntaxError, nodes
from neuroscope_dsl.parser import parse
from neuroscope_dsl.source import Source
from neuroscope_dsl.unparse import unparse

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[0-9]*.st"))
RESERVED = {"self", "super", "nil", "true", "false", "thisContext"}

names = st.from_regex(r"[a-z_][A-Za-z0-9_]{0,5}", fullmatch=True).filter(lambda name: name not in RESERVED)
class_names = st.from_regex(r"[A-Z][A-Za-z0-9]{0,5}", fullmatch=True)
words = st.from_regex(r"[a-z][A-Za-z0-9]{0,5}", fullmatch=True).filter(lambda name: name not in RESERVED)
binary_selectors = st.sampled_from(
    ["+", "-", "*", "/", "//", "\\\\", "<", ">=", "=", "~=", "==", ",", "->", "@", "|", "&", "%", "<<"]
)
keyword_selectors = st.lists(words, min_size=1, max_size=3).map(lambda parts: "".join(f"{part}:" for part in parts))
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)

integers = st.integers(-(10**20), 10**20).map(str)
floats = st.tuples(st.integers(-999, 999), st.integers(0, 999)).map(lambda pair: f"{pair[0]}.{pair[1]}")
others = st.sampled_from(["16rFF", "2r1010", "3.14s2", "1e10", "-1.5e-3", "36rZZ", "5s", "16r-1F"])
numbers = st.one_of(integers, floats, others).map(nodes.Number)
strings = texts.map(nodes.String)
symbols = st.one_of(words, keyword_selectors, binary_selectors, texts).map(nodes.SymbolLiteral)
characters = st.characters(codec="utf-8", exclude_categories=["Cs"]).map(nodes.CharacterLiteral)
byte_arrays = st.binary(max_size=4).map(nodes.ByteArrayLiteral)
simple_literals = st.one_of(numbers, strings, symbols, characters, byte_arrays)
array_items = st.one_of(simple_literals, st.sampled_from(["nil", "true", "false"]).map(nodes.Constant))
literal_arrays = st.recursive(
    st.lists(array_items, max_size=4).map(lambda items: nodes.LiteralArray(tuple(items))),
    lambda inner: st.lists(st.one_of(array_items, inner), max_size=3).map(lambda items: nodes.LiteralArray(tuple(items))),
    max_leaves=6,
)
variables = st.one_of(names, class_names, st.sampled_from(sorted(RESERVED))).map(nodes.Variable)


def sequences(expression: st.SearchStrategy) -> st.SearchStrategy:
    statements = st.one_of(
        expression,
        expression.map(nodes.Return),
        st.lists(names, max_size=3).map(lambda items: nodes.Temporaries(tuple(items))),
    )
    return st.lists(statements, max_size=3).map(lambda items: nodes.Sequence(tuple(items)))


@st.composite
def messages(draw: st.DrawFn, expression: st.SearchStrategy) -> nodes.Message:
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return nodes.Message(draw(words))
    if kind == 1:
        return nodes.Message(draw(binary_selectors), (draw(expression),))
    selector = draw(keyword_selectors)
    return nodes.Message(selector, tuple(draw(expression) for _ in range(selector.count(":"))))


def compounds(expression: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(
        st.builds(nodes.Assignment, names.map(nodes.Variable), expression),
        st.tuples(expression, messages(expression)).map(lambda pair: nodes.Send(pair[0], pair[1].selector, pair[1].arguments)),
        st.tuples(expression, st.lists(messages(expression), min_size=2, max_size=3)).map(
            lambda pair: nodes.Cascade(pair[0], tuple(pair[1]))
        ),
        st.lists(expression, max_size=3).map(lambda items: nodes.BraceArray(tuple(items))),
        st.builds(nodes.Block, st.lists(names, max_size=2, unique=True).map(tuple), sequences(expression)),
    )


expressions = st.recursive(st.one_of(simple_literals, literal_arrays, variables), compounds, max_leaves=8)


@st.composite
def definitions(draw: st.DrawFn) -> nodes.MethodDefinition:
    selector = draw(st.one_of(words, binary_selectors, keyword_selectors))
    count = selector.count(":") if selector[0].isalpha() else 1
    parameters = draw(st.lists(names, min_size=count, max_size=count, unique=True))
    return nodes.MethodDefinition(
        draw(class_names), draw(st.booleans()), selector, tuple(parameters), draw(sequences(expressions))
    )


scripts = st.lists(
    st.one_of(
        expressions,
        expressions.map(nodes.Return),
        st.lists(names, max_size=3).map(lambda items: nodes.Temporaries(tuple(items))),
        definitions(),
    ),
    max_size=5,
).map(lambda items: nodes.Script(tuple(items)))


@settings(max_examples=400, deadline=None)
@given(scripts)
def test_printing_and_parsing_is_the_identity(script: nodes.Script) -> None:
    assert parse(unparse(script)) == script


@pytest.mark.parametrize("message", ["|", "||"])
def test_a_bar_in_a_cascade_is_a_message(message: str) -> None:
    text = f"0 a; {message} 0.\n| x |\nA >> a\n    ^ self"
    script = parse(text)
    assert [type(item) for item in script.items] == [nodes.Cascade, nodes.Temporaries, nodes.MethodDefinition]
    assert parse(unparse(script)) == script


ALPHABET = st.sampled_from(
    [*"ab:A. \n\t#$'\"()[]{}|^;:=+-*<>_0123456789rse@,~\\&%!?", "class", ">>", ":=", "#(", "Foo >> bar\n", "é"]
)


@settings(max_examples=1000, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(ALPHABET, max_size=30).map("".join)))
def test_any_text_parses_or_is_a_positioned_syntax_error(text: str) -> None:
    try:
        script = parse(text)
    except SmalltalkSyntaxError as error:
        assert error.position is not None
        assert 1 <= error.position.line <= text.count("\n") + 1
        assert error.position.column >= 1
        assert error.render()
    else:
        assert parse(unparse(script)) == script


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_documented_scripts_survive_printing(path: Path) -> None:
    script = parse(Source(path.read_text(encoding="utf-8"), path.name))
    assert script.items
    assert parse(unparse(script)) == script


def test_spans_give_back_the_text_of_each_statement() -> None:
    source = Source("a := 3 + 4.\nb := #(1 2) size.\n", "x.st")
    first, second = parse(source).items
    assert first.span.text == "a := 3 + 4"
    assert (second.span.file, second.span.line, second.span.column) == ("x.st", 2, 1)
    assert second.span.text == "b := #(1 2) size"
