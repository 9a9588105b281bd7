"""Patching sweeps: many single-node interventions, each computing only the layers it changes.

A cell replaces one node's activation in a base run (the corrupt run when denoising, the clean one when noising) by that in the
other run. A cell starts at the node's layer, from the cached residual stream of the base run; all cells that start at one layer
run as rows of one batch; only the metric's logits are computed. An MLP's write or a residual stream is exchanged in the stream
itself, so those cells start one layer later. So a sweep of every layer × position calls layer l once for each pass of cells
that start at or before it, not once per cell.

Sources: Meng et al. 2022 (causal tracing); Zhang & Nanda 2023, "Towards Best Practices of Activation Patching".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from neuroscope import events
from neuroscope.circuits.pair_runs import Numbers, PairRuns, RunOfPairs
from neuroscope.engines.protocol import Array, Edit, EditScope
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import SiteError
from neuroscope.models.model import TransformerModel
from neuroscope.parallel.team import Team
from neuroscope.parallel.worker import kept
from neuroscope.tasks.pairs import PairBatch

#: Tokens of a chunk of cells.
_TOKENS = 4096
#: Components a cell may exchange.
PATCHABLE = (Component.EMBEDDING, Component.RESIDUAL, Component.MLP_OUTPUT, Component.HEAD_OUTPUT)


def sweep(
    runs: PairRuns,
    base: RunOfPairs,
    source: RunOfPairs,
    sites: Sequence[Site],
    *,
    name: str = "patching",
    team: Team | None = None,
) -> Numbers:
    """The metric (sites, rows) of the base run, with each site in turn taken from the source run.

    A site without a position is exchanged at every token. team: the workers among whom the cells are shared out; None: this thread
    computes all. Raises `SiteError` for a component that cannot be exchanged.
    """
    engine = runs.engine
    by_start: dict[int, list[int]] = {}
    checked = [site.checked(engine.anatomy) for site in sites]
    found = np.tile(base.metric, (len(checked), 1))
    for index, site in enumerate(checked):
        start = _start(site, engine.anatomy.layers)
        # A token before the first difference is the same in both runs: exchanging it changes nothing.
        if site.position is None or bool((runs.column(site.position) >= 0).any()):
            by_start.setdefault(start, []).append(index)
    if team is not None:
        return _shared(runs, base is runs.corrupt, checked, found, by_start, name, team)
    fit = max(1, engine.rows_that_fit(runs.positions) // runs.rows)
    with events.progress(name, total=sum(map(len, by_start.values())), unit="cells") as job:
        for start in sorted(by_start):
            members = by_start[start]
            for first in range(0, len(members), fit):
                group = members[first : first + fit]
                found[group] = _cells(runs, base, source, start, [checked[index] for index in group])
                job.advance(len(group))
    return found


def _shared(
    runs: PairRuns,
    denoising: bool,
    sites: Sequence[Site],
    found: Numbers,
    by_start: dict[int, list[int]],
    name: str,
    team: Team,
) -> Numbers:
    """The cells in chunks of one first layer each, whose size depends on the pairs alone and so not on who computes them."""
    size = max(1, _TOKENS // (runs.positions * runs.rows))
    groups = [
        members[first : first + size] for _, members in sorted(by_start.items()) for first in range(0, len(members), size)
    ]
    pairs = runs.pairs.without_reference()
    work = [(pairs, denoising, [sites[index] for index in group]) for group in groups]
    for group, part in zip(groups, team.map(_swept, work, name=name, unit="cells", sizes=list(map(len, groups))), strict=True):
        found[group] = part
    return found


def _swept(model: TransformerModel, pairs: PairBatch, denoising: bool, sites: Sequence[Site]) -> Numbers:
    runs = kept(model, "pair runs", (pairs,), lambda: PairRuns(model.engine, pairs))
    base, source = (runs.corrupt, runs.clean) if denoising else (runs.clean, runs.corrupt)
    return sweep(runs, base, source, sites)


def _start(site: Site, layers: int) -> int:
    """The first layer whose computation a cell changes; `layers` if only the logits change."""
    if site.component not in PATCHABLE:
        names = ", ".join(component.value for component in PATCHABLE)
        raise SiteError(f"{site.component} cannot be exchanged in a sweep.", site=site, remedy=f"Use one of {names}.")
    if site.component is Component.EMBEDDING:
        return 0
    assert site.layer is not None
    return site.layer if site.component is Component.HEAD_OUTPUT else site.layer + 1


def _cells(runs: PairRuns, base: RunOfPairs, source: RunOfPairs, start: int, sites: Sequence[Site]) -> Numbers:
    rows, times, ops = runs.rows, len(sites), runs.engine.ops
    residual = ops.repeat(base.streams[start], times)
    heads: list[tuple[int, Site]] = []
    for index, site in enumerate(sites):
        if site.component is Component.HEAD_OUTPUT:
            heads.append((index * rows, site))
        else:
            residual[index * rows : (index + 1) * rows] = _exchanged(runs, base, source, start, site)

    def exchange(value: Array, _: EditScope) -> Array:
        value = ops.copy(value)
        for first, site in heads:
            for row, column in _where(runs, site):
                value[first + row, column, site.head] = source.heads[start][row, column, site.head]
        return value

    edits = [Edit(Site(start, Component.HEAD_OUTPUT), exchange)] if heads else []
    return runs.again(times, residual=residual, start=start, edits=edits)


def _where(runs: PairRuns, site: Site) -> Iterable[tuple[int, int | slice]]:
    """For each row, the columns of a site."""
    if site.position is None:
        return ((row, slice(None)) for row in range(runs.rows))
    return ((row, int(column)) for row, column in enumerate(runs.column(site.position)) if column >= 0)


def _exchanged(runs: PairRuns, base: RunOfPairs, source: RunOfPairs, start: int, site: Site) -> Array:
    """The stream before layer `start` (rows, positions, d_model) with the site's write taken from the source run."""
    ops = runs.engine.ops
    stream = ops.copy(base.streams[start])
    if site.component is Component.MLP_OUTPUT:
        change = ops.wide(source.mlps[start - 1]) - ops.wide(base.mlps[start - 1])
        theirs = ops.asarray(ops.wide(stream) + change)
    else:
        theirs = source.streams[start]
    for row, column in _where(runs, site):
        stream[row, column] = theirs[row, column]
    return stream
