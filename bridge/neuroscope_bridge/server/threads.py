"""Threads that take turns at the socket.

Passing a request to a worker and its answer back costs two thread switches, more than a small request. So the thread that
receives a request runs it; a *watcher* checks every two milliseconds, and takes over the socket if that thread is still busy.
The former leader finishes its request and its session's queue, and becomes a watcher. At any time exactly one thread leads, and
only it uses the socket.

    leader     polls, receives, runs short requests, sends
    watcher    sleeps, and becomes leader when the leader is late
    worker     a former leader that is still computing; its answers go through the outbox
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("neuroscope.bridge")

#: Seconds on a request after which another thread takes over the socket.
PATIENCE = 0.002

#: Seconds without a request after which the watcher sleeps until there is one.
_QUIET = 1.0

#: The stack of a thread that runs scripts, in bytes, so that deep recursion ends as an error of the script.
_STACK = 64 << 20

#: A leader's work: computes, and returns the rest of the work, which takes whether this thread still leads.
Work = Callable[[], Callable[[bool], None]]


class LeaderThreads:
    """Runs `step()` repeatedly in the leading thread: one round of polling, which may return work."""

    def __init__(self, step: Callable[[], Work | None], stopping: Callable[[], bool]) -> None:
        self._step = step
        self._stopping = stopping
        self._lock = threading.Lock()
        self._since: float | None = None  # when the leader started its current work
        self._work: object = None
        self._active = threading.Event()
        self._watchers = 0
        self._alive = 0
        self._all_gone = threading.Condition()

    def start(self) -> None:
        self._spawn(self._lead)

    def join(self, timeout: float) -> bool:
        """Wait until every thread has ended. Return whether they did."""
        self._active.set()
        with self._all_gone:
            return self._all_gone.wait_for(lambda: self._alive == 0, timeout)

    # --- roles ----------------------------------------------------------------------------------------------------

    def _spawn(self, role: Callable[[], None]) -> None:
        with self._all_gone:
            self._alive += 1
            number = self._alive

        def body() -> None:
            try:
                role()
            except Exception:
                log.critical("a thread of the server failed", exc_info=True)
                raise
            finally:
                with self._all_gone:
                    self._alive -= 1
                    self._all_gone.notify_all()

        with _stack_size:
            before = threading.stack_size(_STACK)
            thread = threading.Thread(target=body, name=f"neuroscope {number}", daemon=True)
            thread.start()
            threading.stack_size(before)

    def _lead(self) -> None:
        """Lead until another thread takes over, then watch, repeatedly."""
        while True:
            while not self._stopping():
                work = self._step()
                if work is not None and not self._perform(work):
                    break
            if not self._watch():
                return

    def _perform(self, work: Work) -> bool:
        """Run work as leader. Return false if another thread leads now."""
        ticket = object()
        with self._lock:
            self._work, self._since = ticket, time.monotonic()
            if not self._watchers:
                self._watchers += 1
                self._spawn(self._begin_watching)
        if not self._active.is_set():
            self._active.set()
        send = work()
        with self._lock:
            leads = self._work is ticket
            if leads:
                self._work = self._since = None
        send(leads)
        return leads

    def _begin_watching(self) -> None:
        if self._watch(counted=True):
            self._lead()

    def _watch(self, counted: bool = False) -> bool:
        """Wait for a late leader and replace it. Return false if this thread is not needed (another watches, or the server
        stops).
        """
        if not counted:
            with self._lock:
                if self._watchers:
                    return False
                self._watchers += 1
        quiet = 0.0
        while not self._stopping():
            time.sleep(PATIENCE / 2)
            with self._lock:
                if self._since is None:
                    quiet += PATIENCE / 2
                else:
                    quiet = 0.0
                    if time.monotonic() - self._since > PATIENCE:
                        self._work = self._since = None
                        self._watchers -= 1
                        return True
            if quiet > _QUIET:
                self._active.clear()
                if self._since is None:
                    self._active.wait(_QUIET)
                quiet = 0.0
        with self._lock:
            self._watchers -= 1
        return False


_stack_size = threading.Lock()
