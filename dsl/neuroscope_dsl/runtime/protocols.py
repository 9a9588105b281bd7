"""The abstract classes of collections, and the protocols of other objects by their Python methods.

An object of the vocabulary that can be iterated over answers `Collection`'s messages; one that can be subscripted answers
`at:` and `at:put:` with the index passed on unchanged; one that can be called is a block; operators go to Python's.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sized
from typing import Any

from neuroscope_dsl.runtime.arithmetic import comparison, equal
from neuroscope_dsl.runtime.classes import Object, SmalltalkClass, define
from neuroscope_dsl.runtime.exceptions import Error, KeyNotFound
from neuroscope_dsl.runtime.handlers import adopt, signal
from neuroscope_dsl.runtime.naming import class_name

Collection = define("Collection", Object)
SequenceableCollection = define("SequenceableCollection", Collection)
ArrayedCollection = define("ArrayedCollection", SequenceableCollection)

#: Foreign Python objects: neither the runtime's nor the vocabulary's.
Foreign = SmalltalkClass("Foreign", Object, object)

#: The protocol of iterables: the methods of `Collection`.
Iteration = SmalltalkClass("Iteration", None)
Iteration.methods = Collection.methods

Indexable = SmalltalkClass("Indexable", None)
Evaluable = SmalltalkClass("Evaluable", None)
Measurable = SmalltalkClass("Measurable", None)
Comparable = SmalltalkClass("Comparable", None)


@Measurable.method("size")
def measured_size(receiver: Sized) -> int:
    return len(receiver)


@Indexable.method("at:")
def subscript(receiver: Any, index: Any) -> Any:
    try:
        return receiver[index]
    except (LookupError, TypeError) as error:
        return _no_such_index(receiver, index, error)
    except Exception as error:
        return _library_error(error)


@Indexable.method("at:put:")
def subscript_put(receiver: Any, index: Any, value: Any) -> Any:
    try:
        receiver[index] = value
    except (LookupError, TypeError) as error:
        return _no_such_index(receiver, index, error)
    except Exception as error:
        return _library_error(error)
    return value


@Indexable.method("at:ifAbsent:")
def subscript_if_absent(d: Any, receiver: Any, index: Any, block: Any) -> Any:
    try:
        return receiver[index]
    except Exception:  # each library class has its own error for a missing key
        return d.value(block)


@Indexable.method("at:ifPresent:")
def subscript_if_present(d: Any, receiver: Any, index: Any, block: Any) -> Any:
    try:
        value = receiver[index]
    except LookupError:
        return None
    except Exception as error:
        return _library_error(error)
    return d.cull(block, value)


@Indexable.method("includesKey:")
def subscript_includes(receiver: Any, key: Any) -> bool:
    try:
        return key in receiver
    except TypeError:
        return False


def _evaluate(receiver: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return receiver(*arguments)
    except Exception as error:
        return _library_error(error)


def _cull(d: Any, receiver: Callable[..., Any], *arguments: Any) -> Any:
    return d.cull(receiver, *arguments)


for _selector in ("value", "value:", "value:value:", "value:value:value:"):
    Evaluable.method(_selector)(_evaluate)
for _selector in ("cull:", "cull:cull:"):
    Evaluable.method(_selector)(_cull)


def _no_such_index(receiver: Any, index: Any, error: Exception) -> Any:
    refusal = KeyNotFound(f"{class_name(receiver)} has nothing at {index!r}: {error}", key=index)
    refusal.__cause__ = error
    return signal(refusal)


def _library_error(error: Exception) -> Any:
    adopted = adopt(error)
    if adopted is None:
        raise error
    return signal(adopted)


def _operator(selector: str, function: Callable[[Any, Any], Any]) -> None:
    @Comparable.method(selector)
    def operate(receiver: Any, argument: Any) -> Any:
        try:
            return function(receiver, argument)
        except TypeError as error:
            refusal = Error(f"{class_name(receiver)} #{selector} cannot take {class_name(argument)}: {error}")
            refusal.__cause__ = error
            return signal(refusal)
        except Exception as error:
            return _library_error(error)


for _selector, _function in {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "\\\\": operator.mod,
}.items():
    _operator(_selector, _function)

for _selector, _function in {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}.items():
    Comparable.methods[_selector] = comparison(_selector, _function)

Comparable.method("=")(equal)
