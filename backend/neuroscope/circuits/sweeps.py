"""Patching sweeps: many single-node interventions, each rerunning only what it can change.

A cell replaces one node's activation in a base run (the corrupt run when denoising, the clean one when noising) by the
same node's activation in the other run. Everything before the node's layer is as in the base run, so a cell starts
there, from the cached residual stream; all cells that start at one layer run as rows of one batch; only the metric's
own logits are computed. An MLP's write or a residual stream is exchanged in the stream itself, so those cells start
one layer later. A sweep of every layer × position thus calls layer l once for each pass of cells that start at or
before it, instead of once per cell.

Sources: Meng et al. 2022 (causal tracing); Zhang & Nanda 2023, "Towards Best Practices of Activation Patching".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.circuits.pairs import PairBatch
from neuroscope.circuits.reference import Numbers, Reference, metric_values
from neuroscope.errors import SiteError
from neuroscope.models.engines.protocol import Array, Edit, EditScope, Engine
from neuroscope.models.sites import Component, Site

#: Components a cell may exchange.
PATCHABLE = (Component.EMBEDDING, Component.RESIDUAL, Component.MLP_OUTPUT, Component.HEAD_OUTPUT)


def sweep(
    engine: Engine, pairs: PairBatch, base: Reference, source: Reference, sites: Sequence[Site], *, name: str = "patching"
) -> NDArray[np.float64]:
    """The metric (sites, rows) of the base run with each site in turn taken from the source run.

    A site without a position is exchanged at every token. Raises `SiteError` for a site that cannot be exchanged.
    """
    layers = engine.anatomy.layers
    by_start: dict[int, list[int]] = {}
    checked = [site.checked(engine.anatomy) for site in sites]
    for index, site in enumerate(checked):
        by_start.setdefault(_start(site, layers), []).append(index)
    found = np.zeros((len(checked), pairs.rows))
    fit = max(1, engine.rows_that_fit(pairs.clean.positions) // pairs.rows)
    with events.progress(name, total=len(checked), unit="cells") as job:
        for start in sorted(by_start):
            members = by_start[start]
            for first in range(0, len(members), fit):
                group = members[first : first + fit]
                found[group] = _cells(engine, pairs, base, source, start, [checked[index] for index in group])
                job.advance(len(group))
    return found


def _start(site: Site, layers: int) -> int:
    """The first layer whose computation a cell changes; `layers` when only the logits do."""
    if site.component not in PATCHABLE:
        names = ", ".join(component.value for component in PATCHABLE)
        raise SiteError(f"{site.component} cannot be exchanged in a sweep.", site=site, remedy=f"Use one of {names}.")
    if site.component is Component.EMBEDDING:
        return 0
    assert site.layer is not None
    return site.layer if site.component is Component.HEAD_OUTPUT else site.layer + 1


def _cells(
    engine: Engine, pairs: PairBatch, base: Reference, source: Reference, start: int, sites: Sequence[Site]
) -> Numbers:
    rows, times, ops = pairs.rows, len(sites), engine.ops
    residual = ops.repeat(base.streams[start], times)
    heads: list[tuple[slice, Site]] = []
    for index, site in enumerate(sites):
        mine = slice(index * rows, (index + 1) * rows)
        if site.component is Component.HEAD_OUTPUT:
            heads.append((mine, site))
        else:
            residual[mine] = _exchanged(engine, pairs, base, source, start, site)
    edits = []
    if heads:

        def exchange(value: Array, _: EditScope) -> Array:
            value = ops.copy(value)
            for mine, site in heads:
                head, theirs = site.head, source.heads[start]
                if site.position is None:
                    value[mine, :, head] = theirs[:, :, head]
                else:
                    for row, column in enumerate(pairs.clean.column(site.position)):
                        value[mine.start + row, int(column), head] = theirs[row, int(column), head]
            return value

        edits.append(Edit(Site(start, Component.HEAD_OUTPUT), exchange))
    batch = base.batch.repeat(times)
    metric = pairs.metric.repeat(times, engine)
    run = engine.forward(batch, edits=edits, start=start, residual=residual, logits=metric.request(batch))
    return metric_values(engine, metric, run.logits).reshape(times, rows)


def _exchanged(engine: Engine, pairs: PairBatch, base: Reference, source: Reference, start: int, site: Site) -> Array:
    """The stream before layer `start` (rows, positions, d_model) with the site's write taken from the source run."""
    stream = base.streams[start]
    if site.component is Component.MLP_OUTPUT:
        layer = start - 1
        theirs = stream + source.mlps[layer] - base.mlps[layer]
    else:
        theirs = source.streams[start]
    if site.position is None:
        return theirs
    stream = engine.ops.copy(stream)
    for row, column in enumerate(pairs.clean.column(site.position)):
        stream[row, int(column)] = theirs[row, int(column)]
    return stream
