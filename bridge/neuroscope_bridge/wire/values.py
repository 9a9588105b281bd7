"""Values that exist only on the wire; others are Python's or the Smalltalk runtime's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Handle:
    """An object on the server: its number in the session, its class, and its printed form when sent."""

    id: int
    class_name: str
    print_string: str


@dataclass(frozen=True)
class ClassName:
    """A class, by its name."""

    name: str


@dataclass(frozen=True)
class BlockSource:
    """A block sent as text with its captured values; it runs where it arrives."""

    source: str
    captured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Callback:
    """A block on the client; the server calls it by its number."""

    id: int
    num_args: int
