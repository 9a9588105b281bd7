"""Messages of exceptions, and their classes by name."""

from __future__ import annotations

from typing import Any

from neuroscope_dsl.runtime import exceptions, handlers
from neuroscope_dsl.runtime.blocks import ExceptionSet
from neuroscope_dsl.runtime.classes import LIBRARY, Object, SmalltalkClass, define
from neuroscope_dsl.runtime.exceptions import SmalltalkException
from neuroscope_dsl.runtime.printing import display_string
from neuroscope_dsl.runtime.values import MessageObject

ExceptionClass = define("Exception", Object, SmalltalkException)
MessageClass = define("Message", Object, MessageObject)


def _define(python: type[SmalltalkException]) -> None:
    for base in python.__mro__[1:]:
        if base is SmalltalkException:
            above = ExceptionClass
            break
        if issubclass(base, SmalltalkException):
            if base.smalltalk_name not in LIBRARY:
                _define(base)
            above = LIBRARY[base.smalltalk_name]
            break
    if python.smalltalk_name not in LIBRARY:
        define(python.smalltalk_name, above, python)


for _value in list(vars(exceptions).values()):
    if isinstance(_value, type) and issubclass(_value, SmalltalkException) and _value is not SmalltalkException:
        _define(_value)


@ExceptionClass.class_method("new")
def new(d: Any, receiver: SmalltalkClass) -> Any:
    exception = d.send(receiver, "basicNew")
    if receiver.defined_by_script:
        d.send(exception, "initialize")
    return exception


@ExceptionClass.class_method(",")
def and_also(receiver: SmalltalkClass, other: Any) -> ExceptionSet:
    more = other.classes if isinstance(other, ExceptionSet) else (other,)
    return ExceptionSet((receiver, *more))


@ExceptionClass.method("signal")
def signal(d: Any, receiver: SmalltalkException) -> Any:
    receiver.unhandled = False
    given = d.script_method(d.class_of(receiver), "messageText")
    if given is not None:
        receiver.message_text = display_string(given(receiver))
    is_resumable = d.script_method(d.class_of(receiver), "isResumable")
    if is_resumable is not None:
        receiver.resumable = is_resumable(receiver) is True
    receiver.message = receiver.text
    answer = handlers.signal(receiver)
    if isinstance(receiver, exceptions.Warning) and receiver.unhandled:
        d.context.transcript.write(f"{receiver.title}\n")
    return answer


@ExceptionClass.method("messageText:")
def set_message_text(receiver: SmalltalkException, text: Any) -> SmalltalkException:
    receiver.message_text = None if text is None else display_string(text)
    receiver.message = receiver.text
    return receiver


ExceptionClass.methods |= {
    "messageText": lambda receiver: receiver.text,
    "description": lambda receiver: receiver.title,
    "isResumable": lambda receiver: receiver.resumable,
    "remedy": lambda receiver: receiver.remedy,
    "code": lambda receiver: receiver.code,
    "className": lambda receiver: receiver.class_name,
    "return:": handlers.return_from,
    "retry": lambda receiver: handlers.retry(receiver),
    "resume:": handlers.resume,
    "pass": handlers.pass_on,
    "outer": handlers.outer,
}
LIBRARY["MessageNotUnderstood"].methods |= {
    "message": lambda receiver: receiver.sent,
    "receiver": lambda receiver: receiver.receiver,
}
LIBRARY["ZeroDivide"].methods["dividend"] = lambda receiver: receiver.details.get("dividend")
LIBRARY["KeyNotFound"].methods["key"] = lambda receiver: receiver.details.get("key")
MessageClass.methods |= {"selector": lambda receiver: receiver.selector, "arguments": lambda receiver: receiver.arguments}


@ExceptionClass.method("retryUsing:")
def retry_using(d: Any, receiver: SmalltalkException, block: Any) -> Any:
    return handlers.retry(receiver, lambda: d.value(block))


@ExceptionClass.method("position")
def position(receiver: SmalltalkException) -> str | None:
    """`file:line:column` of the signal."""
    return None if receiver.position is None else str(receiver.position)
