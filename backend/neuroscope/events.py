"""Progress, notices and cancellation.

The library never prints. A long job opens `progress(...)` and advances it; a caller installs a listener with `listen(...)`.
Listeners and cancellation belong to the current context (`contextvars`), so jobs in different threads or tasks are separate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from neuroscope.errors import CancelledError


@dataclass(frozen=True)
class Progress:
    """A step of a job: `done` of `total` `unit`s. `finished` marks the last event of a job."""

    job: str
    done: int
    total: int | None
    unit: str
    seconds: float
    finished: bool = False


@dataclass(frozen=True)
class Notice:
    """Something the user should know once: another model stands in, a dataset was filtered, a page was written."""

    message: str
    level: str = "info"


Event = Progress | Notice
Listener = Callable[[Event], None]

#: None: nothing was chosen, so the usual listener hears; (): quiet.
_listeners: ContextVar[tuple[Listener, ...] | None] = ContextVar("neuroscope_listeners", default=None)
_usual: list[Listener] = []
_cancelled: ContextVar[Callable[[], bool] | None] = ContextVar("neuroscope_cancelled", default=None)


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Send every event of this context to `listener` while the block runs."""
    token = _listeners.set((*(_listeners.get() or ()), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def set_usual(listener: Listener | None) -> None:
    """Who hears in contexts where nobody listens: nobody, or a notebook's bars (`bars`)."""
    _usual[:] = [] if listener is None else [listener]


def _hearing() -> Sequence[Listener]:
    chosen = _listeners.get()
    return _usual if chosen is None else chosen


@contextmanager
def quietly() -> Iterator[None]:
    """Drop the events of a block: small work inside a job that reports its own progress."""
    token = _listeners.set(())
    try:
        yield
    finally:
        _listeners.reset(token)


@contextmanager
def cancellable(asked_to_stop: Callable[[], bool]) -> Iterator[None]:
    """Let jobs of this context stop with `CancelledError` as soon as `asked_to_stop()`, or an outer one, returns true."""
    outer = _cancelled.get()
    token = _cancelled.set(lambda: asked_to_stop() or (outer is not None and outer()))
    try:
        yield
    finally:
        _cancelled.reset(token)


def is_cancelled() -> bool:
    """Whether the surrounding job was asked to stop."""
    asked = _cancelled.get()
    return asked is not None and asked()


def asked_to_stop() -> Callable[[], bool]:
    """What says whether this job was asked to stop, for another thread that works for it."""
    return _cancelled.get() or (lambda: False)


def check_cancelled() -> None:
    """Raise `CancelledError` if the surrounding job was asked to stop."""
    if is_cancelled():
        raise CancelledError("The job was cancelled.", remedy="Nothing was changed; start it again to continue.")


def notice(message: str, level: str = "info") -> None:
    """Send a notice to the listeners."""
    emit(Notice(message, level))


@dataclass
class Job:
    """A running job; `advance` it as work gets done."""

    name: str
    total: int | None
    unit: str
    done: int = 0
    _started: float = field(default_factory=time.monotonic)

    def advance(self, count: int = 1) -> None:
        """Report `count` more units done; a cancelled job raises `CancelledError` here."""
        self.done += count
        self._report()
        check_cancelled()

    def _report(self, finished: bool = False) -> None:
        if _hearing():
            seconds = time.monotonic() - self._started
            emit(Progress(self.name, self.done, self.total, self.unit, seconds, finished))


@contextmanager
def progress(name: str, total: int | None = None, unit: str = "steps") -> Iterator[Job]:
    """Report a long job: `with progress("patching", total=270, unit="heads") as job: ... job.advance()`."""
    check_cancelled()
    job = Job(name, total, unit)
    job._report()
    try:
        yield job
    finally:
        job._report(finished=True)


def emit(event: Event) -> None:
    """Pass an event from elsewhere to the listeners."""
    for listener in _hearing():
        listener(event)


# --- memory that is nobody's in particular ------------------------------------------------------------------------------

_shared_work = 0


@contextmanager
def for_all() -> Iterator[None]:
    """Memory taken within belongs to the whole process, not to the script that caused it: a model is loaded for all sessions."""
    global _shared_work
    _shared_work += 1
    try:
        yield
    finally:
        _shared_work -= 1


def uncounted() -> bool:
    """Whether work of `for_all` is going on."""
    return _shared_work > 0
