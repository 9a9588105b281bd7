"""Stopping scripts: a flag that compiled code checks, set on request or when a limit is reached.

Loops, methods and blocks test a global variable, `g_stop`. To stop the script, record a reason and set the flag; the script
raises the reason at its next check, so that `ensure:` blocks run as for any error. Then the flag is cleared for those blocks. A
script that still runs `GRACE` seconds later is stopped again, and after `LAST` stops its `ensure:` blocks are no longer run. Code
that makes no checks, such as a long function of a library, gets the reason as an asynchronous exception.

Memory is measured as growth of the process. One thread samples it while scripts run, and adds the growth to the `Meter`s of
those that ran since the last sample. Primitives that make something large ask the meter first (`runtime.accounting`).
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from neuroscope import events
from neuroscope_dsl.errors import MemoryLimitReached, ScriptInterrupted, ScriptKilled, ScriptStopped, TimeLimitReached
from neuroscope_dsl.runtime.process import process

#: Seconds that `ensure:` blocks have before a stopped script is stopped again.
GRACE = 1.0

#: Stops after which a script's `ensure:` blocks are not run any more.
LAST = 3

#: Seconds that `ensure:` blocks have when the memory is used up.
_MEMORY_GRACE = 0.1

#: Seconds between two samples of the memory.
_PERIOD = 0.02

#: The part of the limit at which scripts are stopped, since they go on for a moment.
_SOON = 0.9

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


class Meter:
    """The memory by which the scripts of one workspace, or of one session, made the process grow."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.reserved = 0  # asked for since the last sample
        self._grown = 0
        self._given_back: deque[int] = deque()  # by finalizers, which must not wait for a lock
        self._lock = threading.Lock()

    @property
    def grown(self) -> int:
        if self._given_back:
            self._count(0)
        return self._grown

    @property
    def exceeded(self) -> bool:
        return self.limit is not None and self.grown > self.limit * _SOON

    def reserve(self, size: int) -> None:
        """Ask for memory that is about to be used. Raises `MemoryLimitReached` if the limit does not allow it."""
        if self.limit is None:
            return
        if self.grown + self.reserved + size > self.limit * _SOON:
            _watch.sample()  # what was reserved may be free again
            if self.grown + size > self.limit * _SOON:
                raise self.error()
        self.reserved += size

    def sampled(self, growth: int) -> None:
        self._count(growth)
        self.reserved = 0

    def hold(self, owner: object, size: int) -> None:
        """Count memory that came from outside, as long as its owner exists."""
        self.sampled(size)
        weakref.finalize(owner, self._given_back.append, size).atexit = False

    def _count(self, growth: int) -> None:
        with self._lock:
            while self._given_back:
                growth -= self._given_back.popleft()
            self._grown = max(0, self._grown + growth)

    def error(self) -> MemoryLimitReached:
        limit = self.limit or 0
        return MemoryLimitReached(f"The script used more than {limit / 2**20:.0f} MiB.", remedy=_RAISE.format("memory"))


class Stopper:
    """Stops one workspace's scripts. `meter` counts the memory of several runs; without it, each run is counted alone."""

    def __init__(self, variables: dict[str, Any], limits: Limits, meter: Meter | None = None) -> None:
        self.limits = limits
        self.meter = meter
        self._shared = meter
        self._variables = variables
        self.reason: ScriptStopped | None = None
        self._running = 0
        self._stops = 0
        self._started = self._again = self._stopped_at = 0.0
        self._thread: int | None = None  # the thread that may be sent an exception
        self._lock = threading.Lock()
        variables["g_stop"] = False
        variables["g_stopped"] = self.stopped

    def stop(self, reason: ScriptStopped) -> None:
        """Stop the running script, if any; may be called from any thread, repeatedly."""
        if not self._running:
            return
        now = time.monotonic()
        if self.reason is None:
            self.reason = reason
            self._stopped_at = now
        self._stops += 1
        grace = GRACE
        if isinstance(reason, MemoryLimitReached):
            grace = _MEMORY_GRACE
            self._stops += LAST - 2  # the next one is the last
        self._variables["g_stop"] = True
        if now - self._stopped_at > grace:
            self._kill()

    def interrupt(self) -> None:
        self.stop(ScriptInterrupted("The script was interrupted."))

    def stopped(self) -> None:
        """Compiled code calls this when the flag is set."""
        if self._stops < LAST:
            self._variables["g_stop"] = False
        reason = self.reason
        if reason is not None and self._running:  # ignore a request made as the script ended
            raise type(reason)(reason.message, remedy=reason.advice)

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
        self._stops = 0
        self._variables["g_stop"] = False
        limits = self.limits
        self.meter = self._shared or (None if limits.memory is None else Meter(limits.memory))
        watched = limits.time is not None or (self.meter is not None and self.meter.limit is not None)
        outer, process.meter = process.meter, self.meter
        self._thread = threading.get_ident()
        self._running = 1
        if watched:
            self._started, self._again = time.monotonic(), 0.0
            _watch.enter(self)
        frames = None
        try:
            frames = make_room(limits.depth)
            yield
        except ScriptKilled as error:
            reason = self.reason or error
            raise type(reason)(reason.message, remedy=reason.advice) from error
        finally:
            try:
                self._end()
            except ScriptKilled:  # before its first statement
                self._end()
            if frames is not None:
                give_back(frames)
            if watched:
                _watch.leave(self)
            process.meter = outer
            self._variables["g_stop"] = False

    def _end(self) -> None:
        """After this, no exception is sent to the thread, and none is on its way."""
        while True:
            try:
                with self._lock:
                    self._running = 0
                    self._thread = None
                # One that was sent is raised here. Were it taken back, CPython 3.11 would go on looking for it in every thread, and hang under `sys.settrace`.
                for _ in range(2):
                    pass
                return
            except ScriptKilled:
                continue

    def _kill(self) -> None:
        with self._lock:
            if self._thread is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(ScriptKilled))

    def check(self, now: float) -> None:
        """Stop the script if it is beyond a limit."""
        if now < self._again:
            return
        limit = self.limits.time
        if limit is not None and now - self._started > limit:
            self.stop(TimeLimitReached(f"The script ran longer than {limit:g} seconds.", remedy=_RAISE.format("time")))
            self._again = now + GRACE
        if self.meter is not None and self.meter.exceeded:
            self.stop(self.meter.error())
            self._again = now + _MEMORY_GRACE / 2


_RAISE = "Look for a loop that does not end, or raise the {} limit."


class _Watch:
    """The thread that samples the memory and checks the limits of the scripts that run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: set[Stopper] = set()
        self._ran: set[Meter] = set()
        self._ran_before: set[Meter] = set()
        self._resident: int | None = None  # at the last sample; None while nothing runs
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def enter(self, stopper: Stopper) -> None:
        with self._lock:
            self._active.add(stopper)
            if stopper.meter is not None:
                self._ran.add(stopper.meter)
            if self._resident is None:
                self._resident = resident_memory()
                self._wanted.set()
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, name="script limits", daemon=True)
                    self._thread.start()

    def leave(self, stopper: Stopper) -> None:
        with self._lock:
            self._active.discard(stopper)

    def _run(self) -> None:
        quiet = 0
        while True:
            time.sleep(_PERIOD)
            with self._lock:
                active = list(self._active)
                self._sample()
                quiet = 0 if active else quiet + 1
                rests = quiet > 1 / _PERIOD
                if rests:
                    self._resident = None
                    self._wanted.clear()
            now = time.monotonic()
            for stopper in active:
                stopper.check(now)
            if rests:
                quiet = 0
                self._wanted.wait()

    def sample(self) -> None:
        """Measure now."""
        with self._lock:
            self._sample()

    def _sample(self) -> None:
        resident = resident_memory()
        growth = resident - (resident if self._resident is None else self._resident)
        self._resident = resident
        if events.uncounted():  # a model is being loaded, for all sessions
            growth = min(growth, 0)
        # What ran all the time since the last sample took the memory, rather than short requests in between.
        now = {stopper.meter for stopper in self._active if stopper.meter is not None}
        for meter in (took := self._ran_before & now or self._ran):
            meter.sampled(growth // len(took))
        self._ran_before, self._ran = now, set(now)


_watch = _Watch()


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


def make_room(depth: int) -> int:
    """Raise Python's recursion limit as scripts need; it is global, so concurrent scripts share the largest."""
    return raise_recursion_limit(depth * _FRAMES_PER_MESSAGE + 500)


def raise_recursion_limit(frames: int) -> int:
    """Allow at least so many frames, until `give_back(frames)`."""
    global _usual
    with _lock:
        if not _wanted:
            _usual = sys.getrecursionlimit()
        _wanted.append(frames)
        sys.setrecursionlimit(max(_usual, *_wanted))
    return frames


def give_back(frames: int) -> None:
    """Undo `raise_recursion_limit`."""
    with _lock:
        _wanted.remove(frames)
        sys.setrecursionlimit(max([_usual, *_wanted]))
