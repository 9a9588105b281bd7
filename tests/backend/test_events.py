"""Events: progress is told, not printed; cancellation reaches nested jobs; contexts do not hear one another."""

from __future__ import annotations

import sys
import threading
import types

import pytest

from neuroscope import bars, events, settings
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


def test_at_a_prompt_bars_and_notices_show_themselves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not bars.at_a_prompt()
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert not bars.at_a_prompt()
    ipython.get_ipython = object  # type: ignore[attr-defined]
    assert bars.at_a_prompt()
    events.set_usual(bars.Bars(patience=0))
    try:
        with events.progress("patching", total=2, unit="heads") as job:
            events.notice("a word")
            job.advance(2)
        shown = capsys.readouterr().err
        assert "a word\n" in shown
        assert "patching:   0%" in shown
        assert "0/2" in shown
        heard: list[events.Event] = []
        with events.quietly():
            events.notice("quiet")
        with events.listen(heard.append):
            events.notice("heard elsewhere")
        assert capsys.readouterr().err == ""
        assert len(heard) == 1
        monkeypatch.setitem(sys.modules, "tqdm", None)  # short jobs need no bar
        events.set_usual(bars.Bars())
        with events.progress("short", total=1) as job:
            job.advance()
    finally:
        events.set_usual(None)
