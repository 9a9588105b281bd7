"""Symbols in the place of blocks, and making strings and symbols."""

from __future__ import annotations

from typing import Any

from neuroscope_dsl.runtime.classes import SmalltalkClass
from neuroscope_dsl.runtime.collections import elements
from neuroscope_dsl.runtime.exceptions import Error
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.strings import MutableString, String, SymbolClass, text_of
from neuroscope_dsl.runtime.values import Array, Symbol


@SymbolClass.method("value:")
def symbol_value(d: Any, receiver: Symbol, argument: Any) -> Any:
    return d.send(argument, str(receiver))


@SymbolClass.method("value:value:")
def symbol_value_2(d: Any, receiver: Symbol, first: Any, second: Any) -> Any:
    return d.send(first, str(receiver), second)


@SymbolClass.method("cull:")
def symbol_cull(d: Any, receiver: Symbol, argument: Any) -> Any:
    return d.send(argument, str(receiver))


@SymbolClass.method("numArgs")
def num_args(receiver: Symbol) -> int:
    return receiver.count(":") if receiver[:1].isalpha() else 1


@SymbolClass.method("keywords")
def keywords(receiver: Symbol) -> Array:
    return Array(f"{part}:" for part in receiver.split(":") if part)


# --- class side ---------------------------------------------------------------------------------------------------


@String.class_method("new")
def new(receiver: SmalltalkClass) -> str:
    return ""


@String.class_method("new:")
def new_sized(receiver: SmalltalkClass, count: Any) -> MutableString:
    from neuroscope_dsl.runtime.sequence_classes import check_size

    return MutableString(" " * check_size(count))


@String.class_method("new:withAll:")
def new_with_all(receiver: SmalltalkClass, count: Any, character: Any) -> MutableString:
    from neuroscope_dsl.runtime.sequence_classes import check_size

    return MutableString(text_of(character) * check_size(count))


@String.class_method("withAll:", "newFrom:")
def with_all(receiver: SmalltalkClass, items: Any) -> str:
    return "".join(text_of(each) for each in elements(items))


for _name, _text in {"cr": "\r", "lf": "\n", "nl": "\n", "tab": "\t", "crlf": "\r\n", "space": " ", "empty": ""}.items():
    String.class_methods[_name] = lambda receiver, text=_text: text


@SymbolClass.class_method("new", "new:", "with:")
def no_new_symbol(receiver: SmalltalkClass, *arguments: Any) -> Any:
    return signal(Error("Symbols are not made by new", remedy="Write #name, or send asSymbol to a string."))
