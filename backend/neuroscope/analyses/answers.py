"""How a model computes an answer: mathematical reasoning and factual recall.

The pairs of prompts differ in what the answer depends on (an operand, a country). First it is tested, on separate pairs,
whether the answer's lead differs between clean and corrupt prompts (`circuits.effect`); if not, the analysis ends. Then, on
other pairs that the model gets right:

1. the answer's probability and rank after each layer, at the last token (logit lens);
2. denoising: the clean stream in the corrupt run, by layer and token, and every head's and MLP's output (Vig et al. 2020; Meng
   et al. 2022): the share of the lead that is recovered, with Fieller's interval. Components with a significant effect are
   listed: a two-sided paired test for each, corrected for their number (Benjamini & Yekutieli 2001: they are not independent);
3. each component's direct contribution to the lead (direct logit attribution);
4. attention from the last token to the changed tokens, and to an average other token except the first.

A head that recovers much and attends to the changed tokens moves what the answer depends on; one that recovers much and attends
elsewhere uses what others have moved.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from neuroscope.analyses.inputs import divided_pairs
from neuroscope.circuits.estimates import mean, normalised
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.circuits.patching import ActivationPatcher, ResidualMap
from neuroscope.circuits.sweeps import sweep
from neuroscope.engines.protocol import Engine
from neuroscope.engines.sites import Component, Site
from neuroscope.lenses.attribution import LogitAttribution, attribute_logits
from neuroscope.lenses.logit_lens import answers_by_layer
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.results import Provenance, Result
from neuroscope.tasks.pairs import PairBatch, make_pairs
from neuroscope.tasks.statistics import Estimate, difference_test, rate
from neuroscope.vocabulary import public

_PAIRS = 10
_LISTED = 10
_LEVEL = 0.05


@public
@dataclass(frozen=True)
class AnswerComponent(Result):
    """A head or MLP: the share of the lead that denoising it recovers, and its direct contribution in logits.

    q_value: of no recovery, corrected over all heads and MLPs. to_changed, elsewhere: a head's attention from the last token to
    all changed tokens, and to an average other one.
    """

    site: str
    recovered: Estimate
    q_value: float
    direct: float
    to_changed: float | None = None
    elsewhere: float | None = None

    def print_string(self) -> str:
        return f"an AnswerComponent({self.site}: recovers {self.recovered})"


@public
@dataclass(frozen=True)
class AnswerTrace(Result):
    """How a model computes its answers.

    exists: whether the answer's lead is larger on clean prompts than on corrupt ones. gap, gap_p_value: by how much, on
    separate pairs; None for the exchanged words of one prompt, which are chosen so that it is. reason: why not; then only the
    leads were measured.

    accuracy: share of all pairs where the answer leads; the rest is measured on those. answer_probability, answer_rank: by
    layer, from the embedding on. heads: (layers, heads), mlps: (layers,): share of the lead that denoising each recovers.
    components: the strongest with a significant recovery.
    """

    analysis: str
    title: str
    task: str | None
    exists: bool
    reason: str | None
    gap: Estimate | None
    gap_p_value: float | None
    prompts: list[str]
    answers: list[str]
    accuracy: Estimate
    clean_lead: Estimate
    corrupt_lead: Estimate
    layers: list[str]
    answer_probability: list[float]
    answer_rank: list[float]
    residual_map: ResidualMap | None
    heads: list[list[float]]
    mlps: list[float]
    components: list[AnswerComponent]
    attribution: LogitAttribution | None
    provenance: Provenance

    @property
    def decided(self) -> str | None:
        """The first layer from which on the answer is the most likely token on average (mean rank below one half), or None."""
        rows = range(len(self.layers))
        return next((self.layers[row] for row in rows if all(rank < 0.5 for rank in self.answer_rank[row:])), None)

    def _tested(self) -> str:
        if self.gap is None:
            return "chosen so that the model's prediction changes"
        return f"{self.gap} logits on {self.gap.n} other pairs (p = {self.gap_p_value:.2g})"

    def _decision(self) -> str:
        if self.decided is None:
            return "the answer leads the wrong one but is not the most likely token on average"
        return f"the answer is the most likely from {self.decided} on"

    def print_string(self) -> str:
        found = f"lead {self.clean_lead}" if self.exists else "no effect"
        return f"an AnswerTrace({self.title.lower()}: {len(self.prompts)} prompts, {found})"

    def summary(self) -> str:
        place = f"{self.title} in {self.provenance.title}"
        lines = [
            place if self.exists else f"No effect. {place}: {self.reason}",
            f"  {self.prompts[0]!r} → {self.answers[0]!r}"
            + (f" and {len(self.prompts) - 1} more" if len(self.prompts) > 1 else ""),
            f"  answer leads     {self.accuracy} of {self.accuracy.n} pairs",
            f"  lead             clean {self.clean_lead}, corrupt {self.corrupt_lead} logits",
        ]
        if not self.exists:
            return "\n".join(lines)
        lines += [
            f"  clean − corrupt  {self._tested()}",
            f"  decided          {self._decision()}",
            "  component          recovered (denoising)      writes   looks at what changed (elsewhere)"
            if self.components
            else "  no single head or MLP recovers any of the lead",
        ]
        for part in self.components:
            looks = "" if part.to_changed is None else f"{part.to_changed:.2f} ({part.elsewhere:.2f})"
            lines.append(f"    {part.site:<16} {part.recovered!s:<26} {part.direct:+7.2f}  {looks}")
        return "\n".join(lines)


def mathematical_reasoning(model: TransformerModel, on: Any, seed: int) -> AnswerTrace:
    """Analyse sums, or the given pairs."""
    return trace_answers(model, on, "addition", seed, "mathematical_reasoning", "Mathematical reasoning")


def factual_recall(model: TransformerModel, on: Any, seed: int) -> AnswerTrace:
    """Analyse capitals of countries, or the given pairs."""
    return trace_answers(model, on, "capital_of_country", seed, "factual_recall", "Factual recall")


def trace_answers(model: TransformerModel, on: Any, task: str, seed: int, name: str, title: str) -> AnswerTrace:
    """Steps 1 to 4 of the module's docstring, or the reason why there is nothing to trace."""
    engine = model.engine
    given = divided_pairs(model, on, task, _PAIRS, seed)
    dataset, effect = given.looked_at, given.effect(model)
    offered = make_pairs(model, dataset.examples)
    runs = PairRuns(engine, offered)
    right = np.flatnonzero(runs.clean.metric > 0)
    accuracy = rate(runs.clean.metric > 0, offered.units or None)
    reason = None if effect is None else effect.reason
    if not len(right):
        reason = reason or f"the model gets none of {offered.rows} prompts right"
    if reason is not None:
        # Without an effect, pairs are not selected by the model's answers.
        right = np.arange(offered.rows)
    pairs = offered.take(right)
    prompts = [dataset[int(row)].clean for row in right]
    clean, corrupt = runs.clean.metric[right], runs.corrupt.metric[right]
    trace = AnswerTrace(
        analysis=name,
        title=title,
        task=dataset.task,
        exists=reason is None,
        reason=reason,
        gap=None if effect is None else effect.gap,
        gap_p_value=None if effect is None else effect.p_value,
        prompts=prompts,
        answers=[model.token_text(token) for token in pairs.metric.answers],
        accuracy=accuracy,
        clean_lead=mean(clean, units=pairs.units or None),
        corrupt_lead=mean(corrupt, units=pairs.units or None),
        layers=["embedding", *(f"layer {layer}" for layer in range(engine.anatomy.layers))],
        answer_probability=[],
        answer_rank=[],
        residual_map=None,
        heads=[],
        mlps=[],
        components=[],
        attribution=None,
        provenance=provenance(model, dataset.task, seed, pairs=pairs.rows, tested=effect.gap.n if effect else 0),
    )
    return trace if reason is not None else _traced(model, trace, pairs, seed)


def _traced(model: TransformerModel, trace: AnswerTrace, pairs: PairBatch, seed: int) -> AnswerTrace:
    """Steps 1 to 4 for pairs that show an effect."""
    engine, units = model.engine, pairs.units or None
    heads, layers = engine.anatomy.heads, engine.anatomy.layers
    runs = PairRuns(engine, pairs)
    sites = _components(engine)
    swept = sweep(runs, runs.corrupt, runs.clean, sites, name="denoising heads and MLPs")
    recovered = [normalised(values, runs.corrupt.metric, runs.clean.metric, units=units) for values in swept]
    p_values = [difference_test(values - runs.corrupt.metric, units).p_value for values in swept]
    q_values = stats.false_discovery_control(p_values, method="by")
    probability, rank = answers_by_layer(engine, pairs.clean, pairs.metric.answers)
    attribution = attribute_logits(
        model, trace.prompts, pairs.metric.answers, pairs.metric.wrongs, batch=pairs.clean, task=trace.task, seed=seed,
        units=units,
    )  # fmt: skip
    changed, elsewhere = _attention(engine, pairs)
    shares = np.array([share.value for share in recovered]).reshape(layers, heads + 1)
    order = sorted(range(len(sites)), key=lambda index: -abs(recovered[index].value))
    components = []
    for index in [index for index in order if q_values[index] < _LEVEL][:_LISTED]:
        layer, head = divmod(index, heads + 1)
        is_mlp = head == heads
        components.append(
            AnswerComponent(
                site=str(sites[index]),
                recovered=recovered[index],
                q_value=float(q_values[index]),
                direct=attribution.mlps[layer] if is_mlp else attribution.heads[layer][head],
                to_changed=None if is_mlp else float(changed[layer, head]),
                elsewhere=None if is_mlp else float(elsewhere[layer, head]),
            )
        )
    return dataclasses.replace(
        trace,
        answer_probability=probability.mean(1).tolist(),
        answer_rank=rank.mean(1).tolist(),
        residual_map=ActivationPatcher(model, seed=seed).residual_map(pairs),
        heads=shares[:, :heads].tolist(),
        mlps=shares[:, heads].tolist(),
        components=components,
        attribution=attribution,
    )


def _components(engine: Engine) -> list[Site]:
    """For each layer, its heads and its MLP."""
    return [
        site
        for layer in range(engine.anatomy.layers)
        for site in (
            *(Site(layer, Component.HEAD_OUTPUT, head=head) for head in range(engine.anatomy.heads)),
            Site(layer, Component.MLP_OUTPUT),
        )
    ]


def _attention(engine: Engine, pairs: PairBatch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Attention (layers, heads) from the last token to all changed tokens, and to an average unchanged one except the first."""
    batch = pairs.clean
    changed = (batch.ids != pairs.corrupt.ids) & batch.real
    others = batch.real & ~changed
    others[np.arange(batch.rows), batch.offsets] = False
    sites = [Site(layer, Component.ATTENTION_PATTERN) for layer in range(engine.anatomy.layers)]
    run = engine.forward(batch, capture=sites, logits=None)
    rows, last = np.arange(batch.rows), batch.column(-1)
    at_end = np.stack([engine.ops.to_numpy(run[site])[rows, :, last] for site in sites]).astype(np.float64)
    to_changed = np.einsum("lrhk,rk->lh", at_end, changed) / batch.rows
    average = others / np.maximum(others.sum(1), 1)[:, None]
    return to_changed, np.einsum("lrhk,rk->lh", at_end, average) / batch.rows
