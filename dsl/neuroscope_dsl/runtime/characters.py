"""Characters."""

from __future__ import annotations

from neuroscope_dsl.runtime import arithmetic
from neuroscope_dsl.runtime.classes import SmalltalkClass, define
from neuroscope_dsl.runtime.numbers import Magnitude
from neuroscope_dsl.runtime.values import Character, Symbol

CharacterClass = define("Character", Magnitude, Character)

for _selector, _function in {
    "<": arithmetic.less,
    ">": arithmetic.greater,
    "<=": arithmetic.less_equal,
    ">=": arithmetic.greater_equal,
}.items():
    CharacterClass.methods[_selector] = _function

for _name, _text in {
    "tab": "\t", "cr": "\r", "lf": "\n", "nl": "\n", "space": " ", "escape": "\x1b", "null": "\0", "backspace": "\x08",
    "newPage": "\x0c", "nbsp": "\xa0", "delete": "\x7f",
}.items():  # fmt: skip
    CharacterClass.class_methods[_name] = lambda receiver, text=_text: Character(text)


@CharacterClass.class_method("value:", "codePoint:")
def from_code(receiver: SmalltalkClass, code: int) -> Character:
    return Character(chr(code))


@CharacterClass.class_method("digitValue:")
def from_digit(receiver: SmalltalkClass, digit: int) -> Character:
    return Character("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit])


@CharacterClass.method("asInteger", "value", "codePoint", "asciiValue", "charCode")
def code_point(receiver: Character) -> int:
    return ord(receiver.value)


@CharacterClass.method("asCharacter")
def as_character(receiver: Character) -> Character:
    return receiver


@CharacterClass.method("asString", "displayString")
def as_string(receiver: Character) -> str:
    return receiver.value


@CharacterClass.method("asSymbol")
def as_symbol(receiver: Character) -> Symbol:
    return Symbol(receiver.value)


@CharacterClass.method("asUppercase")
def as_uppercase(receiver: Character) -> Character:
    upper = receiver.value.upper()
    return Character(upper) if len(upper) == 1 else receiver


@CharacterClass.method("asLowercase")
def as_lowercase(receiver: Character) -> Character:
    lower = receiver.value.lower()
    return Character(lower) if len(lower) == 1 else receiver


@CharacterClass.method("digitValue")
def digit_value(receiver: Character) -> int:
    return "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ".find(receiver.value.upper())


@CharacterClass.method("isCharacter")
def is_character(receiver: Character) -> bool:
    return True


@CharacterClass.method("isLetter")
def is_letter(receiver: Character) -> bool:
    return receiver.value.isalpha()


@CharacterClass.method("isDigit")
def is_digit(receiver: Character) -> bool:
    return receiver.value.isdigit()


@CharacterClass.method("isAlphaNumeric")
def is_alpha_numeric(receiver: Character) -> bool:
    return receiver.value.isalnum()


@CharacterClass.method("isSeparator", "isSpace")
def is_separator(receiver: Character) -> bool:
    return receiver.value.isspace()


@CharacterClass.method("isUppercase")
def is_uppercase(receiver: Character) -> bool:
    return receiver.value.isupper()


@CharacterClass.method("isLowercase")
def is_lowercase(receiver: Character) -> bool:
    return receiver.value.islower()


@CharacterClass.method("isVowel")
def is_vowel(receiver: Character) -> bool:
    return receiver.value.lower() in "aeiou"


@CharacterClass.method("isPunctuation")
def is_punctuation(receiver: Character) -> bool:
    return receiver.value in ".,:;!?"
