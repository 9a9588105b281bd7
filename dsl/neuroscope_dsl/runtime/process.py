"""The state of a running script: its exception handlers and its calls.

Every thread has its own chain of handlers. Compiled code does no bookkeeping: positions come from Python's frames, whose code
objects have the script's lines and columns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, TypeVar

from neuroscope_dsl.source import Position, Source

if TYPE_CHECKING:
    from neuroscope_dsl.limits import Meter
    from neuroscope_dsl.runtime.handlers import Handler

T = TypeVar("T")

#: Key of a workspace's sources in its globals: a dictionary by the file name of code objects.
SOURCES = "__sources__"

#: Largest number of calls in an error.
MAX_STACK = 50


class Process(threading.local):
    """The state of one thread: its innermost exception handler, its number of nested sorts and of nested collections that are
    compared, the meter of its memory, and how many characters may still be printed.
    """

    handler: Handler | None = None
    sorts: int = 0
    nested: int = 0
    meter: Meter | None = None
    printable: int | None = None


process = Process()

#: Depth of collections within collections that are compared or hashed, which takes space on the machine's stack.
MAX_NESTED = 1_000


def within(compute: Callable[[], T]) -> T:
    """Compute something about a collection by looking into it. Raises `RecursionError` if it is nested too deeply, or holds itself."""
    if process.nested >= MAX_NESTED:
        raise RecursionError(f"Collections are nested deeper than {MAX_NESTED}.")
    process.nested += 1
    try:
        return compute()
    finally:
        process.nested -= 1


def _place(code: CodeType, last: int, sources: Mapping[str, Source]) -> Position | None:
    source = sources.get(code.co_filename)
    if source is None:
        return None
    for index, (line, _, column, _) in enumerate(code.co_positions()):
        if index == last // 2:
            return None if line is None else source.at(line, (column or 0) + 1)
    return None


def stack_of_traceback(traceback: TracebackType | None) -> list[Position]:
    """The script's positions from the raise of an exception to its handler, innermost first."""
    found: list[tuple[CodeType, int, Mapping[str, Source]]] = []
    while traceback is not None:
        sources = traceback.tb_frame.f_globals.get(SOURCES)
        if sources is not None:
            found.append((traceback.tb_frame.f_code, traceback.tb_lasti, sources))
        traceback = traceback.tb_next
    found = found[-MAX_STACK:]
    return [place for place in (_place(*entry) for entry in reversed(found)) if place is not None]


def current_stack(frame: FrameType | None) -> list[Position]:
    """The script's positions from a frame outwards, innermost first."""
    places: list[Position] = []
    while frame is not None and len(places) < MAX_STACK:
        sources = frame.f_globals.get(SOURCES)
        if sources is not None:
            place = _place(frame.f_code, frame.f_lasti, sources)
            if place is not None:
                places.append(place)
        frame = frame.f_back
    return places
