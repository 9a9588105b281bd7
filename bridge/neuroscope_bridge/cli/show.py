"""Progress, notices and errors on the terminal."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from neuroscope import events
from neuroscope.errors import NeuroScopeError

#: Everything except results goes to standard error, so that results can be piped.
stderr = Console(stderr=True, highlight=False)


def speak_utf_8() -> None:
    """Read and write UTF-8 on every pipe, whatever the locale says; what cannot be encoded is written as an escape."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape" if stream is sys.stdin else "backslashreplace")


def decoded(argument: str) -> str:
    """An argument's bytes as UTF-8, where the locale took them for something else."""
    return os.fsencode(argument).decode("utf-8", "surrogateescape")


@contextmanager
def progress_shown(quiet: bool = False) -> Iterator[None]:
    """Show the library's events on standard error: bars on a terminal, one line for each finished job elsewhere.

    `quiet` leaves out progress, not notices.
    """
    if quiet:
        with events.listen(_notice):
            yield
    elif stderr.is_terminal:
        with _Bars() as bars, events.listen(bars):
            yield
    else:
        with events.listen(_line):
            yield


def _notice(event: events.Event) -> None:
    if isinstance(event, events.Notice):
        print(event.message, file=sys.stderr, flush=True)


def _line(event: events.Event) -> None:
    _notice(event)
    if isinstance(event, events.Progress) and event.finished and event.seconds >= 1:
        print(f"{event.job}: {event.done} {event.unit} in {event.seconds:.1f} s", file=sys.stderr, flush=True)


class _Bars:
    """One bar per job, removed when it finishes."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=stderr,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Notice):
            self._progress.console.print(event.message, markup=False)
            return
        if event.finished:
            task = self._tasks.pop(event.job, None)
            if task is not None:
                self._progress.remove_task(task)
            return
        if event.job not in self._tasks:
            self._tasks[event.job] = self._progress.add_task(event.job, total=event.total, unit=event.unit)
        self._progress.update(self._tasks[event.job], completed=event.done)


def show_error(error: BaseException) -> None:
    """Print an error: what, where, and the remedy."""
    rendered = getattr(error, "render", None)
    if callable(rendered):
        text = str(rendered())
    elif isinstance(error, NeuroScopeError):
        text = f"{error.message}" + (f"\n  {error.remedy}" if error.remedy else "")
    else:
        text = f"{type(error).__name__}: {error}"
    stderr.print("error: ", style="bold red", end="")
    stderr.print(text, markup=False, soft_wrap=True)
