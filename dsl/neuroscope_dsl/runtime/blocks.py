"""Messages of blocks, including `on:do:` and `ensure:`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from neuroscope_dsl.runtime.arguments import Items
from neuroscope_dsl.runtime.block import Block
from neuroscope_dsl.runtime.classes import Object, SmalltalkClass, define
from neuroscope_dsl.runtime.exceptions import Error, SmalltalkException
from neuroscope_dsl.runtime.handlers import protect, signal
from neuroscope_dsl.runtime.printing import brief

BlockClosure = define("BlockClosure", Object, Block)


@BlockClosure.method("value")
def value(receiver: Block) -> Any:
    return receiver.function() if receiver.num_args == 0 else signal(receiver.mismatch(0))


@BlockClosure.method("value:")
def value_1(receiver: Block, first: Any) -> Any:
    return receiver.function(first) if receiver.num_args == 1 else signal(receiver.mismatch(1))


@BlockClosure.method("value:value:")
def value_2(receiver: Block, first: Any, second: Any) -> Any:
    return receiver.function(first, second) if receiver.num_args == 2 else signal(receiver.mismatch(2))


@BlockClosure.method("value:value:value:", "value:value:value:value:")
def value_n(receiver: Block, *arguments: Any) -> Any:
    if receiver.num_args != len(arguments):
        return signal(receiver.mismatch(len(arguments)))
    return receiver.function(*arguments)


@BlockClosure.method("valueWithArguments:")
def value_with_arguments(receiver: Block, arguments: Items) -> Any:
    return value_n(receiver, *arguments)


@BlockClosure.method("cull:", "cull:cull:", "cull:cull:cull:")
def cull(receiver: Block, *arguments: Any) -> Any:
    if receiver.num_args > len(arguments):
        return signal(receiver.mismatch(len(arguments)))
    return receiver.function(*arguments[: receiver.num_args])


BlockClosure.methods["numArgs"] = lambda receiver: receiver.num_args
BlockClosure.methods["source"] = lambda receiver: receiver.source


# --- exceptions ---------------------------------------------------------------------------------------------------


class ExceptionSet:
    """`ZeroDivide, KeyNotFound`: several classes of exceptions, for `on:do:`."""

    __slots__ = ("classes",)

    def __init__(self, classes: tuple[SmalltalkClass, ...]) -> None:
        self.classes = classes


ExceptionSetClass = define("ExceptionSet", Object, ExceptionSet)


@ExceptionSetClass.method(",")
def and_also(receiver: ExceptionSet, other: Any) -> ExceptionSet:
    more = other.classes if isinstance(other, ExceptionSet) else (other,)
    return ExceptionSet((*receiver.classes, *more))


def matcher(wanted: Any) -> Callable[[SmalltalkException], bool]:
    """A test of whether an exception is one of those that `on:` names."""
    classes = wanted.classes if isinstance(wanted, ExceptionSet) else (wanted,)
    types: list[type] = []
    for each in classes:
        kind = each.python if isinstance(each, SmalltalkClass) else None
        if kind is not None and issubclass(kind, SmalltalkException):
            types.append(kind)
        else:
            signal(Error(f"{brief(each)} is not a class of exceptions", remedy="on: Error do: [:e | …]"))
    kinds = tuple(types)
    return lambda exception: isinstance(exception, kinds)


@BlockClosure.method("on:do:")
def on_do(d: Any, receiver: Block, wanted: Any, handler: Any) -> Any:
    return protect(lambda: value(receiver), matcher(wanted), lambda exception: d.cull(handler, exception))


@BlockClosure.method("on:do:on:do:")
def on_do_on_do(d: Any, receiver: Block, wanted: Any, handler: Any, other: Any, other_handler: Any) -> Any:
    first, second = matcher(wanted), matcher(other)
    return protect(
        lambda: value(receiver),
        lambda exception: first(exception) or second(exception),
        lambda exception: d.cull(handler if first(exception) else other_handler, exception),
    )


@BlockClosure.method("ensure:")
def ensure(d: Any, receiver: Block, block: Any) -> Any:
    try:
        return value(receiver)
    finally:
        d.value(block)
