"""Characters."""

from __future__ import annotations

from typing import Any

from neuroscope_dsl.runtime.arguments import Whole
from neuroscope_dsl.runtime.classes import SmalltalkClass, define
from neuroscope_dsl.runtime.exceptions import Error
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.numbers import ORDER, Magnitude
from neuroscope_dsl.runtime.printing import brief
from neuroscope_dsl.runtime.values import Character

CharacterClass = define("Character", Magnitude, Character)
CharacterClass.methods |= ORDER
CharacterClass.class_methods |= {
    name: lambda receiver, text=text: Character(text)
    for name, text in {
        "tab": "\t", "cr": "\r", "lf": "\n", "nl": "\n", "space": " ", "escape": "\x1b", "null": "\0", "backspace": "\x08",
        "newPage": "\x0c", "nbsp": "\xa0", "delete": "\x7f",
    }.items()
}  # fmt: skip
CharacterClass.methods |= {
    "value": lambda receiver: ord(receiver.value),
    "displayString": lambda receiver: receiver.value,
    "asUppercase": lambda receiver: _one(receiver.value.upper(), receiver),
    "asLowercase": lambda receiver: _one(receiver.value.lower(), receiver),
    "isLetter": lambda receiver: receiver.value.isalpha(),
    "isDigit": lambda receiver: receiver.value.isdigit(),
    "isAlphaNumeric": lambda receiver: receiver.value.isalnum(),
    "isSeparator": lambda receiver: receiver.value.isspace(),
    "isUppercase": lambda receiver: receiver.value.isupper(),
    "isLowercase": lambda receiver: receiver.value.islower(),
}


def _one(text: str, receiver: Character) -> Character:
    """A change of case may make two characters of one, as for ß; then the character is unchanged."""
    return Character(text) if len(text) == 1 else receiver


@CharacterClass.class_method("value:")
def from_code(receiver: SmalltalkClass, code: Whole) -> Any:
    return Character(chr(code)) if 0 <= code <= 0x10FFFF else signal(Error(f"{brief(code)} is not a code point"))
