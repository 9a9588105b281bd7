"""Numbers: exact where they can be."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroscope_dsl import Workspace

WORKSPACE = Workspace()


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("7 // 2", "3"),
        ("-7 // 2", "-4"),
        ("7 \\\\ -2", "-1"),
        ("-7 \\\\ 2", "1"),
        ("-7 quo: 2", "-3"),
        ("-7 rem: 2", "-1"),
        ("7.5 // 2", "3"),
        ("(1/3) + (1/6)", "(1/2)"),
        ("(1/3) * 3", "1"),
        ("(1/2) < (2/3)", "true"),
        ("(1/2) = 0.5", "true"),
        ("1 = 1.0", "true"),
        ("1 = true", "false"),
        ("0 = false", "false"),
        ("2 raisedTo: 100", "1267650600228229401496703205376"),
        ("2 raisedTo: -2", "(1/4)"),
        ("2 ** 3", "8"),
        ("(1/2) raisedTo: 3", "(1/8)"),
        ("16 sqrt", "4"),
        ("2 sqrt", "1.4142135623730951"),
        ("10 gcd: 4", "2"),
        ("10 lcm: 4", "20"),
        ("3 max: 5", "5"),
        ("3 between: 1 and: 5", "true"),
        ("3.7 truncated", "3"),
        ("-3.7 truncated", "-3"),
        ("3.5 rounded", "4"),
        ("2.5 rounded", "3"),
        ("-2.5 rounded", "-3"),
        ("3.2 ceiling", "4"),
        ("-3.2 floor", "-4"),
        ("(7/2) rounded", "4"),
        ("17 roundTo: 5", "15"),
        ("3.14159 roundTo: 0.01", "3.14"),
        ("5 factorial", "120"),
        ("5 negated abs", "5"),
        ("-5 sign", "-1"),
        ("5 even", "false"),
        ("7 isPrime", "true"),
        ("255 printString: 16", "'FF'"),
        ("255 printStringRadix: 2", "'2r11111111'"),
        ("255 printStringBase: 2", "'11111111'"),
        ("5 printPaddedWith: $0 to: 3", "'005'"),
        ("5 bitAnd: 3", "1"),
        ("1 bitShift: 10", "1024"),
        ("1 << 4 >> 2", "4"),
        ("0.1 asFraction", "(1/10)"),
        ("(1/4) asFloat", "0.25"),
        ("(3/4) numerator", "3"),
        ("3 @ 4 + (1 @ 1)", "(4@5)"),
        ("100 factorial / 98 factorial", "9900"),
        ("1000000007 * 1000000007", "1000000014000000049"),
        ("3.14s2 + 1", "4.14s2"),
        ("Float pi", "3.141592653589793"),
        ("5 asString , 5 displayString", "'55'"),
        ("3 printShowingDecimalPlaces: 2", "'3.00'"),
        ("1 to: 3", "(1 to: 3)"),
        ("3 reciprocal", "(1/3)"),
        ("9 isKindOf: Integer", "true"),
        ("9 isNumber and: [9 isInteger and: ['9' isNumber not]]", "true"),
    ],
)
def test_values(show: Callable[[str], str], text: str, printed: str) -> None:
    assert show(text) == printed


@given(st.fractions(), st.fractions(), st.sampled_from(["+", "-", "*", "/"]))
def test_fractions_are_exact(a: Fraction, b: Fraction, operator: str) -> None:
    if operator == "/" and b == 0:
        return
    expected = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[operator]
    WORKSPACE.bind("a", a)
    WORKSPACE.bind("b", b)
    assert WORKSPACE.run(f"a {operator} b") == expected


@given(st.integers(), st.integers().filter(bool))
def test_division_with_remainder(a: int, b: int) -> None:
    for whole, rest in (("//", "\\\\"), ("quo:", "rem:")):
        assert WORKSPACE.run(f"(({a} {whole} {b}) * {b}) + ({a} {rest} {b})") == a
