"""Direct logit attribution: each component's direct contribution to the answer's lead.

The stream at the last token is a sum: embedding + Σ heads + Σ attention biases + Σ MLPs. With the scale of the final norm
fixed, the lead logit(answer) − logit(wrong) is linear in the stream, so it is the sum of one term per component and a constant
(the norm's bias, unembedded):

    lead = constant + Σ_c  f · c          f: the lead's direction in the stream

f is found with gradients of the engine alone. With x the stream (centred, if the norm centres), the gradient g of the lead
lacks f's component along x, since a norm is invariant to the scale of its input; but the lead is known:

1. g = ∂ lead / ∂ x at the run, and lead(x) from the run itself;
2. constant = lead(0);
3. f = g + κ x with κ such that f · x = lead − constant.

A term excludes effects through other components: see `circuits`. With a soft cap on the logits (Gemma 2) the terms are those of
a linear model through the same two points.

Sources: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Wang et al. 2022 (direct effects).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.engines.protocol import Engine, IntArray, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.results import Provenance, Result
from neuroscope.tasks.dependence import Units
from neuroscope.tasks.metrics import PromptMetric
from neuroscope.tasks.statistics import Estimate, mean_of
from neuroscope.vocabulary import public

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Contributions:
    """Each component's term for each row of a batch, in logits.

    lead, embedding, constant: (rows,). heads: (rows, layers, heads). biases, mlps: (rows, layers).
    """

    lead: Numbers
    embedding: Numbers
    constant: Numbers
    heads: Numbers
    biases: Numbers
    mlps: Numbers

    @property
    def total(self) -> Numbers:
        """The sum of all terms (rows,): the lead, up to rounding."""
        return self.embedding + self.constant + self.heads.sum((1, 2)) + self.biases.sum(1) + self.mlps.sum(1)


@public
@dataclass(frozen=True)
class Contribution(Result):
    """One component's direct contribution to the answer's lead, in logits, with its interval over prompts."""

    site: str
    value: Estimate

    def print_string(self) -> str:
        return f"a Contribution({self.site}: {self.value})"


@public
@dataclass(frozen=True)
class LogitAttribution(Result):
    """The contributions to the answer's lead.

    lead: logit(answer) − logit(wrong). components: the largest terms by size, largest first, with intervals over prompts (of
    several). heads: (layers, heads); attention_biases, mlps: (layers,); all means over prompts. gap: the largest
    |lead − sum of terms| of any prompt. exists: whether there is a lead to explain; if not, `reason` says why, and there are no
    terms.
    """

    prompts: list[str]
    answers: list[str]
    wrongs: list[str]
    lead: Estimate
    embedding: float
    constant: float
    heads: list[list[float]]
    attention_biases: list[float]
    mlps: list[float]
    components: list[Contribution]
    gap: float
    provenance: Provenance
    _contributions: Contributions = field(repr=False)
    exists: bool = True
    reason: str | None = None

    def print_string(self) -> str:
        found = f"lead {self.lead}" if self.exists else "no effect"
        return f"a LogitAttribution({len(self.prompts)} prompts, {found})"

    def summary(self) -> str:
        first = f"{self.prompts[0]!r}: {self.answers[0]!r} over {self.wrongs[0]!r}"
        more = f" and {len(self.prompts) - 1} more" if len(self.prompts) > 1 else ""
        title = f"Direct logit attribution in {self.provenance.title}"
        lead = f"  lead             {self.lead if len(self.prompts) > 1 else f'{self.lead.value:.3f}'} logits"
        if not self.exists:
            return f"No effect. {title}: {self.reason}\n  {first}{more}\n{lead}"
        heads, biases, mlps = np.array(self.heads), np.array(self.attention_biases), np.array(self.mlps)
        lines = [
            title,
            f"  {first}{more}",
            lead,
            f"  all heads        {heads.sum():+.3f}, attention biases {biases.sum():+.3f}, all MLPs {mlps.sum():+.3f}",
            f"  embedding        {self.embedding:+.3f}, constant {self.constant:+.3f}; the terms' sum differs from the lead by {self.gap:.1g}",
        ]
        for part in self.components[:12]:
            interval = f" [{part.value.low:+.3f}, {part.value.high:+.3f}]" if len(self.prompts) > 1 else ""
            lines.append(f"    {part.site:<18} {part.value.value:+.3f}{interval}")
        return "\n".join(lines)


def contributions(engine: Engine, batch: TokenBatch, answers: IntArray, wrongs: IntArray) -> Contributions:
    """Each component's term for each row, at its last token; answers and wrongs: token ids (rows,)."""
    layers = range(engine.anatomy.layers)
    rows, last = np.arange(batch.rows), batch.column(-1)
    kinds = (Component.HEAD_OUTPUT, Component.ATTENTION, Component.MLP_OUTPUT)
    embedding = Site(None, Component.EMBEDDING)
    top = Site(len(layers) - 1, Component.RESIDUAL)
    run = engine.forward(batch, capture=[embedding, top, *(Site(at, kind) for at in layers for kind in kinds)], logits=None)

    def at_end(site: Site) -> Numbers:
        found: Numbers = engine.ops.to_numpy(run[site])[rows, last].astype(np.float64)
        return found

    metric = PromptMetric("logit_difference", answers, wrongs)
    lead, constant, direction = _direction(engine, batch, metric, run[top])
    heads, biases, mlps = [], [], []
    for layer in layers:
        outputs = engine.ops.asarray(engine.ops.to_numpy(run[Site(layer, Component.HEAD_OUTPUT)])[rows, last][:, None])
        writes = engine.ops.to_numpy(engine.head_writes(layer, outputs))[:, 0].astype(np.float64)
        heads.append(np.einsum("rhd,rd->rh", writes, direction))
        rest = at_end(Site(layer, Component.ATTENTION)) - writes.sum(1)
        biases.append((rest * direction).sum(1))
        mlps.append((at_end(Site(layer, Component.MLP_OUTPUT)) * direction).sum(1))
    return Contributions(
        lead,
        (at_end(embedding) * direction).sum(1),
        constant,
        np.stack(heads, axis=1),
        np.stack(biases, axis=1),
        np.stack(mlps, axis=1),
    )


def _direction(engine: Engine, batch: TokenBatch, metric: PromptMetric, stream: object) -> tuple[Numbers, Numbers, Numbers]:
    """Lead (rows,), constant (rows,) and the lead's direction in the stream (rows, d_model): steps 1 to 3."""
    layers, rows, last = engine.anatomy.layers, np.arange(batch.rows), batch.column(-1)
    compute, request = metric.compute(engine), metric.request(batch)
    site = Site(layers - 1, Component.RESIDUAL)
    found = engine.gradients(batch, compute, [site], logits=request)
    gradient = engine.ops.to_numpy(found.gradients[site])[rows, last].astype(np.float64)
    lead = engine.ops.to_numpy(found.metric).astype(np.float64)
    values = engine.ops.to_numpy(stream)
    nothing = engine.ops.asarray(np.zeros_like(values))
    silent = engine.forward(batch, start=layers, residual=nothing, logits=request).logits
    constant = engine.ops.to_numpy(compute(silent)).astype(np.float64)
    x = values[rows, last].astype(np.float64)
    # A gradient through a centring norm sums to zero.
    if np.abs(gradient.sum(1)).max() <= 1e-3 * np.abs(gradient).sum(1).min():
        x = x - x.mean(1, keepdims=True)
    share = (lead - constant - (gradient * x).sum(1)) / np.maximum((x * x).sum(1), 1e-30)
    return lead, constant, gradient + share[:, None] * x


def attribute_logits(
    model: TransformerModel,
    prompts: list[str],
    answers: IntArray,
    wrongs: IntArray,
    *,
    batch: TokenBatch | None = None,
    task: str | None = None,
    units: Units | None = None,
    reason: str | None = None,
    seed: int = 0,
) -> LogitAttribution:
    """Attribute answers (token ids, one per prompt) against wrong ones, averaged over prompts; hooks are not included.

    units: what each prompt shares with others. reason: why there is no lead to explain, if so; then the result has only the
    lead. Raises `ArgumentError` if answers and wrong answers are the same.
    """
    if np.array_equal(answers, wrongs):
        raise ArgumentError("Answer and wrong answer are the same, so there is no lead to explain.")
    engine = model.engine
    batch = model.encode(prompts) if batch is None else batch
    with events.progress("attributing logits", total=batch.rows, unit="prompts") as job:
        found = contributions(engine, batch, answers, wrongs)
        job.advance(batch.rows)
    exists = reason is None
    parts = [Contribution("embedding", mean_of(found.embedding, units))]
    for layer in range(engine.anatomy.layers):
        parts += [
            Contribution(str(Site(layer, Component.HEAD_OUTPUT, head=head)), mean_of(found.heads[:, layer, head], units))
            for head in range(engine.anatomy.heads)
        ]
        parts.append(Contribution(str(Site(layer, Component.MLP_OUTPUT)), mean_of(found.mlps[:, layer], units)))
    parts.sort(key=lambda part: -abs(part.value.value))
    return LogitAttribution(
        prompts=list(prompts),
        answers=[model.token_text(token) for token in answers],
        wrongs=[model.token_text(token) for token in wrongs],
        lead=mean_of(found.lead, units),
        embedding=float(found.embedding.mean()),
        constant=float(found.constant.mean()),
        heads=found.heads.mean(0).tolist() if exists else [],
        attention_biases=found.biases.mean(0).tolist() if exists else [],
        mlps=found.mlps.mean(0).tolist() if exists else [],
        components=parts[:40] if exists else [],
        gap=float(np.abs(found.lead - found.total).max()),
        provenance=provenance(model, task, seed, prompts=batch.rows),
        _contributions=found,
        exists=exists,
        reason=reason,
    )
