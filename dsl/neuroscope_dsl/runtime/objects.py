"""What every object understands, and booleans and nil."""

from __future__ import annotations

import copy
from typing import Any

from neuroscope_dsl.runtime.arithmetic import equal, identical
from neuroscope_dsl.runtime.classes import Boolean, Object, SmalltalkClass, UndefinedObject, article
from neuroscope_dsl.runtime.exceptions import AssertionFailure, Error, Halt, NonBooleanReceiver, SubclassResponsibility
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.naming import class_name
from neuroscope_dsl.runtime.printing import display_string, print_string
from neuroscope_dsl.runtime.values import Association, SmalltalkObject

Object.method("=")(equal)
Object.method("==")(identical)


@Object.method("~=")
def not_equal(d: Any, receiver: Any, other: Any) -> Any:
    answer = d.send(receiver, "=", other)
    return not answer if isinstance(answer, bool) else receiver != other


@Object.method("~~")
def not_identical(receiver: Any, other: Any) -> bool:
    return not identical(receiver, other)


@Object.method("hash", "identityHash")
def hash_of(receiver: Any) -> int:
    try:
        return hash(receiver)
    except TypeError:
        return id(receiver) >> 4


@Object.method("class")
def class_of(d: Any, receiver: Any) -> SmalltalkClass:
    return d.class_of(receiver)


@Object.method("yourself", "value")
def yourself(receiver: Any) -> Any:
    return receiver


@Object.method("initialize")
def initialize(receiver: Any) -> Any:
    return receiver


@Object.method("copy", "shallowCopy")
def shallow_copy(d: Any, receiver: Any) -> Any:
    if receiver is None or isinstance(receiver, (bool, int, float, str, SmalltalkClass)):
        return receiver
    duplicate = copy.copy(receiver)
    if isinstance(duplicate, SmalltalkObject):
        d.send(duplicate, "postCopy")
    return duplicate


@Object.method("postCopy")
def post_copy(receiver: Any) -> Any:
    return receiver


@Object.method("deepCopy", "veryDeepCopy")
def deep_copy(receiver: Any) -> Any:
    return receiver if isinstance(receiver, SmalltalkClass) else copy.deepcopy(receiver)


@Object.method("isNil")
def is_nil(receiver: Any) -> bool:
    return receiver is None


@Object.method("notNil", "isNotNil")
def not_nil(receiver: Any) -> bool:
    return receiver is not None


def _answer_false(*selectors: str) -> None:
    for selector in selectors:
        Object.methods[selector] = lambda receiver: False


_answer_false(
    "isString", "isSymbol", "isNumber", "isInteger", "isFloat", "isFraction", "isCharacter", "isArray", "isCollection",
    "isDictionary", "isSequenceable", "isBoolean", "isBlock", "isClass", "isInterval", "isStream",
)  # fmt: skip


@Object.method("->")
def associate(receiver: Any, value: Any) -> Association:
    return Association(receiver, value)


# --- printing -----------------------------------------------------------------------------------------------------


@Object.method("printString")
def object_print_string(d: Any, receiver: Any) -> str:
    """Through `printOn:` where the script defined one."""
    owner = d.class_of_type(type(receiver))
    if d.script_method(owner, "printOn:") is not None:
        stream = d.class_named("WriteStream").python("")
        d.send(receiver, "printOn:", stream)
        return str(stream.contents())
    return print_string(receiver)


@Object.method("displayString")
def object_display_string(d: Any, receiver: Any) -> str:
    if d.script_method(d.class_of_type(type(receiver)), "printOn:") is not None:
        return str(d.send(receiver, "printString"))
    return display_string(receiver)


@Object.method("printOn:")
def print_on(receiver: Any, stream: Any) -> Any:
    text = article(class_name(receiver)) if isinstance(receiver, SmalltalkObject) else print_string(receiver)
    stream.put_all(text)
    return receiver


@Object.method("displayOn:", "storeOn:")
def display_on(d: Any, receiver: Any, stream: Any) -> Any:
    stream.put_all(d.send(receiver, "displayString"))
    return receiver


@Object.method("storeString")
def store_string(d: Any, receiver: Any) -> Any:
    return d.send(receiver, "printString")


@Object.method("printNl")
def print_nl(d: Any, receiver: Any) -> Any:
    d.context.transcript.write(f"{d.send(receiver, 'printString')}\n")
    return receiver


@Object.method("displayNl")
def display_nl(d: Any, receiver: Any) -> Any:
    d.context.transcript.write(f"{d.send(receiver, 'displayString')}\n")
    return receiver


@Object.method("printString:")
def print_string_radix(d: Any, receiver: Any, base: Any) -> Any:
    return d.send(receiver, "printString")


# --- asking and sending -------------------------------------------------------------------------------------------


@Object.method("respondsTo:")
def responds_to(d: Any, receiver: Any, selector: Any) -> bool:
    return isinstance(selector, str) and bool(d.understands(receiver, str(selector)))


@Object.method("isKindOf:")
def is_kind_of(d: Any, receiver: Any, other: Any) -> bool:
    if not isinstance(other, SmalltalkClass):
        return False
    python = other.python
    if d.class_of(receiver).inherits_from(other):
        return True
    return other.vocabulary and python is not None and isinstance(receiver, python)


@Object.method("isMemberOf:")
def is_member_of(d: Any, receiver: Any, other: Any) -> bool:
    return d.class_of(receiver) is other


@Object.method("perform:")
def perform(d: Any, receiver: Any, selector: Any) -> Any:
    return d.send(receiver, _selector(selector))


@Object.method("perform:with:")
def perform_1(d: Any, receiver: Any, selector: Any, first: Any) -> Any:
    return d.send(receiver, _selector(selector), first)


@Object.method("perform:with:with:")
def perform_2(d: Any, receiver: Any, selector: Any, first: Any, second: Any) -> Any:
    return d.send(receiver, _selector(selector), first, second)


@Object.method("perform:with:with:with:")
def perform_3(d: Any, receiver: Any, selector: Any, first: Any, second: Any, third: Any) -> Any:
    return d.send(receiver, _selector(selector), first, second, third)


@Object.method("perform:withArguments:")
def perform_with(d: Any, receiver: Any, selector: Any, arguments: Any) -> Any:
    return d.send(receiver, _selector(selector), *arguments)


def _selector(value: Any) -> str:
    if not isinstance(value, str):
        raise Error(f"{print_string(value)} is no selector", remedy="A selector is a symbol: #foo or #at:put:.")
    return str(value)


# --- errors -------------------------------------------------------------------------------------------------------


@Object.method("error:")
def error(receiver: Any, text: Any) -> Any:
    return signal(Error(display_string(text)))


@Object.method("halt")
def halt(receiver: Any) -> Any:
    return signal(Halt())


@Object.method("halt:")
def halt_with(receiver: Any, text: Any) -> Any:
    return signal(Halt(display_string(text)))


@Object.method("subclassResponsibility")
def subclass_responsibility(receiver: Any) -> Any:
    return signal(SubclassResponsibility("This method is a subclass's responsibility"))


@Object.method("shouldNotImplement")
def should_not_implement(receiver: Any) -> Any:
    return signal(Error("This message should not be sent to this object"))


@Object.method("assert:")
def assert_that(d: Any, receiver: Any, condition: Any) -> Any:
    if d.value(condition) is not True:
        signal(AssertionFailure("Assertion failed"))
    return receiver


@Object.method("assert:description:")
def assert_described(d: Any, receiver: Any, condition: Any, text: Any) -> Any:
    if d.value(condition) is not True:
        signal(AssertionFailure(display_string(d.value(text))))
    return receiver


@Object.method("deny:")
def deny(d: Any, receiver: Any, condition: Any) -> Any:
    if d.value(condition) is not False:
        signal(AssertionFailure("Assertion failed"))
    return receiver


@Object.method("assert:equals:")
def assert_equals(d: Any, receiver: Any, found: Any, expected: Any) -> Any:
    if d.send(found, "=", expected) is not True:
        signal(AssertionFailure(f"Got {print_string(found)} instead of {print_string(expected)}."))
    return receiver


# --- conditionals that the compiler did not flatten ---------------------------------------------------------------


@Object.method("ifNil:")
def if_nil(d: Any, receiver: Any, block: Any) -> Any:
    return d.value(block) if receiver is None else receiver


@Object.method("ifNotNil:")
def if_not_nil(d: Any, receiver: Any, block: Any) -> Any:
    return None if receiver is None else d.cull(block, receiver)


@Object.method("ifNil:ifNotNil:")
def if_nil_if_not_nil(d: Any, receiver: Any, nil_block: Any, block: Any) -> Any:
    return d.value(nil_block) if receiver is None else d.cull(block, receiver)


@Object.method("ifNotNil:ifNil:")
def if_not_nil_if_nil(d: Any, receiver: Any, block: Any, nil_block: Any) -> Any:
    return d.value(nil_block) if receiver is None else d.cull(block, receiver)


def truth(value: Any) -> bool:
    """The boolean that a condition stands for; numpy's booleans count. Anything else is an error."""
    if value is True or value is False:
        return value
    kind = type(value)
    if kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"):
        return bool(value)
    answer = signal(
        NonBooleanReceiver(
            f"A condition must be true or false, not {print_string(value)[:60]}",
            remedy="Compare with something: x > 0, x notNil, x isEmpty not.",
        )
    )
    return answer is True


@Object.method("ifTrue:", "ifFalse:", "ifTrue:ifFalse:", "ifFalse:ifTrue:", "and:", "or:")
def not_boolean(receiver: Any, *blocks: Any) -> Any:
    truth(receiver)


@Boolean.method("ifTrue:")
def if_true(d: Any, receiver: bool, block: Any) -> Any:
    return d.value(block) if receiver else None


@Boolean.method("ifFalse:")
def if_false(d: Any, receiver: bool, block: Any) -> Any:
    return None if receiver else d.value(block)


@Boolean.method("ifTrue:ifFalse:")
def if_true_if_false(d: Any, receiver: bool, then: Any, otherwise: Any) -> Any:
    return d.value(then if receiver else otherwise)


@Boolean.method("ifFalse:ifTrue:")
def if_false_if_true(d: Any, receiver: bool, otherwise: Any, then: Any) -> Any:
    return d.value(then if receiver else otherwise)


@Boolean.method("and:")
def and_(d: Any, receiver: bool, block: Any) -> Any:
    return d.value(block) if receiver else False


@Boolean.method("or:")
def or_(d: Any, receiver: bool, block: Any) -> Any:
    return True if receiver else d.value(block)


@Boolean.method("&")
def both(d: Any, receiver: bool, other: Any) -> Any:
    return d.value(other) if receiver else False


@Boolean.method("|")
def either(d: Any, receiver: bool, other: Any) -> Any:
    return True if receiver else d.value(other)


@Boolean.method("xor:")
def exclusive_or(d: Any, receiver: bool, other: Any) -> bool:
    return receiver is not truth(d.value(other))


@Boolean.method("not")
def negation(receiver: bool) -> bool:
    return not receiver


@Boolean.method("isBoolean")
def is_boolean(receiver: bool) -> bool:
    return True


@Boolean.method("asBit")
def as_bit(receiver: bool) -> int:
    return int(receiver)


@Boolean.method("asString")
def boolean_as_string(receiver: bool) -> str:
    return "true" if receiver else "false"


@UndefinedObject.method("isEmptyOrNil")
def nil_is_empty(receiver: None) -> bool:
    return True


@Object.method("asString")
def as_string(d: Any, receiver: Any) -> Any:
    return d.send(receiver, "displayString")


@Object.method("inspect")
def inspect(d: Any, receiver: Any) -> Any:
    return print_nl(d, receiver)
