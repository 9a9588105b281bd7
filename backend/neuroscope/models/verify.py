"""Parity of NeuroScope's runs with the bare model's.

Checks, each on random tokens of the model's own vocabulary:

1. the engine's logits equal the bare model's;
2. logits with every site hooked but unchanged equal the logits without hooks;
3. a batch equals its rows run singly, under left and under right padding;
4. a run resumed at any layer equals the whole run;
5. generation with hooks and key-value cache picks the logits of the same run without cache;
6. every attention row is a distribution (with a sum of at most one if there are sinks), and causal;
7. attention's output is the sum of its heads' outputs.

The bare model runs in the same precision, whose rounding sets the tolerance (`precision.tolerance`). In half precision,
rounding alone can route a token to other experts; so checks 2, 3 and 5 route the second run like the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.engines.precision import tolerance
from neuroscope.engines.protocol import (
    Apply,
    Array,
    Edit,
    EditScope,
    Engine,
    GenerationSettings,
    LogitRequest,
    TokenBatch,
)
from neuroscope.engines.sites import GLOBAL, Component, Site
from neuroscope.errors import ParityError
from neuroscope.results import Result
from neuroscope.vocabulary import public

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel


@dataclass(frozen=True)
class Check:
    """One comparison: the largest difference, relative to the spread of the values."""

    name: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance


@public
@dataclass(frozen=True)
class VerificationReport(Result):
    """Every check with its largest relative difference."""

    model: str
    precision: str
    checks: list[Check] = field(default_factory=list)
    engine: str | None = None
    device: str | None = None

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def summary(self) -> str:
        lines = [
            f"{'ok  ' if c.passed else 'FAIL'}  {c.name}: {c.difference:.1e} (limit {c.tolerance:.0e} in {self.precision})"
            for c in self.checks
        ]
        return "\n".join(lines)

    def print_string(self) -> str:
        good = sum(check.passed for check in self.checks)
        return f"a VerificationReport({self.model}: {good} of {len(self.checks)} checks passed)"


def verify(model: TransformerModel, *, rows: int = 3, positions: int = 12, seed: int = 0) -> VerificationReport:
    """Run every check on `rows` random prompts of up to `positions` tokens. Raises `ParityError` if one fails."""
    engine = model.engine
    random = np.random.default_rng(seed)
    lengths = [positions - 2 * row for row in range(rows)]
    prompts = [random.integers(0, engine.anatomy.vocabulary, length).tolist() for length in lengths]
    allowed = tolerance(engine.precision, engine.anatomy.layers)
    checks: list[Check] = []
    with events.progress("verifying", unit="checks") as job:
        for name, difference in _differences(engine, prompts):
            checks.append(Check(name, difference, allowed))
            job.advance()
    report = VerificationReport(model.title, engine.precision, checks, engine.name, engine.device_name)
    if not report.passed:
        raise ParityError(
            f"{model.title} runs differently in NeuroScope and bare:\n{report.summary()}",
            remedy="Do not trust results on this model; please report its architecture and these figures.",
        )
    return report


def _differences(engine: Engine, prompts: list[list[int]]) -> Iterator[tuple[str, float]]:
    for side in ("right", "left"):
        batch = TokenBatch.of(prompts, side=side)
        own = _numpy(engine, batch)
        bare = engine.ops.to_numpy(engine.bare_logits(batch))
        yield f"logits equal the bare model's, padded {side}", _relative(own[batch.real], bare[batch.real])
        routes = _routes(engine, batch)
        singles = [_numpy(engine, TokenBatch.of([p]), _routed(engine, routes, row))[0] for row, p in enumerate(prompts)]
        together = np.concatenate([own[row][batch.real[row]] for row in range(batch.rows)])
        yield f"a batch equals its rows, padded {side}", _relative(together, np.concatenate(singles))
        sites = every_site(engine)
        routed = _whole_routes(engine, batch)
        unchanged = [Edit(site, _unchanged(engine)) for site in sites if site not in routed]
        hooked = engine.forward(batch, capture=sites, edits=[*unchanged, *routed.values()])
        yield (
            f"hooked but unchanged equals unhooked, padded {side}",
            _relative(engine.ops.to_numpy(hooked.logits)[batch.real], own[batch.real]),
        )
    yield "resuming at any layer equals the whole run", _resumed(engine, TokenBatch.of(prompts[:1]))
    yield "generation with cache and hooks equals runs without cache", _generated(engine, prompts)
    yield from _attention(engine, TokenBatch.of(prompts[:1]))


def every_site(engine: Engine) -> list[Site]:
    """Every component of every layer, and those outside the layers."""
    a = engine.anatomy
    kinds = [c for c in Component if c not in GLOBAL and (c is not Component.ROUTER or a.experts)]
    inner = [Site(layer, kind) for layer in range(a.layers) for kind in kinds]
    return [Site(None, Component.EMBEDDING), *inner, Site(None, Component.LOGITS)]


def _resumed(engine: Engine, batch: TokenBatch) -> float:
    sites = [Site(layer, Component.RESIDUAL_PRE) for layer in range(engine.anatomy.layers)]
    whole = engine.forward(batch, capture=sites)
    expected = engine.ops.to_numpy(whole.logits)
    worst = 0.0
    for layer, site in enumerate(sites):
        resumed = engine.forward(batch, start=layer, residual=whole[site])
        worst = max(worst, _relative(engine.ops.to_numpy(resumed.logits), expected))
    return worst


def _generated(engine: Engine, prompts: list[list[int]]) -> float:
    def louder(value: Array, _: EditScope) -> Array:
        return value * 1.05

    edits = [Edit(Site(engine.anatomy.layers // 2, Component.RESIDUAL), louder)]
    grown = [list(prompt) for prompt in prompts]
    routers = _routers(engine)
    seen: dict[Site, list[NDArray[Any]]] = {site: [] for site in routers}
    worst = 0.0
    settings = GenerationSettings(max_tokens=6)
    for step in engine.generate(TokenBatch.of(prompts, side="left"), settings, capture=routers, edits=edits):
        batch = TokenBatch.of(grown, side="left")
        for site in routers:
            seen[site].append(engine.ops.to_numpy(step.activations[site]))
        routes = [_imposed(engine, site, np.concatenate(parts, 1)) for site, parts in seen.items()]
        fresh = engine.forward(batch, edits=[*edits, *routes], logits=LogitRequest.last(batch))
        worst = max(worst, _relative(engine.ops.to_numpy(step.logits), engine.ops.to_numpy(fresh.logits)))
        for row, token in zip(grown, step.tokens, strict=True):
            row.append(int(token))
    return worst


def _attention(engine: Engine, batch: TokenBatch) -> Iterator[tuple[str, float]]:
    a, ops = engine.anatomy, engine.ops
    kinds = (Component.ATTENTION_PATTERN, Component.HEAD_OUTPUT, Component.ATTENTION)
    run = engine.forward(batch, capture=[Site(layer, kind) for layer in range(a.layers) for kind in kinds], logits=None)
    rows_off = future = written = 0.0
    for layer in range(a.layers):
        pattern = ops.to_numpy(run[Site(layer, Component.ATTENTION_PATTERN)])
        total = pattern.sum(-1)
        over = np.maximum(total - 1, 0) if a.attention_sinks else np.abs(total - 1)
        rows_off = max(rows_off, float(over.max()), float(np.maximum(-pattern, 0).max()))
        future = max(future, float(np.abs(np.triu(pattern, k=1)).max()))
        heads = run[Site(layer, Component.HEAD_OUTPUT)]
        write = run[Site(layer, Component.ATTENTION)]
        # The rest is the projection's bias, which belongs to no head and is the same at every token.
        rest = ops.to_numpy(ops.wide(write) - engine.head_writes(layer, heads).sum(2))[0]
        written = max(written, float(np.abs(rest - rest.mean(0)).max() / (ops.to_numpy(write).std() + 1e-12)))
    yield "attention rows are distributions", rows_off
    yield "attention sees no future token", future
    yield "attention writes the sum of its heads", written


def _numpy(engine: Engine, batch: TokenBatch, edits: Sequence[Edit] = ()) -> NDArray[Any]:
    return engine.ops.to_numpy(engine.forward(batch, edits=edits).logits)


def _routers(engine: Engine) -> list[Site]:
    """The routers whose choices rounding may change: of a mixture of experts in half precision."""
    tipping = engine.anatomy.experts and engine.precision in ("float16", "bfloat16")
    return [Site(layer, Component.ROUTER) for layer in range(engine.anatomy.layers)] if tipping else []


def _routes(engine: Engine, batch: TokenBatch) -> dict[Site, list[NDArray[Any]]]:
    """For each router, the weights of the experts at every row's real tokens."""
    routers = _routers(engine)
    if not routers:
        return {}
    run = engine.forward(batch, capture=routers, logits=None)
    weights = {site: engine.ops.to_numpy(run[site]) for site in routers}
    return {site: [found[row][batch.real[row]] for row in range(batch.rows)] for site, found in weights.items()}


def _whole_routes(engine: Engine, batch: TokenBatch) -> dict[Site, Edit]:
    routers = _routers(engine)
    run = engine.forward(batch, capture=routers, logits=None)
    return {site: _imposed(engine, site, engine.ops.to_numpy(run[site])) for site in routers}


def _routed(engine: Engine, routes: dict[Site, list[NDArray[Any]]], row: int) -> list[Edit]:
    return [_imposed(engine, site, rows[row][None]) for site, rows in routes.items()]


def _imposed(engine: Engine, site: Site, weights: NDArray[Any]) -> Edit:
    return Edit(site, lambda _, __: engine.ops.asarray(weights))


def _unchanged(engine: Engine) -> Apply:
    return lambda value, _: engine.ops.copy(value)


def _relative(found: NDArray[Any], expected: NDArray[Any]) -> float:
    difference = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())
    return difference / (float(expected.std()) + 1e-12) if np.isfinite(difference) else float("inf")
