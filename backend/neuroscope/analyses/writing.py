"""Creative writing: a model's sampled continuations, the uncertainty of each choice, and the components that made it.

1. Several continuations at each temperature: their variety (distinct-1 and distinct-2, the share of different words and word
   pairs; Li et al. 2016), repetition, and surprise to the model. The control is the same tokens in random order.
2. One of them in detail: at each token the entropy of the choice, the surprise of the chosen token, and the first layer from
   which on it leads (logit lens).
3. Contributions of heads and MLPs to the lead of each chosen token over the best alternative (direct logit attribution), and
   each layer's attention to the prompt, to the continuation, and to the first token, the attention sink.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.analyses.inputs import text_of
from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError
from neuroscope.lenses.attribution import contributions
from neuroscope.lenses.logit_lens import decided_from, read_streams
from neuroscope.models.generation import continued
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.results import Provenance, Result
from neuroscope.tasks.statistics import Estimate, difference_test, mean_of
from neuroscope.vocabulary import public

_OPENING = "Once there was a"
_TEMPERATURES = (0.0, 0.7, 1.0, 1.3)
_SAMPLES = 8
_TOKENS = 32
#: The temperature of the continuation analysed in detail.
_LOOKED_INTO = 1.0
Numbers = NDArray[np.float64]


@public
@dataclass(frozen=True)
class TemperatureSample(Result):
    """The continuations at one temperature.

    repeated: share of word pairs that occurred before. surprise, shuffled_surprise: nats per token. shuffled_p_value: that a
    continuation is as surprising as its shuffled tokens (paired, two-sided; 1 for a single one).
    """

    temperature: float
    texts: list[str]
    distinct_1: float
    distinct_2: float
    repeated: float
    surprise: Estimate
    shuffled_surprise: Estimate
    shuffled_p_value: float

    def print_string(self) -> str:
        return f"a TemperatureSample({self.temperature}: distinct-2 {self.distinct_2:.2f}, surprise {self.surprise})"


@public
@dataclass(frozen=True)
class WritingAnalysis(Result):
    """How a model continues a text.

    tokens, surprise, entropy (nats), decided, alternatives: for each token of the continuation analysed in detail. decided: the
    first row of `layers` from which on the token leads; the number of rows if it never does (sampled, but not the most likely).
    heads: (layers, heads), mlps: (layers,): mean contribution in logits to a chosen token over the best alternative.
    looks_at_prompt, looks_at_own, looks_at_first: (layers,): shares of attention from the new tokens.
    """

    prompt: str
    samples: list[TemperatureSample]
    tokens: list[str]
    surprise: list[float]
    entropy: list[float]
    layers: list[str]
    decided: list[int]
    alternatives: list[str]
    heads: list[list[float]]
    mlps: list[float]
    looks_at_prompt: list[float]
    looks_at_own: list[float]
    looks_at_first: list[float]
    provenance: Provenance

    @property
    def text(self) -> str:
        """The continuation analysed in detail."""
        return "".join(self.tokens)

    def print_string(self) -> str:
        return f"a WritingAnalysis({self.prompt!r}, {len(self.tokens)} tokens)"

    def summary(self) -> str:
        lines = [
            f"Creative writing of {self.provenance.title} from {self.prompt!r}",
            "  temperature  distinct-1  distinct-2  repeated  surprise (nats per token)    shuffled",
        ]
        lines += [
            f"  {sample.temperature:>11.1f}  {sample.distinct_1:>10.2f}  {sample.distinct_2:>10.2f}  {sample.repeated:>8.2f}  "
            f"{sample.surprise!s:<26}  {sample.shuffled_surprise!s} (p = {sample.shuffled_p_value:.2g})"
            for sample in self.samples
        ]
        free = max(range(len(self.tokens)), key=lambda at: self.entropy[at])
        heads = np.array(self.heads)
        layer, head = np.unravel_index(int(heads.argmax()), heads.shape)
        lines += [
            f"  in detail: {self.text!r}",
            f"  freest choice: {self.tokens[free]!r} (entropy {self.entropy[free]:.2f} nats; else {self.alternatives[free]!r})",
            f"  largest contributions: head {layer}.{head} ({heads.max():+.2f} logits per token), "
            f"MLP {int(np.argmax(self.mlps))} ({max(self.mlps):+.2f})",
        ]
        return "\n".join(lines)


def creative_writing(model: TransformerModel, on: Any, seed: int) -> WritingAnalysis:
    """Continue an opening and analyse the choices. Raises `ArgumentError` if the model ends the text at once."""
    prompt = text_of(model, on, _OPENING, most=max(4, (model.architecture.context or 512) - _TOKENS))
    written = {}
    with events.progress("writing", total=len(_TEMPERATURES), unit="temperatures") as job:
        for temperature in _TEMPERATURES:
            written[temperature] = _continuations(model, prompt, temperature, seed)
            job.advance()
    samples = [_measured(model, prompt, temperature, rows, seed) for temperature, rows in written.items()]
    chosen = max(written[_LOOKED_INTO], key=len)
    if len(chosen) < 2:
        raise ArgumentError(
            f"{model.title} ends the text right after {prompt!r}.", remedy="Give an opening that needs a continuation."
        )
    return _in_depth(model, prompt, samples, chosen, seed)


def _continuations(model: TransformerModel, prompt: str, temperature: float, seed: int) -> list[list[int]]:
    rows = 1 if temperature == 0 else _SAMPLES
    batch = model.encode(prompt, side="left").repeat(rows)
    settings = model.generation_settings(max_tokens=_TOKENS, temperature=temperature, seed=seed)
    return [row.ids for row in continued(model.engine, model.tokenizer, batch, settings)]


def _measured(model: TransformerModel, prompt: str, temperature: float, rows: list[list[int]], seed: int) -> TemperatureSample:
    random = np.random.default_rng(seed)
    kept = [row for row in rows if row]
    if not kept:
        raise ArgumentError(
            f"{model.title} ends the text right after {prompt!r}.", remedy="Give an opening that needs a continuation."
        )
    # At temperature 0 all samples are equal, but they count as several: a single text would seem the most varied.
    start = [int(token) for token in model.encode(prompt).ids[0]]
    words = [model.decode(row, after=start).split() for row in (kept if temperature else _SAMPLES * kept)]
    pairs = [list(itertools.pairwise(text)) for text in words]
    surprise = _surprise(model, prompt, kept)
    shuffled = _surprise(model, prompt, [[int(token) for token in random.permutation(row)] for row in kept])
    return TemperatureSample(
        temperature=temperature,
        texts=[model.decode(row, after=start) for row in rows],
        distinct_1=_distinct([word for text in words for word in text]),
        distinct_2=_distinct([pair for text in pairs for pair in text]),
        repeated=float(np.mean([1 - _distinct(text) for text in pairs if text] or [0.0])),
        surprise=mean_of(surprise),
        shuffled_surprise=mean_of(shuffled),
        shuffled_p_value=difference_test(shuffled - surprise).p_value,
    )


def _distinct(items: list[Any]) -> float:
    return len(set(items)) / len(items) if items else 0.0


def _surprise(model: TransformerModel, prompt: str, rows: list[list[int]]) -> Numbers:
    """Mean −log p of each row's tokens after the prompt (rows,), in nats."""
    start = [int(token) for token in model.encode(prompt).ids[0]]
    found = []
    for row in rows:
        batch = TokenBatch.of([[*start, *row]])
        logs = model.engine.ops.to_numpy(model.engine.ops.log_softmax(model.engine.forward(batch).logits))[0]
        at = np.arange(len(start) - 1, len(start) + len(row) - 1)
        found.append(-float(logs[at, row].mean()))
    return np.array(found)


def _in_depth(
    model: TransformerModel, prompt: str, samples: list[TemperatureSample], chosen: list[int], seed: int
) -> WritingAnalysis:
    engine = model.engine
    start = [int(token) for token in model.encode(prompt).ids[0]]
    whole = TokenBatch.of([[*start, *chosen]])
    at = np.arange(len(start) - 1, len(start) + len(chosen) - 1)
    tables = []
    for stream in read_streams(engine, whole):
        logits = engine.forward(whole, start=engine.anatomy.layers, residual=stream).logits
        tables.append(engine.ops.to_numpy(engine.ops.log_softmax(logits))[0][at].astype(np.float64))
    final = tables[-1]
    best = np.stack([table.argmax(-1) for table in tables])
    # Whether the chosen token leads in each row; `decided` is the start of the final run of true.
    leads = np.vstack([best == np.array(chosen), np.ones((1, len(chosen)), dtype=bool)]).astype(np.int64)
    others = final.copy()
    others[np.arange(len(chosen)), chosen] = -np.inf
    alternatives = others.argmax(-1)
    prefixes = TokenBatch.of([[*start, *chosen[:count]] for count in range(len(chosen))])
    written = contributions(engine, prefixes, np.array(chosen), alternatives)
    to_prompt, to_own, to_first = _looks(model, whole, len(start))
    return WritingAnalysis(
        prompt=prompt,
        samples=samples,
        tokens=[model.token_text(token) for token in chosen],
        surprise=(-final[np.arange(len(chosen)), chosen]).tolist(),
        entropy=(-(np.exp(final) * final).sum(-1)).tolist(),
        layers=["embedding", *(f"layer {layer}" for layer in range(engine.anatomy.layers))],
        decided=decided_from(leads).tolist(),
        alternatives=[model.token_text(token) for token in alternatives],
        heads=written.heads.mean(0).tolist(),
        mlps=written.mlps.mean(0).tolist(),
        looks_at_prompt=to_prompt.tolist(),
        looks_at_own=to_own.tolist(),
        looks_at_first=to_first.tolist(),
        provenance=provenance(model, None, seed, tokens=len(chosen), samples=_SAMPLES),
    )


def _looks(model: TransformerModel, batch: TokenBatch, prompt: int) -> tuple[Numbers, Numbers, Numbers]:
    """Shares (layers,) of the new tokens' attention: to the prompt except its first token, to new tokens, to the first."""
    sites = [Site(layer, Component.ATTENTION_PATTERN) for layer in range(model.architecture.layers)]
    run = model.engine.forward(batch, capture=sites, logits=None)
    pattern = np.stack([model.engine.ops.to_numpy(run[site])[0] for site in sites]).astype(np.float64)
    rows = pattern[:, :, prompt - 1 :].mean((1, 2))  # (layers, keys)
    return rows[:, 1:prompt].sum(1), rows[:, prompt:].sum(1), rows[:, 0]
