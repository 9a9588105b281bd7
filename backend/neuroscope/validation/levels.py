"""Levels of risk: none < low < medium < high."""

from __future__ import annotations

import functools

from neuroscope.names import only
from neuroscope.vocabulary import public

LEVELS = ("none", "low", "medium", "high")
_NAMES = only("level of risk", LEVELS, listing="Levels")


@public
@functools.total_ordering
class RiskLevel:
    """A level that compares with others and with their names.

    >>> RiskLevel("low") < "medium", RiskLevel("high") == "high"
    (True, True)
    """

    __slots__ = ("_rank",)

    def __init__(self, name: str) -> None:
        self._rank = LEVELS.index(_NAMES.name(name))

    @property
    def name(self) -> str:
        """none, low, medium or high."""
        return LEVELS[self._rank]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return self.name == other
        return isinstance(other, RiskLevel) and self._rank == other._rank

    def __lt__(self, other: RiskLevel | str) -> bool:
        """Raises `ArgumentError` for a name that is not a level."""
        return self._rank < (other if isinstance(other, RiskLevel) else RiskLevel(other))._rank

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name

    def print_string(self) -> str:
        return f"#{self.name}"

    __repr__ = print_string
