"""Numbers: integers of any size, exact fractions, floats, scaled decimals."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from neuroscope_dsl.errors import MemoryLimitReached
from neuroscope_dsl.runtime import arithmetic
from neuroscope_dsl.runtime.arithmetic import is_number, normal
from neuroscope_dsl.runtime.bignum import MAX_BITS
from neuroscope_dsl.runtime.classes import Object, SmalltalkClass, define
from neuroscope_dsl.runtime.exceptions import DomainError, Error, InvalidArgument, ZeroDivide
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.printing import print_float, print_string
from neuroscope_dsl.runtime.scaled import ScaledDecimal

Magnitude = define("Magnitude", Object)
Number = define("Number", Magnitude)
Integer = define("Integer", Number, int)
SmallInteger = define("SmallInteger", Integer)
LargePositiveInteger = define("LargePositiveInteger", Integer)
LargeNegativeInteger = define("LargeNegativeInteger", Integer)
Float = define("Float", Number, float)
FractionClass = define("Fraction", Number, Fraction)
ScaledDecimalClass = define("ScaledDecimal", Number, ScaledDecimal)

for _selector, _function in {
    "+": arithmetic.add,
    "-": arithmetic.subtract,
    "*": arithmetic.multiply,
    "/": arithmetic.divide,
    "//": arithmetic.floor_divide,
    "\\\\": arithmetic.modulo,
}.items():
    Number.methods[_selector] = _function

for _selector, _function in {
    "<": arithmetic.less,
    ">": arithmetic.greater,
    "<=": arithmetic.less_equal,
    ">=": arithmetic.greater_equal,
}.items():
    Number.methods[_selector] = _function
    Magnitude.methods[_selector] = _function


def _real(value: Any) -> Any:
    """A number as Python computes with it."""
    if isinstance(value, ScaledDecimal):
        return value.value
    if not is_number(value):
        raise InvalidArgument(f"A number is wanted here, not {print_string(value)[:60]}")
    return value


def _whole(value: Any) -> int:
    """An argument that must be an integer."""
    if type(value) is int:
        return value
    if hasattr(value, "__index__") and not isinstance(value, bool):
        return int(value)
    raise InvalidArgument(f"An integer is wanted here, not {print_string(value)[:60]}")


# --- division and powers ------------------------------------------------------------------------------------------


@Number.method("quo:")
def quo(receiver: Any, other: Any) -> Any:
    left, right = _real(receiver), _real(other)
    if right == 0:
        return signal(ZeroDivide(dividend=receiver))
    if isinstance(left, float) or isinstance(right, float):
        return math.trunc(left / right)
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


@Number.method("rem:")
def rem(receiver: Any, other: Any) -> Any:
    quotient = quo(receiver, other)
    return normal(_real(receiver) - quotient * _real(other))


@Number.method("mod:")
def mod(receiver: Any, other: Any) -> Any:
    return arithmetic.modulo(receiver, other)


@Number.method("raisedTo:", "**")
def raised_to(receiver: Any, exponent: Any) -> Any:
    base, power = _real(receiver), _real(exponent)
    if isinstance(base, int) and isinstance(power, int) and abs(base) > 1:
        if power > 0 and base.bit_length() * power > MAX_BITS:
            raise MemoryLimitReached("This power would be too large to compute with.")
        return base**power if power >= 0 else normal(Fraction(1, base**-power))
    if base == 0 and power < 0:
        return signal(ZeroDivide(dividend=1))
    try:
        if isinstance(power, int) and not isinstance(base, float):
            return normal(Fraction(base) ** power)
        result = float(base) ** float(power)
    except OverflowError:
        return math.inf
    return signal(DomainError("A negative number has no real power like this")) if isinstance(result, complex) else result


@Integer.method("raisedTo:mod:")
def raised_to_mod(receiver: int, exponent: Any, modulus: Any) -> Any:
    return pow(receiver, _whole(exponent), _whole(modulus)) if modulus else signal(ZeroDivide(dividend=receiver))


@Number.method("squared")
def squared(receiver: Any) -> Any:
    return arithmetic.multiply(receiver, receiver)


@Number.method("sqrt")
def sqrt(receiver: Any) -> Any:
    value = _real(receiver)
    if value < 0:
        return signal(DomainError("A negative number has no real square root"))
    if isinstance(value, int):
        root = math.isqrt(value)
        return root if root * root == value else _float_sqrt(value)
    return math.sqrt(value)


def _float_sqrt(value: int) -> float:
    return math.sqrt(value) if value.bit_length() < 1000 else float(math.isqrt(value))


@Integer.method("sqrtFloor")
def sqrt_floor(receiver: int) -> Any:
    return math.isqrt(receiver) if receiver >= 0 else signal(DomainError("A negative number has no real square root"))


def _unary_float(selector: str, function: Callable[[float], float]) -> None:
    @Number.method(selector)
    def compute(receiver: Any) -> Any:
        try:
            return function(_real(receiver))
        except OverflowError:
            return math.inf
        except ValueError:
            return signal(DomainError(f"{print_string(receiver)} has no {selector}"))


for _selector, _math in {
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "arcSin": math.asin,
    "arcCos": math.acos,
    "arcTan": math.atan,
    "exp": math.exp,
    "ln": math.log,
    "log": math.log10,
    "degreesToRadians": math.radians,
    "radiansToDegrees": math.degrees,
}.items():
    _unary_float(_selector, _math)


@Number.method("log:")
def log_base(receiver: Any, base: Any) -> Any:
    return math.log(_real(receiver)) / math.log(_real(base)) if receiver > 0 else signal(DomainError("No such logarithm"))


@Number.method("floorLog:")
def floor_log(receiver: Any, base: Any) -> Any:
    return math.floor(math.log(_real(receiver)) / math.log(_real(base)) + 1e-12)


@Number.method("arcTan:")
def arc_tan(receiver: Any, other: Any) -> float:
    return math.atan2(_real(receiver), _real(other))


# --- sign, rounding, conversion -----------------------------------------------------------------------------------


@Number.method("negated")
def negated(receiver: Any) -> Any:
    return arithmetic.subtract(0, receiver) if receiver != 0.0 or not isinstance(receiver, float) else -receiver


@Number.method("abs")
def absolute(receiver: Any) -> Any:
    return negated(receiver) if _real(receiver) < 0 else receiver


@Number.method("sign")
def sign(receiver: Any) -> int:
    value = _real(receiver)
    return (value > 0) - (value < 0)


@Number.method("reciprocal")
def reciprocal(receiver: Any) -> Any:
    return arithmetic.divide(1, receiver)


@Number.method("negative")
def negative(receiver: Any) -> bool:
    return bool(_real(receiver) < 0)


@Number.method("positive")
def positive(receiver: Any) -> bool:
    return bool(_real(receiver) >= 0)


@Number.method("strictlyPositive")
def strictly_positive(receiver: Any) -> bool:
    return bool(_real(receiver) > 0)


@Number.method("isZero")
def is_zero(receiver: Any) -> bool:
    return bool(_real(receiver) == 0)


def _rounding(selector: str, function: Callable[[Any], int]) -> None:
    @Number.method(selector)
    def compute(receiver: Any) -> Any:
        try:
            return function(_real(receiver))
        except (OverflowError, ValueError):
            return signal(Error(f"{print_string(receiver)} cannot become an integer"))


def _round(value: Any) -> int:
    """To the nearest integer, halves away from zero."""
    return math.floor(value + Fraction(1, 2)) if value >= 0 else -math.floor(-value + Fraction(1, 2))


def _round_any(value: Any) -> int:
    return _round(Fraction(value)) if isinstance(value, float) else _round(value)


_rounding("floor", math.floor)
_rounding("ceiling", math.ceil)
_rounding("truncated", math.trunc)
_rounding("asInteger", math.trunc)
_rounding("rounded", _round_any)


@Number.method("roundTo:")
def round_to(receiver: Any, unit: Any) -> Any:
    return normal(_round_any(_real(arithmetic.divide(receiver, unit))) * _real(unit))


@Number.method("truncateTo:")
def truncate_to(receiver: Any, unit: Any) -> Any:
    return normal(quo(receiver, unit) * _real(unit))


@Number.method("round:")
def round_digits(receiver: Any, digits: Any) -> Any:
    value = round(float(_real(receiver)), _whole(digits))
    return value if isinstance(receiver, float) else round_to(receiver, Fraction(1, 10 ** _whole(digits)))


@Number.method("fractionPart")
def fraction_part(receiver: Any) -> Any:
    return normal(_real(receiver) - math.trunc(_real(receiver)))


@Number.method("integerPart")
def integer_part(receiver: Any) -> Any:
    whole = math.trunc(_real(receiver))
    return float(whole) if isinstance(receiver, float) else whole


@Number.method("asFloat", "asNumber:")
def as_float(receiver: Any) -> Any:
    try:
        return float(_real(receiver))
    except OverflowError:
        return math.inf if receiver > 0 else -math.inf


@Number.method("asNumber")
def as_number(receiver: Any) -> Any:
    return receiver


@Number.method("asFraction", "asExactFraction", "asTrueFraction")
def as_fraction(receiver: Any) -> Any:
    value = Fraction(_real(receiver))
    return normal(value.limit_denominator(10**12) if isinstance(receiver, float) else value)


@Number.method("asScaledDecimal:")
def as_scaled(receiver: Any, scale: Any) -> ScaledDecimal:
    return ScaledDecimal(Fraction(_real(receiver)), _whole(scale))


@Number.method("numerator")
def numerator(receiver: Any) -> int:
    return Fraction(_real(receiver)).numerator


@Number.method("denominator")
def denominator(receiver: Any) -> int:
    return Fraction(_real(receiver)).denominator


# --- tests --------------------------------------------------------------------------------------------------------


@Number.method("isNumber")
def is_a_number(receiver: Any) -> bool:
    return True


@Integer.method("isInteger")
def is_integer(receiver: int) -> bool:
    return True


@Float.method("isFloat")
def is_float(receiver: float) -> bool:
    return True


@FractionClass.method("isFraction")
def is_fraction(receiver: Fraction) -> bool:
    return True


@Number.method("isNaN")
def is_nan(receiver: Any) -> bool:
    return bool(receiver != receiver)


@Number.method("isInfinite")
def is_infinite(receiver: Any) -> bool:
    return isinstance(receiver, float) and math.isinf(receiver)


@Integer.method("even")
def even(receiver: int) -> bool:
    return receiver % 2 == 0


@Integer.method("odd")
def odd(receiver: int) -> bool:
    return receiver % 2 == 1


@Integer.method("isPrime")
def is_prime(receiver: int) -> bool:
    if receiver < 4:
        return receiver > 1
    if receiver % 2 == 0:
        return False
    if receiver > 1 << 40:
        return all(pow(base, receiver - 1, receiver) == 1 for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37))
    return all(receiver % divisor for divisor in range(3, math.isqrt(receiver) + 1, 2))


@Magnitude.method("between:and:")
def between(d: Any, receiver: Any, low: Any, high: Any) -> Any:
    return d.send(receiver, ">=", low) and d.send(receiver, "<=", high)


@Magnitude.method("max:")
def maximum(d: Any, receiver: Any, other: Any) -> Any:
    return receiver if d.send(receiver, ">", other) is True else other


@Magnitude.method("min:")
def minimum(d: Any, receiver: Any, other: Any) -> Any:
    return receiver if d.send(receiver, "<", other) is True else other


@Number.method("closeTo:")
def close_to(receiver: Any, other: Any) -> bool:
    return math.isclose(_real(receiver), _real(other), rel_tol=1e-4, abs_tol=1e-4)


@Number.method("closeTo:precision:")
def close_to_precision(receiver: Any, other: Any, precision: Any) -> bool:
    return bool(abs(_real(receiver) - _real(other)) <= _real(precision))


# --- class side ---------------------------------------------------------------------------------------------------

for _selector, _constant in {"pi": math.pi, "e": math.e, "infinity": math.inf, "nan": math.nan, "zero": 0.0}.items():
    Float.class_methods[_selector] = lambda receiver, value=_constant: value
Float.class_methods["halfPi"] = lambda receiver: math.pi / 2
Float.class_methods["twoPi"] = lambda receiver: math.pi * 2
SmallInteger.class_methods["maxVal"] = lambda receiver: (1 << 60) - 1
SmallInteger.class_methods["minVal"] = lambda receiver: -(1 << 60)


@Number.class_method("readFrom:")
def read_from(receiver: SmalltalkClass, text: Any) -> Any:
    from neuroscope_dsl.runtime.strings import number_in

    content = text if isinstance(text, str) else text.up_to_end_text()
    value = number_in(content)
    return 0 if value is None else value


@FractionClass.class_method("numerator:denominator:")
def fraction(receiver: SmalltalkClass, above: Any, below: Any) -> Any:
    return arithmetic.divide(_whole(above), _whole(below))


@Float.method("asString", "displayString", "printString")
def float_string(receiver: float) -> str:
    return print_float(receiver)
