"""Every message of the class library, sent with arguments of the wrong kinds: only Smalltalk's errors come out."""

from __future__ import annotations

import inspect
import itertools
import random
from functools import cache
from typing import Any

import pytest

from neuroscope_dsl import Limits, SmalltalkError, Workspace
from neuroscope_dsl.dispatch.dispatcher import argument_count
from neuroscope_dsl.errors import ScriptStopped
from neuroscope_dsl.prelude import PreludeMethod, definitions
from neuroscope_dsl.runtime.block import Block
from neuroscope_dsl.runtime.classes import LIBRARY
from neuroscope_dsl.runtime.exceptions import LibraryError, SmalltalkException
from neuroscope_dsl.runtime.library import CLASSES

#: Messages that do not come back, or wait.
ENDLESS = {"repeat", "bench", "whileTrue", "whileFalse", "whileTrue:", "whileFalse:", "retry", "retryUsing:"}

#: Messages that count as far as they are told, and arguments that are too far.
COUNTING = {"timesRepeat:", "to:do:", "to:by:do:", "to:collect:", "add:withOccurrences:", "next:", "next:put:", "next:putAll:", "tab:",
            "space:", "removeFirst:", "removeLast:", "from:to:do:", "repeat:", "new:withAll:", "streamContents:"}  # fmt: skip
_ONE_OF_MANY = "subclass:instanceVariableNames:classVariableNames:package:"
FAR = {"(10 raisedTo: 30)", "Float infinity"}

#: Receivers by class, as a script writes them; a class that is not listed takes those of the nearest class above it.
RECEIVERS = {
    "Object": ["Object new", "nil"],
    "Boolean": ["true", "false"],
    "UndefinedObject": ["nil"],
    "Class": ["Object", "Array", "OrderedCollection", "TransformerModel", "Error"],
    "Metaclass": ["Object class", "TransformerModel class"],
    "Magnitude": ["3", "2.5", "$a"],
    "Number": ["3", "-7", "0", "2.5", "(1/3)", "1.5s2", "Float nan", "Float infinity", "0.0"],
    "Integer": ["3", "-7", "0", "40", "(10 raisedTo: 30)"],
    "Float": ["2.5", "Float nan", "Float infinity negated"],
    "Fraction": ["(-1/3)"],
    "ScaledDecimal": ["3.14s2"],
    "Random": ["(Random seed: 1)"],
    "Collection": ["#(3 1 2)", "(Set with: 3)", "(Bag with: 3)", "(Dictionary new at: #a put: 1; yourself)", "(1 to: 3)", "'abc'"],
    "Set": ["(Set with: 3 with: nil)", "Set new"],
    "IdentitySet": ["(IdentitySet with: 3)"],
    "Bag": ["(Bag with: 3 with: 3)", "Bag new"],
    "Dictionary": ["(Dictionary new at: #a put: 1; yourself)", "Dictionary new"],
    "Association": ["(1 -> 2)"],
    "SequenceableCollection": ["#(3 1 2)", "#()", "(OrderedCollection with: 3)", "(1 to: 3)", "'abc'", "#[1 2]"],
    "Array": ["#(3 1 2)", "{nil. 'x'}"],
    "ByteArray": ["#[1 2]"],
    "Interval": ["(1 to: 3)", "(1/2 to: 3)"],
    "OrderedCollection": ["(OrderedCollection with: 3 with: 'x')", "OrderedCollection new"],
    "SortedCollection": ["(SortedCollection withAll: #(3 1))", "(SortedCollection sortBlock: [:a :b | a foo])"],
    "String": ["'abc'", "''", "'12'", "(String new: 2)"],
    "Symbol": ["#size", "#+", "#at:put:"],
    "Character": ["$a", "$7"],
    "Point": ["(3 @ 4)", "('x' @ nil)"],
    "PositionableStream": ["(ReadStream on: #(1 2))", "(WriteStream on: '')", "(ReadWriteStream with: 'abc')", "(WriteStream on: #[1])"],
    "TranscriptStream": ["Transcript"],
    "Stream": ["(WriteStream on: '')", "Transcript"],
    "Date": ["(Date year: 2024 month: 2 day: 29)", "(Date year: 9999 month: 12 day: 31)"],
    "Time": ["(Time hour: 1 minute: 2 second: 3)"],
    "DateAndTime": ["(DateAndTime year: 2024 month: 2 day: 29 hour: 1 minute: 2 second: 3)"],
    "Duration": ["(Duration seconds: 90)", "Duration zero"],
    "BlockClosure": ["[1]", "[:x | x]", "[:a :b | a]"],
    "ExceptionSet": ["(Error, ZeroDivide)"],
    "Exception": ["Error new", "Warning new", "Notification new", "(Error new messageText: 'x')"],
    "MessageNotUnderstood": ["MessageNotUnderstood new"],
    "Message": ["([nil foo: 1] on: Error do: [:e | e message])"],
    "SystemDictionary": ["Smalltalk"],
    "FluidClassBuilder": ["(Object << #Fuzzed)"],
    "Context": ["thisContext"],
}  # fmt: skip

ARGUMENTS = [
    "nil", "true", "3", "0", "-1", "1000", "(10 raisedTo: 30)", "2.5", "Float nan", "Float infinity", "(1/3)", "1.5s2", "'x'", "''",
    "'a b c'", "#foo", "#at:put:", "$a", "#()", "#(1 2 3)", "{nil. 'x'. $a}", "#[1 2]", "OrderedCollection new", "(Set with: 3)",
    "(Dictionary new at: #a put: 1; yourself)", "(1 to: 3)", "(1 -> 2)", "(3 @ 4)", "[1]", "[:x | x]", "[:a :b | a]", "[:a | a foo]",
    "Object new", "Object", "Error", "Error new", "(ReadStream on: 'abc')", "Transcript", "Smalltalk", "(Duration seconds: 3)",
    "(Date year: 2024 month: 2 day: 29)", "(Random seed: 3)",
]  # fmt: skip


def _receivers(name: str) -> list[str]:
    return next(RECEIVERS[owner.name] for owner in LIBRARY[name].ancestors() if owner.name in RECEIVERS)


@pytest.fixture(scope="module")
def workspace() -> Workspace:
    return Workspace(transcript=lambda text: None, limits=Limits(time=60))


@cache
def _maker(workspace: Workspace, text: str) -> Block:
    """A block that makes the value anew each time: a message may change it."""
    return workspace.block(f"[{text}]")


def _leak(workspace: Workspace, receiver: str, selector: str, arguments: tuple[str, ...]) -> str | None:
    """What went wrong other than in Smalltalk's own way, if anything did."""
    try:
        value = _maker(workspace, receiver)()
        given = [_maker(workspace, text)() for text in arguments]
        workspace.print_string(workspace.send(value, selector, *given))
    except LibraryError as error:
        return f"{error.title} (by way of {type(error.__cause__).__name__})"
    except (SmalltalkException, ScriptStopped):
        return None
    except SmalltalkError as error:
        return f"{type(error).__name__}: {error.title}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _argument_lists(selector: str, seed: str, *, primitive: bool) -> list[tuple[str, ...]]:
    """Every argument for a primitive of one, a draw of them for others and for what is made of other messages."""
    count = argument_count(selector)
    texts = [text for text in ARGUMENTS if selector not in COUNTING or text not in FAR]
    if count == 1 and primitive:
        return [(text,) for text in texts]
    draw = random.Random(seed)
    return [tuple(draw.choice(texts) for _ in range(count)) for _ in range(30 if primitive else 8)] if count else [()]


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_messages_to_instances_leak_no_python_error(workspace: Workspace, name: str) -> None:
    selectors = sorted(s for s in set(LIBRARY[name].methods) - ENDLESS if s == _ONE_OF_MANY or not s.startswith("subclass:"))
    _expect_no_leaks(workspace, _receivers(name), selectors, LIBRARY[name].methods)


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_messages_to_classes_leak_no_python_error(workspace: Workspace, name: str) -> None:
    selectors = sorted({*LIBRARY[name].class_methods, "new", "new:", "basicNew", "withAll:", "with:", "newFrom:"})
    _expect_no_leaks(workspace, [name], selectors, LIBRARY[name].class_methods)


def _expect_no_leaks(workspace: Workspace, receivers: list[str], selectors: list[str], methods: dict[str, Any]) -> None:
    leaks = []
    for receiver, selector in itertools.product(receivers, selectors):
        if receiver in FAR and selector in COUNTING:
            continue
        primitive = not isinstance(methods.get(selector), PreludeMethod)
        for arguments in _argument_lists(selector, f"{receiver}{selector}", primitive=primitive):
            leak = _leak(workspace, receiver, selector, arguments)
            if leak is not None:
                leaks.append(f"{receiver} {selector} {' '.join(arguments)}: {leak}")
    assert not leaks, "\n".join(leaks[:40])


@pytest.mark.parametrize(
    "text",
    ["3 asNumber: 4", "40 asCharacterDigit", "5 bitAt: 0", "Array new: 'x'", "Date year: 2024 month: 2 day: 30", "3 to: 'x'"],
)
def test_what_used_to_leak(workspace: Workspace, text: str) -> None:
    with pytest.raises(SmalltalkException) as caught:
        workspace.run(text)
    assert not isinstance(caught.value, LibraryError)
    assert workspace.run(f"[{text}] on: Error do: [:e | 'handled']") == "handled"


def test_every_primitive_takes_as_many_arguments_as_its_selectors_say() -> None:
    for owner in CLASSES:
        for methods in (owner.methods, owner.class_methods):
            for selector, method in methods.items():
                if isinstance(method, PreludeMethod):
                    assert len(method.tree.parameters) == argument_count(selector), f"{owner.name} >> {selector}"
                    continue
                parameters = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
                if any(p.kind is p.VAR_POSITIONAL for p in parameters):
                    continue
                taken = len([p for p in parameters if p.name != "d"]) - 1
                assert taken == argument_count(selector), f"{owner.name} >> {selector}"


def test_every_definition_of_the_prelude_compiles(workspace: Workspace) -> None:
    for method in definitions():
        assert callable(workspace.linked(method))
