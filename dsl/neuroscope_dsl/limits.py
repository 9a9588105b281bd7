"""Stopping scripts: a flag that compiled code checks, set on request or when a limit is reached.

Loops, methods and blocks test a global variable, `g_stop`. To stop the script, record a reason and set the flag; the script
raises the reason at its next check, so that `ensure:` blocks run as for any error. Then the flag is cleared for those blocks; a
script that still runs after `GRACE` seconds is stopped again.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from neuroscope_dsl.errors import MemoryLimitReached, ScriptInterrupted, ScriptStopped, TimeLimitReached

#: Seconds that `ensure:` blocks have before a stopped script is stopped again.
GRACE = 1.0

#: Seconds between two checks of the memory.
_PERIOD = 0.02

#: Python frames of one Smalltalk message: the sender and the method.
_FRAMES_PER_MESSAGE = 2


@dataclass(frozen=True)
class Limits:
    """Limits of a script. `time` in seconds, `memory` in bytes of growth of the process, `depth` in nested messages.

    More depth than the default may need a larger stack for the thread that runs the script.
    """

    time: float | None = None
    memory: int | None = None
    depth: int = 10_000


class Stopper:
    """Stops one workspace's scripts."""

    def __init__(self, variables: dict[str, Any], limits: Limits) -> None:
        self.limits = limits
        self._variables = variables
        self.reason: ScriptStopped | None = None
        self._running = 0
        variables["g_stop"] = False
        variables["g_stopped"] = self.stopped

    def stop(self, reason: ScriptStopped) -> None:
        """Stop the running script, if any; may be called from any thread."""
        if self._running:
            self.reason = self.reason or reason
            self._variables["g_stop"] = True

    def interrupt(self) -> None:
        self.stop(ScriptInterrupted("The script was interrupted."))

    def stopped(self) -> None:
        """Compiled code calls this when the flag is set."""
        self._variables["g_stop"] = False
        reason = self.reason
        if reason is not None and self._running:  # ignore a request made as the script ended
            raise type(reason)(reason.message, remedy=reason.remedy)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Enforce the limits while a script runs."""
        if self._running:  # a run within a run: the outer one's limits hold
            self._running += 1
            try:
                yield
            finally:
                self._running -= 1
            return
        self.reason = None
        self._running = 1
        ended: threading.Event | None = None
        if self.limits.time is not None or self.limits.memory is not None:
            ended = threading.Event()
            watcher = threading.Thread(target=self._watch, args=(ended,), name="script limits", daemon=True)
            watcher.start()
        try:
            frames = _make_room(self.limits.depth)
            try:
                yield
            finally:
                _give_back(frames)
        finally:
            self._running = 0
            if ended is not None:
                ended.set()
                watcher.join()
            self._variables["g_stop"] = False

    def _watch(self, ended: threading.Event) -> None:
        limits = self.limits
        start = time.monotonic()
        base = resident_memory() if limits.memory is not None else 0
        again = 0.0
        period = _PERIOD if limits.memory is not None else min(_PERIOD, limits.time or _PERIOD)
        while not ended.wait(period):
            now = time.monotonic()
            if limits.time is not None and now - start > limits.time and now >= again:
                self.stop(
                    TimeLimitReached(f"The script ran longer than {limits.time:g} seconds.", remedy=_RAISE.format("time"))
                )
                again = now + GRACE
            if limits.memory is not None and now >= again and resident_memory() - base > limits.memory:
                grown = f"{limits.memory / 2**20:.0f} MiB"
                self.stop(MemoryLimitReached(f"The script used more than {grown}.", remedy=_RAISE.format("memory")))
                again = now + GRACE


_RAISE = "Look for a loop that does not end, or raise the {} limit."


def resident_memory() -> int:
    """Resident memory of this process in bytes."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


_lock = threading.Lock()
_wanted: list[int] = []
_usual = sys.getrecursionlimit()


def _make_room(depth: int) -> int:
    """Raise Python's recursion limit as scripts need; it is global, so concurrent scripts share the largest."""
    global _usual
    frames = depth * _FRAMES_PER_MESSAGE + 500
    with _lock:
        if not _wanted:
            _usual = sys.getrecursionlimit()
        _wanted.append(frames)
        sys.setrecursionlimit(max(_usual, *_wanted))
    return frames


def _give_back(frames: int) -> None:
    """Undo `_make_room`."""
    with _lock:
        _wanted.remove(frames)
        sys.setrecursionlimit(max([_usual, *_wanted]))
