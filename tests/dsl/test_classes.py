"""Classes and methods that scripts define, and where names live."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neuroscope_dsl import SmalltalkError, Workspace

COUNTER = """Object subclass: #Counter
    instanceVariableNames: 'count step'
    classVariableNames: 'Made'
    package: 'Tests'.

Counter class >> startingAt: n
    Made := (Made ifNil: [0]) + 1.
    ^self new setCount: n

Counter class >> made
    ^Made

Counter >> initialize
    step := 1

Counter >> setCount: n
    count := n

Counter >> increment
    count := count + step.
    ^count

Counter >> + other
    ^Counter startingAt: count + other count

Counter >> count
    ^count
"""


def test_a_class_with_variables_of_all_kinds(show: Callable[[str], str]) -> None:
    show(COUNTER)
    assert show("c := Counter startingAt: 5. c increment; increment") == "7"
    assert show("(c + c) count") == "14"
    assert show("Counter made") == "2"
    assert show("Counter new") == "a Counter"
    assert show("Counter name") == "#Counter"
    assert show("Counter category") == "'Tests'"


def test_subclasses_inherit_and_call_super(show: Callable[[str], str]) -> None:
    show(COUNTER)
    show(
        "Counter subclass: #Doubler.\n"
        "Doubler >> initialize\n    super initialize.\n    step := step * 2\n"
        "Doubler >> increment\n    ^super increment * 10\n"
        "Doubler class >> startingAt: n\n    ^super startingAt: n + 100\n"
    )
    assert show("(Doubler startingAt: 1) increment") == "1030"
    assert show("Doubler superclass") == "Counter"
    assert show("(Doubler startingAt: 1) isKindOf: Counter") == "true"
    assert show("Doubler inheritsFrom: Object") == "true"


@pytest.mark.parametrize(
    "text",
    [
        "Object subclass: #A",
        "Object subclass: #A instanceVariableNames: 'x y' classVariableNames: '' package: 'P'",
        "Object subclass: #A instanceVariableNames: 'x' classVariableNames: '' category: 'P'",
        "Object subclass: #A instanceVariableNames: 'x' classVariableNames: 'Y' poolDictionaries: '' category: 'P'",
        "Object subclass: #A instanceVariableNames: 'x' classVariableNames: '' package: 'P'",
        "Object << #A slots: {#x. #y}; package: 'P'",
        "(Object << #A) slots: {#x}; tag: 'T'; package: 'P'; install",
    ],
)
def test_the_usual_ways_to_define_a_class(show: Callable[[str], str], text: str) -> None:
    show(text)
    show("A >> x: v\n    x := v\nA >> x\n    ^x\n") if "x" in text else None
    assert show("A new class") == "A"


def test_redefining_a_class_keeps_methods_and_adds_variables(show: Callable[[str], str]) -> None:
    show("Object subclass: #A instanceVariableNames: 'x' classVariableNames: '' package: 'P'.\nA >> x\n    ^x\n")
    show(
        "Object subclass: #A instanceVariableNames: 'x y' classVariableNames: '' package: 'P'.\nA >> y\n    ^y ifNil: ['no y']\n"
    )
    assert show("{A new x. A new y}") == "#(nil 'no y')"


def test_class_side_instance_variables(show: Callable[[str], str]) -> None:
    show("Object subclass: #S.\nS class instanceVariableNames: 'only'.\nS class >> only\n    ^only ifNil: [only := self new]\n")
    assert show("S only == S only") == "true"


def test_derived_collections_and_exceptions(show: Callable[[str], str]) -> None:
    show("OrderedCollection subclass: #Stack.\nStack >> push: x\n    ^self addLast: x\nStack >> pop\n    ^self removeLast\n")
    assert show("s := Stack new. s push: 1; push: 2. s pop. s") == "a Stack(1)"
    assert show("(s collect: [:x | x + 1]) class") == "Stack"


def test_methods_on_the_library_s_classes_hold_in_one_workspace(show: Callable[[str], str]) -> None:
    show(
        "Integer >> double\n    ^self * 2\nSmallInteger >> triple\n    ^self * 3\nObject >> me\n    ^self\nString >> shout\n    ^self , '!'\n"
    )
    assert show("{4 double. 4 triple. nil me. 'a' shout. #a shout. true me}") == "#(8 12 nil 'a!' 'a!' true)"
    with pytest.raises(SmalltalkError):
        Workspace().run("4 double")


def test_does_not_understand_can_be_defined(show: Callable[[str], str]) -> None:
    show("Object subclass: #Proxy.\nProxy >> doesNotUnderstand: m\n    ^{m selector. m arguments}\n")
    assert show("Proxy new foo: 1 bar: 2") == "#(#foo:bar: #(1 2))"


def test_recursion(show: Callable[[str], str]) -> None:
    show("Integer >> fib\n    self < 2 ifTrue: [^self].\n    ^(self - 1) fib + (self - 2) fib\n")
    assert show("20 fib") == "6765"


def test_a_method_without_a_return_answers_the_receiver(show: Callable[[str], str]) -> None:
    show("Object subclass: #A.\nA >> foo\n    3 + 4\nA >> bar\n")
    assert show("a := A new. {a foo == a. a bar == a}") == "#(true true)"


# --- where names live ----------------------------------------------------------------------------------------------


def test_names_in_do_its_are_workspace_variables_even_in_blocks(workspace: Workspace) -> None:
    workspace.run("a := 1. [b := 2. c := 3] value. | d | e := 4")
    assert dict(workspace.variables) == {"a": 1, "b": 2, "c": 3, "d": None, "e": 4}
    assert list(workspace.variables) == ["a", "b", "c", "d", "e"]


def test_undeclared_names_in_methods_are_local_when_lower_case_and_shared_when_capitalised(workspace: Workspace) -> None:
    workspace.run(
        "Object subclass: #A.\nA >> go\n    local := 5.\n    Shared := Dictionary new.\n    [inner := local + 1] value.\n    ^inner\nr := A new go"
    )
    assert workspace.variables["r"] == 6
    assert "local" not in workspace.variables
    assert "inner" not in workspace.variables
    assert workspace.variables["Shared"] == {}


def test_a_method_s_undeclared_local_starts_as_nil_and_is_fresh_in_each_call(show: Callable[[str], str]) -> None:
    show("Object subclass: #A.\nA >> go: flag\n    flag ifTrue: [x := 1].\n    ^x\n")
    assert show("a := A new. {a go: true. a go: false}") == "#(1 nil)"


def test_a_method_may_read_a_workspace_variable(show: Callable[[str], str]) -> None:
    show("limit := 10. Object subclass: #A.\nA >> limit\n    ^limit\n")
    assert show("A new limit") == "10"


def test_a_class_name_cannot_be_assigned(error_of: Callable[[str], SmalltalkError]) -> None:
    for text in ("Object := 3", "Transcript := 3", "TransformerModel := 3"):
        error = error_of(text)
        assert error.code == "syntax"
        assert error.position is not None


def test_built_in_classes_cannot_be_redefined_or_derived_from_when_sealed(error_of: Callable[[str], SmalltalkError]) -> None:
    assert "built in" in error_of("Object subclass: #String").message
    assert "built in" in error_of("Object subclass: #TransformerModel").message
    assert "cannot have subclasses" in error_of("Integer subclass: #MyInt").message
    assert "not a name" in error_of("Object subclass: #lower").message
