"""Workspaces run scripts and hold their variables. This is the DSL's public interface.

    workspace = Workspace(transcript=sys.stdout.write)
    workspace.bind("model", model)
    value = workspace.run(text, file="01.st")          # the value of the last statement
    workspace.print_string(value)                      # as printString
    workspace.variables["results"]                     # in the order in which they were assigned

- `run(text, file)` parses the whole text, then compiles and runs statement by statement, calling `on_statement` before each.
  `evaluate(text)` is `run` for an expression. `check(text)` only parses and compiles.
- `bind`, `lookup`, `unbind`, `variables`: the workspace's variables.
- `complete(line, cursor)` and `is_complete(text)` are for a REPL.
- `Limits(time, memory, depth)` bound a run; `interrupt()` stops it from any thread; Ctrl-C works as in any Python code.
- `send(receiver, selector, *arguments)` sends one message, for the bridge.
- `block(source, captured)` compiles a block given as text.

All errors of a script are `SmalltalkError`s: `render()` shows the line and a caret, `position` and `stack` the place,
`as_dictionary()` is plain data. `KeyboardInterrupt` passes through, after `ensure:` blocks ran. Only one thread at a time may
run scripts in a workspace.
"""

from __future__ import annotations

import random
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from neuroscope import events, places, vocabulary
from neuroscope.errors import CancelledError, speaking
from neuroscope_dsl import nodes
from neuroscope_dsl.compiler.generator import sender_name
from neuroscope_dsl.compiler.scopes import MethodContext, walk
from neuroscope_dsl.compiler.unit import compile_method, compile_statement
from neuroscope_dsl.completion import Completion, complete
from neuroscope_dsl.dispatch import Dispatcher, Vocabulary
from neuroscope_dsl.errors import DepthLimitReached, MemoryLimitReached, SmalltalkError, SmalltalkSyntaxError
from neuroscope_dsl.limits import Limits, Meter, Stopper
from neuroscope_dsl.parser import parse
from neuroscope_dsl.prelude import PreludeMethod
from neuroscope_dsl.runtime.arguments import truth
from neuroscope_dsl.runtime.arithmetic import fast_operators, identical
from neuroscope_dsl.runtime.block import Block
from neuroscope_dsl.runtime.classes import LIBRARY, SmalltalkClass
from neuroscope_dsl.runtime.counting import steps
from neuroscope_dsl.runtime.exceptions import (
    BlockCannotReturn,
    Error,
    Home,
    NonLocalReturn,
    Resume,
    SmalltalkException,
    Unwind,
)
from neuroscope_dsl.runtime.handlers import adopt, leaving
from neuroscope_dsl.runtime.printing import brief, display_string
from neuroscope_dsl.runtime.process import SOURCES, current_stack, stack_of_traceback
from neuroscope_dsl.runtime.system import Context, SystemDictionary
from neuroscope_dsl.runtime.transcript import Transcript
from neuroscope_dsl.runtime.unknown import CLASS_NAMES, unknown_class, unknown_name
from neuroscope_dsl.runtime.values import Array
from neuroscope_dsl.source import Position, Source

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PREDEFINED = ("Transcript", "Smalltalk")
_INTEGERS = ("SmallInteger", "LargePositiveInteger", "LargeNegativeInteger")
_RAISE = object()


@dataclass(frozen=True)
class StatementInfo:
    """The argument of `on_statement`: number and total of the statement, its position, and its text."""

    index: int
    total: int
    position: Position
    text: str


class Variables(Mapping[str, Any]):
    """The variables of a workspace by name, in the order of their first assignment; classes are not among them."""

    def __init__(self, store: dict[str, Any]) -> None:
        self._store = store

    def __getitem__(self, name: str) -> Any:
        value = self._store[f"v_{name}"]
        if self._hidden(name, value):
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter([key[2:] for key, value in self._store.items() if key[:2] == "v_" and not self._hidden(key[2:], value)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @staticmethod
    def _hidden(name: str, value: Any) -> bool:
        return name in _PREDEFINED or (isinstance(value, SmalltalkClass) and value.name == name)


class Workspace:
    """Runs scripts. See the module's docstring."""

    def __init__(
        self,
        *,
        vocabulary: Vocabulary = vocabulary,
        transcript: Callable[[str], object] | None = None,
        limits: Limits | None = None,
        seed: int = 0,
        meter: Meter | None = None,
    ) -> None:
        """`vocabulary` has `find(name)` and `names()`, as the module `neuroscope.vocabulary`; `transcript` receives what
        scripts show; `seed` starts the random numbers of `atRandom` and `shuffled`; `meter` counts the memory of all runs."""
        self.dispatcher = Dispatcher(vocabulary)
        self.dispatcher.context = self
        self.transcript = Transcript(transcript)
        self.random = random.Random(seed)
        self._vocabulary = vocabulary
        self._lock = threading.RLock()
        self._store: dict[str, Any] = {"__builtins__": {}, SOURCES: weakref.WeakValueDictionary()}
        self._store[CLASS_NAMES] = _Names(vocabulary)
        self._home = Home()
        self.variables: Mapping[str, Any] = Variables(self._store)
        self._stopper = Stopper(self._store, limits or Limits(), meter)
        self._store.update(self._helpers())
        self._store.update({"v_Transcript": self.transcript, "v_Smalltalk": SystemDictionary()})

    def _helpers(self) -> dict[str, Any]:
        return {
            **fast_operators(self.dispatcher.sender),
            "g_identical": identical,
            "g_truth": truth,
            "g_boolean": truth,
            "g_array": Array,
            "g_block": Block,
            "g_steps": steps,
            "g_times": _times,
            "g_home": self._home,
            "g_Home": Home,
            "g_return": leaving,
            "g_NonLocalReturn": NonLocalReturn,
            "g_super": self.dispatcher.super_send,
            "g_context": lambda: Context(current_stack(sys._getframe(1))),
        }

    # --- running --------------------------------------------------------------------------------------------------

    def run(self, text: str, file: str = "<script>", on_statement: Callable[[StatementInfo], object] | None = None) -> Any:
        """Run a script. Return the value of its last statement, or of `^`.

        Raises `SmalltalkError`: a syntax error before anything runs, otherwise an error that the script did not handle.
        """
        source = Source(text, file)
        script = parse(source)
        return self._guarded(lambda: self._run(script, source, on_statement))

    def send(self, receiver: Any, selector: str, *arguments: Any) -> Any:
        """Send one message from outside, under the same limits and with the same errors as `run`."""
        return self._guarded(lambda: self.dispatcher.send(receiver, selector, *arguments))

    def _guarded(self, action: Callable[[], Any]) -> Any:
        """Run an action under the limits. Errors get their position."""
        with (
            self._lock,
            speaking("smalltalk"),
            self._stopper.watching(),
            events.cancellable(lambda: self._stopper.reason is not None),
        ):
            try:
                return action()
            except SmalltalkError as error:
                raise self._located(error) from error.__cause__
            except NonLocalReturn as returned:
                if returned.home is self._home:
                    return returned.value
                dead = BlockCannotReturn("The method that this block returns from has already returned")
                raise self._located(dead, returned) from None
            except (Unwind, Resume) as stray:
                raise self._located(Error("This exception is no longer being handled"), stray) from None
            except RecursionError as error:
                message = f"Messages are nested deeper than {self._stopper.limits.depth}."
                too_deep = DepthLimitReached(message, remedy="Look for a recursion that does not end.")
                raise self._located(too_deep, error) from None
            except MemoryError as error:
                raise self._located(MemoryLimitReached("There is not enough memory."), error) from error
            except CancelledError as error:
                reason = self._stopper.reason
                if reason is None:
                    raise
                raise self._located(type(reason)(reason.message, remedy=reason.advice), error) from error
            except Exception as error:
                adopted = adopt(error)
                if adopted is None:
                    raise
                raise self._located(adopted, error) from error

    def _run(self, script: nodes.Script, source: Source, on_statement: Callable[[StatementInfo], object] | None) -> Any:
        value: Any = None
        for index, item in enumerate(script.items):
            if on_statement is not None:
                on_statement(StatementInfo(index, len(script.items), item.span.position, item.span.text))
            if isinstance(item, nodes.MethodDefinition):
                self._define(item, source)
            else:
                self._link(item)
                value = compile_statement(item, source, self, self._store)()
        return value

    def evaluate(self, text: str) -> Any:
        """The value of an expression."""
        return self.run(text, "<expression>")

    def check(self, text: str, file: str = "<script>") -> nodes.Script:
        """Parse and compile without running. Return the tree. Raises `SmalltalkSyntaxError`."""
        source = Source(text, file)
        script = parse(source)
        for item in script.items:
            if isinstance(item, nodes.MethodDefinition):
                owner = SmalltalkClass(item.class_name, LIBRARY["Object"])
                compile_method(item, MethodContext.of(owner, item.class_side, item.selector), source, self, self._store)
            else:
                compile_statement(item, source, self, self._store)
        return script

    def block(self, text: str, captured: Mapping[str, Any] | None = None) -> Block:
        """Compile a block given as text, with values for its captured names."""
        names = list(captured or {})
        for name in names:
            self._check_name(name)
        items = parse(Source(text, "<block>")).items
        if len(items) != 1 or not isinstance(items[0], nodes.Block):  # anything else would run now
            raise SmalltalkSyntaxError("This text is not a block.", remedy="[:x | …]")
        maker = f"[{' '.join(f':{name}' for name in names)} | {text}]" if names else text
        made = self.run(maker, "<block>")
        if names and isinstance(made, Block):
            made = made(*[(captured or {})[name] for name in names])
        if not isinstance(made, Block):
            raise SmalltalkSyntaxError("This text is not a block.", remedy="[:x | …]")
        return made

    def watched(self) -> AbstractContextManager[None]:
        """Enforce the limits, and let `interrupt` stop what runs within, around several calls and what is done with their values."""
        return self._stopper.watching()

    def interrupt(self) -> None:
        """Stop the running script at its next loop, method or block. May be called from any thread."""
        self._stopper.interrupt()

    @staticmethod
    def _located(error: SmalltalkError, origin: BaseException | None = None) -> SmalltalkError:
        """Complete the error's position and calls: a block that Python called has only its own part of the stack."""
        stack = stack_of_traceback((origin or error).__traceback__)
        if error.position is None or (stack[:1] == [error.position] and len(stack) > len(error.stack)):
            error.stack = stack
            error.position = stack[0] if stack else None
        return error

    # --- definitions ----------------------------------------------------------------------------------------------

    def _define(self, node: nodes.MethodDefinition, source: Source) -> None:
        owner = self.lookup_class(node.class_name)
        if owner is None:
            error = unknown_class(node.class_name, self.class_names())
            error.position = node.span.position
            error.stack = [error.position]
            error.unhandled = True
            raise error
        if owner.name in _INTEGERS:
            owner = LIBRARY["Integer"]
        self._link(node)
        context = MethodContext.of(owner, node.class_side, node.selector)
        method = compile_method(node, context, source, self, self._store)
        self.dispatcher.define(owner, node.class_side, node.selector, method)
        if node.class_side and node.selector == "initialize":
            self.dispatcher.send(owner, "initialize")

    def _link(self, node: nodes.Node) -> None:
        """Bind the classes that a piece of code names, importing those of the vocabulary."""
        for part in walk(node):
            if isinstance(part, nodes.Variable) and part.name[0].isupper() and f"v_{part.name}" not in self._store:
                found = self.dispatcher.class_named(part.name)
                if found is not None:
                    self._store[f"v_{part.name}"] = found

    def lookup_class(self, name: str) -> SmalltalkClass | None:
        """A class by name, from a script, the library or the vocabulary."""
        bound = self._store.get(f"v_{name}")
        return bound if isinstance(bound, SmalltalkClass) else self.dispatcher.class_named(name)

    def install_class(self, defined: SmalltalkClass) -> None:
        """Register a class that a script defined."""
        self._store[f"v_{defined.name}"] = defined
        for variable in defined.class_variables:
            self._store.setdefault(f"c_{defined.name}_{variable}", None)
        self.dispatcher.forget()

    def class_names(self) -> list[str]:
        """Every class that a script can name."""
        bound = [key[2:] for key, value in self._store.items() if key[:2] == "v_" and isinstance(value, SmalltalkClass)]
        return sorted({*LIBRARY, *self._vocabulary.names(), *bound})

    # --- what the compiler asks -----------------------------------------------------------------------------------

    def sender_name(self, selector: str) -> str:
        name = sender_name(selector)
        if name not in self._store:
            self._store[name] = self.dispatcher.sender(selector)
        return name

    def linked(self, method: PreludeMethod) -> Callable[..., Any]:
        """A method of the prelude as a function of this workspace."""
        for selector in method.sent:
            self.sender_name(selector)
        self._link(method.tree)
        return method.unit.linked(self._store)

    def is_class(self, name: str) -> bool:
        bound = self._store.get(f"v_{name}")
        own = isinstance(bound, SmalltalkClass) and bound.name == name
        return own or name in _PREDEFINED or self.dispatcher.is_class_name(name)

    # --- variables ------------------------------------------------------------------------------------------------

    def bind(self, name: str, value: Any) -> None:
        """Give a variable a value. Raises `SmalltalkError` for an invalid name."""
        self._check_name(name)
        if self.is_class(name):
            raise SmalltalkError(f"{name} is a class; nothing can be bound to that name.", remedy="Choose another name.")
        self._store[f"v_{name}"] = value

    @staticmethod
    def _check_name(name: str) -> None:
        if not _NAME.match(name) or name in ("self", "super", "nil", "true", "false", "thisContext"):
            raise SmalltalkError(f"{name!r} cannot be the name of a variable.", remedy="Letters, digits and _, a letter first.")

    def lookup(self, name: str, default: Any = _RAISE) -> Any:
        """The value of a variable, or a class. Raises `UnknownVariable` if there is none and no default."""
        if f"v_{name}" in self._store:
            return self._store[f"v_{name}"]
        found = self.dispatcher.class_named(name)
        if found is not None:
            return found
        if default is not _RAISE:
            return default
        raise unknown_name(name, self._store)

    def clear(self) -> None:
        """Forget everything, when the workspace is not needed any more: it refers to itself, so it would stay for a while."""
        self._store.clear()
        self.dispatcher.clear()

    def unbind(self, name: str) -> None:
        """Forget a variable, if there is one of that name."""
        if name in self.variables:
            del self._store[f"v_{name}"]

    # --- for people -----------------------------------------------------------------------------------------------

    def print_string(self, value: Any) -> str:
        """The result of `printString`. Raises `SmalltalkError` for an error in a script's `printOn:`."""
        text = self._guarded(lambda: self.dispatcher.send(value, "printString"))
        return text if isinstance(text, str) else str(text)

    def display_string(self, value: Any) -> str:
        """The result of `displayString`."""
        text = self._guarded(lambda: self.dispatcher.send(value, "displayString"))
        return text if isinstance(text, str) else display_string(text)

    def complete(self, text: str, cursor: int | None = None) -> Completion:
        """Completions before the cursor."""
        return complete(self, text, cursor)

    def is_complete(self, text: str) -> bool:
        """Whether a REPL should run the text now rather than ask for another line.

        A method definition ends at an empty line. A text with an error is complete: running it shows the error.
        """
        try:
            script = parse(Source(text, "<input>"))
        except SmalltalkSyntaxError as error:
            return not error.incomplete
        if script.items and isinstance(script.items[-1], nodes.MethodDefinition):
            return text.endswith("\n\n")
        return True


class StoredBlock(Block):
    """A block that came from a file: it reads and writes no files, downloads nothing, and each run of it is limited."""

    __slots__ = ("_workspace",)

    def __init__(self, block: Block, workspace: Workspace) -> None:
        super().__init__(block.function, block.info, block.num_args)
        self._workspace = workspace

    def __call__(self, *arguments: Any) -> Any:
        with places.confined(places.NOWHERE):
            return self._workspace._guarded(lambda: Block.__call__(self, *arguments))


#: Of one run of a stored block: seconds, and bytes by which the process may grow.
_STORED = Limits(time=10.0, memory=1 << 30)


def compiled_block(text: str, captured: Mapping[str, Any] | None = None) -> StoredBlock:
    """A block from its text, in a new workspace, for hooks saved with a model. Nothing runs before it is called.

    Raises `SmalltalkSyntaxError` for a text that is not one block.
    """
    workspace = Workspace(limits=_STORED)
    return StoredBlock(workspace.block(text, captured), workspace)


class _Names:
    """The names of the vocabulary, loaded only for errors."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def __iter__(self) -> Iterator[str]:
        return iter(self._vocabulary.names())


def _times(count: Any) -> range:
    if type(count) is not int:
        raise Error(f"Only an integer can count repetitions, not {brief(count)}")
    return range(count)


__all__ = ["Limits", "SmalltalkError", "SmalltalkException", "StatementInfo", "Variables", "Workspace"]
