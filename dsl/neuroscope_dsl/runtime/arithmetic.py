"""Numbers' operators, with a fast path for Python's integers and floats.

`fast_operators(sender)` makes the helpers that compiled code calls: `sender(selector)` sends the message for everything that is
not two plain numbers. The functions `add`, `divide`, … are the full rules for numbers; other values (such as tensors) use their
Python operators.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

from neuroscope_dsl.runtime.accounting import MAX_FRACTION_BITS, account_bits, account_work
from neuroscope_dsl.runtime.exceptions import DomainError, Error, ZeroDivide
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.process import within
from neuroscope_dsl.runtime.scaled import ScaledDecimal
from neuroscope_dsl.runtime.values import Array, Character, Point, Symbol

NUMBERS = frozenset({int, float})

#: Python types whose operators are not Smalltalk's arithmetic.
_NO_OPERATORS = (str, bytes, bytearray, list, tuple, dict, set, frozenset, bool, type(None), Character, range)


def is_number(value: Any) -> bool:
    return type(value) in NUMBERS or (isinstance(value, (Real, ScaledDecimal)) and not isinstance(value, bool))


def normal(value: Any) -> Any:
    """A fraction with denominator one is an integer."""
    if isinstance(value, Fraction):
        if value.denominator == 1:
            return value.numerator
        account_bits(max(value.numerator.bit_length(), value.denominator.bit_length()), MAX_FRACTION_BITS)
    return value


def _exact(value: Any) -> Any:
    return value.value if isinstance(value, ScaledDecimal) else value


def arithmetic(selector: str, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The full rule of a binary operator for a number on the left."""

    def operate(left: Any, right: Any) -> Any:
        if is_number(right):
            if isinstance(left, ScaledDecimal) or isinstance(right, ScaledDecimal):
                return _scaled(selector, function, left, right)
            try:
                return normal(function(left, right))
            except ZeroDivisionError:
                return signal(ZeroDivide(dividend=left))
            except (OverflowError, ValueError) as error:
                return signal(DomainError(f"{error}"))
        return foreign(selector, function, left, right)

    return operate


def _scaled(selector: str, function: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    scale = max(getattr(left, "scale", 0), getattr(right, "scale", 0))
    left, right = _exact(left), _exact(right)
    if not isinstance(left, float) and not isinstance(right, float):
        left = Fraction(left)
    try:
        value = function(left, right)
    except ZeroDivisionError:
        return signal(ZeroDivide(dividend=left))
    except (OverflowError, ValueError) as error:
        return signal(DomainError(f"{error}"))
    return ScaledDecimal(value, scale) if isinstance(value, Fraction) and selector in ("+", "-", "*", "/") else normal(value)


def foreign(selector: str, function: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """An operator with a right side that is not a number: that side may implement it."""
    if isinstance(right, (Array, list)) and is_number(left) and selector in ("+", "-", "*", "/"):
        return Array(arithmetic(selector, function)(left, item) for item in right)
    if isinstance(right, Point) and is_number(left) and selector in ("+", "-", "*", "/"):
        rule = arithmetic(selector, function)
        return Point(rule(left, right.x), rule(left, right.y))
    if not isinstance(right, _NO_OPERATORS):
        try:
            return function(left, right)
        except (TypeError, ValueError, OverflowError) as error:
            reason: Exception | None = error
    else:
        reason = None
    why = f": {reason}" if isinstance(reason, (ValueError, OverflowError)) else ""
    text = f"{_kind(left)} #{selector} cannot take {_kind(right, article=True)}{why}"
    refusal = Error(text, remedy="Both sides must be numbers.")
    refusal.__cause__ = reason
    return signal(refusal)


def _kind(value: Any, *, article: bool = False) -> str:
    from neuroscope_dsl.runtime.classes import article as with_article
    from neuroscope_dsl.runtime.naming import class_name

    name = class_name(value)
    if value is None:
        return "nil" if article else name
    return with_article(name) if article else name


def _divide(left: Any, right: Any) -> Any:
    if type(left) is float or type(right) is float:
        return left / right
    if isinstance(left, Integral) and isinstance(right, Integral):
        above, below = int(left), int(right)
        bits = max(above.bit_length(), below.bit_length())
        if bits > MAX_FRACTION_BITS and below:
            _account_division(above, below)
            whole, rest = divmod(above, below)
            if not rest:
                return whole
            account_bits(bits, MAX_FRACTION_BITS)
        return Fraction(above, below)
    return left / right


def _account_division(left: Any, right: Any) -> None:
    if type(left) is int and type(right) is int:
        bits = right.bit_length()
        account_work(max(0, left.bit_length() - bits) * bits * 4e-3)


def _modulo(left: Any, right: Any) -> Any:
    _account_division(left, right)
    return left % right


def _floor_divide(left: Any, right: Any) -> Any:
    _account_division(left, right)
    return math.floor(left / right) if type(left) is float or type(right) is float else left // right


def _multiply(left: Any, right: Any) -> Any:
    if type(left) is int and type(right) is int:
        account_bits(left.bit_length() + right.bit_length() - 1)
    return left * right


add = arithmetic("+", operator.add)
subtract = arithmetic("-", operator.sub)
multiply = arithmetic("*", _multiply)
divide = arithmetic("/", _divide)
floor_divide = arithmetic("//", _floor_divide)
modulo = arithmetic("\\\\", _modulo)


def comparison(selector: str, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The full rule of an order."""

    def compare(left: Any, right: Any) -> Any:
        if is_number(left) and is_number(right):
            return function(_exact(left), _exact(right))
        if isinstance(left, str) and isinstance(right, str):
            return function(str(left), str(right))
        if isinstance(left, Character) and isinstance(right, Character):
            return function(left.value, right.value)
        if not isinstance(right, _NO_OPERATORS) or not isinstance(left, _NO_OPERATORS):
            try:
                return function(left, right)
            except TypeError as error:
                reason: Exception | None = error
        else:
            reason = None
        refusal = Error(f"{_kind(left)} #{selector} cannot take {_kind(right, article=True)}")
        refusal.__cause__ = reason
        return signal(refusal)

    return compare


less = comparison("<", operator.lt)
greater = comparison(">", operator.gt)
less_equal = comparison("<=", operator.le)
greater_equal = comparison(">=", operator.ge)


def equal(left: Any, right: Any) -> Any:
    """`=`: Python's equality, except that true is not 1 and that collections are equal only to their own kind."""
    if left is right:
        return True
    kind, other = type(left), type(right)
    if kind is bool or other is bool:
        return kind is other and left == right
    if kind is ScaledDecimal or other is ScaledDecimal:
        return is_number(left) and is_number(right) and _exact(left) == _exact(right)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        if isinstance(left, (Array, tuple)) != isinstance(right, (Array, tuple)) or len(left) != len(right):
            return False
        return within(lambda: all(equal(a, b) is True for a, b in zip(left, right, strict=True)))
    for tensor, value in ((left, right), (right, left)):
        if hasattr(type(tensor), "by_unit"):
            return tensor.same(value)
    return left == right


def identical(left: Any, right: Any) -> bool:
    """`==`: the same object, or equal small integers or floats."""
    if left is right:
        return True
    return type(left) in NUMBERS and type(left) is type(right) and bool(left == right)


def fast_operators(sender: Callable[[str], Callable[[Any, Any], Any]]) -> dict[str, Callable[[Any, Any], Any]]:
    """The helpers of compiled code: plain numbers at once, everything else by a message."""
    plus = sender("+")
    minus = sender("-")
    times = sender("*")
    is_less = sender("<")
    is_greater = sender(">")
    is_less_equal = sender("<=")
    is_greater_equal = sender(">=")
    is_equal = sender("=")
    is_unequal = sender("~=")
    floored = sender("//")
    remainder = sender("\\\\")
    over = sender("/")
    numbers = NUMBERS
    comparable = frozenset({int, float, str, Symbol})

    def g_add(left: Any, right: Any) -> Any:
        if type(left) in numbers and type(right) in numbers:
            return left + right
        return plus(left, right)

    def g_subtract(left: Any, right: Any) -> Any:
        if type(left) in numbers and type(right) in numbers:
            return left - right
        return minus(left, right)

    def g_multiply(left: Any, right: Any) -> Any:
        kind = type(left)
        if (
            kind in numbers
            and type(right) in numbers
            and (kind is float or (-_SMALL < left < _SMALL and -_SMALL < right < _SMALL))
        ):
            return left * right
        return times(left, right)

    def g_less(left: Any, right: Any) -> Any:
        if type(left) in numbers and type(right) in numbers:
            return left < right
        return is_less(left, right)

    def g_greater(left: Any, right: Any) -> Any:
        if type(left) in numbers and type(right) in numbers:
            return left > right
        return is_greater(left, right)

    def g_less_equal(left: Any, right: Any) -> Any:
        if type(left) in numbers and type(right) in numbers:
            return left <= right
        return is_less_equal(left, right)

    def g_greater_equal(left: Any, right: Any) -> Any:
        if type(left) in numbers and type(right) in numbers:
            return left >= right
        return is_greater_equal(left, right)

    def g_equal(left: Any, right: Any) -> Any:
        if type(left) in comparable and type(right) in comparable:
            return left == right
        return is_equal(left, right)

    def g_not_equal(left: Any, right: Any) -> Any:
        if type(left) in comparable and type(right) in comparable:
            return left != right
        return is_unequal(left, right)

    def g_floor_divide(left: Any, right: Any) -> Any:
        if type(left) is int and type(right) is int and right and -_SMALL < right < _SMALL:
            return left // right
        return floored(left, right)

    def g_modulo(left: Any, right: Any) -> Any:
        if type(left) is int and type(right) is int and right and -_SMALL < right < _SMALL:
            return left % right
        return remainder(left, right)

    def g_divide(left: Any, right: Any) -> Any:
        if type(right) is float and right and type(left) in numbers:
            return left / right
        return over(left, right)

    found = dict(locals())
    return {name: function for name, function in found.items() if name.startswith("g_")}


_SMALL = 1 << 62
