"""Signalling and handling, in Smalltalk's order: the handler runs before anything is unwound."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neuroscope_dsl import SmalltalkError, Workspace


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("[1/0] on: ZeroDivide do: [:e | 7]", "7"),
        ("[1/0] on: ZeroDivide do: [:e | e return: 8]", "8"),
        ("[1/0. 5] on: ZeroDivide do: [:e | e resume: 1]", "5"),
        ("[(1/0) + 5] on: ZeroDivide do: [:e | e resume: 1]", "6"),
        ("[nil foo] on: MessageNotUnderstood do: [:e | e return: e message selector]", "#foo"),
        ("[nil foo. 9] on: MessageNotUnderstood do: [:e | e resume: 1]", "9"),
        ("[Error signal: 'x'] on: Error do: [:e | e messageText]", "'x'"),
        ("[Error new signal: 'x'] on: Error do: [:e | e description]", "'Error: x'"),
        ("[self error: 'bad'] on: Error do: [:e | e messageText]", "'bad'"),
        ("[Error signal] on: Error do: [:e | e class]", "Error"),
        ("[Warning signal: 'x'. 5] on: Warning do: [:e | e resume: nil]", "5"),
        ("[(Warning signal: 'x') + 1] on: Warning do: [:e | e resume: 4]", "5"),
        ("n := 0. [n := n + 1. n < 3 ifTrue: [Error signal]. n] on: Error do: [:e | e retry]", "3"),
        ("[Error signal] on: Error do: [:e | e retryUsing: [42]]", "42"),
        ("[[1/0] on: KeyNotFound do: [:e | 1]] on: ZeroDivide do: [:e | 2]", "2"),
        ("[[1/0] on: ZeroDivide do: [:e | e pass]] on: ZeroDivide do: [:e | 3]", "3"),
        ("[[1/0] on: ZeroDivide do: [:e | e signal]] on: ZeroDivide do: [:e | 4]", "4"),
        ("[[Error signal: 'a'] on: Error do: [:e | Error signal: 'b']] on: Error do: [:e | e messageText]", "'b'"),
        ("[[Warning signal. 1] on: Warning do: [:e | e outer. 2]] on: Warning do: [:e | e resume: 5]", "2"),
        ("[1/0] on: ZeroDivide, KeyNotFound do: [:e | 5]", "5"),
        ("[Dictionary new at: #x] on: KeyNotFound do: [:e | e key]", "#x"),
        ("[#(1 2) at: 5] on: SubscriptOutOfBounds do: [:e | 6]", "6"),
        ("[#(1 2) at: 5] on: Error do: [:e | e return]", "nil"),
        ("[1/0] on: ZeroDivide do: [7]", "7"),
        ("[1/0] on: ArithmeticError do: [:e | e dividend]", "1"),
        ("[3] ensure: [x := 4]", "3"),
        ("[^3] ensure: [x := 4]. x", "3"),
        ("[[1/0] ensure: [x := 5]] on: ZeroDivide do: [:e | e return: 0]. x", "5"),
        ("x := 0. [[1/0] ifCurtailed: [x := 6]] on: ZeroDivide do: [:e | 0]. x", "6"),
        ("x := 0. [3] ifCurtailed: [x := 6]. x", "0"),
        ("[Error signal: 'a'. 5] on: Error do: [:e | e isResumable]", "false"),
        ("[[Error signal. 5] on: Error do: [:e | e resume: 1]] on: IllegalResumeAttempt do: [:e | 9]", "9"),
        ("[undefinedThing foo] on: Error do: [:e | e class name]", "#UnknownVariable"),
        ("[Error new signal] ifError: [:e | 3]", "3"),
        ("Notification signal: 'x'. 4", "4"),
        ("[1/0] on: Error do: [:e | e messageText size > 0]", "true"),
        ("[1/0] on: Exception do: [:e | e selector]", "nil"),
    ],
)
def test_values(show: Callable[[str], str], text: str, printed: str) -> None:
    assert show(text) == printed


def test_the_handler_runs_before_the_ensure_block(show: Callable[[str], str]) -> None:
    program = "log := OrderedCollection new. [[log add: 1. Error signal. log add: 9] ensure: [log add: 3]] on: Error do: [:e | log add: 2]. log"
    assert show(program) == "an OrderedCollection(1 2 3)"


def test_a_resumed_signal_goes_on_and_ensure_runs_last(show: Callable[[str], str]) -> None:
    program = "log := OrderedCollection new. [[log add: Warning signal. log add: 2] ensure: [log add: 3]] on: Warning do: [:e | e resume: 1]. log"
    assert show(program) == "an OrderedCollection(1 2 3)"


def test_a_handler_is_not_active_while_it_runs(error_of: Callable[[str], SmalltalkError]) -> None:
    error = error_of("[Error signal: 'a'] on: Error do: [:e | Error signal: 'b']")
    assert error.message == "b"


def test_a_script_defines_exceptions(show: Callable[[str], str]) -> None:
    program = (
        "Error subclass: #MyError instanceVariableNames: 'code' classVariableNames: '' package: 'T'.\n"
        "MyError >> code\n    ^code\n"
        "MyError >> code: c\n    code := c\n"
        "MyError >> messageText\n    ^'code ' , code printString\n"
    )
    show(program)
    assert show("[MyError new code: 5; signal] on: MyError do: [:e | e code]") == "5"
    assert show("[MyError new code: 5; signal] on: Error do: [:e | e messageText]") == "'code 5'"


def test_an_unhandled_error_of_a_script_s_own_class(workspace: Workspace, error_of: Callable[[str], SmalltalkError]) -> None:
    workspace.run("Error subclass: #MyError.")
    error = error_of("MyError signal: 'gone'")
    assert error.render().splitlines()[0] == "MyError: gone"


def test_only_exception_classes_can_be_handled(error_of: Callable[[str], SmalltalkError]) -> None:
    assert "not a class of exceptions" in error_of("[1] on: 3 do: [:e | 1]. [1/0] on: Object do: [:e | 1]").message


def test_ensure_runs_when_the_error_leaves_the_script(workspace: Workspace) -> None:
    with pytest.raises(SmalltalkError):
        workspace.run("[1/0] ensure: [x := 'cleaned']")
    assert workspace.variables["x"] == "cleaned"


def test_the_place_of_a_handled_error_is_known(show: Callable[[str], str]) -> None:
    assert show("a := 1.\n[a foo] on: Error do: [:e | e position]") == "'<script>:2:4'"
