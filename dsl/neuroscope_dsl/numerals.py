"""Values of numerals: integers of any size, radix, exponents, floats, scaled decimals."""

from __future__ import annotations

import re
from fractions import Fraction

from neuroscope_dsl.runtime.bignum import parse_integer
from neuroscope_dsl.runtime.scaled import ScaledDecimal

_RADIX = re.compile(r"(-?)([0-9]+)r(-?)([0-9A-Za-z]+)(?:\.([0-9A-Za-z]+))?\Z")
_PLAIN = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[edq](-?[0-9]+))?(s[0-9]*)?\Z")

#: Larger exponents would make unusably large integers.
MAX_EXPONENT = 75_000


def number_value(text: str) -> int | float | Fraction | ScaledDecimal:
    """The value of a Smalltalk numeral. Raises `ValueError`.

    >>> number_value("16rFF"), number_value("1e3"), number_value("2r1e4"), number_value("-1.5")
    (255, 1000, 16, -1.5)
    """
    radix = _RADIX.match(text)
    if radix is not None:
        return _radix_value(*radix.groups())
    plain = _PLAIN.match(text)
    if plain is None:
        raise ValueError(f"{text!r} is not a number.")
    sign, whole, fraction, exponent, scale = plain.groups()
    factor = -1 if sign else 1
    power = _checked(int(exponent)) if exponent else 0
    if scale is not None:
        digits = int(scale[1:]) if len(scale) > 1 else len(fraction or "")
        value = Fraction(parse_integer(whole + (fraction or "")), 10 ** len(fraction or "")) * Fraction(10) ** power
        return ScaledDecimal(factor * value, _checked(digits))
    if fraction is not None:
        return factor * float(f"{whole}.{fraction}e{power}")
    if power < 0:
        exact = Fraction(factor * parse_integer(whole), 10**-power)
        return exact.numerator if exact.denominator == 1 else exact
    return factor * parse_integer(whole) * 10**power


def _checked(exponent: int) -> int:
    if abs(exponent) > MAX_EXPONENT:
        raise ValueError(f"The exponent {exponent} is beyond {MAX_EXPONENT}.")
    return exponent


def _radix_value(sign: str, base_text: str, inner_sign: str, digits: str, fraction: str | None) -> int | float | Fraction:
    base = int(base_text)
    if not 2 <= base <= 36:
        raise ValueError(f"The radix {base} is not between 2 and 36.")
    power = 0
    tail = digits if fraction is None else fraction
    if base <= 14 and "e" in tail:  # below 15, e cannot be a digit
        tail, _, exponent = tail.partition("e")
        if not exponent.isdigit() or not tail:
            raise ValueError(f"{exponent!r} is not an exponent.")
        power = _checked(int(exponent))
    digits, fraction = (tail, None) if fraction is None else (digits, tail)
    factor = (-1 if sign else 1) * (-1 if inner_sign else 1)
    try:
        value = factor * int(digits + (fraction or ""), base) * base**power
    except ValueError as error:
        raise ValueError(f"{digits!r} has digits that radix {base} does not have.") from error
    return value if fraction is None else value / base ** len(fraction)
