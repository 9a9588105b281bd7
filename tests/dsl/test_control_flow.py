"""Conditionals, loops, blocks, closures and returns."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neuroscope_dsl import SmalltalkError, Workspace
from neuroscope_dsl.runtime.block import Block


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("3 > 2 ifTrue: ['yes'] ifFalse: ['no']", "'yes'"),
        ("3 < 2 ifTrue: ['yes']", "nil"),
        ("3 < 2 ifFalse: ['no'] ifTrue: ['yes']", "'no'"),
        ("3 > 2 ifTrue: 'yes' ifFalse: 'no'", "'yes'"),
        ("x := 3 > 2 ifTrue: [y := 1. y + 1] ifFalse: [0]. x + y", "3"),
        ("(3 > 2) & (2 > 1) | false", "true"),
        ("3 > 2 and: [2 > 3]", "false"),
        ("3 > 4 or: [2 < 3]", "true"),
        ("3 > 4 and: [1/0]", "false"),
        ("true xor: false", "true"),
        ("nil isNil", "true"),
        ("nil ifNil: [7]", "7"),
        ("5 ifNil: [7]", "5"),
        ("5 ifNotNil: [:x | x + 1]", "6"),
        ("nil ifNotNil: [:x | x + 1]", "nil"),
        ("nil ifNil: [0] ifNotNil: [:x | x]", "0"),
        ("b := [:x | x]. 5 ifNotNil: b", "5"),
        ("i := 0. [i < 5] whileTrue: [i := i + 1]. i", "5"),
        ("i := 0. [i >= 5] whileFalse: [i := i + 1]. i", "5"),
        ("i := 0. [i := i + 1. i < 5] whileTrue. i", "5"),
        ("i := 0. [i := i + 1. i = 5 ifTrue: [^i]. true] whileTrue", "5"),
        ("i := 0. [i := i + 1. i > 6 ifTrue: [^i]] repeat", "7"),
        ("s := 0. 1 to: 10 do: [:i | s := s + i]. s", "55"),
        ("s := 0. 10 to: 1 by: -3 do: [:i | s := s + i]. s", "22"),
        ("s := 0. 1 to: 2 by: 1/2 do: [:i | s := s + i]. s", "(9/2)"),
        ("s := 0. 0 to: 1 by: 0.25 do: [:i | s := s + i]. s", "2.5"),
        ("s := 0. 5 timesRepeat: [s := s + 2]. s", "10"),
        ("s := 0. 1 to: 0 do: [:i | s := 1]. s", "0"),
        ("n := 3. 1 to: n do: [:i | n := 10]. n", "10"),
        ("[:x :y | x * y] value: 6 value: 7", "42"),
        ("[] value", "nil"),
        ("[:x | ] value: 3", "nil"),
        ("[3. 4] value", "4"),
        ("[:x | | t | t := x. t + 1] value: 3", "4"),
        ("[:a :b | a + b] valueWithArguments: #(1 2)", "3"),
        ("[:a | a] cull: 1 cull: 2", "1"),
        ("[:a :b | 1] numArgs", "2"),
        ("#(3 1 2) collect: #negated", "#(-3 -1 -2)"),
        ("x := 5. b := [x := x + 1]. b value. b value. x", "7"),
        ("a := b := 3. a + b", "6"),
        ("{a := 1. a := a + 1. a}", "#(1 2 2)"),
        ("x := 1. x + (x := 5) + x", "11"),
        ("x := 1. {x. x > 0 ifTrue: [x := 2. x] ifFalse: [0]. x}", "#(1 2 2)"),
        ("[:x | x := x + 1. x] value: 3", "4"),
        ("| a | a", "nil"),
        ("a := 1. | b | b := 2. a + b", "3"),
        ("(true ifTrue: [nil]) isNil", "true"),
        ("thisContext printString", "'<script>:1:1'"),
    ],
)
def test_values(show: Callable[[str], str], text: str, printed: str) -> None:
    assert show(text) == printed


def test_each_turn_of_a_loop_has_its_own_variables(show: Callable[[str], str]) -> None:
    assert show("bs := OrderedCollection new. 1 to: 3 do: [:i | bs add: [i * 10]]. bs collect: [:b | b value]") == (
        "an OrderedCollection(10 20 30)"
    )
    program = (
        "bs := OrderedCollection new. i := 0. [i < 3] whileTrue: [| k | k := i. bs add: [k]. i := i + 1]. bs collect: #value"
    )
    assert show(program) == "an OrderedCollection(0 1 2)"


def test_closures_share_the_variables_around_them(show: Callable[[str], str]) -> None:
    program = "make := [:n | | count | count := n. {[count := count + 1]. [count]}]. p := make value: 10. p first value. p second value"
    assert show(program) == "11"


def test_a_return_in_a_block_leaves_the_method(show: Callable[[str], str]) -> None:
    show("Object subclass: #Finder.\nFinder >> find: x in: c\n    c do: [:e | e = x ifTrue: [^'found']].\n    ^'absent'\n")
    assert show("Finder new find: 2 in: #(1 2 3)") == "'found'"
    assert show("Finder new find: 9 in: #(1 2 3)") == "'absent'"


def test_a_return_from_a_method_that_has_returned_is_an_error(
    show: Callable[[str], str], error_of: Callable[[str], SmalltalkError]
) -> None:
    show("Object subclass: #Maker.\nMaker >> block\n    ^[:x | ^x]\n")
    assert error_of("Maker new block value: 3").code == "block-cannot-return"


def test_a_return_outside_methods_ends_the_script(workspace: Workspace) -> None:
    assert workspace.run("a := 1. ^7. a := 2") == 7
    assert workspace.variables["a"] == 1
    assert workspace.run("#(1 2 3) do: [:x | x = 2 ifTrue: [^x]]. 9") == 2


def test_a_condition_must_be_a_boolean(error_of: Callable[[str], SmalltalkError]) -> None:
    for text in ("3 ifTrue: [1]", "nil and: [true]", "[3] whileTrue: [1]", "#(1) select: [:x | x]"):
        error = error_of(text)
        assert error.code == "non-boolean", text
        assert error.position is not None


def test_a_block_called_with_the_wrong_number_of_arguments(error_of: Callable[[str], SmalltalkError]) -> None:
    for text in ("[:x | x] value", "[1] value: 2", "#(1) do: [:a :b | a]", "[:a :b | a] value: 1"):
        error = error_of(text)
        assert error.code == "block-arguments", text
        assert "argument" in error.message


def test_a_block_is_a_python_callable(workspace: Workspace) -> None:
    block = workspace.run("k := 3. [:x :y | x + y * k]")
    assert isinstance(block, Block)
    assert block(1, 2) == 9
    assert (block.num_args, block.arity) == (2, 2)
    assert block.source == "[:x :y | x + y * k]"
    assert block.captured == {"k": 3}


def test_a_block_knows_the_locals_it_captured(workspace: Workspace) -> None:
    workspace.run("Object subclass: #M.\nM >> with: factor\n    | unused |\n    ^[:x | x * factor]\n")
    block = workspace.run("M new with: 4")
    assert block.captured == {"factor": 4}
    shipped = Workspace().block(block.source, block.captured)
    assert shipped(5) == 20


def test_a_block_called_from_python_with_the_wrong_number_of_arguments(workspace: Workspace) -> None:
    with pytest.raises(SmalltalkError, match="accepts 1 argument, but was called with 2"):
        workspace.run("[:x | x]")(1, 2)


def test_an_error_in_a_block_called_from_python_has_its_place(workspace: Workspace) -> None:
    block = workspace.run("a := 1.\nb := [:x |\n    x foo: 3]", "hook.st")
    with pytest.raises(SmalltalkError) as caught:
        block(3)
    assert caught.value.position is not None
    assert (caught.value.position.file, caught.value.position.line, caught.value.position.column) == ("hook.st", 3, 7)
