"""Errors of scripts, with their position.

`SmalltalkError` is the base; parsing and compiling raise `SmalltalkSyntaxError`. Running code raises `SmalltalkException` and
its subclasses (module `runtime.exceptions`), which a script can catch, or a subclass of `ScriptStopped`, which it cannot: a
limit was reached, or the user stopped the script.
"""

from __future__ import annotations

from typing import Any

from neuroscope.errors import NeuroScopeError
from neuroscope_dsl.source import Position


class SmalltalkError(NeuroScopeError):
    """Base of every error about a script. `position` is its place, `stack` the calls that led there.

    `stack` holds positions, innermost first; the first is `position` itself.
    """

    code = "smalltalk"

    def __init__(
        self, message: str = "", *, position: Position | None = None, site: object | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message, site=site, remedy=remedy)
        self.position = position
        self.stack: list[Position] = []

    @property
    def title(self) -> str:
        """The first line of the display."""
        return self.message

    @property
    def brief(self) -> str:
        return self.title if self.position is None else f"{self.title} ({self.position})"

    def render(self) -> str:
        """The error as text: message, line with caret, calls, and remedy."""
        lines = [self.title]
        if self.position is not None:
            lines.append(f"  {self.position.render()}")
        lines += [f"  called from {place}: {place.text.strip()}" for place in self.stack[1:6]]
        if len(self.stack) > 6:
            lines.append(f"  … and {len(self.stack) - 6} more calls")
        if self.remedy is not None:
            lines.append(self.remedy)
        return "\n".join(lines)

    def __str__(self) -> str:
        where = "" if self.position is None else f" ({self.position})"
        return f"{self.title}{where}" + ("" if self.remedy is None else f"\n  {self.remedy}")

    def as_dictionary(self) -> dict[str, Any]:
        place = self.position
        return {
            **super().as_dictionary(),
            "position": None
            if place is None
            else {"file": place.file, "line": place.line, "column": place.column, "text": place.text},
        }


class SmalltalkSyntaxError(SmalltalkError):
    """The text is not valid Smalltalk. `incomplete`: more text could make it valid (for a REPL)."""

    code = "syntax"

    def __init__(
        self, message: str, *, position: Position | None = None, remedy: str | None = None, incomplete: bool = False
    ) -> None:
        super().__init__(message, position=position, remedy=remedy)
        self.incomplete = incomplete


class ScriptStopped(SmalltalkError):
    """The script was stopped from outside; no handler in it can catch this, but `ensure:` blocks run."""

    code = "stopped"
    stops = True


class ScriptInterrupted(ScriptStopped):
    """`interrupt()` was called."""

    code = "interrupted"


class ScriptKilled(ScriptStopped):
    """The script did not stop when it was asked to, and was stopped in the middle of what it did."""

    code = "interrupted"


class TimeLimitReached(ScriptStopped):
    """The script ran longer than its workspace allows."""

    code = "time-limit"


class MemoryLimitReached(ScriptStopped):
    """The process grew by more than the workspace allows while the script ran, or a value would not fit."""

    code = "memory-limit"


class DepthLimitReached(ScriptStopped):
    """Messages were nested deeper than the workspace allows."""

    code = "depth-limit"
