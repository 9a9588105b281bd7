"""Values that only the wire knows; everything else is Python's own or the Smalltalk runtime's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Handle:
    """An object that stays on the server: its number in the session, its class, and how it printed when it was sent."""

    id: int
    class_name: str
    print_string: str


@dataclass(frozen=True)
class ClassName:
    """A class, by its name."""

    name: str


@dataclass(frozen=True)
class BlockSource:
    """A block that travels as text, with the values of the names it captured; it runs where it arrives."""

    source: str
    captured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Callback:
    """A block that stays with the client; the server calls it by its number."""

    id: int
    num_args: int
