"""Printed forms follow Pharo."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroscope_dsl import Workspace
from neuroscope_dsl.runtime.bignum import in_radix, parse_integer, print_integer
from neuroscope_dsl.runtime.printing import print_float


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("42", "42"),
        ("-7", "-7"),
        ("16rFF", "255"),
        ("-16rFF", "-255"),
        ("2r1e4", "16"),
        ("1e10", "10000000000"),
        ("1e-2", "(1/100)"),
        ("1/3", "(1/3)"),
        ("2/4", "(1/2)"),
        ("4/2", "2"),
        ("3.14", "3.14"),
        ("100 asFloat", "100.0"),
        ("0.1 + 0.2", "0.30000000000000004"),
        ("1/2 + 0.5", "1.0"),
        ("0.0001", "0.0001"),
        ("0.00001", "1.0e-5"),
        ("123456.5", "123456.5"),
        ("1e100 asFloat", "1.0e100"),
        ("-0.5", "-0.5"),
        ("3.14s2", "3.14s2"),
        ("1/3 + 0.00s2", "0.33s2"),
        ("3s", "3s0"),
        ("(3.14s2) * 2", "6.28s2"),
        ("'it''s'", "'it''s'"),
        ("#foo", "#foo"),
        ("#at:put:", "#at:put:"),
        ("#+", "#+"),
        ("#'with space'", "#'with space'"),
        ("$a", "$a"),
        ("$ ", "Character space"),
        ("nil", "nil"),
        ("true", "true"),
        ("3 > 4", "false"),
        ("#(1 $a 'x' #foo foo (1 2) nil true)", "#(1 $a 'x' #foo #foo #(1 2) nil true)"),
        ("#[1 2 255]", "#[1 2 255]"),
        ("{1 + 1. 'a'}", "#(2 'a')"),
        ("OrderedCollection with: 1 with: 2", "an OrderedCollection(1 2)"),
        ("Set with: 1", "a Set(1)"),
        ("Bag with: 1 with: 1", "a Bag(1 1)"),
        ("1 to: 5", "(1 to: 5)"),
        ("1 to: 9 by: 2", "(1 to: 9 by: 2)"),
        ("1 -> 2", "1->2"),
        ("#a -> 'b'", "#a->'b'"),
        ("3 @ 4", "(3@4)"),
        ("Dictionary new at: #a put: 1; yourself", "a Dictionary(#a->1 )"),
        ("Object", "Object"),
        ("3 class", "SmallInteger"),
        ("(2 raisedTo: 100) class", "LargePositiveInteger"),
        ("3 class class", "SmallInteger class"),
        ("nil class", "UndefinedObject"),
        ("Object new", "an Object"),
        ("Error new", "Error"),
        ("Error new messageText: 'x'", "Error: x"),
        ("[:x | x + 1]", "[:x | x + 1]"),
        ("30 factorial", "265252859812191058636308480000000"),
    ],
)
def test_print_string(show: Callable[[str], str], text: str, printed: str) -> None:
    assert show(text) == printed


@pytest.mark.parametrize(
    ("text", "displayed"),
    [("'it''s'", "it's"), ("#foo", "foo"), ("$a", "a"), ("3", "3"), ("(1/3)", "(1/3)"), ("#('a' #b)", "#('a' #b)")],
)
def test_display_string(workspace: Workspace, text: str, displayed: str) -> None:
    assert workspace.run(f"{text} displayString") == displayed


def test_objects_print_as_their_class_or_as_they_say(show: Callable[[str], str]) -> None:
    program = "Object subclass: #Apple.\nObject subclass: #Pear.\nPear >> printOn: aStream\n    aStream << 'pear'; print: 3\n"
    assert show(program + "{Apple new. Pear new}") == "an Array(an Apple pear3)"
    assert show("Pear new printString , Pear new displayString") == "'pear3pear3'"


def test_print_nl_and_display_nl_write_to_the_transcript(workspace: Workspace) -> None:
    workspace.run("'a' printNl. 'a' displayNl. 3 printNl. #(1 2) printNl")
    assert workspace.transcript.text == "'a'\na\n3\n#(1 2)\n"


def test_the_transcript_goes_to_the_sink() -> None:
    pieces: list[str] = []
    Workspace(transcript=pieces.append).run("Transcript show: 'a'; tab; print: 'b'; cr; display: 3; nl; show: 4 printString")
    assert "".join(pieces) == "a\t'b'\n3\n4"


def test_a_collection_that_contains_itself_prints(show: Callable[[str], str]) -> None:
    assert "…" in show("c := OrderedCollection new. c add: c. c")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_print_so_that_they_read_back(value: float) -> None:
    assert float(print_float(value)) == value


@given(st.integers(min_value=-(2**20000), max_value=2**20000))
def test_integers_of_any_size_print_and_read_back(value: int) -> None:
    text = print_integer(value)
    assert (-parse_integer(text[1:]) if text[0] == "-" else parse_integer(text)) == value


@given(st.integers(min_value=-(2**70), max_value=2**70), st.integers(2, 36))
def test_integers_print_in_any_radix(value: int, base: int) -> None:
    assert int(in_radix(value, base), base) == value
