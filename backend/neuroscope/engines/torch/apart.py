"""Work that must not be torn: in a thread of its own, out of reach of what is thrown into the caller's (Ctrl-C, a script's limits).

A process that leaves a collective operation halfway leaves the others in it. So rank 0 does such work apart. What the work asks of the
caller, such as calling an edit, the caller does in its own thread.

An exception may be thrown into the caller after any instruction. So the caller never relies on having got as far as the next one: it looks
at the state again, hands over what nobody has begun (twice, perhaps: only the first thread works) and answers what is not answered. Queues of
C pass the turn, since they are not torn. The threads are started by one another: until a new thread runs, CPython takes it for the thread
that started it, and throws at it what was meant for that one.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

T = TypeVar("T")
_here = threading.local()
_jobs: SimpleQueue[_Apart] = SimpleQueue()
_idle = 0
_counting = threading.Lock()
_running = threading.Event()


class _Request:
    """Something that the work asks of the caller."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.answered: SimpleQueue[None] = SimpleQueue()
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None


class _Apart:
    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._context = contextvars.copy_context()
        self._gradients = torch.is_grad_enabled()
        self._device = torch.cuda.current_device() if torch.cuda.is_available() else None
        self._begun = threading.Lock()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._request: _Request | None = None
        self._ended = False
        self._value: Any = None
        self._error: BaseException | None = None

    # --- the caller's thread -----------------------------------------------------------------------------------------

    def run(self) -> Any:
        thrown: BaseException | None = None
        while not self._ended:
            try:
                if not self._begun.locked():
                    _jobs.put(self)
                self._serve(thrown)
            except BaseException as error:
                thrown = thrown or error
        if thrown is not None:
            raise thrown
        if self._error is not None:
            raise self._error
        return self._value

    def _serve(self, thrown: BaseException | None) -> None:
        """Wait for a request, and answer it; with what was thrown at the caller, if anything was."""
        request = self._request
        if request is None or request.done:
            self._wake.get()
            return
        if thrown is not None:
            request.error = thrown
        else:
            try:
                request.value = request.function()
            except BaseException as error:
                request.error = error
        request.answered.put(None)
        request.done = True

    # --- the work's thread -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Do the work, unless another thread has begun it."""
        if self._begun.acquire(blocking=False):
            self._context.run(self._done)

    def _done(self) -> None:
        _here.apart = self
        try:
            if self._device is not None:
                torch.cuda.set_device(self._device)
            with torch.set_grad_enabled(self._gradients):
                self._value = self._work()
        except BaseException as error:
            self._error = error
        finally:
            self._ended = True
            self._wake.put(None)

    def ask(self, function: Callable[[], Any]) -> Any:
        request = self._request = _Request(function)
        self._wake.put(None)
        request.answered.get()
        if request.error is not None:
            raise request.error
        return request.value


def ready() -> None:
    """Have a thread that waits for work; later ones start when none is left that waits."""
    while not _running.is_set():
        _start()
        _running.wait(1)


def _start() -> None:
    global _idle
    with _counting:
        _idle += 1
    threading.Thread(target=_loop, name="neuroscope-collective", daemon=True).start()


def _loop() -> None:
    global _idle
    _running.set()
    while True:
        job = _jobs.get()
        with _counting:
            _idle -= 1
            last = not _idle
        if last:
            _start()
        job.begin()
        del job
        with _counting:
            _idle += 1


def apart(work: Callable[[], T]) -> T:
    """The value of `work`, done in another thread to its end. What is thrown into this one meanwhile is raised then."""
    found: T = _Apart(work).run()
    return found


def by_caller(function: Callable[[], T]) -> T:
    """Within `apart`, the value of a function that the caller's thread calls. Raises what it raises."""
    found: T = _here.apart.ask(function)
    return found
