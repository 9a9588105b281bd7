"""Strings and symbols. A String is Python's and immutable; `String new: n` makes a mutable one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import regex

from neuroscope_dsl.numerals import number_value
from neuroscope_dsl.runtime.accounting import account_text, characters, gathered, joined
from neuroscope_dsl.runtime.arguments import Items, Size, Text, Whole, elements
from neuroscope_dsl.runtime.classes import SmalltalkClass, define
from neuroscope_dsl.runtime.exceptions import Error, InvalidArgument, ModificationForbidden
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.numbers import ORDER
from neuroscope_dsl.runtime.printing import brief, display_string
from neuroscope_dsl.runtime.protocols import ArrayedCollection
from neuroscope_dsl.runtime.scaled import ScaledDecimal
from neuroscope_dsl.runtime.sequences import checked_index, out_of_bounds
from neuroscope_dsl.runtime.values import Array, Character, MutableString, OrderedCollection, Symbol

String = define("String", ArrayedCollection, str)
SymbolClass = define("Symbol", String, Symbol)
MutableStringClass = define("MutableString", String, MutableString)
MutableStringClass.name = "String"

String.methods |= ORDER
String.methods |= {
    "size": lambda receiver: len(receiver),
    "hash": lambda receiver: hash(str(receiver)),
    "displayString": lambda receiver: str(receiver),
    "asSymbol": lambda receiver: Symbol(str(receiver)),
    "copy": lambda receiver: MutableString(characters(str(receiver))),
    "shallowCopy": lambda receiver: MutableString(characters(str(receiver))),
    "deepCopy": lambda receiver: MutableString(characters(str(receiver))),
    "asUppercase": lambda receiver: _kind(receiver)(str(receiver).upper()),
    "asLowercase": lambda receiver: _kind(receiver)(str(receiver).lower()),
    "trimBoth": lambda receiver: str(receiver).strip(),
    "trimLeft": lambda receiver: str(receiver).lstrip(),
    "trimRight": lambda receiver: str(receiver).rstrip(),
    "reverse": lambda receiver: str(receiver)[::-1],
    "reversed": lambda receiver: str(receiver)[::-1],
    "utf8Encoded": lambda receiver: bytearray(str(receiver).encode("utf-8", "surrogatepass")),
    "lines": lambda receiver: Array(_lines(str(receiver))),
    "asNumber": lambda receiver: number_in(str(receiver)),
}


def _kind(receiver: Any) -> type[str]:
    return Symbol if type(receiver) is Symbol else str


@String.method(",")
def concatenate(receiver: Any, other: Any) -> Any:
    if isinstance(other, (str, MutableString)):
        one, two = str(receiver), str(other)
        account_text(len(one) + len(two))
        return one + two
    if isinstance(other, (list, tuple)) and all(isinstance(each, Character) for each in other):
        return str(receiver) + "".join(each.value for each in other)
    error = Error(f"A string can be joined with another string, not with {brief(other)}")
    error.remedy = "Send it printString or displayString first."
    return signal(error)


@String.method("at:put:")
def at_put(receiver: str, index: Any, value: Any) -> Any:
    return signal(
        ModificationForbidden("A literal string cannot be changed", remedy="Change a copy: 'abc' copy, or use a WriteStream.")
    )


@MutableStringClass.method("at:put:")
def mutable_at_put(receiver: MutableString, index: Whole, value: Character) -> Any:
    place = checked_index(receiver, index)
    if place is None:
        return out_of_bounds(receiver, index)
    receiver[place] = value
    return value


# --- numbers in texts ---------------------------------------------------------------------------------------------


@String.method("asInteger")
def as_integer(receiver: Text) -> int | None:
    match = re.search(r"-?[0-9]+", receiver)
    value = None if match is None else number_value(match.group())
    return value if isinstance(value, int) else None


_NUMERAL = re.compile(r"\s*([+-]?)([0-9]+r-?[0-9A-Z]+|[0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?(?:s[0-9]*)?)")


def number_in(text: str) -> int | float | Fraction | ScaledDecimal | None:
    """The number at the start of a text, or None."""
    match = _NUMERAL.match(text)
    if match is None:
        return None
    try:
        return number_value(("-" if match.group(1) == "-" else "") + match.group(2))
    except ValueError:
        return None


# --- parts of texts -----------------------------------------------------------------------------------------------


@String.method("beginsWith:", "startsWith:")
def begins_with(receiver: Text, prefix: Text) -> bool:
    return receiver.startswith(prefix)


@String.method("endsWith:")
def ends_with(receiver: Text, suffix: Text) -> bool:
    return receiver.endswith(suffix)


@String.method("includesSubstring:")
def includes_substring(receiver: Any, part: Text) -> bool:
    return part in str(receiver)


@String.method("findString:startingAt:")
def find_string(receiver: Text, part: Text, start: Whole) -> int:
    return receiver.find(part, max(0, start - 1)) + 1


@String.method("indexOf:")
def index_of(receiver: Text, character: Any) -> int:
    return receiver.find(character.value) + 1 if isinstance(character, Character) else 0


@String.method("indexOf:startingAt:")
def index_of_from(receiver: Text, character: Any, start: Whole) -> int:
    return receiver.find(character.value, max(0, start - 1)) + 1 if isinstance(character, Character) else 0


@String.method("occurrencesOf:")
def occurrences_of(receiver: Text, character: Any) -> int:
    return receiver.count(character.value) if isinstance(character, Character) else 0


@String.method("copyReplaceAll:with:")
def copy_replace_all(receiver: Text, old: Text, new: Text) -> str:
    return replaced(receiver, old, new) if old else receiver


def replaced(text: str, old: str, new: str) -> str:
    """`text.replace(old, new)`, unless that would be too long."""
    if len(new) > len(old):
        account_text(len(text) + text.count(old) * (len(new) - len(old)))
    return text.replace(old, new)


@String.method("findTokens:")
def tokens(receiver: Text, separators: Any) -> OrderedCollection:
    pattern = f"[^{re.escape(''.join(map(str, gathered(elements(separators)))))}]+" if separators else r"\S+"
    return OrderedCollection(gathered(match.group() for match in re.finditer(pattern, receiver)))


@String.method("splitOn:")
def split_on(receiver: Text, separator: Any) -> Any:
    at = str(separator) if isinstance(separator, (str, MutableString, Character)) else ""
    if not at:
        return signal(InvalidArgument("splitOn: takes a string or a character"))
    return OrderedCollection(gathered(_split(receiver, at)))


def _split(text: str, separator: str) -> Iterator[str]:
    """`text.split(separator)`, one part after the other."""
    start = 0
    while (end := text.find(separator, start)) >= 0:
        yield text[start:end]
        start = end + len(separator)
    yield text[start:]


@String.method("padLeftTo:with:")
def pad_left(receiver: Text, width: Whole, character: Character) -> str:
    account_text(width)
    return receiver.rjust(width, character.value)


@String.method("padRightTo:with:")
def pad_right(receiver: Text, width: Whole, character: Character) -> str:
    account_text(width)
    return receiver.ljust(width, character.value)


def _lines(text: str) -> list[str]:
    """Lines as in Pharo: they end at CR, LF or both, but not at Unicode's other line ends."""
    return gathered(match.group(1) for match in _LINE.finditer(text) if match.group())


_LINE = re.compile("([^\r\n]*)(?:\r\n|\r|\n|\\Z)")


# --- patterns -----------------------------------------------------------------------------------------------------


@String.method("matchesRegex:")
def matches_regex(receiver: Text, pattern: Text) -> Any:
    """Whether the whole string matches. Patterns are the same as in Pharo, except for `:class:` brackets."""
    repeats = math.prod(max(1, int(count[:9])) for count in _COUNTS.findall(pattern[:_LONGEST_PATTERN]))
    if len(pattern) > _LONGEST_PATTERN or repeats > _MOST_REPEATS:
        return signal(
            InvalidArgument(f"The pattern {brief(pattern)} is too long, or repeats more than {_MOST_REPEATS:,} times")
        )
    try:  # `regex` lets other threads run, and gives up on patterns that would take for ever
        return regex.fullmatch(pattern, receiver, timeout=_PATTERN_TIME, concurrent=True) is not None
    except regex.error as error:
        return signal(InvalidArgument(f"{brief(pattern)} is not a regular expression: {error}"))
    except TimeoutError:
        return signal(InvalidArgument(f"The pattern {brief(pattern)} took longer than {_PATTERN_TIME:g} seconds"))
    except (RecursionError, MemoryError, OverflowError) as error:
        return signal(InvalidArgument(f"The pattern {brief(pattern)} is too complex: {type(error).__name__}"))


_LONGEST_PATTERN, _PATTERN_TIME, _MOST_REPEATS = 2_000, 2.0, 10_000

#: The numbers in `{2}` and `{2,3}`.
_COUNTS = re.compile(r"(?<=[{,])\d+(?=[},])")


_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@String.method("format:")
def format_(receiver: Text, values: Any) -> Any:
    """`'{1} of {total}' format: …`: positions count from one; a dictionary's keys are names. Nothing is evaluated."""

    size = len(receiver)

    def replacement(match: re.Match[str]) -> str:
        nonlocal size
        key = match.group(1)
        try:
            text = display_string(values[int(key) - 1] if key.isdigit() and not isinstance(values, dict) else values[key])
            size += len(text)
            account_text(size)
            return text
        except (LookupError, TypeError, ValueError):
            return str(signal(InvalidArgument(f"format: has no value for {{{key}}}")))

    return _PLACEHOLDER.sub(replacement, receiver)


@String.method("bindWithArguments:")
def bind_with(receiver: Text, values: Items) -> str:
    for index, value in reversed(list(enumerate(values, 1))):
        receiver = replaced(receiver, f"%{index}", display_string(value))
    return receiver


# --- making strings and symbols -----------------------------------------------------------------------------------

String.class_methods |= {
    name: lambda receiver, text=text: text
    for name, text in {
        "new": "",
        "cr": "\r",
        "lf": "\n",
        "nl": "\n",
        "tab": "\t",
        "crlf": "\r\n",
        "space": " ",
        "empty": "",
    }.items()
}


@String.class_method("new:")
def new_sized(receiver: SmalltalkClass, count: Size) -> MutableString:
    return MutableString(characters(" " * count))


@String.class_method("new:withAll:")
def new_with_all(receiver: SmalltalkClass, count: Size, character: Character) -> MutableString:
    return MutableString(characters(character.value * count))


@String.class_method("withAll:")
def with_all(receiver: SmalltalkClass, items: Items) -> Any:
    items = gathered(items)
    for item in items:
        if not isinstance(item, (Character, str)):
            return signal(InvalidArgument(f"A String holds characters, not {brief(item)}"))
    text = joined(map(str, items))
    return Symbol(text) if receiver is SymbolClass else text


@SymbolClass.method("numArgs")
def num_args(receiver: Symbol) -> int:
    return receiver.count(":") if receiver[:1].isalpha() else 1
