"""Integers: bits, divisors, radices; and how numbers print in other forms."""

from __future__ import annotations

import math
import random
from typing import Any

from neuroscope_dsl.errors import MemoryLimitReached
from neuroscope_dsl.runtime.bignum import MAX_BITS, in_radix, print_integer
from neuroscope_dsl.runtime.exceptions import Error, InvalidArgument
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.numbers import Integer, Number, _real, _round_any, _whole
from neuroscope_dsl.runtime.values import Character, Point


@Integer.method("factorial")
def factorial(receiver: int) -> Any:
    if receiver < 0:
        return signal(Error("factorial: the receiver must not be negative"))
    if receiver > 100_000:
        raise MemoryLimitReached("This factorial would be too large to compute with.")
    return math.factorial(receiver)


@Integer.method("gcd:")
def gcd(receiver: int, other: Any) -> int:
    return math.gcd(receiver, _whole(other))


@Integer.method("lcm:")
def lcm(receiver: int, other: Any) -> int:
    return math.lcm(receiver, _whole(other))


@Integer.method("bitAnd:", "&")
def bit_and(receiver: int, other: Any) -> int:
    return receiver & _whole(other)


@Integer.method("bitOr:", "|")
def bit_or(receiver: int, other: Any) -> int:
    return receiver | _whole(other)


@Integer.method("bitXor:")
def bit_xor(receiver: int, other: Any) -> int:
    return receiver ^ _whole(other)


@Integer.method("bitInvert")
def bit_invert(receiver: int) -> int:
    return ~receiver


@Integer.method("bitShift:", "<<")
def bit_shift(receiver: int, count: Any) -> int:
    count = _whole(count)
    if count > MAX_BITS:
        raise MemoryLimitReached("This shift would be too large to compute with.")
    return receiver << count if count >= 0 else receiver >> -count


@Integer.method(">>")
def shift_right(receiver: int, count: Any) -> int:
    return bit_shift(receiver, -_whole(count))


@Integer.method("bitAt:")
def bit_at(receiver: int, index: Any) -> int:
    return receiver >> (_whole(index) - 1) & 1


@Integer.method("highBit")
def high_bit(receiver: int) -> int:
    return receiver.bit_length()


@Integer.method("binomial:", "numberOfCombinationsTaken:", "take:")
def binomial(receiver: int, other: Any) -> int:
    return math.comb(receiver, _whole(other))


@Integer.method("asCharacter")
def as_character(receiver: int) -> Any:
    if not 0 <= receiver <= 0x10FFFF:
        return signal(Error(f"{receiver} is no code point"))
    return Character(chr(receiver))


@Integer.method("timesRepeat:")
def times_repeat(d: Any, receiver: int, block: Any) -> int:
    for _ in range(receiver):
        d.value(block)
    return receiver


@Integer.method("atRandom")
def at_random(d: Any, receiver: int) -> int:
    generator: random.Random = d.context.random
    return generator.randint(1, receiver)


@Integer.method("printString:", "printStringRadix:", "radix:", "storeString:")
def print_in_radix(receiver: int, base: Any) -> str:
    return in_radix(receiver, _radix(base))


@Integer.method("printStringBase:")
def print_in_base(receiver: int, base: Any) -> str:
    return in_radix(receiver, _radix(base))


@Integer.method("storeStringBase:", "storeStringRadix:")
def store_in_base(receiver: int, base: Any) -> str:
    sign_text = "-" if receiver < 0 else ""
    return f"{sign_text}{base}r{in_radix(abs(receiver), _radix(base))}"


@Integer.method("printPaddedWith:to:")
def print_padded(receiver: int, character: Any, width: Any) -> str:
    return print_integer(receiver).rjust(_whole(width), str(character))


@Integer.method("printString:length:padded:", "printStringLength:padded:")
def print_length(receiver: int, *arguments: Any) -> str:
    base = arguments[0] if len(arguments) == 3 else 10
    return in_radix(receiver, _radix(base)).rjust(_whole(arguments[-2]), "0" if arguments[-1] else " ")


@Number.method("printShowingDecimalPlaces:", "printShowingMaxDecimalPlaces:")
def print_places(receiver: Any, places: Any) -> str:
    places = _whole(places)
    scaled = _round_any(_real(receiver) * 10**places) if not isinstance(receiver, float) else None
    if scaled is None:
        return f"{receiver:.{places}f}"
    digits = print_integer(abs(scaled)).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{text}" if scaled < 0 else text


def _radix(base: Any) -> int:
    base = _whole(base)
    if not 2 <= base <= 36:
        raise InvalidArgument("A radix lies between 2 and 36")
    return base


@Number.method("asCharacterDigit")
def as_digit(receiver: Any) -> Character:
    return Character("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[_whole(receiver)])


@Number.method("@")
def point(receiver: Any, y: Any) -> Point:
    return Point(receiver, y)
