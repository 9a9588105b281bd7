"""Large integers to and from decimal text, at any length.

Python refuses conversions beyond 4,300 digits by default (they are quadratic). That limit is process-wide, so instead of
raising it, numbers are split in halves until the pieces are small.
"""

from __future__ import annotations

from neuroscope_dsl.runtime.accounting import account_bits

_PIECE = 4000

#: Integers of this many bits have fewer than 4,300 digits.
_PLAIN_BITS = 13_000


def parse_integer(digits: str) -> int:
    """The value of a run of decimal digits."""
    if len(digits) <= _PIECE:
        return int(digits)
    account_bits(int(len(digits.lstrip("0")) * 3.3219))
    half = len(digits) // 2
    return parse_integer(digits[:-half]) * 10**half + parse_integer(digits[-half:])


def print_integer(value: int) -> str:
    """The decimal text of `value`."""
    if value.bit_length() <= _PLAIN_BITS:
        return str(value)
    if value < 0:
        return "-" + print_integer(-value)
    return _digits(value, int(value.bit_length() * 0.30103) + 1).lstrip("0")


def _digits(value: int, width: int) -> str:
    """`value` in at least `width` digits."""
    if width <= _PIECE:
        return str(value).rjust(width, "0")
    half = width // 2
    high, low = divmod(value, 10**half)
    return _digits(high, width - half) + _digits(low, half)


def in_radix(value: int, base: int) -> str:
    """The digits of `value` in `base` (2 to 36), capital letters above nine."""
    if base == 10:
        return print_integer(value)
    sign, value = ("-", -value) if value < 0 else ("", value)
    if base in (2, 8, 16):
        return sign + format(value, {2: "b", 8: "o", 16: "X"}[base])
    digits = []
    while True:
        value, digit = divmod(value, base)
        digits.append("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit])
        if not value:
            return sign + "".join(reversed(digits))
