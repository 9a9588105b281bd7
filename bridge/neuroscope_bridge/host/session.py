"""A session: one client's workspace, handles, and queue of requests.

Jobs run one at a time. A door calls `enqueue` for each; if that returns true, its thread owns the session and runs `next_job()`
until there is none. While a job waits for the client to answer a callback, requests within that call run in the waiting thread.
"""

from __future__ import annotations

import contextvars
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from neuroscope import events
from neuroscope.errors import CancelledError
from neuroscope_bridge.host.answers import answer, check_form
from neuroscope_bridge.host.describe import describe
from neuroscope_bridge.host.exchange import Exporter, Importer
from neuroscope_bridge.host.handles import HandleTable
from neuroscope_bridge.host.jobs import Job, Stop
from neuroscope_bridge.wire.errors import CallbackError, LimitError, ProtocolError
from neuroscope_bridge.wire.messages import EVENTS, Request, shown
from neuroscope_bridge.wire.values import ClassName, Handle
from neuroscope_dsl.limits import Meter
from neuroscope_dsl.workspace import StatementInfo, Workspace

if TYPE_CHECKING:
    from neuroscope_bridge.host.limits import Limits

Teller = Callable[[str, dict[str, Any]], None]

#: Least interval of progress events of one job; others are dropped, except the first and last.
_PROGRESS_PERIOD = 0.05


class Session:
    """See the module's docstring. `context` holds the aliases, defaults and models that its jobs run with."""

    def __init__(
        self,
        number: int,
        client: str,
        limits: Limits,
        lease: float,
        seed: int,
        context: contextvars.Context,
    ) -> None:
        self.number = number
        self.client = client
        self.limits = limits
        self.lease = lease
        self.subscribed: frozenset[str] = frozenset()
        self.handles = HandleTable(limits.handles)
        self.meter = Meter(limits.memory)
        self.workspace = Workspace(transcript=self._show, seed=seed, meter=self.meter)
        self.importer = Importer(self)
        self.exporter = Exporter(self)
        self.closed = False
        self.heard = time.monotonic()
        self._context = context
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []  # the job that runs, and those within its callbacks
        self._starting: Job | None = None  # taken from the queue, not running yet
        self._owned = False
        self._calls: dict[int, queue.SimpleQueue[Any]] = {}
        self._call_numbers = itertools.count(1)

    # --- jobs -----------------------------------------------------------------------------------------------------

    def job(self, request: Request, tell: Teller) -> Job:
        """The job of a request. Raises `ProtocolError` if the request is invalid."""
        wanted = request.get("answer", {})
        check_form(wanted)
        limit = request.get("time", self.limits.time)
        if self.limits.time is not None:
            limit = min(limit, self.limits.time)
        if limit is not None and not limit > 0:
            raise ProtocolError(f"A request cannot run for {limit!r} seconds.", remedy="time must be a number above 0.")
        work = _WORK[request.operation]
        source = request.get("source", "")
        if len(source) > self.limits.source:
            raise LimitError(
                f"A text of {len(source):,} characters is too long.",
                remedy=f"At most {self.limits.source:,}; send data as bindings.",
            )
        return Job(self, request.id, lambda: answer(self, work(self, request), wanted), tell, limit=limit, size=request.size)

    def enqueue(self, job: Job, within: int | None = None) -> bool:
        """Queue a job. If true, the caller now owns the session and must run `next_job()` until there is none."""
        if within is not None:
            waiting = self._calls.get(within)
            if waiting is None:
                raise ProtocolError(f"No call {within} is waiting for an answer.")
            self._check_queue(waiting.qsize())
            waiting.put(job)
            return False
        with self._lock:
            if any(other.number == job.number for other in self._all()):
                raise ProtocolError(f"The id {job.number} is in use by another request.", remedy="Count upwards.")
            self._check_queue(len(self._waiting))
            if sum(other.size for other in self._waiting) + job.size > self.limits.message:
                raise LimitError("The waiting requests are too long.", remedy="Wait for their results.")
            self._waiting.append(job)
            if self._owned:
                return False
            self._owned = True
            return True

    def _check_queue(self, waiting: int) -> None:
        if waiting >= self.limits.queue:
            raise LimitError(f"{self.limits.queue} requests are already waiting.", remedy="Wait for their results.")

    def next_job(self) -> Job | None:
        """The next job for the thread that owns the session; None ends the ownership."""
        with self._lock:
            self._starting = self._waiting.popleft() if self._waiting else None
            self._owned = self._starting is not None
            return self._starting

    def rest(self) -> bool:
        """End the ownership of the session if no job waits. Return whether it ended."""
        with self._lock:
            self._starting = None
            if not self._waiting:
                self._owned = False
            return not self._waiting

    def jobs(self) -> list[Job]:
        """All running and waiting jobs."""
        with self._lock:
            return self._all()

    def _all(self) -> list[Job]:
        starting = [] if self._starting is None else [self._starting]
        return [*self._running, *starting, *self._waiting]

    def cancel(self, number: int) -> bool:
        """Ask a request to stop. Return whether it exists."""
        found = [job for job in self.jobs() if job.number == number]
        for job in found:
            job.stop(Stop.ASKED)
        return bool(found)

    def compute(self, job: Job, work: Callable[[], Any]) -> Any:
        """Run a job's work with the session's context, events and cancellation. Only for `Job.run`."""
        with self._lock:
            self._running.append(job)
            if self._starting is job:
                self._starting = None
        try:
            return self._context.copy().run(self._listening, job, work)
        finally:
            with self._lock:
                self._running.remove(job)

    def _listening(self, job: Job, work: Callable[[], Any]) -> Any:
        with self.workspace.watched():
            if self.closed:
                raise CancelledError("The session ended.", remedy="Say hello and start again.")
            if self.meter.exceeded:
                raise self.meter.error()
            return self._reporting(job, work)

    def _reporting(self, job: Job, work: Callable[[], Any]) -> Any:
        if self.subscribed.isdisjoint(("progress", "notice")):
            return work()
        with events.listen(_Listener(self, job)):
            return work()

    def interrupt(self, job: Job) -> None:
        """Stop the workspace's code if `job` is running."""
        with self._lock:
            if job in self._running:
                self.workspace.interrupt()
                for waiting in self._calls.values():
                    waiting.put(None)  # wakes it, so that it sees the stop

    # --- operations ----------------------------------------------------------------------------------------------------

    def _send(self, request: Request) -> Any:
        receiver = self.importer.value(request["receiver"])
        arguments = self.importer.value(request.get("arguments", []))
        return self.workspace.send(receiver, request["selector"], *arguments)

    def _evaluate(self, request: Request) -> Any:
        for name, value in request.get("bindings", {}).items():
            self.workspace.bind(str(name), self.importer.value(value))
        return self.workspace.run(request["source"], "<request>")

    def _run(self, request: Request) -> Any:
        def announce(statement: StatementInfo) -> None:
            self._tell(
                "statement",
                {
                    "index": statement.index,
                    "total": statement.total,
                    "line": statement.position.line,
                    "text": statement.text,
                },
            )

        file = request.get("file", "<script>")
        self.workspace.check(request["source"], file)
        return self.workspace.run(request["source"], file, on_statement=announce)

    def _describe(self, request: Request) -> Any:
        asked = request["class"]
        if isinstance(asked, Handle):
            return describe(self.workspace.dispatcher.class_of(self.importer.value(asked)))
        return describe(self.importer.class_named(asked.name if isinstance(asked, ClassName) else asked))

    def subscribe(self, wanted: list[Any]) -> list[str]:
        """Set the events that the client receives."""
        unknown = [name for name in wanted if not isinstance(name, str) or name not in EVENTS]
        if unknown:
            raise ProtocolError(f"There is no event {shown(unknown[0])}.", remedy=f"Events: {', '.join(EVENTS)}.")
        self.subscribed = frozenset(wanted)
        return sorted(self.subscribed)

    def close(self) -> int:
        """Stop every job and free every object. Return the number of objects."""
        self.closed = True
        jobs = self.jobs()
        for job in jobs:
            job.stop(Stop.CLOSED)
        freed = self.handles.clear()
        if not jobs:
            self.workspace.clear()
        return freed

    # --- callbacks ------------------------------------------------------------------------------------------------

    def call_client(self, block: int, arguments: list[Any]) -> Any:
        """Let the client evaluate one of its blocks, and wait for the value."""
        job = self._running[-1] if self._running else None
        if job is None or self.closed:
            raise CallbackError("There is no client to evaluate its block.")
        number = next(self._call_numbers)
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._calls[number] = answers
        try:
            sent = [self.exporter.value(argument) for argument in arguments]
            job.tell("call", {"call": number, "block": block, "arguments": sent})
            while True:
                found = answers.get()
                if job.stopped is not None or self.closed:
                    raise CancelledError("The job was cancelled.", remedy="Start it again to continue.")
                if isinstance(found, Job):
                    found.tell(*found.outcome())
                elif found is not None:
                    return self._called(found)
        finally:
            del self._calls[number]

    def _called(self, found: Mapping[str, Any]) -> Any:
        if "error" in found:
            raise CallbackError(f"A block failed on the client: {found['error']}")
        return self.importer.value(found["value"])

    def answer_call(self, request: Request) -> None:
        """Pass on the client's answer to a call."""
        waiting = self._calls.get(request["call"])
        if waiting is None:
            raise ProtocolError(f"No call {request['call']} is waiting for an answer.")
        self._check_queue(waiting.qsize())
        waiting.put(request.fields)

    # --- events ---------------------------------------------------------------------------------------------------

    def _tell(self, kind: str, fields: dict[str, Any]) -> None:
        if kind in self.subscribed and self._running:
            self._running[-1].tell(kind, fields)

    def _show(self, text: str) -> None:
        self._tell("transcript", {"text": text})


_WORK: Mapping[str, Callable[[Session, Request], Any]] = {
    "send": Session._send,
    "evaluate": Session._evaluate,
    "run": Session._run,
    "describe": Session._describe,
}


class _Listener:
    """Sends a job's events to a client that subscribed to them, with progress at a limited rate."""

    def __init__(self, session: Session, job: Job) -> None:
        self._session, self._job = session, job
        self._last: dict[str, float] = {}

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Notice):
            if "notice" in self._session.subscribed:
                self._job.tell("notice", {"message": event.message, "level": event.level})
            return
        if "progress" not in self._session.subscribed:
            return
        now = time.monotonic()
        if not event.finished and now - self._last.get(event.job, 0.0) < _PROGRESS_PERIOD:
            return
        self._last[event.job] = now
        fields = {name: getattr(event, name) for name in ("job", "done", "total", "unit", "seconds", "finished")}
        self._job.tell("progress", fields)
