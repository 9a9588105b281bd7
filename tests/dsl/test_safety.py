"""No path leads from a message to Python's internals."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroscope_dsl import SmalltalkError, Workspace
from neuroscope_dsl.runtime.classes import SmalltalkClass
from tests.dsl.vocabulary import Bundle, Engine, NotPublic, Report, Vocabulary

FORBIDDEN = [
    "__class__", "__dict__", "__init__", "__globals__", "__subclasses__", "__reduce__", "__getattribute__", "_secret", "_private",
    "_items", "internals", "shell:", "mro", "__call__:", "__setattr__:", "__import__:", "eval:", "exec:", "open:", "format_map:",
    "f_back", "gi_frame", "tb_frame", "co_code", "func_globals", "as_integer_ratio", "denominator_", "real", "imag", "conjugate",
    "__add__:", "to_bytes:", "encode", "fromhex:", "maketrans:", "__doc__", "__module__", "__name__", "__len__", "im_func", "order",
]  # fmt: skip


def receivers() -> dict[str, Any]:
    return {
        "engine": Engine(),
        "bundle": Bundle([1]),
        "report": Report(1.0),
        "number": 3,
        "text": "abc",
        "items": [1],
        "mapping": {"a": 1},
        "foreign": NotPublic(),
        "function": len,
        "method": Engine().measure,
        "module": sys,
        "type": NotPublic,
        "nothing": None,
        "flag": True,
        "error": ValueError("x"),
        "frame": sys._getframe(),
        "code": receivers.__code__,
        "generator": (x for x in (1,)),
    }


@pytest.fixture
def workspace() -> Workspace:
    made = Workspace(vocabulary=Vocabulary())
    for name, value in receivers().items():
        made.bind(name, value)
    return made


@pytest.mark.parametrize("name", sorted(receivers()))
@pytest.mark.parametrize("selector", FORBIDDEN)
def test_internals_are_not_understood(workspace: Workspace, name: str, selector: str) -> None:
    if (name, selector) in {("bundle", "order")}:
        return
    arguments = ["'os'"] * selector.count(":")
    direct = f"{name} {selector}" if not arguments else f"{name} {selector} 'os'"
    performed = f"{name} perform: #'{selector}' withArguments: {{{'. '.join(arguments)}}}"
    for text in (direct, performed):
        with pytest.raises(SmalltalkError) as caught:
            workspace.run(text)
        assert caught.value.code == "message-not-understood", text


@pytest.mark.parametrize("selector", FORBIDDEN)
def test_internals_are_not_understood_by_classes(workspace: Workspace, selector: str) -> None:
    for name in ("Engine", "Report", "Object", "String", "Error", "engine class", "3 class", "Engine class"):
        with pytest.raises(SmalltalkError) as caught:
            workspace.run(f"({name}) perform: #'{selector}' withArguments: {{{'. '.join(['1'] * selector.count(':'))}}}")
        assert caught.value.code == "message-not-understood"


@pytest.mark.parametrize("text", ["x := __builtins__", "y := g_block", "z := k_1", "w := self_", "v_x := 3. x"])
def test_names_of_generated_code_are_not_variables(workspace: Workspace, text: str) -> None:
    with pytest.raises(SmalltalkError) as caught:
        workspace.run(text)
    assert caught.value.code == "unknown-variable"


def test_assigning_to_helper_names_changes_nothing(workspace: Workspace) -> None:
    workspace.run("g_add := 1. g_stop := true. __sources__ := nil. home := 3. doit := 4")
    assert workspace.run("3 + 4") == 7


def test_python_has_no_builtins_in_scripts(workspace: Workspace) -> None:
    for name in ("open", "eval", "exec", "getattr", "globals"):
        with pytest.raises(SmalltalkError) as caught:
            workspace.run(f"{name} value: 'x'")
        assert caught.value.code == "unknown-variable"


def test_format_strings_do_not_reach_attributes(workspace: Workspace) -> None:
    with pytest.raises(SmalltalkError):
        workspace.run(
            "'{foo.__class__}' format: (Dictionary new at: 'foo' put: 3; yourself). '{1.__class__}' format: #(3). '{x}' format: #(1)"
        )
    assert workspace.run("'{1.__class__}' format: #(3)") == "{1.__class__}"


def test_instance_variables_of_a_derived_class_cannot_name_python_s(workspace: Workspace) -> None:
    workspace.run(
        "Engine subclass: #Sly instanceVariableNames: '_secret __class__' classVariableNames: '' package: 'X'.\nSly >> peek\n    ^_secret\n"
    )
    assert workspace.run("Sly new peek") is None


def test_a_class_wrapper_does_not_leak_its_python_type(workspace: Workspace) -> None:
    for selector in ("python", "methods", "class_methods", "dispatcher", "python_type", "ancestors"):
        with pytest.raises(SmalltalkError):
            workspace.run(f"Engine {selector}")


words = st.from_regex(r"[A-Za-z_]{1,12}", fullmatch=True)


@settings(max_examples=300, deadline=None)
@given(word=words, keywords=st.integers(0, 2))
def test_whatever_is_sent_to_a_vocabulary_object_only_declared_operations_answer(word: str, keywords: int) -> None:
    workspace = Workspace(vocabulary=Vocabulary())
    engine = Engine()
    selector = word if keywords == 0 else "".join(f"{word}:" for _ in range(keywords))
    try:
        answer = workspace.dispatcher.send(engine, selector, *([1] * keywords))
    except SmalltalkError:
        return
    assert not isinstance(answer, type)
    assert answer is not engine.__dict__
    assert isinstance(answer, SmalltalkClass) or "hidden" not in repr(answer)
