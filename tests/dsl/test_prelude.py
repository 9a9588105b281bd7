"""The class library's Smalltalk half: what Pharo answers, when its methods are compiled, and where its errors point."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable

import pytest

from neuroscope_dsl import SmalltalkError, Workspace
from neuroscope_dsl.prelude import PreludeMethod, definitions
from neuroscope_dsl.runtime.classes import LIBRARY
from neuroscope_dsl.runtime.library import CLASSES


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        # printing
        ("{1->2}", "{1->2}"),
        ("{(1/2). 0.5}", "{(1/2). 0.5}"),
        ("{Object new. 3}", "an Array(an Object 3)"),
        ("{1. {1->2}}", "{1. {1->2}}"),
        ("{Object. 3 @ 4. 1 to: 2}", "{Object. (3@4). (1 to: 2)}"),
        ("{OrderedCollection with: 1}", "an Array(an OrderedCollection(1))"),
        ("SortedCollection withAll: #(2 1)", "a SortedCollection(1 2)"),
        ("Set new", "a Set()"),
        ("Dictionary new at: #a put: {1->2}; yourself", "a Dictionary(#a->{1->2} )"),
        # statistics
        ("#(5 1 4) median", "4"),
        ("#(5 1 4 2) median", "3"),
        ("#(1 2 3 4) variance", "(5/3)"),
        ("#(1 2 3 4) correlation: #(2 4 6 8)", "1"),
        ("#(1 2 2 3 1 1 1) asBag sortedCounts", "{4->1. 2->2. 1->3}"),
        # collections
        ("#(1 2 3) intersection: #(2 3 4)", "#(2 3)"),
        ("#(1 2 3) difference: #(2 3 4)", "#(1)"),
        ("#(1 2 3) union: #(2 3 4)", "#(1 2 3 4)"),
        ("'abc' union: 'cd'", "'abcd'"),
        ("(1 to: 5) intersection: (3 to: 8)", "#(3 4 5)"),
        ("(Set with: 1 with: 2) difference: #(2)", "a Set(1)"),
        ("#(1 2 3 4 5) groupsOf: 2 atATimeCollect: [:a :b | a + b]", "#(3 7)"),
        ("s := OrderedCollection new. #(1 2 3) groupsOf: 1 atATimeDo: [:a | s add: a]. s", "an OrderedCollection(1 2 3)"),
        ("#(1 2 3 1 2) copyReplaceAll: #(1 2) with: #(9)", "#(9 3 9)"),
        ("#(1 1 1) copyReplaceAll: #(1) with: #(1 1)", "#(1 1 1 1 1 1)"),
        ("s := 0. #(1 2 3) allPairsDo: [:a :b | s := s + (a * b)]. s", "36"),
        ("a := 1 -> 2. a key: 3; value: 4. a", "3->4"),
        ("(#(1 2 3) groupBy: [:x | x even]) at: false", "an OrderedCollection(1 3)"),
        ("#(1 3 2) sortedBy: [:a :b | a > b]", "#(3 2 1)"),
        ("Object subclass: #Small instanceVariableNames: 'x'. Small instanceVariableNames", "#('x')"),
        # strings and numbers
        ("'a b c' substrings: ' '", "#('a' 'b' 'c')"),
        ("'hello12' matchesRegex: '[a-z]+[0-9]+'", "true"),
        ("'hello12!' matchesRegex: '[a-z]+[0-9]+'", "false"),
        ("1234567 asStringWithCommas", "'1,234,567'"),
        ("-123 asStringWithCommas", "'-123'"),
        ("255 printStringRadix: 16", "'16rFF'"),
        ("-255 printStringRadix: 16", "'-16rFF'"),
        ("255 printStringBase: 16", "'FF'"),
        # dates and durations
        ("Date year: 2024 month: 2 day: 29", "29 February 2024"),
        ("(Date year: 2024 month: 2 day: 29) monthName", "#February"),
        ("(Date year: 2024 month: 2 day: 29) dayOfWeekName", "#Thursday"),
        ("(Date year: 2024 month: 3 day: 1) - (Date year: 2024 month: 2 day: 28)", "2:00:00:00"),
        ("(Date year: 2024 month: 1 day: 31) addMonths: 1", "29 February 2024"),
        ("(Date year: 2024 month: 2 day: 28) + 2 days", "1 March 2024"),
        ("(Date year: 2024 month: 2 day: 9) yyyymmdd", "'2024-02-09'"),
        ("(Date year: 2024 month: 2 day: 9) < (Date year: 2024 month: 2 day: 10)", "true"),
        ("Time hour: 15 minute: 12 second: 19", "3:12:19 pm"),
        ("Time hour: 0 minute: 5 second: 0", "12:05 am"),
        ("Duration seconds: 90", "0:00:01:30"),
        ("Duration seconds: -1.5", "-0:00:00:01.5"),
        ("(3 days + 2 hours) asHours", "74.0"),
        ("(Duration minutes: 3) / (Duration seconds: 90)", "2"),
        ("[3 + 4] timeToRun class", "Duration"),
        ("[3 + 4] timeToRun < (Duration minutes: 5)", "true"),
        # exceptions
        ("[Warning signal: 'w'. 5] on: Warning do: [:e | e resume: nil]", "5"),
        ("[#() average] on: CollectionIsEmpty do: [:e | e messageText]", "'The collection is empty'"),
        # reflection
        ("CircuitFinder comment beginsWith: 'Finds circuits of one model.'", "true"),
        ("CircuitFinder selectors includes: #findCircuit:examples:", "true"),
        ("CircuitFinder class selectors includes: #for:", "true"),
        ("CircuitFinder includesSelector: #findCircuit:", "true"),
        ("Bag comment", "'Elements with how often they occur.'"),
        ("Bag selectors includes: #sortedCounts", "true"),
        ("(Smalltalk allClasses includes: CircuitFinder) & (Smalltalk allClasses includes: Bag)", "true"),
        ("Set superclass = HashedCollection and: [HashedCollection subclasses includes: Set]", "true"),
    ],
)
def test_values(show: Callable[[str], str], text: str, printed: str) -> None:
    assert show(text) == printed


def test_statistics_agree_with_python_s(workspace: Workspace) -> None:
    draw = random.Random(3)
    numbers, others = ([draw.gauss(2, 5) for _ in range(40)] for _ in range(2))
    workspace.bind("numbers", numbers)
    workspace.bind("others", others)
    assert workspace.run("numbers stdev") == pytest.approx(statistics.stdev(numbers))
    assert workspace.run("numbers variance") == pytest.approx(statistics.variance(numbers))
    assert workspace.run("numbers median") == pytest.approx(statistics.median(numbers))
    assert workspace.run("numbers correlation: others") == pytest.approx(statistics.correlation(numbers, others))


def test_random_numbers_come_from_their_seed(workspace: Workspace) -> None:
    draws = "r := Random seed: {}. (1 to: 20) collect: [:i | r nextInteger: 100]"
    assert workspace.run(draws.format(42)) == workspace.run(draws.format(42)) != workspace.run(draws.format(43))
    assert all(1 <= number <= 100 for number in workspace.run(draws.format(42)))
    assert 0 <= workspace.run("(Random seed: 1) next") < 1
    assert sorted(workspace.run("#(1 2 3 4 5) shuffledBy: (Random seed: 7)")) == [1, 2, 3, 4, 5]
    assert Workspace(seed=5).run("Random new next") == Workspace(seed=5).run("Random new next")


def test_a_block_that_cannot_return_is_an_exception(show: Callable[[str], str]) -> None:
    show("Object subclass: #Maker.\nMaker >> block\n    ^[:x | ^x]\n")
    assert show("[Maker new block value: 3. 4] on: BlockCannotReturn do: [:e | 'dead']") == "'dead'"


def test_a_warning_that_nothing_handles_is_shown_and_one_resumed_with_nil_is_not(workspace: Workspace) -> None:
    workspace.run("[Warning signal: 'seen'] on: Warning do: [:e | e resume: nil]")
    assert workspace.transcript.text == ""
    workspace.run("Warning signal: 'unseen'. [Warning signal: 'passed'] on: Warning do: [:e | e pass]")
    assert workspace.transcript.text == "Warning: unseen\nWarning: passed\n"


def test_an_error_in_the_prelude_points_at_the_script(error_of: Callable[..., SmalltalkError]) -> None:
    error = error_of("a := 1.\nx := #(1 2 'a') average", "mine.st")
    assert str(error.position) == "mine.st:2:17"
    assert {place.file for place in error.stack} == {"mine.st"}


def test_what_is_no_block_is_asked_for_its_value(error_of: Callable[..., SmalltalkError]) -> None:
    assert error_of("#(1 2) do: 3").title == "MessageNotUnderstood: SmallInteger does not understand #value:"


def test_a_method_is_compiled_when_it_is_first_sent_and_once() -> None:
    method = next(m for m in definitions() if m.selector == "reject:thenDo:")
    LIBRARY[method.class_name].methods[method.selector] = method
    first, second = Workspace(), Workspace()
    assert "tree" not in vars(method)
    first.run("#(1 2) reject: [:x | x even] thenDo: [:x | y := x]")
    unit = vars(method)["unit"]
    second.run("#(1 2) reject: [:x | x even] thenDo: [:x | y := x]")
    assert vars(method)["unit"] is unit
    assert first.variables["y"] == second.variables["y"] == 1


def test_a_script_s_method_goes_before_the_prelude_s(show: Callable[[str], str]) -> None:
    assert show("Collection >> median\n    ^'mine'\n#(1 2) median") == "'mine'"
    assert Workspace().run("#(1 3) median") == 2


#: Selectors that this library once understood although neither Pharo nor GNU Smalltalk knows them.
INVENTED = (
    "asCapitalized asLowerCase asLowercaseFirst asNumber: asSortedArray asSortedArray: asUpperCase asUppercaseFirst "
    "at:ifPresentUpdate: copyReplacing:with: detectSum: displayNl: includesSubCollection: isBoolean isSpace isVocabulary joinWith: "
    "keysAsSet keysSelect: keysSorted keysSorted: keysSortedSafely: microsecondClock milliseconds printNl: "
    "printShowingMaxDecimalPlaces: printString:length:padded: raisedTo:mod: replaceString:withString: rest selectKeys: sortBy: "
    "sortedKeys storeString: storeStringRadix: subclass:instanceVariableNames:category: "
    "subclass:instanceVariableNames:classVariableNames: subclass:instanceVariableNames:package: take: withBlanksTrimmed"
).split()


@pytest.mark.parametrize("selector", INVENTED)
def test_what_no_smalltalk_understands_is_not_understood(selector: str) -> None:
    for owner in CLASSES:
        assert selector not in owner.methods, owner.name
        assert selector not in owner.class_methods, owner.name


def test_the_prelude_s_methods_are_in_place() -> None:
    for method in definitions():
        owner = LIBRARY[method.class_name]
        found = (owner.class_methods if method.class_side else owner.methods)[method.selector]
        assert isinstance(found, PreludeMethod)
        assert found.text == method.text
