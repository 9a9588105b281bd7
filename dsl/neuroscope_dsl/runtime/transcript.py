"""Transcript: a script's output. Its text goes to the workspace's sink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from neuroscope_dsl.runtime.classes import define
from neuroscope_dsl.runtime.printing import display_string
from neuroscope_dsl.runtime.streams import StreamClass

#: Most characters stored without a sink.
MAX_KEPT = 1_000_000


class Transcript:
    """Writes to a sink; without one, the text is stored in `text`."""

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
        """The output, if there is no sink."""
        return "".join(self._kept)


TranscriptClass = define("TranscriptStream", StreamClass, Transcript)


@TranscriptClass.method("nextPutAll:")
def next_put_all(receiver: Transcript, text: Any) -> Transcript:
    receiver.write(display_string(text))
    return receiver
