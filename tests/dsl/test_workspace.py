"""The workspace as the command line, the REPL and the server use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from neuroscope import vocabulary
from neuroscope_dsl import SmalltalkError, SmalltalkSyntaxError, Workspace
from neuroscope_dsl.workspace import StatementInfo
from tests.dsl.vocabulary import Engine, Vocabulary

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[0-9]*.st"))


def test_run_answers_the_last_statement(workspace: Workspace) -> None:
    assert workspace.run("3. 4") == 4
    assert workspace.run("") is None
    assert workspace.evaluate("3 + 4") == 7


def test_variables_outlive_a_run(workspace: Workspace) -> None:
    workspace.bind("model", "m")
    workspace.run("a := model , '1'")
    assert workspace.run("a") == "m1"
    assert workspace.lookup("a") == "m1"
    workspace.unbind("a")
    assert "a" not in workspace.variables
    with pytest.raises(SmalltalkError):
        workspace.lookup("a")


def test_binding_a_name_that_cannot_be_a_variable(workspace: Workspace) -> None:
    for name in ("Object", "self", "a b", "3", "__x__ y", ""):
        with pytest.raises(SmalltalkError):
            workspace.bind(name, 1)


def test_statements_are_announced(workspace: Workspace) -> None:
    seen: list[StatementInfo] = []
    workspace.run("a := 1.\n\nb := 2.", "f.st", on_statement=seen.append)
    assert [(info.index, info.total, str(info.position), info.text) for info in seen] == [
        (0, 2, "f.st:1:1", "a := 1"),
        (1, 2, "f.st:3:1", "b := 2"),
    ]


def test_nothing_runs_when_the_text_has_a_syntax_error(workspace: Workspace) -> None:
    with pytest.raises(SmalltalkSyntaxError):
        workspace.run("a := 1. b := ")
    assert not list(workspace.variables)


def test_check_runs_nothing(workspace: Workspace) -> None:
    workspace.check("a := 1. Foo bar: 3.\nNoSuch >> foo\n    ^1\n")
    assert not list(workspace.variables)
    with pytest.raises(SmalltalkSyntaxError):
        workspace.check("Object := 3")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_documented_scripts_parse_and_compile(workspace: Workspace, path: Path) -> None:
    assert workspace.check(path.read_text(encoding="utf-8"), path.name).items


def test_all_the_documented_smalltalk_scripts_are_there() -> None:
    documented = [path for path in EXAMPLES if not path.stem.endswith("_call")]  # a companion calls what its script defines
    assert len(documented) == 18


def test_a_free_variable_says_how_to_bind_it(error_of: Callable[..., SmalltalkError]) -> None:
    error = error_of("analyzer := model.\nx := 3", "05.st")
    assert error.code == "unknown-variable"
    assert error.message == "The variable model is not bound."
    assert "--model NAME" in (error.remedy or "")
    assert "--bind model=VALUE" in (error.remedy or "")
    assert error.render().splitlines()[1:4] == ["  05.st:1:13", "    analyzer := model.", "                ^"]
    assert "--bind other=VALUE" in (error_of("other").remedy or "")


def test_a_misspelt_variable_is_suggested(error_of: Callable[..., SmalltalkError]) -> None:
    assert "Did you mean results?" in (error_of("results := 3. result").remedy or "")


def test_an_unknown_class_is_suggested(error_of: Callable[..., SmalltalkError]) -> None:
    error = error_of("model := TransfomerModel fromHuggingFace: 'x'.", "01.st")
    assert error.code == "unknown-class"
    assert error.remedy is not None
    assert error.remedy.startswith("Did you mean 'TransformerModel'")
    assert str(error.position) == "01.st:1:10"


@pytest.mark.parametrize("text", ["{} for: 3", "{} >> m\n    ^ 1\n"])
def test_a_planned_class_says_so_and_suggests_no_stranger(
    text: str, error_of: Callable[..., SmalltalkError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "PLANNED", {"CircuitTransfers": ("transferring circuits", "21")})
    error = error_of(text.format("CircuitTransfers"))
    assert "is planned and not built yet" in str(error)
    assert "Did you mean" not in str(error)


def test_the_calls_that_led_to_an_error_are_shown(workspace: Workspace) -> None:
    workspace.run("Object subclass: #A.\nA >> outer\n    ^self inner\nA >> inner\n    ^nil boom\n", "a.st")
    with pytest.raises(SmalltalkError) as caught:
        workspace.run("A new outer", "b.st")
    assert [str(place) for place in caught.value.stack] == ["a.st:5:10", "a.st:3:11", "b.st:1:7"]
    assert "called from a.st:3:11" in caught.value.render()


def test_the_caret_stands_under_a_tab_indented_line(error_of: Callable[..., SmalltalkError]) -> None:
    lines = error_of("a := 1.\n\ta foo").render().splitlines()
    assert lines[2:4] == ["    \ta foo", "    \t  ^"]


def test_positions_of_two_texts_under_one_name(workspace: Workspace) -> None:
    workspace.run("Object subclass: #A.\nA >> one\n    ^nil boom\n", "x.st")
    with pytest.raises(SmalltalkError) as caught:
        workspace.run("3.\n4.\n5.\nA new one", "x.st")
    assert [(place.line, place.text.strip()) for place in caught.value.stack] == [(3, "^nil boom"), (4, "A new one")]


def test_each_kind_of_statement_has_its_place(error_of: Callable[..., SmalltalkError]) -> None:
    cases = {
        "3 foo: 4 bar: 5": 3,
        "(3 + 4) foo": 9,
        "3 + nil": 3,
        "x := 3 foo": 8,
        "#(1) do: [:a | a foo]": 18,
        "true ifTrue: [3 foo]": 17,
        "OrderedCollection new add: 1; fooo; yourself": 31,
        "{1. 2 foo}": 7,
        "1 to: 3 do: [:i | i foo]": 21,
    }
    for text, column in cases.items():
        position = error_of(text).position
        assert position is not None
        assert position.column == column, text


def test_print_string_uses_a_script_s_own_print_on(workspace: Workspace) -> None:
    value = workspace.run("Object subclass: #A.\nA >> printOn: s\n    s << 'my A'\nA new")
    assert workspace.print_string(value) == "my A"
    assert workspace.print_string([value, 1]) == "an OrderedCollection(my A 1)"


def test_completion(workspace: Workspace) -> None:
    workspace = Workspace(vocabulary=Vocabulary())
    workspace.bind("engine", Engine())
    workspace.bind("enough", 1)
    assert workspace.complete("x := en").choices == ("engine", "enough")
    assert workspace.complete("x := en").start == 5
    assert workspace.complete("engine meas").choices == ("measure",)
    assert "findCircuit:examples:minEdges:" in workspace.complete("engine find").choices
    assert "default" in workspace.complete("Engine def").choices
    assert "Engine" in workspace.complete("Eng").choices
    assert "timesRepeat:" in workspace.complete("3 times").choices
    assert workspace.complete("engine meas + foo", cursor=11).choices == ("measure",)
    assert workspace.complete("nothing su").choices == ("super",)


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("3 + 4", True),
        ("3 +", False),
        ("x := ", False),
        ("[:x | x", False),
        ("#(1 2", False),
        ("'abc", False),
        ('"abc', False),
        ("a foo: 1;", False),
        ("a)", True),
        ("3 := 4", True),
        ("Foo >> bar", False),
        ("Foo >> bar\n    ^1", False),
        ("Foo >> bar\n    ^1\n\n", True),
        ("", True),
    ],
)
def test_a_repl_knows_when_to_ask_for_more(workspace: Workspace, text: str, complete: bool) -> None:
    assert workspace.is_complete(text) is complete


def test_smalltalk_is_a_dictionary_of_names(workspace: Workspace) -> None:
    assert workspace.run("Smalltalk at: #Answer put: 42. Answer") == 42
    assert workspace.run("(Smalltalk at: #Object) name") == "Object"
    assert workspace.run("Smalltalk at: #Nope ifAbsent: [1]") == 1
    assert workspace.run("Smalltalk includesKey: #Answer") is True


def test_two_workspaces_share_nothing() -> None:
    one, two = Workspace(), Workspace()
    one.run("x := 1. Object subclass: #Mine.")
    with pytest.raises(SmalltalkError):
        two.run("x")
    with pytest.raises(SmalltalkError):
        two.run("Mine new")
