"""The rule by which messages reach Python, on a vocabulary made for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neuroscope.errors import SiteError
from neuroscope_dsl import SmalltalkError, Workspace
from neuroscope_dsl.dispatch import rule
from neuroscope_dsl.dispatch.rule import How, Invocation, Refusal
from tests.dsl.vocabulary import Bundle, Engine, NotPublic, Settings, Vocabulary


@pytest.fixture
def workspace() -> Workspace:
    made = Workspace(vocabulary=Vocabulary())
    made.bind("engine", Engine("gpt2", 3))
    return made


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("engine measure", "42"),
        ("engine twice", "6"),
        ("engine name", "'gpt2'"),
        ("engine findCircuit: 'ioi'", "#('ioi' nil 3)"),
        ("engine findCircuit: 'ioi' examples: #(1 2)", "#('ioi' #(1 2) 3)"),
        ("engine findCircuit: 'ioi' minEdges: 9", "#('ioi' nil 9)"),
        ("engine findCircuit: 'ioi' minEdges: 9 examples: 1", "#('ioi' 1 9)"),
        ("engine findcircuit: 'ioi' MINEDGES: 9", "#('ioi' nil 9)"),
        ("engine at: 1 put: 2", "#(1 2)"),
        ("engine forEach: [:x | x * 10]", "an OrderedCollection(10 20)"),
        ("engine update: 'x' class: 'y'", "#('x' 'y')"),
        ("engine + 3", "'sum with 3'"),
        ("engine nothing", "nil"),
        ("engine speed: 11; speed", "11"),
        ("(engine label: 'x') == engine", "true"),
        ("(engine label: 'x') label", "'x'"),
        ("engine reset == engine", "true"),
        ("Engine default name", "'default'"),
        ("Engine new name", "'torch'"),
        ("(Engine for: 'x') name", "'x'"),
        ("(Engine for: 'x' size: 4) twice", "8"),
        ("(Engine name: 'a' size: 5) twice", "10"),
        ("(Engine from: 5) name", "'torch'"),
        ("(Engine loadIOIExamples: 'p') name", "'p/False'"),
        ("(Engine loadIoiExamples: 'p' strict: true) name", "'p/True'"),
        ("(Level for: #low) < #medium", "true"),
        ("(Level name: 'high') < #medium ifTrue: [1] ifFalse: [2]", "2"),
        ("(Report score: 0.5) score", "0.5"),
        ("(Report score: 0.5 title: 'x') title", "'x'"),
        ("engine class", "Engine"),
        ("engine class default name", "'default'"),
        ("engine isKindOf: Engine", "true"),
        ("engine isKindOf: Level", "false"),
        ("engine respondsTo: #measure", "true"),
        ("engine respondsTo: #nonsense", "false"),
        ("engine perform: #measure", "42"),
        ("engine perform: #findCircuit:examples: with: 'a' with: 'b'", "#('a' 'b' 3)"),
        ("#(1 2) collect: [:x | engine measure]", "#(42 42)"),
        ("engine", "an Engine"),
        ("Engine", "Engine"),
        ("engine yourself == engine", "true"),
        ("engine isNil", "false"),
    ],
)
def test_messages(show: Callable[[str], str], text: str, printed: str) -> None:
    assert show(text) == printed


def test_a_cascade_configures_an_object(workspace: Workspace) -> None:
    settings = workspace.run("s := Settings new. s model: 'm'; targetCapability: #x; searchStrategy: #greedy. s")
    assert isinstance(settings, Settings)
    assert (settings.model, settings.target_capability, settings.seen) == ("m", "x", ["greedy"])


def test_a_method_goes_before_a_setter(show: Callable[[str], str]) -> None:
    assert show("Settings new searchStrategy: #greedy") == "'a method'"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("b size", "3"),
        ("b at: 0", "10"),
        ("b at: 0 put: 99. b at: 0", "99"),
        ("b collect: [:x | x + 1]", "an OrderedCollection(11 21 31)"),
        ("s := 0. b do: [:x | s := s + x]. s", "60"),
        ("b inject: 0 into: [:a :x | a + x]", "60"),
        ("b includes: 20", "true"),
        ("b isEmpty", "false"),
        ("b detect: [:x | x > 15]", "20"),
        ("b at: 7 ifAbsent: ['none']", "'none'"),
        ("b total", "60"),
        ("b sum", "60"),
        ("b asArray", "#(10 20 30)"),
        ("(b select: [:x | x > 15]) size", "2"),
    ],
)
def test_what_python_can_iterate_or_subscript_answers_the_collection_protocol(
    workspace: Workspace, text: str, printed: str
) -> None:
    workspace.bind("b", Bundle([10, 20, 30]))
    assert workspace.print_string(workspace.run(text)) == printed


def test_the_python_values_of_a_library_are_smalltalk_values(workspace: Workspace) -> None:
    workspace.bind("d", {"a": 1, "b": [1, 2, 3], "t": (4, 5)})
    assert workspace.run("d at: #a") == 1
    assert workspace.run("(d at: #b) at: 1") == 1
    assert workspace.run("(d at: 't') first") == 4
    assert workspace.print_string(workspace.run("d keys")) == "#('a' 'b' 't')"
    workspace.run("d at: #c put: 3")
    assert workspace.run("d at: 'c'") == 3
    workspace.bind("r", range(3))
    assert workspace.print_string(workspace.run("r collect: [:x | x * x]")) == "#(0 1 4)"


# --- what does not fit ----------------------------------------------------------------------------------------------


def test_a_misspelt_selector_names_its_neighbours(error_of: Callable[..., SmalltalkError]) -> None:
    error = error_of("x := 1.\nengine measur", "probe.st")
    assert error.code == "message-not-understood"
    assert error.title == "MessageNotUnderstood: Engine does not understand #measur"
    assert error.remedy == "Did you mean #measure?"
    assert error.position is not None
    assert (error.position.file, error.position.line, error.position.column) == ("probe.st", 2, 8)
    assert error.render().splitlines()[1:4] == ["  probe.st:2:8", "    engine measur", "           ^"]
    assert error.as_dictionary()["selector"] == "measur"


@pytest.mark.parametrize(
    ("text", "reason", "remedy"),
    [
        ("engine findCircuit: 'x' exmples: 3", "no argument exmples:", "#findCircuit:examples:minEdges:"),
        ("engine findCircuit", "argument task: is missing", "#findCircuit:"),
        ("engine measure: 3", "fewer arguments", "#measure"),
        ("engine findCircuit: 'x' task: 'y'", "argument task is given twice", "#findCircuit:"),
        ("engine twice: 3", "can be read, not set", "#twice"),
        ("(Report score: 1) score: 2", "can be read, not set", "#score"),
        ("Engine loadIOIExamples: 'x' lenient: true", "no argument lenient:", "#loadIoiExamples:strict:"),
        ("Engine loadIOIExamples", "path: is missing", "#loadIoiExamples:"),
        ("Report new", "score: is missing", "#score:"),
        ("Engine name: 'a' siez: 3", "no argument siez:", "#name:size:from:"),
        ("Report title: 'x'", "score: is missing", "#score:"),
        ("Report for: 1 score: 2", "given twice", "#score:"),
    ],
)
def test_arguments_that_do_not_fit_name_the_selectors_that_do(
    error_of: Callable[..., SmalltalkError], text: str, reason: str, remedy: str
) -> None:
    error = error_of(text)
    assert error.code == "message-not-understood"
    assert reason in error.message
    assert remedy in (error.remedy or "")


def test_an_unknown_class_message_names_its_neighbours(error_of: Callable[..., SmalltalkError]) -> None:
    error = error_of("Engine defalt")
    assert error.title == "MessageNotUnderstood: Engine class does not understand #defalt"
    assert (error.remedy or "").startswith("Did you mean #default ")


def test_a_type_error_inside_a_method_is_not_a_misfit(error_of: Callable[..., SmalltalkError]) -> None:
    for text in ("engine broken", "engine wrongCall"):
        error = error_of(text)
        assert error.code == "library"
        assert isinstance(error.__cause__, TypeError)
        assert error.position is not None
        assert error.position.column == 8


def test_library_errors_keep_code_and_remedy_and_gain_a_place(error_of: Callable[..., SmalltalkError]) -> None:
    error = error_of("x := 1.\nx := engine fail.", "fail.st")
    assert error.code == "site"
    assert error.remedy == "Layers run from 0 to 11."
    assert isinstance(error.__cause__, SiteError)
    assert error.title == "SiteError: There is no layer 99."
    assert str(error.position) == "fail.st:2:13"


def test_library_errors_can_be_handled(show: Callable[[str], str]) -> None:
    assert show("[engine fail] on: Error do: [:e | e messageText]") == "'There is no layer 99.'"
    assert show("[engine fail. 5] on: Error do: [:e | e return: e class name]") == "#LibraryError"
    assert show("[engine broken] on: Error do: [:e | 6]") == "6"


def test_an_error_in_a_block_that_the_library_calls_has_the_block_s_place(error_of: Callable[..., SmalltalkError]) -> None:
    error = error_of("engine forEach: [:x |\n    x frob]")
    assert error.code == "message-not-understood"
    assert error.position is not None
    assert (error.position.line, error.position.column) == (2, 7)
    assert [place.line for place in error.stack] == [2, 1]


def test_a_return_passes_through_library_code(workspace: Workspace) -> None:
    assert workspace.run("engine forEach: [:x | ^x + 100]. 0") == 101


def test_foreign_objects_only_print_compare_and_iterate(workspace: Workspace, error_of: Callable[..., SmalltalkError]) -> None:
    workspace.bind("foreign", NotPublic())
    assert workspace.print_string(workspace.run("foreign")) == "a NotPublic"
    assert workspace.run("foreign = foreign") is True
    assert error_of("foreign run").code == "message-not-understood"
    assert error_of("foreign secret").code == "message-not-understood"


# --- methods that a script adds --------------------------------------------------------------------------------------


def test_added_methods_go_before_a_class_s_own_and_hold_in_one_workspace(workspace: Workspace) -> None:
    workspace.run("Engine >> measure\n    ^super measure + 1\nEngine class >> default\n    ^self new label: 'mine'; yourself\n")
    assert workspace.run("engine measure") == 43
    assert workspace.run("Engine default label") == "mine"
    other = Workspace(vocabulary=Vocabulary())
    assert other.run("Engine new measure") == 42


def test_self_new_in_an_added_class_method_constructs(workspace: Workspace) -> None:
    made = workspace.run("Settings class >> tuned\n    s := self new.\n    s model: 'x'.\n    ^s\nSettings tuned")
    assert isinstance(made, Settings)
    assert made.model == "x"


def test_a_class_side_initialize_runs_once_it_is_defined(workspace: Workspace) -> None:
    workspace.run("Count := 0.\nEngine class >> initialize\n    Count := Count + 1.\n    local := 5\n")
    assert dict(workspace.variables)["Count"] == 1
    assert "local" not in workspace.variables


def test_a_method_on_a_class_that_does_not_exist(error_of: Callable[..., SmalltalkError]) -> None:
    error = error_of("x := 1.\nEngin >> foo\n    ^1\n")
    assert error.code == "unknown-class"
    assert (error.remedy or "").startswith("Did you mean 'Engine' ")
    assert error.position is not None
    assert error.position.line == 2


def test_a_script_derives_a_class_from_the_vocabulary(workspace: Workspace) -> None:
    workspace.run(
        "Engine subclass: #Fast instanceVariableNames: 'boost' classVariableNames: '' package: 'X'.\n"
        "Fast >> boost: b\n    boost := b\nFast >> measure\n    ^super measure * boost\n"
    )
    fast = workspace.run("(Fast name: 'f' size: 2) boost: 10; yourself")
    assert isinstance(fast, Engine)
    workspace.bind("fast", fast)
    assert workspace.run("fast measure") == 420
    assert workspace.run("fast twice") == 4
    assert workspace.run("fast isKindOf: Engine") is True


# --- the rule itself, without a workspace -----------------------------------------------------------------------------


def test_the_rule_states_what_a_selector_calls() -> None:
    assert rule.instance_rule(Engine, "findCircuit:examples:") == Invocation(How.CALL, "find_circuit", 1, ("examples",))
    assert rule.instance_rule(Engine, "twice") == Invocation(How.READ, "twice")
    assert rule.instance_rule(Engine, "label:") == Invocation(How.WRITE, "label", 1)
    assert rule.class_rule(Engine, "for:size:") == Invocation(How.CONSTRUCT, "", 1, ("size",))
    assert isinstance(rule.instance_rule(Engine, "findCircuit:bogus:"), Refusal)
    assert rule.instance_rule(Engine, "bogus") is None


def test_selectors_are_listed_for_completion() -> None:
    assert {"measure", "findCircuit:", "findCircuit:examples:minEdges:", "twice", "label:"} <= set(
        rule.instance_selectors(Engine)
    )
    assert {"new", "for:", "default", "name:size:from:"} <= set(rule.class_selectors(Engine))
    assert not {"internals", "shell:"} & {*rule.instance_selectors(Engine), *rule.class_selectors(Engine)}


# --- the real vocabulary ----------------------------------------------------------------------------------------------


def test_a_documented_hook_is_built_from_blocks() -> None:
    workspace = Workspace()
    hook = workspace.run(
        "hook := ActivationHook layer: 10 component: #residual\n"
        "    condition: [:context | context taskType = #formalWriting]\n"
        "    action: [:activations :position | position > 5 ifTrue: [activations := activations * 1.5]. activations].\n"
        "hook disable; enable; yourself"
    )
    assert (hook.layer, hook.component, hook.enabled) == (10, "residual", True)
    assert workspace.run("hook layer") == 10


def test_an_error_of_the_library_s_constructor_has_its_place(error_of: Callable[..., SmalltalkError]) -> None:
    with pytest.raises(SmalltalkError) as caught:
        Workspace().run("x := 1.\nh := ActivationHook layer: 1 component: #residuum action: [:a | a]", "h.st")
    assert caught.value.code == "site"
    assert str(caught.value.position) == "h.st:2:21"
