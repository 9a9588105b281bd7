"""Source texts and positions in them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


@dataclass(frozen=True)
class Position:
    """Line and column, counted from one, with the line's text."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def render(self) -> str:
        """The line and a caret under the column; tabs before the caret are kept for alignment."""
        lead = "".join("\t" if character == "\t" else " " for character in self.text[: self.column - 1])
        return f"{self}\n    {self.text}\n    {lead}^"


class Source:
    """A text with its file name."""

    def __init__(self, text: str, file: str = "<script>") -> None:
        self.text = text
        self.file = file
        self.key = file  # the file name of code objects compiled from this text

    @cached_property
    def line_starts(self) -> list[int]:
        starts = [0]
        find = self.text.find
        at = find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = find("\n", at + 1)
        return starts

    def line_column(self, offset: int) -> tuple[int, int]:
        """Line and column, both from one, of a character offset."""
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line_text(self, line: int) -> str:
        """The text of a line (from one), without its end; empty past the last line."""
        starts = self.line_starts
        if not 1 <= line <= len(starts):
            return ""
        end = starts[line] - 1 if line < len(starts) else len(self.text)
        return self.text[starts[line - 1] : end].rstrip("\r")

    def at(self, line: int, column: int) -> Position:
        return Position(self.file, line, column, self.line_text(line))

    def position(self, offset: int) -> Position:
        return self.at(*self.line_column(min(max(offset, 0), len(self.text))))

    def __repr__(self) -> str:
        return f"Source({self.file!r}, {len(self.text)} characters)"


class Span(NamedTuple):
    """A range of a source, as offsets `start` (included) to `end` (excluded); line and column on demand."""

    source: Source
    start: int
    end: int

    @property
    def file(self) -> str:
        return self.source.file

    @property
    def line(self) -> int:
        return self.source.line_column(self.start)[0]

    @property
    def column(self) -> int:
        return self.source.line_column(self.start)[1]

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    @property
    def position(self) -> Position:
        return self.source.position(self.start)


NOWHERE = Span(Source("", "<none>"), 0, 0)
