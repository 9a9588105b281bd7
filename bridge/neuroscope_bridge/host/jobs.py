"""Jobs: requests that compute. They report events and can be stopped from any thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from neuroscope.errors import CancelledError, NeuroScopeError
from neuroscope_bridge.host.faults import error_fields
from neuroscope_dsl.errors import TimeLimitReached
from neuroscope_dsl.limits import GRACE

if TYPE_CHECKING:
    from neuroscope_bridge.host.session import Session


class Stop(Enum):
    """Why a job was stopped."""

    ASKED = "asked"
    TIME = "time"
    CLOSED = "closed"


class Job:
    """One computation of a session. `tell(kind, fields)` receives its events and its outcome, in the thread that runs it."""

    def __init__(
        self,
        session: Session,
        number: int,
        work: Callable[[], Any],
        tell: Callable[[str, dict[str, Any]], None],
        *,
        limit: float | None = None,
        size: int = 0,
    ) -> None:
        self.session = session
        self.number = number
        self.tell = tell
        self._work = work
        self.size = size
        self._limit = limit
        self._deadline: float | None = None
        self.stopped: Stop | None = None
        self._interrupted = 0.0

    def run(self) -> Any:
        """Compute and return the value, or raise. Call it from the thread that currently runs the session's jobs."""
        if self.stopped is None:
            if self._limit is not None:
                self._deadline = time.monotonic() + self._limit
            try:
                return self.session.compute(self, self._work)
            except BaseException as error:
                if self.stopped is None or getattr(error, "code", None) not in _STOPS:
                    raise
        raise self._reason()

    def outcome(self) -> tuple[str, dict[str, Any]]:
        """Compute. Return the last message of this job: `result` with its value, or `error`."""
        try:
            return "result", {"value": self.run()}
        except BaseException as error:  # every request is answered
            return "error", {"error": error_fields(error)}

    def stop(self, why: Stop) -> None:
        """Ask the job to end at its next step."""
        self.stopped = self.stopped or why
        self._interrupted = time.monotonic()
        self.session.interrupt(self)

    def check_time(self, now: float) -> None:
        """Stop the job when its time is over, repeatedly if it continues or had not started."""
        if self.stopped is not None:
            if now - self._interrupted > GRACE:
                self.stop(self.stopped)
        elif self._deadline is not None and now > self._deadline:
            self.stop(Stop.TIME)

    def _reason(self) -> NeuroScopeError:
        match self.stopped:
            case Stop.TIME:
                remedy = "Request less, or raise the time limit."
                return TimeLimitReached(f"The request ran longer than {self._limit:g} seconds.", remedy=remedy)
            case Stop.CLOSED:
                return CancelledError("The session ended.", remedy="Say hello and start again.")
        return CancelledError("The request was cancelled.", remedy="Start it again to continue.")


_STOPS = {"stopped", "cancelled", "interrupted", "time-limit", "callback"}
