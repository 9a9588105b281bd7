"""Strings and symbols. A String is Python's and immutable; `String new: n` makes a mutable one."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from neuroscope_dsl.numerals import number_value
from neuroscope_dsl.runtime.arguments import Items, Size, Text, Whole, elements
from neuroscope_dsl.runtime.classes import SmalltalkClass, define
from neuroscope_dsl.runtime.exceptions import Error, InvalidArgument, ModificationForbidden
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.numbers import ORDER
from neuroscope_dsl.runtime.printing import display_string, print_string
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
    "copy": lambda receiver: MutableString(str(receiver)),
    "shallowCopy": lambda receiver: MutableString(str(receiver)),
    "deepCopy": lambda receiver: MutableString(str(receiver)),
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
        return str(receiver) + str(other)
    if isinstance(other, (list, tuple)) and all(isinstance(each, Character) for each in other):
        return str(receiver) + "".join(each.value for each in other)
    error = Error(f"A string can be joined with another string, not with {print_string(other)[:60]}")
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
    return receiver.replace(old, new) if old else receiver


@String.method("findTokens:")
def tokens(receiver: Text, separators: Any) -> OrderedCollection:
    pattern = f"[{re.escape(''.join(map(str, elements(separators))))}]+" if separators else r"\s+"
    return OrderedCollection(part for part in re.split(pattern, receiver) if part)


@String.method("splitOn:")
def split_on(receiver: Text, separator: Any) -> Any:
    at = str(separator) if isinstance(separator, (str, MutableString, Character)) else ""
    return OrderedCollection(receiver.split(at)) if at else signal(InvalidArgument("splitOn: takes a string or a character"))


@String.method("padLeftTo:with:")
def pad_left(receiver: Text, width: Size, character: Character) -> str:
    return receiver.rjust(width, character.value)


@String.method("padRightTo:with:")
def pad_right(receiver: Text, width: Size, character: Character) -> str:
    return receiver.ljust(width, character.value)


def _lines(text: str) -> list[str]:
    """Lines as in Pharo: they end at CR, LF or both, but not at Unicode's other line ends."""
    found = re.split("\r\n|\r|\n", text)
    return found[:-1] if found[-1] == "" else found


# --- patterns -----------------------------------------------------------------------------------------------------


@String.method("matchesRegex:")
def matches_regex(receiver: Text, pattern: Text) -> Any:
    """Whether the whole string matches. Patterns are the same as in Pharo, except for `:class:` brackets."""
    try:
        return re.fullmatch(pattern, receiver) is not None
    except re.error as error:
        return signal(InvalidArgument(f"{pattern!r} is not a regular expression: {error}"))


_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@String.method("format:")
def format_(receiver: Text, values: Any) -> Any:
    """`'{1} of {total}' format: …`: positions count from one; a dictionary's keys are names. Nothing is evaluated."""

    def replacement(match: re.Match[str]) -> str:
        key = match.group(1)
        try:
            return display_string(values[int(key) - 1] if key.isdigit() and not isinstance(values, dict) else values[key])
        except (LookupError, TypeError, ValueError):
            return str(signal(InvalidArgument(f"format: has no value for {{{key}}}")))

    return _PLACEHOLDER.sub(replacement, receiver)


@String.method("bindWithArguments:")
def bind_with(receiver: Text, values: Items) -> str:
    for index, value in reversed(list(enumerate(values, 1))):
        receiver = receiver.replace(f"%{index}", display_string(value))
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
    return MutableString(" " * count)


@String.class_method("new:withAll:")
def new_with_all(receiver: SmalltalkClass, count: Size, character: Character) -> MutableString:
    return MutableString(character.value * count)


@String.class_method("withAll:")
def with_all(receiver: SmalltalkClass, items: Items) -> Any:
    items = list(items)
    for item in items:
        if not isinstance(item, (Character, str)):
            return signal(InvalidArgument(f"A String holds characters, not {print_string(item)[:60]}"))
    text = "".join(map(str, items))
    return Symbol(text) if receiver is SymbolClass else text


@SymbolClass.method("numArgs")
def num_args(receiver: Symbol) -> int:
    return receiver.count(":") if receiver[:1].isalpha() else 1
