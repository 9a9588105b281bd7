"""What exceptions understand, and their classes by name."""

from __future__ import annotations

from typing import Any

from neuroscope_dsl.runtime import exceptions, handlers
from neuroscope_dsl.runtime.blocks import ExceptionSet
from neuroscope_dsl.runtime.classes import LIBRARY, Object, SmalltalkClass, define
from neuroscope_dsl.runtime.exceptions import MessageNotUnderstood, SmalltalkException
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
def new(d: Any, receiver: SmalltalkClass) -> SmalltalkException:
    assert receiver.python is not None
    exception: SmalltalkException = receiver.python()
    if receiver.defined_by_script:
        d.send(exception, "initialize")
    return exception


@ExceptionClass.class_method("signal")
def signal_new(d: Any, receiver: SmalltalkClass) -> Any:
    return d.send(d.send(receiver, "new"), "signal")


@ExceptionClass.class_method("signal:")
def signal_new_text(d: Any, receiver: SmalltalkClass, text: Any) -> Any:
    return d.send(d.send(receiver, "new"), "signal:", text)


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
    if isinstance(receiver, exceptions.Warning) and receiver.handler is None and answer is None:
        d.context.transcript.write(f"{receiver.title}\n")
    return answer


@ExceptionClass.method("signal:")
def signal_text(d: Any, receiver: SmalltalkException, text: Any) -> Any:
    receiver.message_text = display_string(text)
    return d.send(receiver, "signal")


@ExceptionClass.method("messageText:")
def set_message_text(receiver: SmalltalkException, text: Any) -> SmalltalkException:
    receiver.message_text = None if text is None else display_string(text)
    receiver.message = receiver.text
    return receiver


@ExceptionClass.method("messageText")
def message_text(receiver: SmalltalkException) -> str:
    return receiver.text


@ExceptionClass.method("description")
def description(receiver: SmalltalkException) -> str:
    return receiver.title


@ExceptionClass.method("return:")
def return_value(receiver: SmalltalkException, value: Any) -> Any:
    return handlers.return_from(receiver, value)


@ExceptionClass.method("return")
def return_nil(receiver: SmalltalkException) -> Any:
    return handlers.return_from(receiver, None)


@ExceptionClass.method("retry")
def retry(receiver: SmalltalkException) -> Any:
    return handlers.retry(receiver)


@ExceptionClass.method("retryUsing:")
def retry_using(d: Any, receiver: SmalltalkException, block: Any) -> Any:
    return handlers.retry(receiver, lambda: d.value(block))


@ExceptionClass.method("resume:")
def resume_with(receiver: SmalltalkException, value: Any) -> Any:
    return handlers.resume(receiver, value)


@ExceptionClass.method("resume")
def resume(receiver: SmalltalkException) -> Any:
    return handlers.resume(receiver, None)


@ExceptionClass.method("pass")
def pass_on(receiver: SmalltalkException) -> Any:
    return handlers.pass_on(receiver)


@ExceptionClass.method("outer")
def outer(receiver: SmalltalkException) -> Any:
    return handlers.outer(receiver)


@ExceptionClass.method("isResumable")
def is_resumable(receiver: SmalltalkException) -> bool:
    return receiver.resumable


@ExceptionClass.method("position")
def position(receiver: SmalltalkException) -> str | None:
    """`file:line:column` of where it was signalled."""
    return None if receiver.position is None else str(receiver.position)


@ExceptionClass.method("remedy")
def remedy(receiver: SmalltalkException) -> str | None:
    return receiver.remedy


@ExceptionClass.method("code")
def code(receiver: SmalltalkException) -> str:
    return receiver.code


@ExceptionClass.method("className")
def class_name(receiver: SmalltalkException) -> str:
    return receiver.class_name


@ExceptionClass.method("selector")
def selector(receiver: SmalltalkException) -> Any:
    return receiver.sent.selector if isinstance(receiver, MessageNotUnderstood) else None


_MNU = LIBRARY["MessageNotUnderstood"]


@_MNU.method("message")
def message(receiver: MessageNotUnderstood) -> MessageObject:
    return receiver.sent


@_MNU.method("receiver")
def receiver_of(receiver: MessageNotUnderstood) -> Any:
    return receiver.receiver


@LIBRARY["ZeroDivide"].method("dividend")
def dividend(receiver: SmalltalkException) -> Any:
    return receiver.details.get("dividend")


@LIBRARY["KeyNotFound"].method("key")
def key(receiver: SmalltalkException) -> Any:
    return receiver.details.get("key")


@MessageClass.method("selector")
def message_selector(receiver: MessageObject) -> Any:
    return receiver.selector


@MessageClass.method("arguments")
def message_arguments(receiver: MessageObject) -> Any:
    return receiver.arguments
