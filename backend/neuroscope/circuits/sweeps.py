"""Patching sweeps: many single-site interventions, each computing only the layers it changes.

A cell replaces one site's activation in a base run (the corrupt run when denoising, the clean one when noising) by that in the
other run. A cell starts at the site's layer, from the cached residual stream of the base run; all cells that start at one layer
run as rows of one batch; only the metric's logits are computed. An MLP's write or a residual stream is exchanged in the stream
itself, so those cells start one layer later. So a sweep of every layer × position calls layer l once for each pass of cells
that start at or before it, not once per cell.

Sources: Meng et al. 2022 (causal tracing); Zhang & Nanda 2023, "Towards Best Practices of Activation Patching".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from neuroscope import events
from neuroscope.circuits.journal import Cells, Journal
from neuroscope.circuits.pair_runs import Numbers, PairRuns, RunOfPairs
from neuroscope.circuits.replacing import Replacement
from neuroscope.engines.protocol import Apply, Array, Edit, EditScope
from neuroscope.engines.sites import ATTENTION_MATRICES, Component, Site
from neuroscope.errors import SiteError
from neuroscope.models.model import TransformerModel
from neuroscope.parallel.team import Team
from neuroscope.parallel.worker import kept
from neuroscope.tasks.pairs import PairBatch

#: Tokens of a chunk of cells.
_TOKENS = 4096
#: Components that are exchanged in the stream between two layers: the layer's number, counted from the site's own.
_IN_STREAM = {Component.RESIDUAL_PRE: 0, Component.RESIDUAL: 1, Component.MLP_OUTPUT: 1}


def sweep(
    runs: PairRuns,
    base: RunOfPairs,
    source: RunOfPairs | Replacement,
    sites: Sequence[Site],
    *,
    name: str = "patching",
    team: Team | None = None,
    journal: Journal | None = None,
) -> Numbers:
    """The metric (sites, rows) of the base run, with each site in turn taken from the source run, or replaced otherwise.

    A site without a position is exchanged at every token. team: the workers among whom the cells are shared out, unless the metric is a
    function of the caller's, which does not leave the process; None: this thread computes all. journal: what has the cells of an earlier
    run, under this name, and gets those of this one. Raises `SiteError` for the logits, which a metric reads itself.
    """
    engine = runs.engine
    theirs = source if isinstance(source, Replacement) else Replacement(runs, source)
    by_start: dict[int, list[int]] = {}
    checked = [site.checked(engine.anatomy) for site in sites]
    for index, site in enumerate(checked):
        start = _start(site)
        # A token before the first difference is the same in both runs: exchanging it changes nothing.
        if site.position is None or bool((runs.column(site.position) >= 0).any()):
            by_start.setdefault(start, []).append(index)
    if runs.pairs.metric.function is not None:
        team = None
    # What workers get depends on the pairs alone, and so not on who they are.
    size = runs.cells_at_once if team is None else max(1, _TOKENS // (runs.positions * runs.rows))
    groups = [
        members[first : first + size] for _, members in sorted(by_start.items()) for first in range(0, len(members), size)
    ]
    cells = Cells(np.tile(base.metric, (len(checked), 1)), journal, name)
    groups = cells.left(groups)
    if team is not None:
        same = runs.pairs.without_reference(), runs.share_prefix, base is runs.corrupt, theirs.kind, theirs.seed
        work = [(*same, [checked[index] for index in group]) for group in groups]

        def put(index: int, part: Numbers) -> None:
            cells.put(groups[index], part)

        team.map(_swept, work, name=name, unit="cells", sizes=list(map(len, groups)), each=put)
        return cells.found
    last = -1
    with events.progress(name, total=sum(map(len, groups)), unit="cells") as job:
        for group in groups:
            start = _start(checked[group[0]])
            if start != last:
                theirs.forget()
                last = start
            cells.put(group, _cells(runs, base, theirs, start, [checked[index] for index in group]))
            job.advance(len(group))
    theirs.forget()
    return cells.found


def _swept(
    model: TransformerModel, pairs: PairBatch, share_prefix: bool, denoising: bool, kind: str, seed: int, sites: Sequence[Site]
) -> Numbers:
    key = pairs, share_prefix
    runs = kept(model, "pair runs", key, lambda: PairRuns(model.engine, pairs, share_prefix=share_prefix))
    base, source = (runs.corrupt, runs.clean) if denoising else (runs.clean, runs.corrupt)
    return sweep(runs, base, Replacement(runs, source, kind, seed=seed), sites)


def _start(site: Site) -> int:
    """The first layer whose computation a cell changes; the number of layers if only the logits change."""
    if site.component is Component.LOGITS:
        raise SiteError("The logits cannot be exchanged: the metric reads them.", site=site, remedy="Patch the last residual.")
    if site.component is Component.EMBEDDING:
        return 0
    assert site.layer is not None
    return site.layer + _IN_STREAM.get(site.component, 0)


def _cells(runs: PairRuns, base: RunOfPairs, theirs: Replacement, start: int, sites: Sequence[Site]) -> Numbers:
    rows, times, ops = runs.rows, len(sites), runs.engine.ops
    residual = ops.repeat(base.streams[start], times)
    inside: dict[Component, list[tuple[int, Site]]] = {}
    for index, site in enumerate(sites):
        if site.component is Component.EMBEDDING or site.component in _IN_STREAM:
            residual[index * rows : (index + 1) * rows] = _exchanged(runs, base, theirs, start, site)
        else:
            inside.setdefault(site.component, []).append((index * rows, site))
    edits = [
        Edit(Site(start, component), _exchange(runs, theirs.values(Site(start, component)), cells))
        for component, cells in inside.items()
    ]
    return runs.again(times, residual=residual, start=start, edits=edits)


def _exchange(runs: PairRuns, values: Array, cells: Sequence[tuple[int, Site]]) -> Apply:
    """An edit that replaces each cell in its own rows, the first of which it comes with."""

    def exchange(value: Array, _: EditScope) -> Array:
        value = runs.engine.ops.copy(value)
        for first, site in cells:
            for row, column in _where(runs, site):
                part = place_in_row(site, column)
                value[(first + row, *part)] = values[(row, *part)]
        return value

    return exchange


def place_in_row(site: Site, column: int | slice) -> tuple[int | slice, ...]:
    """Index of a site's cells in one row of its component's array (rows left out), at a column."""
    head = slice(None) if site.head is None else site.head
    if site.component in ATTENTION_MATRICES:
        return (head, column)
    if site.neuron is not None:
        return (column, site.neuron)
    return (column,) if site.head is None else (column, head)


def _where(runs: PairRuns, site: Site) -> Iterable[tuple[int, int | slice]]:
    """For each row, the columns of a site."""
    if site.position is None:
        return ((row, slice(None)) for row in range(runs.rows))
    return ((row, int(column)) for row, column in enumerate(runs.column(site.position)) if column >= 0)


def _exchanged(runs: PairRuns, base: RunOfPairs, theirs: Replacement, start: int, site: Site) -> Array:
    """The stream before layer `start` (rows, positions, d_model) with the site's write taken from the source run."""
    ops = runs.engine.ops
    stream = ops.copy(base.streams[start])
    values = theirs.values(site.whole)
    if site.component is Component.MLP_OUTPUT:
        change = ops.wide(values) - ops.wide(base.mlps[start - 1])
        values = ops.asarray(ops.wide(stream) + change)
    for row, column in _where(runs, site):
        part = (column,) if site.neuron is None else (column, site.neuron)
        stream[(row, *part)] = values[(row, *part)]
    return stream
