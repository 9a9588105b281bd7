"""Strings and symbols. A String is Python's, and so cannot be changed in place; `String new: n` makes one that can."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from neuroscope_dsl.numerals import number_value
from neuroscope_dsl.runtime import arithmetic
from neuroscope_dsl.runtime.classes import define
from neuroscope_dsl.runtime.collections import elements
from neuroscope_dsl.runtime.exceptions import Error, InvalidArgument, ModificationForbidden
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.printing import display_string, print_string, quoted
from neuroscope_dsl.runtime.protocols import ArrayedCollection
from neuroscope_dsl.runtime.scaled import ScaledDecimal
from neuroscope_dsl.runtime.values import Array, Character, OrderedCollection, Symbol


class MutableString(Sequence[Character]):
    """What `String new: 5` and `'abc' copy` answer where a script wants to change characters."""

    __slots__ = ("characters",)

    def __init__(self, text: Iterable[str] = "") -> None:
        self.characters = list(text)

    def __str__(self) -> str:
        return "".join(self.characters)

    def __len__(self) -> int:
        return len(self.characters)

    def __getitem__(self, index: Any) -> Any:
        return Character(self.characters[index])

    def __setitem__(self, index: int, value: Any) -> None:
        if not isinstance(value, Character):
            raise InvalidArgument(f"A String holds characters, not {print_string(value)[:60]}")
        self.characters[index] = value.value

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, (str, MutableString)) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: Any) -> bool:
        return str(self) < str(other)

    def print_string(self) -> str:
        return quoted(str(self))


String = define("String", ArrayedCollection, str)
SymbolClass = define("Symbol", String, Symbol)
MutableStringClass = define("MutableString", String, MutableString)
MutableStringClass.name = "String"

for _selector, _function in {
    "<": arithmetic.less,
    ">": arithmetic.greater,
    "<=": arithmetic.less_equal,
    ">=": arithmetic.greater_equal,
}.items():
    String.methods[_selector] = _function


def text_of(value: Any) -> str:
    """An argument that must be a string, as Python's."""
    if isinstance(value, (str, MutableString, Character)):
        return str(value)
    raise InvalidArgument(f"A string is wanted here, not {print_string(value)[:60]}")


@String.method(",")
def concatenate(receiver: str, other: Any) -> Any:
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
def mutable_at_put(receiver: MutableString, index: int, value: Any) -> Any:
    from neuroscope_dsl.runtime.sequences import out_of_bounds

    if not 1 <= index <= len(receiver):
        return out_of_bounds(receiver, index)
    receiver[index - 1] = value
    return value


@String.method("copy", "shallowCopy", "deepCopy")
def copy(receiver: Any) -> MutableString:
    return MutableString(str(receiver))


@SymbolClass.method("copy", "shallowCopy", "deepCopy")
def symbol_copy(receiver: Symbol) -> Symbol:
    return receiver


@String.method("size")
def size(receiver: str) -> int:
    return len(receiver)


@String.method("isString")
def is_string(receiver: str) -> bool:
    return True


@SymbolClass.method("isSymbol")
def is_symbol(receiver: Symbol) -> bool:
    return True


@String.method("asSymbol")
def as_symbol(receiver: str) -> Symbol:
    return Symbol(str(receiver))


@String.method("asString", "displayString")
def as_string(receiver: str) -> str:
    return str(receiver)


@String.method("asUppercase", "asUpperCase")
def as_uppercase(receiver: str) -> str:
    return type_of(receiver)(str(receiver).upper())


@String.method("asLowercase", "asLowerCase")
def as_lowercase(receiver: str) -> str:
    return type_of(receiver)(str(receiver).lower())


def type_of(receiver: Any) -> type[str]:
    return Symbol if type(receiver) is Symbol else str


@String.method("capitalized", "asUppercaseFirst", "asCapitalized")
def capitalized(receiver: str) -> str:
    return str(receiver)[:1].upper() + str(receiver)[1:]


@String.method("uncapitalized", "asLowercaseFirst")
def uncapitalized(receiver: str) -> str:
    return str(receiver)[:1].lower() + str(receiver)[1:]


@String.method("asInteger")
def as_integer(receiver: str) -> int | None:
    match = re.search(r"-?\d+", str(receiver))
    value = None if match is None else number_value(match.group())
    return value if isinstance(value, int) else None


@String.method("asNumber")
def as_number(receiver: str) -> Any:
    return number_in(str(receiver))


_NUMERAL = re.compile(r"\s*([+-]?)(\d+r-?[0-9A-Z]+|\d+(?:\.\d+)?(?:e-?\d+)?(?:s\d*)?)")


def number_in(text: str) -> int | float | Fraction | ScaledDecimal | None:
    """The number that a text begins with."""
    match = _NUMERAL.match(text)
    if match is None:
        return None
    try:
        return number_value(("-" if match.group(1) == "-" else "") + match.group(2))
    except ValueError:
        return None


@String.method("isEmpty")
def is_empty(receiver: str) -> bool:
    return len(receiver) == 0


@String.method("trimBoth", "trim", "trimSeparators", "withBlanksTrimmed")
def trim_both(receiver: str) -> str:
    return str(receiver).strip()


@String.method("trimLeft")
def trim_left(receiver: str) -> str:
    return str(receiver).lstrip()


@String.method("trimRight")
def trim_right(receiver: str) -> str:
    return str(receiver).rstrip()


@String.method("beginsWith:", "startsWith:")
def begins_with(receiver: str, prefix: Any) -> bool:
    return str(receiver).startswith(text_of(prefix))


@String.method("endsWith:")
def ends_with(receiver: str, suffix: Any) -> bool:
    return str(receiver).endswith(text_of(suffix))


@String.method("includesSubstring:", "includesSubCollection:")
def includes_substring(receiver: str, part: Any) -> bool:
    return text_of(part) in str(receiver)


@String.method("includesSubstring:caseSensitive:")
def includes_substring_case(receiver: str, part: Any, sensitive: bool) -> bool:
    if sensitive:
        return text_of(part) in str(receiver)
    return text_of(part).lower() in str(receiver).lower()


@String.method("sameAs:")
def same_as(receiver: str, other: Any) -> bool:
    return str(receiver).lower() == text_of(other).lower()


@String.method("findString:", "indexOfSubCollection:")
def find_string(receiver: str, part: Any) -> int:
    return str(receiver).find(text_of(part)) + 1


@String.method("findString:startingAt:")
def find_string_from(receiver: str, part: Any, start: int) -> int:
    return str(receiver).find(text_of(part), start - 1) + 1


@String.method("indexOf:")
def index_of(receiver: str, character: Any) -> int:
    return str(receiver).find(character.value) + 1 if isinstance(character, Character) else 0


@String.method("indexOf:startingAt:")
def index_of_from(receiver: str, character: Any, start: int) -> int:
    return str(receiver).find(character.value, start - 1) + 1 if isinstance(character, Character) else 0


@String.method("copyReplaceAll:with:", "replaceString:withString:")
def copy_replace_all(receiver: str, old: Any, new: Any) -> str:
    return str(receiver).replace(text_of(old), text_of(new)) if len(text_of(old)) else str(receiver)


@String.method("copyReplacing:with:", "replaceAll:with:")
def replace_all(receiver: str, old: Any, new: Any) -> str:
    return str(receiver).replace(text_of(old), text_of(new))


@String.method("copyWithout:")
def copy_without(receiver: str, character: Any) -> str:
    return str(receiver).replace(text_of(character), "")


@String.method("reverse", "reversed")
def reverse(receiver: str) -> str:
    return str(receiver)[::-1]


@String.method("asArray")
def as_array(receiver: str) -> Array:
    return Array(elements(str(receiver)))


@String.method("substrings", "subStrings")
def substrings(receiver: str) -> OrderedCollection:
    return OrderedCollection(str(receiver).split())


@String.method("substrings:", "subStrings:", "findTokens:", "tokenize:")
def tokens(receiver: str, separators: Any) -> OrderedCollection:
    pattern = f"[{re.escape(text_of(separators))}]+" if len(text_of(separators)) else r"\s+"
    return OrderedCollection(part for part in re.split(pattern, str(receiver)) if part)


@String.method("splitOn:", "split:")
def split_on(receiver: str, separator: Any) -> OrderedCollection:
    return OrderedCollection(str(receiver).split(text_of(separator)))


@String.method("lines")
def lines(receiver: str) -> Array:
    return Array(_lines(str(receiver)))


@String.method("linesDo:")
def lines_do(d: Any, receiver: str, block: Any) -> str:
    function = d.function(block, 1)
    for line in _lines(str(receiver)):
        function(line)
    return receiver


@String.method("join:")
def join(receiver: str, items: Any) -> str:
    return str(receiver).join(display_string(each) for each in elements(items))


@ArrayedCollection.method("joinUsing:", "joinWith:")
def join_using(receiver: Any, separator: Any) -> str:
    return text_of(separator).join(display_string(each) for each in elements(receiver))


@String.method("repeat:")
def repeat(receiver: str, count: Any) -> str:
    from neuroscope_dsl.runtime.sequence_classes import check_size

    check_size(check_size(count) * len(receiver))
    return str(receiver) * int(count)


@String.method("padLeftTo:", "padLeftTo:with:")
def pad_left(receiver: str, width: int, character: Any = " ") -> str:
    return str(receiver).rjust(width, text_of(character))


@String.method("padRightTo:", "padRightTo:with:")
def pad_right(receiver: str, width: int, character: Any = " ") -> str:
    return str(receiver).ljust(width, text_of(character))


_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@String.method("format:")
def format_(receiver: str, values: Any) -> Any:
    """`'{1} of {total}' format: …`: positions count from one; a dictionary's keys are names. Nothing else is evaluated."""

    def replacement(match: re.Match[str]) -> str:
        key = match.group(1)
        try:
            return display_string(values[int(key) - 1] if key.isdigit() and not isinstance(values, dict) else values[key])
        except (LookupError, TypeError):
            raise InvalidArgument(f"format: has no value for {{{key}}}") from None

    return _PLACEHOLDER.sub(replacement, str(receiver))


@String.method("%", "bindWith:", "bindWith:with:", "bindWith:with:with:")
def bind_with(receiver: str, *values: Any) -> str:
    items = list(elements(values[0])) if len(values) == 1 and isinstance(values[0], (list, tuple)) else list(values)
    text = str(receiver)
    for index, value in reversed(list(enumerate(items, 1))):
        text = text.replace(f"%{index}", display_string(value))
    return text


@String.method("hash")
def hash_(receiver: str) -> int:
    return hash(str(receiver))


@String.method("printOn:")
def print_on(receiver: str, stream: Any) -> Any:
    stream.put_all(print_string(receiver))
    return receiver


@String.method("displayOn:")
def display_on(receiver: str, stream: Any) -> Any:
    stream.put_all(str(receiver))
    return receiver


@String.method("asByteArray", "utf8Encoded")
def utf8_encoded(receiver: str) -> bytearray:
    return bytearray(str(receiver).encode("utf-8"))


@String.method("occurrencesOf:")
def occurrences_of(receiver: str, character: Any) -> int:
    return str(receiver).count(character.value) if isinstance(character, Character) else 0


@String.method("asCharacter")
def as_character(receiver: str) -> Any:
    return Character(str(receiver)[0]) if len(receiver) == 1 else signal(Error("Only a string of size 1 is a character"))


def _lines(text: str) -> list[str]:
    """Lines as Pharo knows them: they end at CR, LF or both, and at no other character that Unicode calls a line end."""
    found = re.split("\r\n|\r|\n", text)
    return found[:-1] if found[-1] == "" else found
