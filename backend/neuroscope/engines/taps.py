"""Reading and rewriting sites during one run, independent of the framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.protocol import Array, Edit, EditScope, IntArray, Phase, TokenBatch
from neuroscope.engines.sites import ATTENTION_MATRICES, Component, Site
from neuroscope.errors import SiteError

Key = tuple[int | None, Component]


class Taps(ABC):
    """The captures and edits of one run, by layer and component. An engine passes each component through `touch`."""

    def __init__(
        self,
        anatomy: Anatomy,
        batch: TokenBatch,
        capture: Sequence[Site],
        edits: Sequence[Edit],
        *,
        phase: Phase = Phase.FORWARD,
        first_column: int = 0,
        columns: int | None = None,
        tokens: IntArray | None = None,
    ) -> None:
        self.batch = batch
        self.phase = phase
        self.first_column = first_column
        self.columns = batch.positions if columns is None else columns
        self.tokens = batch.ids[:, first_column : first_column + self.columns] if tokens is None else tokens
        self.values: dict[Site, Array] = {}
        self._captures: dict[Key, list[tuple[Site, Site]]] = defaultdict(list)
        self._edits: dict[Key, list[tuple[Site, Edit]]] = defaultdict(list)
        for asked in capture:
            site = asked.checked(anatomy)
            self._captures[site.layer, site.component].append((asked, site))
        for edit in edits:
            site = edit.site.checked(anatomy)
            self._edits[site.layer, site.component].append((site, edit))

    @abstractmethod
    def _as_index(self, ids: IntArray, value: Array) -> Any:
        """Integers as an index of `value`."""

    @abstractmethod
    def _replaced(self, value: Array, where: tuple[Any, ...], new: Array) -> Array:
        """A copy of `value` with some cells replaced."""

    @abstractmethod
    def _like(self, new: Any, old: Array) -> Array:
        """An edit's result, as an array of the old one's type and device."""

    def _watched(self, layer: int | None, component: Component, value: Array) -> Array:
        """The edited array, as captures and the rest of the run see it; an engine may override it."""
        return value

    def wants(self, layer: int | None, component: Component) -> bool:
        return (layer, component) in self._captures or (layer, component) in self._edits

    def layers(self) -> set[int]:
        """Layers with a capture or an edit."""
        return {layer for layer, _ in (*self._captures, *self._edits) if layer is not None}

    def touch(self, layer: int | None, component: Component, value: Array) -> Array:
        """Apply the edits of a component to its array, then capture it."""
        for site, edit in self._edits.get((layer, component), ()):
            value = self._edited(site, edit, value)
        value = self._watched(layer, component, value)
        for asked, site in self._captures.get((layer, component), ()):
            where = self._index(site, value)
            if where is not None:
                self.values[asked] = value if where == () else value[where]
        return value

    def narrowed(self, site: Site, value: Array) -> Array:
        """The cells of a (checked) site in its component's array."""
        where = self._index(site, value)
        assert where is not None
        return value if where == () else value[where]

    def _edited(self, site: Site, edit: Edit, value: Array) -> Array:
        where = self._index(site, value, edit.rows)
        if where is None:
            return value
        scope = EditScope(site, self.batch, self.first_column, self.phase, self.tokens)
        if where == ():
            return self._applied(edit, value, scope)
        return self._replaced(value, where, self._applied(edit, value[where], scope))

    def _applied(self, edit: Edit, value: Array, scope: EditScope) -> Array:
        return self._like(edit.apply(value, scope), value)

    def _index(self, site: Site, value: Array, rows: Any = None) -> tuple[Any, ...] | None:
        """Index of the site's cells in its component's array; () for all, None if this run does not reach the position."""
        component = site.component
        matrix = component in ATTENTION_MATRICES
        index: list[Any] = [slice(None)] * value.ndim
        if rows is not None:
            index[0] = rows if isinstance(rows, slice) else self._as_index(np.asarray(rows), value)
        if site.head is not None:
            index[1 if matrix else 2] = site.head
        if site.neuron is not None:
            index[-1] = site.neuron
        if site.position is not None:
            columns = self._columns(site.position)
            if columns is None:
                return None
            row_ids = np.arange(self.batch.rows)
            if rows is not None:
                row_ids, columns = row_ids[rows], columns[rows]
            index[0] = self._as_index(row_ids, value)
            index[2 if matrix else 1] = self._as_index(columns, value)
        return () if all(isinstance(i, slice) and i == slice(None) for i in index) else tuple(index)

    def _columns(self, position: int) -> IntArray | None:
        """For each row, the column of the token number `position` in this run's array."""
        if self.phase is Phase.PREFILL and position >= int(self.batch.lengths.min()):
            return None  # a later step of the generation may reach it
        if self.phase is not Phase.DECODE:
            columns = self.batch.column(position) - self.first_column
            if bool((columns < 0).any()):
                raise SiteError(f"Token {position} is in the prefix, which does not run again.")
            return columns
        # One column per decoding step: it holds token number first_column - offset of each row.
        current = self.first_column - self.batch.offsets
        hit = current == position if position >= 0 else np.full(self.batch.rows, position == -1)
        return np.zeros(self.batch.rows, dtype=np.int64) if bool(hit.all()) else None
