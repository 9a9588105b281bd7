"""Documentation at a prompt, and the colours of the dialect."""

from __future__ import annotations

from pathlib import Path

import pytest
from pygments.token import Comment, Error, Keyword, Name, Number, String

from neuroscope_dsl.documentation import describe
from neuroscope_dsl.errors import SmalltalkError
from neuroscope_dsl.highlighting import NeuroScopeLexer
from neuroscope_dsl.workspace import Workspace

ROOT = Path(__file__).parents[2]
SCRIPTS = [*ROOT.glob("examples/*.st"), *ROOT.glob("dsl/**/*.st")]


def test_names_and_messages_are_described() -> None:
    workspace = Workspace()
    workspace.bind("bag", workspace.run("Bag new add: 3; yourself"))
    assert "findCircuit:examples:" in describe(workspace, "CircuitFinder")
    assert describe(workspace, "bag").startswith("bag: a Bag(3)\nBag\n")
    for asked in ("CircuitFinder >> findCircuit:examples:", "CircuitFinder>>#findCircuit:examples:"):
        assert "find_circuit(self" in describe(workspace, asked)
        assert "Raises `DatasetError`" in describe(workspace, asked)
    assert "pairs: number of examples" in describe(workspace, "CircuitFinder for:")
    assert describe(workspace, "bag sortedCounts").startswith("Bag >> sortedCounts\n\nBag >> sortedCounts")
    workspace.run("Bag >> mine\n    ^3\n")
    assert "defined in this workspace" in describe(workspace, "Bag >> mine")
    assert describe(workspace, "3 + 4").startswith("SmallInteger")


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("CircuitFindr", "CircuitFinder"), ("CircuitFinder >> findCircut:", "findCircuit:"), ("nothing", "bind")],
)
def test_what_is_unknown_is_told_with_the_nearest(asked: str, nearest: str) -> None:
    with pytest.raises(SmalltalkError) as caught:
        describe(Workspace(), asked)
    assert nearest in str(caught.value.remedy).replace("Bind", "bind")


def test_every_script_is_coloured_without_an_error() -> None:
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        tokens = list(NeuroScopeLexer(ensurenl=False, stripnl=False).get_tokens(text))
        assert "".join(value for _, value in tokens) == text
        assert [(path.name, value) for kind, value in tokens if kind in Error] == []


def test_tokens_are_of_their_kinds() -> None:
    text = "Bag class >> of: x\n    \"why\" ^#(1 -2.5 16rFF $a #at:put: 'it''s') inject: nil into: [:a :b | a]"
    found = {value: kind for kind, value in NeuroScopeLexer().get_tokens(text)}
    assert found["Bag"] is Name.Class
    assert found[" class"] is Keyword
    assert found['"why"'] is Comment
    assert found["-2.5"] is found["16rFF"] is Number
    assert found["$a"] is String.Char
    assert found["#at:put:"] is String.Symbol
    assert found["'it''s'"] is String
    assert found["inject:"] is Name.Function
    assert found["nil"] is Keyword.Constant
    assert found[":a"] is Name.Variable
