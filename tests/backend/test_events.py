"""Events: progress is told, not printed; cancellation reaches nested jobs; contexts do not hear one another."""

from __future__ import annotations

import threading

import pytest

from neuroscope import events, settings
from neuroscope.errors import CancelledError


def test_a_job_tells_its_steps_and_its_end() -> None:
    heard: list[events.Event] = []
    with events.listen(heard.append), events.progress("counting", total=2, unit="beans") as job:
        job.advance()
        job.advance()
    told = [(e.done, e.finished) for e in heard if isinstance(e, events.Progress)]
    assert told == [(0, False), (1, False), (2, False), (2, True)]


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    events.notice("hello")
    with events.progress("counting", total=1) as job:
        job.advance()
    assert capsys.readouterr() == ("", "")


def test_cancelling_stops_a_job_at_its_next_step_and_an_outer_request_counts_too() -> None:
    asked = False
    with events.cancellable(lambda: asked), events.cancellable(lambda: False), events.progress("working") as job:
        job.advance()
        asked = True
        with pytest.raises(CancelledError):
            job.advance()
    events.check_cancelled()


def test_a_thread_of_its_own_hears_nothing() -> None:
    heard: list[events.Event] = []
    with events.listen(heard.append):
        thread = threading.Thread(target=events.notice, args=("from elsewhere",))
        thread.start()
        thread.join()
    assert heard == []


def test_defaults_hold_for_their_block() -> None:
    with settings.defaults(seed=7, engine="torch"):
        assert (settings.seed(), settings.seed(3), settings.engine()) == (7, 3, "torch")
    assert settings.seed() == 0
