"""Lookup tables that accept any spelling of a name and suggest the nearest name in errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from neuroscope.errors import ArgumentError, NeuroScopeError, did_you_mean, joined
from neuroscope.naming import fold

T = TypeVar("T")


class Names(Generic[T]):
    """Things by name: snake or camel case, with hyphens or without, a string or a symbol.

    kind, listing: what errors call one of them and all of them. more: what else an error suggests.

    >>> rules = Names("rule", {"mid_point": 1, "paper": 2}, aliases={"riemann": "paper"}, listing="Rules")
    >>> rules["midPoint"], rules["mid-point"], rules.name("Riemann")
    (1, 1, 'paper')
    """

    def __init__(
        self,
        kind: str,
        things: Mapping[str, T],
        *,
        listing: str,
        aliases: Mapping[str, str] | None = None,
        error: type[NeuroScopeError] = ArgumentError,
        more: str = "",
    ) -> None:
        self._kind, self._things, self._listing, self._error, self._more = kind, dict(things), listing, error, more
        self._names = {_folded(name): name for name in things} | {
            _folded(other): name for other, name in (aliases or {}).items()
        }

    def find(self, name: object) -> T | None:
        """The value under a name, or None."""
        known = self._names.get(_folded(name))
        return None if known is None else self._things[known]

    def name(self, name: object) -> str:
        """The canonical spelling. Raises the error of unknown names, with the nearest."""
        known = self._names.get(_folded(name))
        if known is None:
            near = did_you_mean(str(name), self._things, listing=self._listing)
            raise self._error(f"There is no {self._kind} {str(name)!r}.", remedy=joined(near, self._more))
        return known

    def __getitem__(self, name: object) -> T:
        """The value under a name. Raises as `name` does."""
        return self._things[self.name(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __contains__(self, name: object) -> bool:
        return _folded(name) in self._names


def only(kind: str, names: Iterable[str], *, listing: str) -> Names[str]:
    """A table of plain names, without values."""
    return Names(kind, {name: name for name in names}, listing=listing)


def _folded(name: object) -> str:
    return fold(str(name).strip().replace("-", "_"))
