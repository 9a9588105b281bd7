"""Printed forms, as in Pharo: `printString` for programmers, `displayString` for users."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

from neuroscope.vocabulary import is_public
from neuroscope_dsl.runtime.accounting import MAX_PRINTED, account_text
from neuroscope_dsl.runtime.bignum import print_integer
from neuroscope_dsl.runtime.block import Block
from neuroscope_dsl.runtime.classes import SmalltalkClass, article
from neuroscope_dsl.runtime.exceptions import SmalltalkException
from neuroscope_dsl.runtime.naming import class_name
from neuroscope_dsl.runtime.process import process
from neuroscope_dsl.runtime.scaled import ScaledDecimal
from neuroscope_dsl.runtime.values import Array, Association, Character, MessageObject, Point, SmalltalkObject, Symbol
from neuroscope_dsl.syntax import CHARACTER_NAMES, is_bare_symbol

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

#: Deeper nested collections print as `…`, as do collections that contain themselves.
MAX_DEPTH = 20


def print_string(value: Any, depth: int = 0) -> str:
    """The result of `printString`."""
    kind = type(value)
    if kind is int:
        return print_integer(value)
    if kind is float:
        return print_float(value)
    if value is None:
        return "nil"
    if kind is bool:
        return "true" if value else "false"
    if kind is Symbol:
        return print_symbol(value)
    if isinstance(value, SmalltalkObject | SmalltalkException) and _has_own_form(value):
        owner: Any = getattr(value, "smalltalk_class", None)
        return str(owner.dispatcher.send(value, "printString"))
    if is_public(kind):
        return _print_public(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Integral):  # numpy's numbers print as Python's
        return print_integer(int(value))
    if isinstance(value, Real) and not isinstance(value, Fraction):
        return print_float(float(str(value)))
    if _is_numpy_bool(value):
        return "true" if value else "false"
    left = process.printable
    if depth > MAX_DEPTH or (left is not None and left <= 0):
        return "…"
    if left is not None:
        return _print_object(value, depth)
    return _within(MAX_PRINTED, value, depth)


def _within(most: int, value: Any, depth: int = 0) -> str:
    """The printed form in about `most` characters; the rest of a longer one is `…`."""
    outer = process.printable
    process.printable = most if outer is None else min(most, outer)
    try:
        return print_string(value, depth)
    finally:
        process.printable = outer


def brief(value: Any, most: int = 60) -> str:
    """The beginning of the printed form, for error messages. Quick for any value."""
    if isinstance(value, str):
        return quoted(value[:most])[:most]
    if type(value) is int and value.bit_length() > 1000:
        return article(class_name(value))
    return _within(20 * most, value)[:most]


def display_string(value: Any) -> str:
    """The result of `displayString`: strings, symbols and characters without their marks."""
    if isinstance(value, (str, Character)):
        return str(value)
    if isinstance(value, SmalltalkObject) and value.smalltalk_class.script_method("displayString") is not None:
        return str(value.smalltalk_class.dispatcher.send(value, "displayString"))
    if isinstance(value, ScaledDecimal):
        return value.print_string()
    return print_string(value)


def _has_own_form(value: Any) -> bool:
    owner = getattr(value, "smalltalk_class", None)
    return owner is not None and any(owner.script_method(selector) is not None for selector in ("printOn:", "printString"))


def _print_public(value: Any) -> str:
    own = getattr(value, "print_string", None)
    return str(own()) if callable(own) else article(class_name(value))


def _print_object(value: Any, depth: int) -> str:
    match value:
        case Fraction():
            return f"({print_integer(value.numerator)}/{print_integer(value.denominator)})"
        case Character():
            return CHARACTER_NAMES.get(value.value, f"${value.value}")
        case Array() | tuple():
            return print_array(value, depth)
        case ScaledDecimal():
            return value.print_string()
        case bytes() | bytearray():
            return f"#[{_joined(' ', map(str, value))}]"
        case Association():
            return f"{print_string(value.key, depth + 1)}->{print_string(value.value, depth + 1)}"
        case Point():
            return f"({print_string(value.x)}@{print_string(value.y)})"
        case SmalltalkClass():
            return value.name
        case Block():
            return value.source
        case SmalltalkException():
            return value.class_name if value.message_text is None else f"{value.class_name}: {value.message_text}"
        case MessageObject():
            return f"a Message with selector: #{value.selector} and arguments: {print_string(value.arguments)}"
        case datetime.datetime():
            return value.isoformat()
        case datetime.date():
            return f"{value.day} {_MONTHS[value.month - 1]} {value.year}"
        case datetime.time():
            return _print_time(value)
        case datetime.timedelta():
            return _print_duration(value)
        case Mapping():
            pairs = _joined(" ", (f"{print_string(k, depth + 1)}->{print_string(v, depth + 1)}" for k, v in value.items()))
            return f"{article(class_name(value))}({pairs}{' ' if pairs else ''})"
    own = getattr(value, "print_string", None)
    if callable(own):
        return str(own())
    if isinstance(value, list) or getattr(value, "prints_elements", False) or isinstance(value, (set, frozenset)):
        return f"{article(class_name(value))}({print_elements(value, depth)})"
    return article(class_name(value))


def print_elements(items: Iterable[Any], depth: int = 0) -> str:
    return _joined(" ", (print_string(item, depth + 1) for item in items))


def _joined(separator: str, texts: Iterable[str]) -> str:
    """Printed elements, as many as may be printed."""
    found: list[str] = []
    for text in texts:
        left = MAX_PRINTED if process.printable is None else process.printable
        if left <= 0:
            found.append("…")
            break
        process.printable = left - len(text) - 1
        found.append(text)
    return separator.join(found)


def _spend() -> bool:
    """Whether one more element may be looked at."""
    left = process.printable
    if left is None:
        return True
    process.printable = left - 1
    return left > 0


def print_array(items: Iterable[Any], depth: int = 0) -> str:
    """`#(1 $a 'x' #foo)` if every element is a literal, `{1->2. (1/2)}` if every element's text evaluates to it, otherwise `an
    Array(…)`.
    """
    items = list(items)
    if process.printable is None:
        return _within(MAX_PRINTED, Array(items), depth)
    if all(map(_is_literal, items)):
        return f"#({print_elements(items, depth)})"
    if all(map(_is_self_evaluating, items)):
        return f"{{{_joined('. ', (print_string(item, depth + 1) for item in items))}}}"
    return f"an Array({print_elements(items, depth)})"


def _is_literal(value: Any, depth: int = 0) -> bool:
    if not _spend():
        return False
    if isinstance(value, (Array, tuple)):
        return depth <= MAX_DEPTH and all(_is_literal(item, depth + 1) for item in value)
    if is_public(type(value)):
        return False
    kinds = (str, Character, bool, type(None), Integral, ScaledDecimal, bytes, bytearray)
    return isinstance(value, kinds) or (isinstance(value, Real) and not isinstance(value, Fraction)) or _is_numpy_bool(value)


def _is_self_evaluating(value: Any, depth: int = 0) -> bool:
    if isinstance(value, Association):
        return _is_self_evaluating(value.key) and _is_self_evaluating(value.value)
    if isinstance(value, (Array, tuple)):
        return depth <= MAX_DEPTH and all(_is_self_evaluating(item, depth + 1) for item in value)
    return isinstance(value, (Fraction, Point, SmalltalkClass)) or hasattr(value, "is_self_evaluating") or _is_literal(value)


def _is_numpy_bool(value: Any) -> bool:
    return type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")


def _print_time(value: datetime.time) -> str:
    """`3:12:19.5 pm`, without seconds if zero."""
    text = f"{value.hour % 12 or 12}:{value.minute:02}"
    if value.second or value.microsecond:
        text += f":{value.second:02}" + f".{value.microsecond:06}".rstrip("0").rstrip(".")
    return f"{text} {'am' if value.hour < 12 else 'pm'}"


def _print_duration(value: datetime.timedelta) -> str:
    """Days, hours, minutes, seconds: `0:00:01:30.5`."""
    sign, value = ("-", -value) if value < datetime.timedelta() else ("", value)
    minutes, seconds = divmod(value.seconds, 60)
    text = f"{sign}{value.days}:{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
    return text + f".{value.microseconds:06}".rstrip("0").rstrip(".")


def quoted(text: str) -> str:
    account_text(len(text))
    return "'" + text.replace("'", "''") + "'"


def print_symbol(symbol: str) -> str:
    return f"#{symbol}" if is_bare_symbol(symbol) else f"#{quoted(str(symbol))}"


def print_float(value: float) -> str:
    """The shortest digits that read back as the same float; an exponent outside 1.0e-4 … 999999.9, as in Pharo."""
    if type(value) is not float:  # numpy's floats: through their own shortest digits
        value = float(str(value))
    if value != value:
        return "nan"
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    sign = "-" if str(value).startswith("-") else ""
    if value == 0:
        return f"{sign}0.0"
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    leading = len(whole) if whole.strip("0") else len(fraction.lstrip("0")) - len(fraction)
    point = leading + int(exponent or 0)  # the value is 0.DIGITS × 10^point
    digits = digits.rstrip("0") or "0"
    if 1 <= point <= LARGEST_FIXED:
        padded = digits.ljust(point, "0")
        return f"{sign}{padded[:point]}.{padded[point:] or '0'}"
    if -4 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits[0]}.{digits[1:] or '0'}e{point - 1}"


#: Floats with more digits before the point print with an exponent.
LARGEST_FIXED = 6
