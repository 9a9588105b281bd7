"""Patching on prompts of one's own: exact, by attribution, and along paths.

Attribution (Nanda 2023, "Attribution patching") estimates every exact patch at once, from one run with gradients: the metric changes by
about Σ (source − base) · ∂m/∂base over the site's cells. It is wrong where the metric is far from linear, at a saturated softmax above
all; check what matters with `exact`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope import events
from neuroscope.circuits.estimates import mean
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.journal import Journal
from neuroscope.circuits.maps import PatchedSite, PatchingMap, patched
from neuroscope.circuits.pair_runs import Numbers, PairRuns, RunOfPairs
from neuroscope.circuits.paths import PathPatcher, Paths
from neuroscope.circuits.replacing import Replacement, checked_replacement
from neuroscope.circuits.sweeps import place_in_row, sweep
from neuroscope.engines.patterns import expanded
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import NonFiniteActivationError, SiteError
from neuroscope.names import only
from neuroscope.parallel.team import Team
from neuroscope.provenance import provenance
from neuroscope.tasks.metrics import Metric
from neuroscope.tasks.own import own_pairs
from neuroscope.tasks.pairs import PairBatch, make_pairs

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

DIRECTIONS = ("denoising", "noising")
PATCHING = ("exact", "attribution")
#: Pairs that run together where workers share the work.
_PAIRS = 16

Sites = str | Site | Iterable[str | Site]


def patch(
    model: TransformerModel,
    given: Any,
    sites: Sites,
    *,
    direction: str,
    metric: Metric,
    replacement: str,
    method: str,
    seed: int,
    team: Team | None = None,
) -> PatchingMap:
    """See `ActivationPatcher.patch`."""
    direction = only("direction", DIRECTIONS, listing="Directions")[direction]
    method = only("method of patching", PATCHING, listing="Methods")[method]
    replacement = checked_replacement(replacement)
    pairs = make_pairs(model, own_pairs(given), metric)
    chosen = expanded(sites, model.architecture, _positions(pairs))
    found, clean, corrupt = _over_chunks(model, pairs, chosen, direction, replacement, method, seed, team)
    base, other = (corrupt, clean) if direction == "denoising" else (clean, corrupt)
    tokens = [model.token_text(token) for token in pairs.clean.ids[0][pairs.clean.real[0]]]
    return _map(
        model,
        pairs,
        patched(chosen, found, base, other, pairs.units or None, tokens),
        clean,
        corrupt,
        tokens,
        direction=direction,
        method=method,
        replacement=replacement,
        seed=seed,
    )


def patch_paths(
    model: TransformerModel,
    given: Any,
    senders: Sites,
    receivers: Sites,
    *,
    metric: Metric,
    seed: int,
    team: Team | None = None,
) -> PatchingMap:
    """See `ActivationPatcher.patch_paths`."""
    pairs, graph = make_pairs(model, own_pairs(given), metric), Graph.of(model.architecture)
    sources = expanded(senders, model.architecture)
    readers = expanded(receivers, model.architecture)
    wanted = [_paths(graph, site, readers) for site in sources]
    patcher = PathPatcher(model.engine, pairs)
    falls = patcher.falls(wanted, team)
    tokens = [model.token_text(token) for token in pairs.clean.ids[0][pairs.clean.real[0]]]
    return _map(
        model,
        pairs,
        patched(sources, patcher.clean - falls, patcher.clean, patcher.clean - patcher.gaps, pairs.units or None, tokens),
        patcher.clean,
        patcher.clean - patcher.gaps,
        tokens,
        direction="noising",
        method="path",
        replacement="pair",
        seed=seed,
        receivers=[str(site) for site in readers],
    )


def _paths(graph: Graph, sender: Site, readers: Sequence[Site]) -> Paths:
    """The paths from a sender into those readers that come after it. Raises `SiteError` if none does."""
    source = graph.source_of(sender)
    later = tuple(reader for reader in map(graph.receiver_of, readers) if graph.valid[reader, source])
    if not later:
        raise SiteError(
            f"None of the receivers reads {sender}: they come before it.",
            site=sender,
            remedy="Name later receivers, such as logits, or senders of earlier layers.",
        )
    return Paths(source, later)


def _positions(pairs: PairBatch) -> int | None:
    """The number of tokens of every prompt; None if they differ."""
    lengths = np.unique(pairs.clean.lengths)
    return int(lengths[0]) if len(lengths) == 1 else None


def _over_chunks(
    model: TransformerModel,
    pairs: PairBatch,
    sites: Sequence[Site],
    direction: str,
    replacement: str,
    method: str,
    seed: int,
    team: Team | None,
) -> tuple[Numbers, Numbers, Numbers]:
    """The metric (sites, rows) with each site patched, and of the clean and corrupt run (rows,), as many pairs at once as fit."""
    engine = model.engine
    team = None if pairs.metric.function is not None else team
    attributed = method == "attribution"
    size = engine.rows_that_fit(pairs.clean.positions) if team is None else _PAIRS
    # what replaces a site by another pair or by a mean needs all pairs together
    chunks = pairs.chunks(size) if replacement == "pair" else [pairs]
    if team is not None and attributed:
        work = [(chunk.without_reference(), sites, direction, replacement, seed) for chunk in chunks]
        sizes = [chunk.rows for chunk in chunks]
        parts = team.map(_attributed_pairs, work, name=direction, unit="pairs", sizes=sizes)
        return tuple(np.concatenate(each, -1) for each in zip(*parts, strict=True))  # type: ignore[return-value]
    journal = None if attributed else Journal.of("sweeps", model, pairs, team, [*map(str, sites), direction, replacement, seed])
    found, clean, corrupt = [], [], []
    for number, chunk in enumerate(chunks):
        runs, base, theirs = _prepared(model, chunk, direction, replacement, seed)
        if attributed:
            found.append(_attributed(runs, base, theirs, sites, name=direction))
        else:
            stage = direction if len(chunks) == 1 else f"{direction} {number + 1} of {len(chunks)}"
            found.append(sweep(runs, base, theirs, sites, name=stage, team=team, journal=journal))
        clean.append(runs.clean.metric)
        corrupt.append(runs.corrupt.metric)
    if journal is not None:
        journal.forget()
    return np.concatenate(found, 1), np.concatenate(clean), np.concatenate(corrupt)


def _prepared(
    model: TransformerModel, pairs: PairBatch, direction: str, replacement: str, seed: int
) -> tuple[PairRuns, RunOfPairs, Replacement]:
    """The runs of some pairs, that which is patched, and what its sites get."""
    runs = PairRuns(model.engine, pairs, share_prefix=replacement == "pair")
    base, source = (runs.corrupt, runs.clean) if direction == "denoising" else (runs.clean, runs.corrupt)
    return runs, base, Replacement(runs, source, replacement, seed=seed)


def _attributed_pairs(
    model: TransformerModel, pairs: PairBatch, sites: Sequence[Site], direction: str, replacement: str, seed: int
) -> tuple[Numbers, Numbers, Numbers]:
    runs, base, theirs = _prepared(model, pairs, direction, replacement, seed)
    return _attributed(runs, base, theirs, sites, name=direction), runs.clean.metric, runs.corrupt.metric


def _attributed(runs: PairRuns, base: Any, theirs: Replacement, sites: Sequence[Site], *, name: str) -> Numbers:
    """The first-order estimate of `sweep`."""
    ops, anatomy = runs.engine.ops, runs.engine.anatomy
    checked = [site.checked(anatomy) for site in sites]
    wholes = list(dict.fromkeys(site.whole for site in checked))
    if any(site.component is Component.LOGITS for site in wholes):
        raise SiteError("The logits cannot be exchanged: the metric reads them.", remedy="Patch the last residual.")
    with events.progress(name, total=len(wholes), unit="components") as job:
        run = runs.gradients(1, residual=base.streams[0], sites=wholes)
        terms = {}
        for whole in wholes:
            change = ops.wide(theirs.values(whole)) - ops.wide(run.values[whole])
            terms[whole] = ops.to_numpy(change * ops.wide(run.gradients[whole])).astype(np.float64)
            theirs.forget()
            job.advance()
    found = np.tile(base.metric, (len(checked), 1))
    columns = {position: runs.column(position) for position in {site.position for site in checked} if position is not None}
    for index, site in enumerate(checked):
        for row in range(runs.rows):
            column = slice(None) if site.position is None else int(columns[site.position][row])
            if isinstance(column, slice) or column >= 0:
                found[index, row] += terms[site.whole][(row, *place_in_row(site, column))].sum()
    if not np.isfinite(found).all():
        raise NonFiniteActivationError("Some gradients are NaN or infinite.", remedy="Load the model in float32.")
    return found


def _map(
    model: TransformerModel,
    pairs: PairBatch,
    found: list[PatchedSite],
    clean: Numbers,
    corrupt: Numbers,
    tokens: list[str],
    *,
    direction: str,
    method: str,
    replacement: str,
    seed: int,
    receivers: list[str] | None = None,
) -> PatchingMap:
    units = pairs.units or None
    gap = mean(clean - corrupt, units=units)
    note = None
    if pairs.rows == 1:
        note = "One pair: the shares have no interval, and say nothing of other prompts."
    elif gap.low <= 0 <= gap.high:
        note = f"Clean and corrupt metric do not differ significantly ({gap}), so the shares have no finite interval."
    if method == "attribution":
        note = f"{'' if note is None else f'{note} '}First-order estimates: check what matters with the method exact."
    return PatchingMap(
        sites=found,
        direction=direction,
        method=method,
        replacement=replacement,
        metric=pairs.metric.name,
        clean_metric=mean(clean, units=units),
        corrupt_metric=mean(corrupt, units=units),
        tokens=tokens,
        n=pairs.rows,
        note=note,
        provenance=provenance(model, None, seed, pairs=pairs.rows, sites=len(found)),
        receivers=receivers or [],
    )
