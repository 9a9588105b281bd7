"""Transcript: where a script writes for people. Its text goes to the sink that the workspace was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from neuroscope_dsl.runtime.classes import Object, define
from neuroscope_dsl.runtime.printing import display_string

#: A transcript that nobody listens to keeps at most this many characters.
MAX_KEPT = 1_000_000


class Transcript:
    """Writes to a sink; without one, the text is kept and can be read from `text`."""

    def __init__(self, sink: Callable[[str], object] | None = None) -> None:
        self.sink = sink
        self._kept: list[str] = []
        self._size = 0

    def write(self, text: str) -> None:
        if self.sink is not None:
            self.sink(text)
        elif self._size < MAX_KEPT:
            self._kept.append(text)
            self._size += len(text)

    put_all = write

    @property
    def text(self) -> str:
        """What was written, when there is no sink."""
        return "".join(self._kept)


TranscriptClass = define("TranscriptStream", Object, Transcript)


@TranscriptClass.method("show:", "nextPutAll:", "display:", "<<", "nextPut:")
def show(d: Any, receiver: Transcript, value: Any) -> Transcript:
    receiver.write(value if isinstance(value, str) else display_string(d.send(value, "displayString")))
    return receiver


@TranscriptClass.method("print:")
def print_(d: Any, receiver: Transcript, value: Any) -> Transcript:
    receiver.write(d.send(value, "printString"))
    return receiver


@TranscriptClass.method("cr", "nl", "lf", "newLine")
def new_line(receiver: Transcript) -> Transcript:
    receiver.write("\n")
    return receiver


@TranscriptClass.method("flush", "endEntry", "open")
def flush(receiver: Transcript) -> Transcript:
    return receiver


@TranscriptClass.method("tab")
def tab(receiver: Transcript) -> Transcript:
    receiver.write("\t")
    return receiver


@TranscriptClass.method("space")
def space(receiver: Transcript) -> Transcript:
    receiver.write(" ")
    return receiver


@TranscriptClass.method("tab:")
def tabs(receiver: Transcript, count: int) -> Transcript:
    receiver.write("\t" * count)
    return receiver


@TranscriptClass.method("space:")
def spaces(receiver: Transcript, count: int) -> Transcript:
    receiver.write(" " * count)
    return receiver


@TranscriptClass.method("showCr:", "displayNl:")
def show_line(d: Any, receiver: Transcript, value: Any) -> Transcript:
    show(d, receiver, value)
    return new_line(receiver)


@TranscriptClass.method("showOnNewLine:", "crShow:")
def show_on_new_line(d: Any, receiver: Transcript, value: Any) -> Transcript:
    return show(d, new_line(receiver), value)


@TranscriptClass.method("printNl:")
def print_line(d: Any, receiver: Transcript, value: Any) -> Transcript:
    print_(d, receiver, value)
    return new_line(receiver)
