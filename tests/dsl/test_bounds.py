"""No script takes a primitive beyond what can be interrupted: nothing that it makes is too large, and everything can be stopped."""

from __future__ import annotations

import gc
import threading
import time

import pytest

from neuroscope_dsl import Limits, SmalltalkError, Workspace
from neuroscope_dsl.errors import SmalltalkSyntaxError
from neuroscope_dsl.limits import Meter, resident_memory
from neuroscope_dsl.parser import LONGEST_TEXT, parse
from neuroscope_dsl.runtime import printing, strings
from neuroscope_dsl.runtime.accounting import MAX_BITS, MAX_SIZE, MAX_TEXT, check_collisions
from neuroscope_dsl.runtime.values import Character, Symbol

REFUSED = {
    "memory-limit": [
        "'x' padLeftTo: 4000000000",
        "'x' padRightTo: 4000000000 with: $a",
        "4 printPaddedWith: $0 to: 4000000000",
        "s := 'a'. 40 timesRepeat: [s := s copyReplaceAll: 'a' with: 'aa']",
        "('x' repeat: 1000) join: ((1 to: 10000) collect: [:i | 'abc'])",
        "s := 'ab'. 60 timesRepeat: [s := s , s]",
        "s := #(1 2). 60 timesRepeat: [s := s , s]",
        "s := (1 to: 3). 60 timesRepeat: [s := s , s]",
        "c := OrderedCollection with: 1. 60 timesRepeat: [c addAll: c]",
        "SortedCollection withAll: (1 to: 1000000000)",
        "s := Set new. 1 to: 100000 do: [:i | s add: i * 2305843009213693951]",
        "s := Bag new. 1 to: 100000 do: [:i | s add: i * 2305843009213693951]",
        "s := Dictionary new. 1 to: 100000 do: [:i | s at: i * 2305843009213693951 put: i]",
        "(1 to: 1000000000) asArray",
        "(1 to: 1000000000) asOrderedCollection",
        "(1 to: 1000000000) asByteArray",
        "(1 to: 1000000000) reversed",
        "(1 to: 1000000000) sorted",
        "(1 to: 1000000000) shuffled",
        "(1 to: 1000000000) collect: [:i | i]",
        "(1 to: 1000000000) + 1",
        "#(1) , (1 to: 1000000000)",
        "b := Bag new. 1000 timesRepeat: [b add: 1 withOccurrences: 1000000]. b asArray",
        "Array new: 4000000000",
        "Array new: 4000000000 withAll: 1",
        "String new: 4000000000",
        "String new: 4000000000 withAll: $a",
        "ByteArray new: 4000000000",
        "(7 raisedTo: 90000) * (7 raisedTo: 90000)",
        "1000000 factorial",
        "100000 numberOfCombinationsTaken: 50000",
        "(7 raisedTo: 40000) raisedTo: (7 raisedTo: 9000) modulo: (7 raisedTo: 30000) + 2",
        "((2 raisedTo: 100000) + 1) isPrime",
        "(7 raisedTo: 80000) gcd: (3 raisedTo: 120000)",
        "(7 raisedTo: 80000) / (3 raisedTo: 120000)",
        "x := 1/3. 40 timesRepeat: [x := x + (x * x)]",
        "3 bitShift: 1000000000",
        "(7 raisedTo: 90000) // (7 raisedTo: 45000)",
        "(7 raisedTo: 90000) \\\\ (7 raisedTo: 45000)",
        "(7 raisedTo: 90000) quo: (7 raisedTo: 45000)",
        "(7 raisedTo: 90000) rem: (7 raisedTo: 45000)",
        "(3 asScaledDecimal: 2000000) printString",
        "1/3 printShowingDecimalPlaces: 2000000",
        "('{1}' repeat: 100000) format: {('a' repeat: 100000)}",
        "('%1' repeat: 100000) bindWith: ('a' repeat: 100000)",
        "(WriteStream on: String new) next: 100000000 putAll: 'abc'",
        "(WriteStream on: Array new) next: 100000000 put: 3",
        "String streamContents: [:w | w tab: 4000000000]",
        "(7 raisedTo: 6000) factorial",
        "Array new: (7 raisedTo: 6000)",
        "'" + "9" * 100_000 + "' asNumber",
        "9" * 100_000,
    ],
    "argument": [
        "'a' matchesRegex: '((((a{1000}){1000}){1000}){1000})'",
        "'a' matchesRegex: ('a' repeat: 10000)",
        "(ReadStream on: 'abc') position: (7 raisedTo: 6000)",
    ],
    "message-not-understood": ["3 perform: ('a' repeat: 1000000) asSymbol", "3 perform: ('a' repeat: 1000000) asSymbol with: 3"],
    "depth-limit": [
        "a := Array new: 1. a at: 1 put: a. a hash",
        "a := Array new: 1. a at: 1 put: a. Set with: a",
        "a := Array new: 1. a at: 1 put: a. b := Array new: 1. b at: 1 put: b. a = b",
    ],
    "syntax": ["[" + "x := 1. " * 10_000 + "] value", "x := 1" + " + 1" * 20_000],
    "smalltalk-error": [
        "[1/0] on: ZeroDivide do: [:e | x := e]. x resume: 3",
        "[1/0] on: ZeroDivide do: [:e | x := e]. x retry",
        "[1/0] on: ZeroDivide do: [:e | x := e]. x return: 3",
        "[1/0] on: ZeroDivide do: [:e | x := e]. x outer",
        "[1/0] on: ZeroDivide do: [:e | x := e]. x pass",
        "[[1/0. 5] ensure: [e resume: 4]] on: ZeroDivide do: [:ex | e := ex. 7]",
        "Character value: (7 raisedTo: 6000)",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("code", "text"), [(code, text) for code, texts in REFUSED.items() for text in texts])
def test_what_is_too_large_is_refused_before_it_is_made(code: str, text: str) -> None:
    before, start = resident_memory(), time.process_time()
    with pytest.raises(SmalltalkError) as caught:
        Workspace(limits=Limits(memory=400 << 20)).run(text)
    assert caught.value.code == code
    assert len(caught.value.message) < 500
    assert time.process_time() - start < 6
    assert resident_memory() - before < 500 << 20


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("('ab' padLeftTo: 3000000) size", 3_000_000),
        ("20000 factorial printString size", 77_338),
        ("(10 raisedTo: 75000) printString size", 75_001),
        ("(20000 factorial / 19998 factorial)", 20_000 * 19_999),
        ("((1 to: 1000000000) = (1 to: 1000000000))", True),
        ("(1 to: 1000000000) size", 1_000_000_000),
        ("('a,b,,c' splitOn: ',') asArray printString", "#('a' 'b' '' 'c')"),
        ("('a b  c' findTokens: ' ') asArray printString", "#('a' 'b' 'c')"),
        ("('ab' , String cr , String lf , 'c' , String lf , String lf) lines printString", "#('ab' 'c' '')"),
        ("'' lines printString", "#()"),
        ("'foobar' matchesRegex: 'fo{1,20}[a-c]+r'", True),
        ("(Set withAll: (1 to: 5000)) size", 5_000),
        ("((1 to: 100000) asArray reversed first: 2) printString", "#(100000 99999)"),
    ],
)
def test_what_is_large_but_not_too_large_is_made(text: str, value: object) -> None:
    assert Workspace().run(text) == value


def test_a_pattern_that_would_take_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strings, "_PATTERN_TIME", 0.2)
    with pytest.raises(SmalltalkError, match="took longer"):
        Workspace().run("('a' repeat: 60) matchesRegex: '(a|aa)+b'")


def test_a_printed_form_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing, "MAX_PRINTED", 20_000)
    workspace = Workspace()
    text = workspace.run("a := #(1). 60 timesRepeat: [a := {a. a. a. a. a. a. a. a. a}]. a printString")
    assert "…" in text
    assert len(workspace.run("(1 to: 100000) asArray printString")) < 40_000


@pytest.mark.parametrize(
    "text",
    [
        "a := #(1). b := #(1). 60 timesRepeat: [a := {a. a}. b := {b. b}]. a = b",
        "a := #(1). 60 timesRepeat: [a := {a. a}]. a hash",
        "b := nil. b := [[[true] whileTrue] ensure: [b value]]. b value",
        "[[[true] whileTrue] ensure: [[true] whileTrue]] ensure: [[true] whileTrue]",
    ],
)
def test_what_makes_no_checks_is_stopped_too(text: str) -> None:
    workspace = Workspace(limits=Limits(time=0.2))
    start = time.monotonic()
    with pytest.raises(SmalltalkError) as caught:
        workspace.run(text)
    assert caught.value.code == "time-limit"
    assert time.monotonic() - start < 8
    assert workspace.run("3 + 4") == 7


def test_ensure_blocks_do_not_take_more_memory_than_there_is() -> None:
    before = resident_memory()
    with pytest.raises(SmalltalkError) as caught:
        Workspace(limits=Limits(memory=100 << 20)).run(
            "c := OrderedCollection new. b := nil. b := [[[true] whileTrue: [c add: (Array new: 1000)]] ensure: [b value]]. b value"
        )
    assert caught.value.code == "memory-limit"
    assert resident_memory() - before < 200 << 20


def test_a_meter_counts_several_runs_and_what_is_held() -> None:
    meter = Meter(300 << 20)
    workspace = Workspace(meter=meter)
    with pytest.raises(SmalltalkError) as caught:
        for number in range(100):
            workspace.run(f"x{number} := (1 to: 100) collect: [:i | String new: 10000 withAll: (Character value: 300 + i)]")
    assert caught.value.code == "memory-limit"

    class Owner:
        pass

    other, owner = Meter(1 << 30), Owner()
    other.hold(owner, 5000)
    assert other.grown == 5000
    with other._lock:  # a finalizer may run in the thread that counts
        del owner
        gc.collect()
    assert other.grown == 0


def test_symbols_and_characters_that_nobody_refers_to_are_forgotten() -> None:
    Workspace().run("1 to: 2000 do: [:i | ('some symbol' , i printString) asSymbol. Character value: 5000 + i]")
    gc.collect()
    assert not any(name.startswith("some symbol") for name in Symbol._table)
    assert not any(5000 < ord(value) < 7000 for value in Character._table)
    kept = Workspace().run("#kept == ('ke' , 'pt') asSymbol")
    assert kept is True


def test_texts_have_a_longest() -> None:
    with pytest.raises(SmalltalkSyntaxError, match="too long"):
        parse(" " * (LONGEST_TEXT + 1))


def test_a_long_text_does_not_keep_other_threads_from_parsing() -> None:
    parse("1")
    thread = threading.Thread(target=parse, args=("x := 1. " * 10_000,))
    thread.start()
    assert len(parse("3 + 4").items) == 1
    assert thread.is_alive()  # the short text did not wait for the long one
    thread.join()


def test_ordinary_keys_do_not_collide() -> None:
    check_collisions(dict.fromkeys(range(0, 8192 * 64, 64)))
    check_collisions({f"key {number}": number for number in range(8192)})
    assert MAX_SIZE < MAX_TEXT < MAX_BITS * 100
