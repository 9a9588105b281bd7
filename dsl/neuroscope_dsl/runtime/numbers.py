"""Numbers: integers of any size, exact fractions, floats, scaled decimals; random numbers."""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from neuroscope_dsl.runtime import arithmetic
from neuroscope_dsl.runtime.accounting import MAX_BITS, MAX_FRACTION_BITS, account_bits, account_work
from neuroscope_dsl.runtime.arguments import Block1, Real, Size, Whole, real, whole
from neuroscope_dsl.runtime.arithmetic import normal
from neuroscope_dsl.runtime.bignum import in_radix, print_integer
from neuroscope_dsl.runtime.classes import Object, SmalltalkClass, define
from neuroscope_dsl.runtime.counting import steps
from neuroscope_dsl.runtime.exceptions import DomainError, Error, InvalidArgument, ZeroDivide
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.printing import brief, print_float
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
RandomClass = define("Random", Object, random.Random)

Number.methods |= {
    "+": arithmetic.add,
    "-": arithmetic.subtract,
    "*": arithmetic.multiply,
    "/": arithmetic.divide,
    "//": arithmetic.floor_divide,
    "\\\\": arithmetic.modulo,
}

#: Comparison, for numbers and whatever else has an order.
ORDER = {
    "<": arithmetic.less,
    ">": arithmetic.greater,
    "<=": arithmetic.less_equal,
    ">=": arithmetic.greater_equal,
}
Magnitude.methods |= ORDER

Float.class_methods |= {
    name: lambda receiver, value=value: value
    for name, value in {"pi": math.pi, "e": math.e, "infinity": math.inf, "nan": math.nan, "zero": 0.0,
                        "halfPi": math.pi / 2, "twoPi": math.pi * 2}.items()
}  # fmt: skip
SmallInteger.class_methods["maxVal"] = lambda receiver: (1 << 60) - 1
SmallInteger.class_methods["minVal"] = lambda receiver: -(1 << 60)


# --- division, powers, functions ----------------------------------------------------------------------------------


@Number.method("quo:")
def quo(receiver: Real, other: Real) -> Any:
    if other == 0:
        return signal(ZeroDivide(dividend=receiver))
    if isinstance(receiver, float) or isinstance(other, float):
        return _integer(math.trunc, receiver / other)
    quotient = arithmetic.floor_divide(abs(receiver), abs(other))
    return quotient if (receiver < 0) == (other < 0) else -quotient


@Number.method("raisedTo:")
def raised_to(base: Real, power: Real) -> Any:
    exact = isinstance(power, int) and isinstance(base, (int, Fraction)) and abs(base) not in (0, 1)
    if exact:
        bits = math.log2(max(abs(base.numerator), base.denominator)) * min(abs(power), 1 << 62)
        account_bits(int(bits), MAX_BITS if isinstance(base, int) and power > 0 else MAX_FRACTION_BITS)
    if base == 0 and power < 0:
        return signal(ZeroDivide(dividend=1))
    try:
        if isinstance(power, int) and not isinstance(base, float):
            return base**power if isinstance(base, int) and power >= 0 else normal(Fraction(base) ** power)
        result = float(base) ** float(power)
    except OverflowError:
        return math.inf
    return signal(DomainError("A negative number has no real power like this")) if isinstance(result, complex) else result


@Number.method("sqrt")
def sqrt(value: Real) -> Any:
    if value < 0:
        return signal(DomainError("A negative number has no real square root"))
    if isinstance(value, int):
        root = math.isqrt(value)
        return root if root * root == value or value.bit_length() > 1000 else math.sqrt(value)
    return math.sqrt(value)


@Integer.method("sqrtFloor")
def sqrt_floor(receiver: Whole) -> Any:
    return math.isqrt(receiver) if receiver >= 0 else signal(DomainError("A negative number has no real square root"))


def _function(selector: str, function: Callable[..., float]) -> None:
    def compute(receiver: Real, *others: Any) -> Any:
        try:
            return function(receiver, *others)
        except OverflowError:
            return math.inf
        except ZeroDivisionError:
            return signal(ZeroDivide(dividend=receiver))
        except ValueError:
            return signal(DomainError(f"{brief(receiver)} has no {selector}"))

    def compute_with(receiver: Real, other: Real) -> Any:
        return compute(receiver, other)

    Number.method(selector)(compute_with if selector.endswith(":") else compute)


def _logarithm(value: Any, base: Any) -> float:
    return math.log(value) / math.log(base)


_FUNCTIONS: dict[str, Callable[..., float]] = {
    "sin": math.sin, "cos": math.cos, "tan": math.tan, "arcSin": math.asin, "arcCos": math.acos, "arcTan": math.atan,
    "arcTan:": math.atan2, "exp": math.exp, "ln": math.log, "log": math.log10,
    "log:": _logarithm,
}  # fmt: skip
for _selector, _math in _FUNCTIONS.items():
    _function(_selector, _math)


# --- rounding and conversion --------------------------------------------------------------------------------------


def _integer(function: Callable[[Any], Any], value: Any) -> Any:
    try:
        return function(value)
    except (OverflowError, ValueError):
        return signal(Error(f"{brief(value)} cannot be converted to an integer"))


def _rounding(selector: str, function: Callable[[Any], int]) -> None:
    @Number.method(selector)
    def compute(receiver: Real) -> Any:
        return _integer(function, receiver)


def rounded(value: Any) -> int:
    """To the nearest integer, halves away from zero."""
    value = Fraction(value) if isinstance(value, float) else value
    return math.floor(value + Fraction(1, 2)) if value >= 0 else -math.floor(-value + Fraction(1, 2))


_rounding("floor", math.floor)
_rounding("ceiling", math.ceil)
_rounding("truncated", math.trunc)
_rounding("rounded", rounded)


@Number.method("round:")
def round_digits(receiver: Real, digits: Whole) -> Any:
    if isinstance(receiver, float):
        return round(receiver, max(-400, min(400, digits)))
    if abs(digits) > 10_000:
        return signal(InvalidArgument(f"{brief(digits)} decimals are too many"))
    unit = Fraction(10) ** -digits
    return normal(rounded(receiver / unit) * unit)


@Number.method("asFloat")
def as_float(receiver: Real) -> Any:
    try:
        return float(receiver)
    except OverflowError:
        return math.inf if receiver > 0 else -math.inf


@Number.method("asFraction", "asExactFraction", "asTrueFraction")
def as_fraction(receiver: Real) -> Any:
    value = _integer(Fraction, receiver)
    return normal(value.limit_denominator(10**12) if isinstance(receiver, float) else value)


@Number.method("asScaledDecimal:")
def as_scaled(receiver: Real, scale: Size) -> ScaledDecimal:
    account_bits(4 * scale)
    return ScaledDecimal(_integer(Fraction, receiver), scale)


Number.methods["numerator"] = lambda receiver: _integer(Fraction, real(receiver)).numerator
Number.methods["denominator"] = lambda receiver: _integer(Fraction, real(receiver)).denominator


@FractionClass.class_method("numerator:denominator:")
def fraction(receiver: SmalltalkClass, above: Whole, below: Whole) -> Any:
    return arithmetic.divide(above, below)


# --- integers -----------------------------------------------------------------------------------------------------


@Integer.method("factorial")
def factorial(receiver: Whole) -> Any:
    if receiver < 0:
        return signal(Error("factorial: the receiver must not be negative"))
    if receiver > 20_000:  # its factorial has 256,909 bits
        account_bits(receiver * receiver.bit_length())
    return math.factorial(receiver)


def _of_integers(selector: str, function: Callable[[int, int], int]) -> None:
    @Integer.method(selector)
    def compute(receiver: Any, other: Any) -> int:
        if type(receiver) is int and type(other) is int:
            return function(receiver, other)
        return function(whole(receiver), whole(other))


def _gcd(one: int, other: int) -> int:
    account_work(one.bit_length() * other.bit_length() * 3e-3)
    return math.gcd(one, other)


for _selector, _operator in {
    "gcd:": _gcd,
    "bitAnd:": operator.and_,
    "bitOr:": operator.or_,
    "bitXor:": operator.xor,
}.items():
    _of_integers(_selector, _operator)


@Integer.method("bitShift:")
def bit_shift(receiver: Whole, count: Whole) -> int:
    account_bits(receiver.bit_length() + count)
    return receiver << count if count >= 0 else receiver >> min(-count, MAX_BITS)


Integer.methods["highBit"] = lambda receiver: int(receiver).bit_length()


#: Nanoseconds for each bit of the exponent and each bit of the modulus, twice.
_POWER_COST = 8e-3


@Integer.method("raisedTo:modulo:")
def raised_to_modulo(receiver: Whole, exponent: Whole, modulus: Whole) -> Any:
    account_work(max(exponent.bit_length(), 1) * modulus.bit_length() ** 2 * _POWER_COST)
    try:
        return pow(receiver, exponent, modulus) if modulus else signal(ZeroDivide(dividend=receiver))
    except ValueError:
        return signal(DomainError(f"{brief(receiver)} has no inverse modulo {brief(modulus)}"))


@Integer.method("numberOfCombinationsTaken:")
def binomial(receiver: Whole, other: Whole) -> Any:
    if receiver < 0 or other < 0:
        return signal(DomainError("Combinations are counted for integers from zero"))
    taken = max(0, min(other, receiver - other))
    account_bits(taken * receiver.bit_length())
    return math.comb(receiver, other)


@Integer.method("isPrime")
def is_prime(receiver: Whole) -> bool:
    if receiver < 4:
        return receiver > 1
    if receiver % 2 == 0:
        return False
    account_work(receiver.bit_length() ** 3 * _POWER_COST)
    if receiver > 1 << 40:
        return all(pow(base, receiver - 1, receiver) == 1 for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37))
    return all(receiver % divisor for divisor in range(3, math.isqrt(receiver) + 1, 2))


# --- loops that the compiler did not inline ---------------------------------------------------------------------------


@Integer.method("timesRepeat:")
def times_repeat(d: Any, receiver: Whole, block: Any) -> int:
    for _ in range(receiver):
        d.value(block)
    return receiver


@Number.method("to:do:")
def to_do(receiver: Any, last: Any, block: Block1) -> Any:
    for value in steps(receiver, last):
        block(value)
    return receiver


@Number.method("to:by:do:")
def to_by_do(receiver: Any, last: Any, step: Any, block: Block1) -> Any:
    for value in steps(receiver, last, step):
        block(value)
    return receiver


# --- printing -----------------------------------------------------------------------------------------------------


@Integer.method("printStringBase:")
def print_in_base(receiver: Whole, base: Whole) -> Any:
    return in_radix(receiver, base) if 2 <= base <= 36 else signal(InvalidArgument("A radix must be between 2 and 36"))


@Number.method("printShowingDecimalPlaces:")
def print_places(receiver: Real, places: Size) -> str:
    if isinstance(receiver, float):
        return f"{receiver:.{min(places, 1100)}f}"
    account_bits(4 * places)
    scaled = rounded(receiver * 10**places)
    digits = print_integer(abs(scaled)).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{text}" if scaled < 0 else text


for _selector in ("asString", "displayString", "printString"):
    Float.methods[_selector] = print_float


# --- random numbers -----------------------------------------------------------------------------------------------


@RandomClass.class_method("new")
def new_random(d: Any, receiver: SmalltalkClass) -> random.Random:
    return random.Random(d.context.random.getrandbits(64))


@RandomClass.class_method("seed:")
def seeded(receiver: SmalltalkClass, seed: Whole) -> random.Random:
    return random.Random(seed)


@RandomClass.method("seed:")
def set_seed(receiver: random.Random, seed: Whole) -> random.Random:
    receiver.seed(seed)
    return receiver


RandomClass.methods["next"] = lambda receiver: receiver.random()


@RandomClass.method("nextIntegerBetween:and:")
def next_integer(receiver: random.Random, low: Whole, high: Whole) -> Any:
    return (
        receiver.randint(low, high)
        if low <= high
        else signal(InvalidArgument(f"There is no integer from {brief(low)} to {brief(high)}"))
    )


@Integer.method("atRandom")
def at_random(d: Any, receiver: Whole) -> Any:
    return next_integer(d.context.random, 1, receiver)
