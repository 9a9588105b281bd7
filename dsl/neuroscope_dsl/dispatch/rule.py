"""The rule that maps a selector to an operation of a vocabulary class.

- unary `architecture`: the attribute, property or method without arguments of that name;
- keyword `findCircuit: a examples: b`: `find_circuit(a, examples=b)`, the first keyword naming the method; failing that, a
  method whose name is the whole selector, its arguments by position; failing that, `name: value` sets a writable attribute and
  returns the receiver;
- class side: a class method by the same rule, else the constructor when all keywords are its parameters;
  `for: y` is the constructor with `y` first, `new` the constructor without arguments;
- names are compared without underscores and case.

Only operations that `neuroscope.vocabulary.operations` declares are found. The result is an `Invocation`, a `Refusal` (the
operation exists but its arguments do not fit), or None.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from neuroscope.naming import camel_case, fold, snake_case
from neuroscope.vocabulary import Kind, Operation, cached_by_class, operations, python_only_arguments

_KEYWORD_SELECTOR = re.compile(r"(?:[A-Za-z][A-Za-z0-9_]*:)+\Z")
_UNARY_SELECTOR = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class How(Enum):
    """What an invocation does with its receiver."""

    CALL = "call"
    READ = "read"
    WRITE = "write"
    CONSTRUCT = "construct"


@dataclass(frozen=True)
class Invocation:
    """A valid call: the Python name, the number of positional arguments, and the keywords of the others.

    `answers_receiver`: the method is declared to return None, so, like a Smalltalk method without `^`, it answers its receiver.
    """

    how: How
    name: str
    positional: int = 0
    keywords: tuple[str, ...] = ()
    answers_receiver: bool = False


@dataclass(frozen=True)
class Refusal:
    """The operation exists, but not with these arguments. `selectors` are valid ones."""

    reason: str
    selectors: tuple[str, ...]


Found = Invocation | Refusal | None


def keywords_of(selector: str) -> tuple[str, ...] | None:
    """`('findCircuit', 'examples')` for a keyword selector, `()` for a unary one, None for a binary one."""
    if _UNARY_SELECTOR.match(selector):
        return ()
    if _KEYWORD_SELECTOR.match(selector):
        return tuple(selector[:-1].split(":"))
    return None


@cached_by_class
def instance_rule(cls: type, selector: str) -> Found:
    """The operation of `selector` for an instance of the vocabulary class `cls`."""
    names = keywords_of(selector)
    if names is None:
        return None
    declared = operations(cls)
    if not names:
        operation = declared.get(fold(selector))
        if operation is None or (operation.kind is Kind.CLASS_METHOD and not operation.both):
            return None
        if operation.kind in (Kind.METHOD, Kind.CLASS_METHOD):
            return _call(operation, _signature(cls, operation), ())
        return Invocation(How.READ, operation.name)
    operation = declared.get(fold(names[0]))
    found: Found = None
    if operation is not None and (operation.kind is Kind.METHOD or operation.both):
        found = _call(operation, _signature(cls, operation), names)
        if isinstance(found, Invocation):
            return found
    whole = _whole_name(cls, names, Kind.METHOD)
    if whole is not None:
        return whole
    if operation is not None and operation.kind in (Kind.ATTRIBUTE, Kind.PROPERTY) and len(names) == 1:
        if operation.writable:
            return Invocation(How.WRITE, operation.name, positional=1)
        name = camel_case(operation.name)
        return Refusal(f"{name} of a {cls.__name__} can be read, not set", (name,))
    return found


@cached_by_class
def class_rule(cls: type, selector: str) -> Found:
    """The operation of `selector` for the vocabulary class `cls` itself."""
    names = keywords_of(selector)
    if names is None:
        return None
    operation = operations(cls).get(fold(names[0] if names else selector))
    found: Found = None
    if operation is not None and operation.kind is Kind.CLASS_METHOD:
        found = _call(operation, _signature(cls, operation), names)
        if isinstance(found, Invocation):
            return found
    constructed = _constructor(cls, selector, names)
    if isinstance(constructed, Invocation):
        return constructed
    whole = _whole_name(cls, names, Kind.CLASS_METHOD)
    return whole or found or constructed


def _whole_name(cls: type, names: tuple[str, ...], kind: Kind) -> Invocation | None:
    """A method called by the whole selector: `at:put:` finds `at_put(a, b)`."""
    if len(names) < 2:
        return None
    operation = operations(cls).get(fold("".join(names)))
    if operation is None or operation.kind is not kind:
        return None
    signature = _signature(cls, operation)
    try:
        signature.bind(*names)
    except TypeError:
        return None
    return Invocation(How.CALL, operation.name, len(names), (), _returns_nothing(signature))


def _constructor(cls: type, selector: str, names: tuple[str, ...]) -> Found:
    signature = _constructor_signature(cls)
    if signature is None:
        return None
    if selector == "new":
        names = ()
    elif names[:1] == ("for",):
        return _fit(signature, How.CONSTRUCT, "", 1, names[1:], constructor_selectors(cls))
    else:
        unknown = [name for name in names if _parameter(signature, name) is None]
        if len(unknown) == len(names):
            return None
        if unknown:
            return Refusal(f"there is no argument {unknown[0]}:", constructor_selectors(cls))
    return _fit(signature, How.CONSTRUCT, "", 0, names, constructor_selectors(cls))


def _call(operation: Operation, signature: inspect.Signature, names: tuple[str, ...]) -> Invocation | Refusal:
    return _fit(
        signature,
        How.CALL,
        operation.name,
        min(len(names), 1),
        names[1:],
        method_selectors(operation.name, signature),
        answers_receiver=_returns_nothing(signature),
    )


def _fit(
    signature: inspect.Signature,
    how: How,
    name: str,
    positional: int,
    names: Sequence[str],
    selectors: tuple[str, ...],
    *,
    answers_receiver: bool = False,
) -> Invocation | Refusal:
    """Match arguments with parameters, or say which one does not fit."""
    keywords = []
    for keyword in names:
        parameter = _parameter(signature, keyword)
        if parameter is None:
            return Refusal(f"there is no argument {keyword}:", selectors)
        keywords.append(parameter)
    try:
        signature.bind(*[None] * positional, **dict.fromkeys(keywords))
    except TypeError as error:
        return Refusal(_reason(error, keywords), selectors)
    return Invocation(how, name, positional, tuple(keywords), answers_receiver)


def _reason(error: TypeError, keywords: list[str]) -> str:
    text = str(error)
    missing = re.search(r"missing a required (?:keyword-only )?argument: '(\w+)'", text)
    if missing:
        return f"the argument {camel_case(missing.group(1))}: is missing"
    twice = re.search(r"multiple values for argument '(\w+)'", text)
    if twice:
        return f"the argument {camel_case(twice.group(1))} is given twice"
    if len(set(keywords)) < len(keywords):
        return "an argument is given twice"
    return "it takes fewer arguments"


def _parameter(signature: inspect.Signature, keyword: str) -> str | None:
    """The Python parameter that a keyword names."""
    for parameter in signature.parameters.values():
        by_name = parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        if by_name and not parameter.name.startswith("_") and fold(parameter.name) == fold(keyword):
            return parameter.name
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        return snake_case(keyword)
    return None


@cached_by_class
def _signature(cls: type, operation: Operation) -> inspect.Signature:
    """The signature without `self` or `cls`."""
    member = inspect.getattr_static(cls, operation.name)
    function = member.__func__ if isinstance(member, classmethod) else member
    signature = inspect.signature(function)
    hidden = python_only_arguments(function)
    return signature.replace(parameters=[each for each in list(signature.parameters.values())[1:] if each.name not in hidden])


@cached_by_class
def _constructor_signature(cls: type) -> inspect.Signature | None:
    if inspect.isabstract(cls):
        return None
    try:
        return inspect.signature(cls)
    except (TypeError, ValueError):
        return None


def _returns_nothing(signature: inspect.Signature) -> bool:
    return signature.return_annotation in (None, "None", type(None))


# --- which selectors there are --------------------------------------------------------------------------------------


def method_selectors(name: str, signature: inspect.Signature) -> tuple[str, ...]:
    """The selectors of a method: with its required arguments, and with all of them."""
    parameters = [p for p in signature.parameters.values() if not p.name.startswith("_")]
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    camel = camel_case(name)
    rest = [p for p in parameters if p.kind in (*_POSITIONAL[1:], inspect.Parameter.KEYWORD_ONLY) and p not in positional[:1]]
    required = "".join(f"{camel_case(p.name)}:" for p in rest if p.default is p.empty)
    everything = "".join(f"{camel_case(p.name)}:" for p in rest)
    found: dict[str, None] = {}
    if not any(p.default is p.empty and p.kind in (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY) for p in parameters):
        found[camel] = None
    if positional or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        found[f"{camel}:{required}"] = None
        found[f"{camel}:{everything}"] = None
    return tuple(found)


@cached_by_class
def constructor_selectors(cls: type) -> tuple[str, ...]:
    """The selectors that make an instance."""
    signature = _constructor_signature(cls)
    if signature is None:
        return ()
    parameters = [
        p
        for p in signature.parameters.values()
        if p.kind in (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY) and not p.name.startswith("_")
    ]
    required = [p for p in parameters if p.default is p.empty]
    found: dict[str, None] = {}
    if not required:
        found["new"] = None
    if len(required) <= 1 and parameters and parameters[0].kind in _POSITIONAL:
        found["for:"] = None
    for chosen in (required, parameters):
        if chosen:
            found["".join(f"{camel_case(p.name)}:" for p in chosen)] = None
    return tuple(found)


@cached_by_class
def instance_selectors(cls: type) -> tuple[str, ...]:
    """All selectors that instances of a vocabulary class understand, in their usual forms."""
    found: dict[str, None] = {}
    for operation in operations(cls).values():
        if operation.kind is Kind.METHOD or operation.both:
            found.update(dict.fromkeys(method_selectors(operation.name, _signature(cls, operation))))
        elif operation.kind is not Kind.CLASS_METHOD:
            found[camel_case(operation.name)] = None
            if operation.writable:
                found[f"{camel_case(operation.name)}:"] = None
    return tuple(found)


@cached_by_class
def class_selectors(cls: type) -> tuple[str, ...]:
    """All selectors that a vocabulary class itself understands."""
    found: dict[str, None] = {}
    for operation in operations(cls).values():
        if operation.kind is Kind.CLASS_METHOD:
            found.update(dict.fromkeys(method_selectors(operation.name, _signature(cls, operation))))
    found.update(dict.fromkeys(constructor_selectors(cls)))
    return tuple(found)
