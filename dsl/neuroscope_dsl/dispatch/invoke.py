"""Compiles an `Invocation` to a small Python function, so that a message to a vocabulary object costs little more than the
call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import CodeType
from typing import Any

from neuroscope_dsl.dispatch.rule import How, Invocation
from neuroscope_dsl.runtime.classes import SmalltalkClass
from neuroscope_dsl.runtime.exceptions import SmalltalkException
from neuroscope_dsl.runtime.handlers import adopt, signal
from neuroscope_dsl.runtime.values import Character, MutableString


def callable_for(invocation: Invocation, target: type | None = None) -> Callable[..., Any]:
    """A function `(receiver, *arguments)`. `target` is the Python class for messages to the class side."""
    namespace: dict[str, Any] = {"x": export, "failed": failed, "target": target}
    exec(_code(invocation, target is not None), namespace)
    return namespace["invoke"]


@lru_cache(maxsize=4096)
def _code(invocation: Invocation, on_class: bool) -> CodeType:
    count = invocation.positional + len(invocation.keywords)
    values = [f"a{index}" for index in range(count)]
    arguments = ", ".join(
        [f"x({value})" for value in values[: invocation.positional]]
        + [f"{key}=x({value})" for key, value in zip(invocation.keywords, values[invocation.positional :], strict=True)]
    )
    place = "target" if on_class else "receiver"
    name = invocation.name
    assert invocation.how is How.CONSTRUCT or (name.isidentifier() and not name.startswith("_"))
    assert all(keyword.isidentifier() for keyword in invocation.keywords)
    match invocation.how:
        case How.READ:
            body = [f"return {place}.{name}"]
        case How.WRITE:
            body = [f"{place}.{name} = x(a0)", "return receiver"]
        case How.CONSTRUCT:
            body = [f"return target({arguments})"]
        case How.CALL if invocation.answers_receiver:
            body = [f"{place}.{name}({arguments})", "return receiver"]
        case How.CALL:
            body = [f"return {place}.{name}({arguments})"]
    lines = "\n".join(f"        {line}" for line in body)
    parameters = ", ".join(["receiver", *values])
    # Errors of the library are signalled to the script's handlers here, where they can be resumed.
    text = f"def invoke({parameters}):\n    try:\n{lines}\n    except Exception as error:\n        return failed(error)\n"
    return compile(text, f"<message {name or 'new'}>", "exec", dont_inherit=True)


def export(value: Any) -> Any:
    """A Smalltalk value as a Python value; most already are."""
    convert = _EXPORTS.get(type(value))
    return value if convert is None else convert(value)


_EXPORTS: dict[type, Callable[[Any], Any]] = {
    SmalltalkClass: lambda value: value.python if value.vocabulary else value,
    Character: str,
    MutableString: str,
}


def failed(error: Exception) -> Any:
    """Signal an exception from Python code as a Smalltalk exception.

    Exceptions that the script signalled, and those that no script may catch, are passed on.
    """
    if isinstance(error, SmalltalkException) and error.unhandled:
        raise error
    adopted = adopt(error)
    if adopted is None:
        raise error
    return signal(adopted)
