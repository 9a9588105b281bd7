"""The collection protocol, strings and streams."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from neuroscope_dsl import SmalltalkError, Workspace


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        # arrays
        ("#(1 2 3) size", "3"),
        ("#(1 2 3) first + #(1 2 3) last", "4"),
        ("#(3 1 2) sorted", "#(1 2 3)"),
        ("#(3 1 2) sorted: [:a :b | a > b]", "#(3 2 1)"),
        ("#('bb' 'a' 'ccc') sorted: #size ascending", "#('a' 'bb' 'ccc')"),
        ("#('bb' 'a' 'ccc') asSortedCollection: [:a :b | a size >= b size]", "a SortedCollection('ccc' 'bb' 'a')"),
        ("#(1 2 3) reverse", "#(3 2 1)"),
        ("#(1 2 3) , #(4)", "#(1 2 3 4)"),
        ("#(1 2 3 4) copyFrom: 2 to: 3", "#(2 3)"),
        ("#(1 2 3) includes: 2", "true"),
        ("#(a b c) indexOf: #b", "2"),
        ("#(1 2 3) collect: [:x | x * x]", "#(1 4 9)"),
        ("#(1 2 3 4) select: #even", "#(2 4)"),
        ("#(1 2 3 4) reject: [:x | x even]", "#(1 3)"),
        ("#(1 2 3) inject: 0 into: [:a :b | a + b]", "6"),
        ("#(1 2 3) detect: [:x | x > 1]", "2"),
        ("#(1 2 3) detect: [:x | x > 9] ifNone: ['none']", "'none'"),
        ("#(1 2 3) anySatisfy: [:x | x > 2]", "true"),
        ("#(1 2 3) allSatisfy: [:x | x > 2]", "false"),
        ("#(1 2 3) with: #(10 20 30) collect: [:a :b | a + b]", "#(11 22 33)"),
        ("s := ''. #(1 2) withIndexDo: [:x :i | s := s , x printString , i printString]. s", "'1122'"),
        ("s := 0. #(5 6) keysAndValuesDo: [:i :x | s := s + (i * x)]. s", "17"),
        ("s := 0. #(1 2) with: #(3 4) do: [:a :b | s := s + (a * b)]. s", "11"),
        ("s := ''. #(1 2 3) do: [:x | s := s , x printString] separatedBy: [s := s , ',']. s", "'1,2,3'"),
        ("s := ''. #(1 2 3) reverseDo: [:x | s := s , x printString]. s", "'321'"),
        ("a := Array new: 3. a at: 2 put: 5. a", "#(nil 5 nil)"),
        ("Array new: 2 withAll: 7", "#(7 7)"),
        ("Array with: 1 with: 2 with: 3", "#(1 2 3)"),
        ("#(1 2 3) = #(1 2 3)", "true"),
        ("#(1 2 3) = (OrderedCollection with: 1 with: 2 with: 3)", "false"),
        ("#(1 $a 'x') = {1. $a. 'x'}", "true"),
        ("#(1 2 3) + 1", "#(2 3 4)"),
        ("#(1 2 3) sum", "6"),
        ("#(1 2 3) average", "2"),
        ("#(3 9 2) max", "9"),
        ("#('a' 'bbb') detectMax: [:x | x size]", "'bbb'"),
        ("#(1 2 3) allButFirst", "#(2 3)"),
        ("#() isEmpty", "true"),
        ("#() ifEmpty: ['e'] ifNotEmpty: [:c | c size]", "'e'"),
        ("#(1 (2 3)) flatCollect: [:x | x isArray ifTrue: [x] ifFalse: [{x}]]", "#(1 2 3)"),
        ("(#(1 2 3 4) groupedBy: [:x | x even]) at: true", "an OrderedCollection(2 4)"),
        ("#(1 2 3) fold: [:a :b | a * b]", "6"),
        # growing collections
        ("c := OrderedCollection new. c add: 1; add: 2; addFirst: 0. c", "an OrderedCollection(0 1 2)"),
        ("c := OrderedCollection new. c add: 1; yourself", "an OrderedCollection(1)"),
        ("c := OrderedCollection withAll: #(1 2 3). c removeFirst. c removeLast. c", "an OrderedCollection(2)"),
        ("c := OrderedCollection withAll: #(1 2 3). c remove: 2. c", "an OrderedCollection(1 3)"),
        ("c := OrderedCollection withAll: #(3 1 2). c sort. c", "an OrderedCollection(1 2 3)"),
        ("c := OrderedCollection withAll: #(1 2). c do: [:x | c add: x]. c size", "4"),
        ("c := SortedCollection new. c add: 3; add: 1; add: 2. c", "a SortedCollection(1 2 3)"),
        ("c := SortedCollection sortBlock: [:a :b | a >= b]. c addAll: #(1 3 2). c first", "3"),
        ("c := OrderedCollection withAll: #(1 2 3 4). c removeAllSuchThat: [:x | x odd]. c", "an OrderedCollection(2 4)"),
        # sets and bags
        ("#(1 1 2) asSet size", "2"),
        ("(Set withAll: {1. true. 1.0. 'a'. #a}) size", "3"),
        ("s := Set new. s add: #(1 2); add: #(1 2). s size", "1"),
        ("(Bag withAll: #(a b a)) occurrencesOf: #a", "2"),
        ("(#(1 2) asSet) = (#(2 1) asSet)", "true"),
        # dictionaries
        ("d := Dictionary new. d at: #a put: 1. d at: 'a'", "1"),
        ("d := Dictionary new. d at: #a ifAbsent: [7]", "7"),
        ("d := Dictionary new. d at: #a ifAbsentPut: [7]. d", "a Dictionary(#a->7 )"),
        ("d := Dictionary newFrom: {1 -> 2. 3 -> 4}. d keys", "#(1 3)"),
        ("d := Dictionary newFrom: {1 -> 2. 3 -> 4}. s := 0. d keysAndValuesDo: [:k :v | s := s + (k * v)]. s", "14"),
        ("d := Dictionary newFrom: {1 -> 2}. d associations first", "1->2"),
        ("d := Dictionary newFrom: {1 -> 2}. d collect: [:v | v * 10]", "a Dictionary(1->20 )"),
        ("d := Dictionary newFrom: {1 -> 2}. d removeKey: 1. d isEmpty", "true"),
        ("d := Dictionary newFrom: {1 -> 2}. d keyAtValue: 2", "1"),
        ("d := Dictionary new. d at: #(1 2) put: 3. d at: #(1 2)", "3"),
        ("{1->2} asDictionary at: 1", "2"),
        ("IdentityDictionary new at: #x put: 1; yourself", "an IdentityDictionary(#x->1 )"),
        # intervals
        ("(1 to: 5) last", "5"),
        ("(1 to: 5) asArray", "#(1 2 3 4 5)"),
        ("(5 to: 1 by: -2) asOrderedCollection", "an OrderedCollection(5 3 1)"),
        ("(1 to: 3) collect: [:x | x * x]", "#(1 4 9)"),
        ("(1 to: 100) inject: 0 into: [:a :b | a + b]", "5050"),
        ("(1/2 to: 2) asArray", "{(1/2). (3/2)}"),
        ("(1 to: 0) isEmpty", "true"),
        # strings
        ("'hello' size", "5"),
        ("'hello' at: 1", "$h"),
        ("'hello' reversed", "'olleh'"),
        ("'hello' asUppercase", "'HELLO'"),
        ("'hello' asSymbol", "#hello"),
        ("#foo , 'bar'", "'foobar'"),
        ("'hello' copyFrom: 2 to: 3", "'el'"),
        ("'hello' indexOf: $l", "3"),
        ("'hello' occurrencesOf: $l", "2"),
        ("'a,b,,c' findTokens: ','", "an OrderedCollection('a' 'b' 'c')"),
        ("'a,b' splitOn: ','", "an OrderedCollection('a' 'b')"),
        ("' x ' trimBoth", "'x'"),
        ("'hello' includesSubstring: 'ell'", "true"),
        ("'hello' beginsWith: 'he'", "true"),
        ("'hello' copyReplaceAll: 'l' with: 'L'", "'heLLo'"),
        ("'hello' select: [:c | c isVowel]", "'eo'"),
        ("'abc' collect: [:c | c asUppercase]", "'ABC'"),
        ("'abc' collect: [:c | c asInteger]", "#(97 98 99)"),
        ("'abc' < 'abd'", "true"),
        ("'abc' = #abc", "true"),
        ("#abc = 'abc'", "true"),
        ("#abc == #abc", "true"),
        ("'42' asNumber + '0.5' asNumber", "42.5"),
        ("'42abc' asInteger", "42"),
        ("'{1} and {2}' format: {3. 'x'}", "'3 and x'"),
        ("', ' join: #('a' 'b')", "'a, b'"),
        ("s := String new: 3 withAll: $x. s at: 2 put: $y. s", "'xyx'"),
        ("s := 'abc' copy. s at: 1 put: $z. s , '!'", "'zbc!'"),
        ("'hello world foo' substrings", "#('hello' 'world' 'foo')"),
        ("$a asInteger", "97"),
        ("97 asCharacter", "$a"),
        ("$a < $b", "true"),
        ("'a' , 3 printString", "'a3'"),
        ("'abc' asByteArray", "#[97 98 99]"),
        # streams
        (
            "s := WriteStream on: String new. s nextPutAll: 'ab'; nextPut: $c; print: 3; tab; << 'x'; << 4. s contents",
            "'abc3\tx4'",
        ),
        ("String streamContents: [:s | #(1 2) do: [:x | s print: x] separatedBy: [s << ', ']]", "'1, 2'"),
        ("Array streamContents: [:s | s nextPut: 1; nextPut: 2]", "#(1 2)"),
        ("s := ReadStream on: #(1 2 3). s next. s upToEnd", "#(2 3)"),
        ("s := 'a b' readStream. (s upTo: $ ) , s upToEnd", "'ab'"),
        ("s := ReadStream on: 'abc'. s peek. s next. s skip: 1. s next. s atEnd", "true"),
        ("s := ReadStream on: #(1 2). s next; next; next", "nil"),
        ("s := ReadWriteStream on: String new. s nextPutAll: 'abc'. s reset. s next", "$a"),
        ("s := ReadStream on: #(1 2 3). (s collect: [:x | x * 2]) upToEnd", "#(2 4 6)"),
    ],
)
def test_values(show: Callable[[str], str], text: str, printed: str) -> None:
    assert show(text) == printed


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("#(1 2) at: 3", "subscript-out-of-bounds"),
        ("#(1 2) at: 0", "subscript-out-of-bounds"),
        ("OrderedCollection new removeFirst", "smalltalk-error"),
        ("OrderedCollection new first", "smalltalk-error"),
        ("Dictionary new at: #x", "key-not-found"),
        ("'abc' at: 1 put: $x", "smalltalk-error"),
        ("#(1 2) add: 3", "message-not-understood"),
        ("'a' , 3", "smalltalk-error"),
        ("OrderedCollection new remove: 3", "not-found"),
        ("#(1 2) with: #(1) collect: [:a :b | a]", "argument"),
        ("#(1 2) at: 'x'", "argument"),
        ("Array new: -1", "argument"),
        ("(ReadStream on: 'x') nextPut: $a", "smalltalk-error"),
        ("3 + 'a'", "smalltalk-error"),
        ("3 + nil", "smalltalk-error"),
        ("3 + true", "smalltalk-error"),
        ("3 < 'a'", "smalltalk-error"),
        ("1/0", "zero-divide"),
        ("1 // 0", "zero-divide"),
        ("1.0 / 0", "zero-divide"),
        ("-1 sqrt", "arithmetic"),
        ("#(1 'a') sorted", "smalltalk-error"),
        ("#(1 2) detect: [:x | x > 5]", "not-found"),
    ],
)
def test_misuse_is_a_typed_error_with_a_place(error_of: Callable[[str], SmalltalkError], text: str, code: str) -> None:
    error = error_of(f"a := 1.\n{text}")
    assert error.code == code, error.render()
    assert error.position is not None
    assert error.position.line == 2


def test_collections_are_python_s_own(workspace: Workspace) -> None:
    assert workspace.run("OrderedCollection with: 1 with: 2") == [1, 2]
    assert workspace.run("Dictionary new at: #a put: 1; yourself") == {"a": 1}
    assert isinstance(workspace.run("#(1 2)"), list)
    assert workspace.run("#foo") == "foo"
    assert workspace.run("'foo'") == "foo"


def test_numpy_s_numbers_are_numbers(workspace: Workspace) -> None:
    workspace.bind("x", np.float64(0.5))
    workspace.bind("y", np.float32(0.1))
    workspace.bind("n", np.int64(3))
    workspace.bind("t", np.float64(1) > 0)
    shown = [workspace.print_string(workspace.run(text)) for text in ("x", "y", "n", "n + 1", "x * n", "x < 1", "n even", "t")]
    assert shown == ["0.5", "0.1", "3", "4", "1.5", "true", "false", "true"]
    assert workspace.run("t ifTrue: [1] ifFalse: [2]") == 1
    workspace.bind("a", np.array([1.0, 2.0]))
    assert workspace.print_string(workspace.run("a collect: [:e | e + 1]")) == "an OrderedCollection(2.0 3.0)"
    assert workspace.run("(a * 2) at: 1") == 4.0


def test_objects_of_a_script_are_found_by_their_own_equality(show: Callable[[str], str]) -> None:
    show(
        "Object subclass: #P instanceVariableNames: 'x' classVariableNames: '' package: 'T'.\nP >> x\n    ^x\nP >> x: v\n    x := v\n"
        "P >> = other\n    ^other class == self class and: [x = other x]\nP >> hash\n    ^x hash\n"
        "P >> < other\n    ^x < other x\nP >> <= other\n    ^x <= other x\n"
    )
    assert show("#(1 2) collect: [:i | (P new x: i; yourself) = (P new x: 1; yourself)]") == "#(true false)"
    assert show("(Set withAll: {P new x: 1; yourself. P new x: 1; yourself}) size") == "1"
    assert show("(({P new x: 2; yourself. P new x: 1; yourself} sorted) collect: #x)") == "#(1 2)"
    assert show("{P new x: 2; yourself} includes: (P new x: 2; yourself)") == "true"
