"""Primitive messages of all objects."""

from __future__ import annotations

import copy
from typing import Any

from neuroscope_dsl.runtime.arguments import elements, truth
from neuroscope_dsl.runtime.arithmetic import equal, identical
from neuroscope_dsl.runtime.classes import Object, SmalltalkClass, article
from neuroscope_dsl.runtime.exceptions import Error, InvalidArgument
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.naming import class_name
from neuroscope_dsl.runtime.printing import brief, display_string, print_string
from neuroscope_dsl.runtime.streams import Stream, WriteStream
from neuroscope_dsl.runtime.transcript import Transcript
from neuroscope_dsl.runtime.values import SmalltalkObject

Object.method("=")(equal)
Object.method("==")(identical)


@Object.method("~=")
def not_equal(d: Any, receiver: Any, other: Any) -> Any:
    answer = d.send(receiver, "=", other)
    return not answer if isinstance(answer, bool) else receiver != other


@Object.method("hash", "identityHash")
def hash_of(receiver: Any) -> int:
    try:
        return hash(receiver)
    except TypeError:
        return id(receiver) >> 4


Object.methods["class"] = lambda d, receiver: d.class_of(receiver)
Object.methods["isMemberOf:"] = lambda d, receiver, other: d.class_of(receiver) is other


@Object.method("copy", "shallowCopy")
def shallow_copy(d: Any, receiver: Any) -> Any:
    duplicate = _copied(copy.copy, receiver)
    if isinstance(duplicate, SmalltalkObject):
        d.send(duplicate, "postCopy")
    return duplicate


@Object.method("deepCopy", "veryDeepCopy")
def deep_copy(receiver: Any) -> Any:
    return _copied(copy.deepcopy, receiver)


def _copied(how: Any, receiver: Any) -> Any:
    if receiver is None or isinstance(receiver, (bool, int, float, str, SmalltalkClass)):
        return receiver
    try:
        return how(receiver)
    except TypeError as error:  # Python cannot copy files, generators, locks
        return signal(Error(f"{article(class_name(receiver))} cannot be copied: {error}"))


@Object.method("printString")
def object_print_string(d: Any, receiver: Any) -> str:
    """Uses `printOn:` if the script defined one."""
    if d.script_method(d.class_of_type(type(receiver)), "printOn:") is None:
        return print_string(receiver)
    stream = WriteStream()
    d.send(receiver, "printOn:", stream)
    return str(stream.contents())


@Object.method("displayString")
def object_display_string(d: Any, receiver: Any) -> str:
    if d.script_method(d.class_of_type(type(receiver)), "printOn:") is not None:
        return str(d.send(receiver, "printString"))
    return display_string(receiver)


@Object.method("printOn:")
def print_on(receiver: Any, stream: Any) -> Any:
    if not isinstance(stream, (Stream, Transcript)):
        return signal(InvalidArgument(f"printOn: takes a stream, not {brief(stream)}"))
    stream.put_all(article(class_name(receiver)) if isinstance(receiver, SmalltalkObject) else print_string(receiver))
    return receiver


@Object.method("respondsTo:")
def responds_to(d: Any, receiver: Any, selector: Any) -> bool:
    return isinstance(selector, str) and bool(d.understands(receiver, str(selector)))


@Object.method("isKindOf:")
def is_kind_of(d: Any, receiver: Any, other: Any) -> bool:
    if not isinstance(other, SmalltalkClass):
        return False
    if d.class_of(receiver).inherits_from(other):
        return True
    return other.vocabulary and other.python is not None and isinstance(receiver, other.python)


@Object.method("perform:", "perform:with:", "perform:with:with:", "perform:with:with:with:")
def perform(d: Any, receiver: Any, selector: Any, *arguments: Any) -> Any:
    if not isinstance(selector, str):
        error = Error(f"{brief(selector)} is not a selector", remedy="A selector is a symbol: #foo or #at:put:.")
        return signal(error)
    return d.send(receiver, str(selector), *arguments)


@Object.method("perform:withArguments:")
def perform_with(d: Any, receiver: Any, selector: Any, arguments: Any) -> Any:
    return perform(d, receiver, selector, *elements(arguments))


def _not_boolean(receiver: Any, *blocks: Any) -> Any:
    truth(receiver)


for _selector in ("ifTrue:", "ifFalse:", "ifTrue:ifFalse:", "ifFalse:ifTrue:", "and:", "or:"):
    Object.method(_selector)(_not_boolean)
