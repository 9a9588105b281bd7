"""Blocks: Python callables with their number of arguments, source text, and captured values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from neuroscope_dsl.errors import SmalltalkError
from neuroscope_dsl.runtime.exceptions import ArgumentsCountMismatch
from neuroscope_dsl.runtime.handlers import adopt, signal
from neuroscope_dsl.runtime.process import stack_of_traceback
from neuroscope_dsl.source import Span


@dataclass(frozen=True, slots=True)
class BlockInfo:
    """A block's parameters, place, and the workspace variables that it names."""

    parameters: tuple[str, ...]
    span: Span
    workspace_names: tuple[str, ...]


class Block:
    """`[:x | …]`. Call it like a function; `function` is the Python function without checks."""

    __slots__ = ("__weakref__", "function", "info", "num_args")

    def __init__(self, function: Callable[..., Any], info: BlockInfo, num_args: int) -> None:
        self.function = function
        self.info = info
        self.num_args = num_args

    def __call__(self, *arguments: Any) -> Any:
        """Run the block from Python. Raises `SmalltalkError` with the position."""
        count = self.num_args
        if len(arguments) != count:
            return signal(self.mismatch(len(arguments)))
        try:
            if count == 1:  # the usual numbers of arguments without unpacking: hooks call blocks for every token
                return self.function(arguments[0])
            if count == 2:
                return self.function(arguments[0], arguments[1])
            return self.function(*arguments)
        except SmalltalkError as error:
            if error.position is None:
                error.stack = stack_of_traceback(error.__traceback__)
                error.position = error.stack[0] if error.stack else None
            raise
        except NameError as error:
            adopted = adopt(error)
            if adopted is None:
                raise
            raise adopted from error

    def mismatch(self, count: int) -> ArgumentsCountMismatch:
        """The error for a call with `count` arguments."""
        wanted = f"{self.num_args} argument{'' if self.num_args == 1 else 's'}"
        return ArgumentsCountMismatch(
            f"This block accepts {wanted}, but was called with {count}",
            remedy=f"The block: {self.source if len(self.source) <= 60 else self.source[:57] + '…'}",
        )

    @property
    def arity(self) -> int:
        return self.num_args

    @property
    def source(self) -> str:
        """The block's text, including brackets."""
        return self.info.span.text

    @property
    def captured(self) -> dict[str, Any]:
        """The captured values by name: local variables and workspace variables."""
        values: dict[str, Any] = {}
        function: Any = self.function
        variables = function.__globals__
        for name in self.info.workspace_names:
            if f"v_{name}" in variables:
                values[name] = variables[f"v_{name}"]
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name.startswith("l_"):
                try:
                    values[name[2:].partition("__")[0]] = cell.cell_contents
                except ValueError:  # declared, not yet assigned
                    continue
        return values

    def __repr__(self) -> str:
        return self.source
