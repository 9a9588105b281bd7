"""Checks of primitives' arguments, from their annotations.

    @Integer.method("bitAt:")
    def bit_at(receiver: Whole, index: Whole) -> int: ...

`Whole` is an integer (of numpy too), `Size` one from 0 to `MAX_SIZE`, `Real` a number as Python computes with it (a scaled
decimal as its exact value), `Text` a string as Python's, `Items` what can be iterated over (a string's characters, a
dictionary's values), `Block1` and `Block2` a Python function of one and two arguments made from a block or a symbol, `Key` a
hashable value. Other values signal `InvalidArgument`. `Any` is not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn, TypeAlias

from neuroscope_dsl.runtime.accounting import account, gathered
from neuroscope_dsl.runtime.arithmetic import is_number
from neuroscope_dsl.runtime.exceptions import InvalidArgument, NonBooleanReceiver
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.printing import brief
from neuroscope_dsl.runtime.scaled import ScaledDecimal
from neuroscope_dsl.runtime.values import Character, MutableString

Whole: TypeAlias = int
Size: TypeAlias = int
Real: TypeAlias = Any
Text: TypeAlias = str
Items: TypeAlias = Iterable[Any]
Key: TypeAlias = Any
Block1: TypeAlias = Callable[[Any], Any]
Block2: TypeAlias = Callable[[Any, Any], Any]


def wanted(what: str, value: Any) -> NoReturn:
    """Signal that an argument is of the wrong kind."""
    error = InvalidArgument(f"{what} is expected here, not {brief(value)}")
    signal(error)
    raise error  # an error cannot be resumed; if a handler tries, it is raised


def whole(value: Any) -> int:
    if type(value) is int:
        return value
    if hasattr(value, "__index__") and not isinstance(value, bool):
        return int(value)
    wanted("An integer", value)


def size(value: Any) -> int:
    if type(value) is not int or value < 0:
        wanted("A size, an integer from zero,", value)
    account(value)
    return value


def real(value: Any) -> Any:
    if isinstance(value, ScaledDecimal):
        return value.value
    return value if is_number(value) else wanted("A number", value)


def text(value: Any) -> str:
    if type(value) is str:
        return value
    return str(value) if isinstance(value, (str, MutableString)) else wanted("A string", value)


def elements(receiver: Any) -> Iterable[Any]:
    """The elements of a collection in Smalltalk: a string's characters, a dictionary's values, a tensor's units."""
    if isinstance(receiver, list):
        return _growing(receiver)
    if isinstance(receiver, str):
        return map(Character, receiver)
    if isinstance(receiver, Mapping):
        return list(receiver.values())
    if hasattr(type(receiver), "by_unit"):
        return receiver.by_unit
    return receiver if hasattr(receiver, "__iter__") and not isinstance(receiver, type) else wanted("A collection", receiver)


def items_of(receiver: Any) -> list[Any]:
    """The elements of a collection, as a list of its own."""
    return gathered(receiver if isinstance(receiver, (list, range)) or hasattr(receiver, "step") else elements(receiver))


def _growing(items: list[Any]) -> Iterator[Any]:
    """The elements present at the start, so that a body that adds to the collection terminates."""
    for index in range(len(items)):
        if index >= len(items):
            return
        yield items[index]


def key(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        wanted("Something that can be a key", value)
    return value


def truth(value: Any) -> bool:
    """A condition as a Python boolean; accepts numpy's. Signals an error for anything else."""
    if value is True or value is False:
        return value
    kind = type(value)
    if kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"):
        return bool(value)
    answer = signal(
        NonBooleanReceiver(
            f"A condition must be true or false, not {brief(value)}",
            remedy="Compare with something: x > 0, x notNil, x isEmpty not.",
        )
    )
    return answer is True


def instance_of(kind: type | tuple[type, ...], what: str) -> Callable[[Any], Any]:
    """A check for instances of a class; `what` names them in the error."""
    return lambda value: value if isinstance(value, kind) else wanted(what, value)


#: Annotation → its check: a function that returns the value to use, or the number of a block's arguments.
CHECKS: dict[str, Callable[[Any], Any] | int] = {
    "Whole": whole,
    "Size": size,
    "Real": real,
    "Text": text,
    "Items": elements,
    "Key": key,
    "Block1": 1,
    "Block2": 2,
    "Character": instance_of(Character, "A character"),
}


def checked(function: Callable[..., Any], dispatcher: Any) -> Callable[..., Any]:
    """A primitive bound to a workspace: with its dispatcher, if it takes one, and with checked arguments."""
    maker = getattr(function, "checking", None)
    if maker is None:
        maker = function.checking = _maker(function)  # type: ignore[attr-defined]
    return maker(function, dispatcher)


def _maker(function: Callable[..., Any]) -> Callable[..., Any]:
    """Generate, for each primitive, a function of (primitive, dispatcher) that returns the checking function."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    rest = code.co_varnames[code.co_argcount] if code.co_flags & 0x04 else ""
    checks = {name: CHECKS[kind] for name, kind in function.__annotations__.items() if kind in CHECKS and name in names}
    parameters = [name for name in names if name != "d"] + ([f"*{rest}"] if rest else [])
    if not checks and names[:1] != ("d",):
        return lambda function, d: function
    given = [
        name if name == "d" or name not in checks
        else f"d_function({name}, {checks[name]})" if isinstance(checks[name], int)
        else f"check_{name}({name})"
        for name in names
    ] + ([f"*{rest}"] if rest else [])  # fmt: skip
    lines = [
        "def make(primitive, d):",
        "    d_function = d.function",
        f"    def call({', '.join(parameters)}):",
        f"        return primitive({', '.join(given)})",
        "    return call",
    ]
    namespace: dict[str, Any] = {f"check_{name}": check for name, check in checks.items()}
    exec("\n".join(lines), namespace)
    made: Callable[..., Any] = namespace["make"]
    return made
