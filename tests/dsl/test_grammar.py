"""What parses, into what; and what is refused, where."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neuroscope_dsl import SmalltalkSyntaxError
from neuroscope_dsl.nodes import (
    Assignment,
    Cascade,
    LiteralArray,
    Message,
    MethodDefinition,
    Number,
    Return,
    Send,
    String,
    SymbolLiteral,
    Temporaries,
    Variable,
)
from neuroscope_dsl.parser import parse
from neuroscope_dsl.workspace import Workspace


def only(text: str) -> object:
    (item,) = parse(text).items
    return item


def test_unary_binds_before_binary_before_keyword() -> None:
    assert only("a foo + b bar at: c baz") == Send(
        Send(Send(Variable("a"), "foo"), "+", (Send(Variable("b"), "bar"),)), "at:", (Send(Variable("c"), "baz"),)
    )


def test_binary_messages_associate_to_the_left() -> None:
    assert only("1 + 2 * 3") == Send(Send(Number("1"), "+", (Number("2"),)), "*", (Number("3"),))


def test_a_cascade_goes_to_the_receiver_of_the_last_message() -> None:
    assert only("a b foo: 1; bar; + 2") == Cascade(
        Send(Variable("a"), "b"), (Message("foo:", (Number("1"),)), Message("bar"), Message("+", (Number("2"),)))
    )


def test_assignments_chain() -> None:
    assert only("a := b := 1") == Assignment(Variable("a"), Assignment(Variable("b"), Number("1")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 - -2", Send(Number("3"), "-", (Number("-2"),))),
        ("3 -2", Send(Number("3"), "-", (Number("2"),))),
        ("3-2", Send(Number("3"), "-", (Number("2"),))),
        ("x-1", Send(Variable("x"), "-", (Number("1"),))),
        ("3--2", Send(Number("3"), "-", (Number("-2"),))),
        ("a<-1", Send(Variable("a"), "<", (Number("-1"),))),
        ("x:=-1", Assignment(Variable("x"), Number("-1"))),
        ("(1)-1", Send(Number("1"), "-", (Number("1"),))),
    ],
)
def test_a_minus_belongs_to_a_number_only_where_no_operand_precedes_it(text: str, expected: object) -> None:
    assert only(text) == expected


def test_literal_arrays_take_bare_words_as_symbols() -> None:
    array = only("#(foo #bar at:put: + 'x' -3 nil (1 $a) #(2) [3])")
    assert isinstance(array, LiteralArray)
    assert array.items[:6] == (
        SymbolLiteral("foo"),
        SymbolLiteral("bar"),
        SymbolLiteral("at:put:"),
        SymbolLiteral("+"),
        String("x"),
        Number("-3"),
    )
    assert len(array.items) == 10


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "..", '"only a comment"', "a.", "a. .b", "[]", "[:x]", "[:x|]", "[:x| | t | t]", "[:x || t | t]", "[| a b || c | a]",
        "[a. b.]", "{}", "{1}", "{1.}", "{1. 2}", "#()", "#[]", "#[0 255]", "a || b", "a | b", "| a | a", "| a | | b | a. | c | c",
        "^a", "a foo; bar", "[^1]", "$ ", "$'", "#+", "#at:put:", "#'a b'", "#foo:bar", "a\t\r\nfoo", "((a))", "a>>b", "a -> (b -> c)",
        "[:x :y | x + y] value: 1 value: 2", "Foo >> #bar", "x := Foo", "a foo:1 bar:2", "#(a b #c)", "'it''s'", "16rFF bar", "1e3 foo",
    ],
)  # fmt: skip
def test_this_parses(text: str) -> None:
    parse(text)


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("a foo b: ", 1, 9, "expression is missing"),
        ("(a", 1, 1, "never closed"),
        ("a)", 1, 2, "has no opening bracket"),
        ("[a)", 1, 3, "']' is expected"),
        ("x := 'abc", 1, 6, "string is never closed"),
        ('x "abc', 1, 3, "comment is never closed"),
        ("x := 3 ; foo", 1, 8, "cascade"),
        ("3 := 4", 1, 3, "Only a variable"),
        ("a foo\nb bar: 1\nc := 2", 3, 3, "Only a variable"),
        ("a := 3 b := 4", 1, 10, "Only a variable"),
        ("a := 3 4", 1, 8, "cannot follow"),
        ("#[1 256]", 1, 5, "byte"),
        ("self := 3", 1, 1, "pseudo variable"),
        ("[:a :a | a]", 1, 5, "Two parameters"),
        ("a § b", 1, 3, "not valid here"),
        ("x\n\n  := ", 3, 5, "missing"),
        ("1 to: ] do: 3", 1, 7, "has no opening bracket"),
        ("40r12", 1, 1, "radix"),
        ("2r12", 1, 1, "radix"),
        ("$", 1, 1, "character"),
        ("[:x y]", 1, 5, "not valid here"),
    ],
)
def test_a_syntax_error_says_where_and_what(text: str, line: int, column: int, says: str) -> None:
    with pytest.raises(SmalltalkSyntaxError) as caught:
        parse(text, "bad.st")
    error = caught.value
    assert error.position is not None
    assert (error.position.line, error.position.column) == (line, column), error.render()
    assert says in error.message
    assert error.render().splitlines()[1].strip() == f"bad.st:{line}:{column}"


def test_brackets_have_a_bound_on_depth() -> None:
    with pytest.raises(SmalltalkSyntaxError, match="deeper than 100"):
        parse("(" * 5000)


def test_a_chain_of_messages_may_be_long(show: Callable[[str], str]) -> None:
    assert show("1" + " + 1" * 3000) == "3001"
    assert show("1" + " yourself" * 3000) == "1"


# --- method definitions -------------------------------------------------------------------------------------------


def test_a_definition_is_a_header_at_column_one_with_an_indented_body() -> None:
    text = "Foo >> bar: x\n    | t |\n\n    t := x.\n    ^t\nFoo class>>baz\n    ^1.\nFoo new bar: 3\n"
    assert parse(text).items == (
        MethodDefinition("Foo", False, "bar:", ("x",), _body("| t | t := x. ^t")),
        MethodDefinition("Foo", True, "baz", (), _body("^1")),
        Send(Send(Variable("Foo"), "new"), "bar:", (Number("3"),)),
    )


def _body(text: str) -> object:
    definition = parse(f"X >> y\n {text}").items[0]
    assert isinstance(definition, MethodDefinition)
    return definition.body


@pytest.mark.parametrize(
    ("header", "owner", "class_side", "selector", "parameters"),
    [
        ("Foo>>bar", "Foo", False, "bar", ()),
        ("Foo >> bar", "Foo", False, "bar", ()),
        ("Foo class>>bar", "Foo", True, "bar", ()),
        ("Foo class >> bar", "Foo", True, "bar", ()),
        ("Foo >> + other", "Foo", False, "+", ("other",)),
        ("Foo >> | other", "Foo", False, "|", ("other",)),
        ("Foo >> at: k put: v", "Foo", False, "at:put:", ("k", "v")),
        ('Foo >> at: k put: v "comment"', "Foo", False, "at:put:", ("k", "v")),
    ],
)
def test_headers(header: str, owner: str, class_side: bool, selector: str, parameters: tuple[str, ...]) -> None:
    definition = parse(f"{header}\n    ^1").items[0]
    assert isinstance(definition, MethodDefinition)
    found = (definition.class_name, definition.class_side, definition.selector, definition.parameters)
    assert found == (owner, class_side, selector, parameters)
    assert definition.body.statements == (Return(Number("1")),)


def test_an_expression_with_a_period_is_no_definition() -> None:
    assert only("Foo >> bar.") == Send(Variable("Foo"), ">>", (Variable("bar"),))


def test_a_statement_without_a_period_may_stand_before_a_definition() -> None:
    assert [type(item) for item in parse("a := 1\nFoo >> x\n  ^1\n| b |\nb").items] == [
        Assignment,
        MethodDefinition,
        Temporaries,
        Variable,
    ]


def test_a_string_in_a_body_may_reach_column_one() -> None:
    definition = parse("Foo >> x\n  ^'a\nb'").items[0]
    assert isinstance(definition, MethodDefinition)
    assert definition.body.statements == (Return(String("a\nb")),)


def test_a_keyword_pattern_may_take_several_lines() -> None:
    definition = parse("Foo >> at: k\n    put: v\n    | t |\n    ^t").items[0]
    assert isinstance(definition, MethodDefinition)
    assert (definition.selector, definition.parameters) == ("at:put:", ("k", "v"))
    assert definition.body.statements == (Temporaries(("t",)), Return(Variable("t")))


def test_a_long_gap_at_the_end_is_read_at_once() -> None:
    assert Workspace().evaluate("3 + 4." + " " * 60 + '"a comment"' + " " * 60 + "\n") == 7
