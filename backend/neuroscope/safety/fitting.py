"""Gate and redirect of a layer, and the choice of layer and strength.

Fitted on the fitting parts of all categories; thresholds, layer and strength are chosen on the calibrating ones, by the mean
log-probability of the refusal behind harmful requests under pressure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from neuroscope import events
from neuroscope.engines.protocol import BoolArray, TokenBatch
from neuroscope.engines.sites import Site
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.safety.pairs import Parts, Texts, harmful, harmless, together
from neuroscope.safety.probe import Probe, fitted, rows
from neuroscope.safety.readings import SEGMENTS, Numbers, Reading, divergence, opened, read, segment_ends
from neuroscope.safety.redirect import Redirect, redirect
from neuroscope.safety.replies import CHOOSING, PLAIN, Manner, behind, log_probabilities, prompt, replies
from neuroscope.tasks.domains import DOMAINS

STRENGTHS = (1.0, 2.0, 3.0, 4.0)
#: Layers that are tried, and requests of each category and pressure that choose among them.
_LAYERS, _ASKED, _AT_ONCE = 8, 8, 16
#: Seed of the general texts that train a gate; others judge.
_FITTING = 101


@dataclass(frozen=True)
class Fitted:
    """The gate and the redirect of one layer."""

    layer: int
    probe: Probe
    redirect: Redirect


@dataclass(frozen=True)
class Found:
    """The layer and strength chosen, None without a layer; scores by "layer × strength"."""

    best: Fitted | None = None
    scores: dict[str, float] = field(default_factory=dict)


def bare(model: TransformerModel) -> TransformerModel:
    """The same model without its hooks."""
    return TransformerModel(model.engine, model.tokenizer, model.name, model.loaded_hash, model.ran)


def probe_at(model: TransformerModel, parts: Mapping[str, Parts], traps: Texts, layer: int, rate: float, seed: int) -> Probe:
    """The calibrated gate of a layer, trained on these categories."""
    site = Site.at(layer, "residual")
    fit = together(parts, "fitting")
    high, low = (read(model, [prompt(model, text) for text in texts], [site]) for texts in (harmful(fit), harmless(fit)))
    quiet = read(model, quiet_prompts(model, parts, traps), [site])
    return _probe(model, layer, high, low, quiet, read(model, _general(len(high)), [site]), 0, rate, seed)


def quiet_prompts(model: TransformerModel, parts: Mapping[str, Parts], traps: Texts) -> list[str]:
    """What must not open a gate: harmless requests and traps, alone and within longer prompts."""
    texts = [*harmless(together(parts, "calibrating")), *(trap.clean for trap in traps)]
    return [prompt(model, around.of(text)) for around in (PLAIN, *CHOOSING) if not around.begun for text in texts]


def _general(n: int) -> list[str]:
    """General texts that train the gate."""
    return [f"{text}\n" for text in general_texts(n // 2, _FITTING)]


def general_texts(n: int, seed: int) -> list[str]:
    """Stories, mathematics and programs, as many of each."""
    random = np.random.default_rng([seed, len(DOMAINS)])
    return [make(random) for make in DOMAINS.values() for _ in range(max(1, n // len(DOMAINS)))]


def fit_layers(
    model: TransformerModel,
    parts: Mapping[str, Parts],
    traps: Texts,
    how: Manner,
    layers: Sequence[int],
    *,
    rate: float,
    strength: float | None,
    seed: int,
) -> Found:
    """The best of some layers."""
    if not layers:
        return Found()
    tried = [
        layers[int(at)] for at in np.unique(np.linspace(0, len(layers) - 1, min(_LAYERS, len(layers))).round().astype(int))
    ]
    sites = [Site.at(layer, "residual") for layer in tried]
    fit = together(parts, "fitting")
    asked = [prompt(model, text) for text in harmful(fit)]
    kind = [prompt(model, text) for text in (*harmless(fit), *(trap.clean for trap in traps))]
    written = replies(model, kind)
    refusals = [behind(text, how.space + how.refusal) for text in asked]
    answers = [behind(text, reply) for text, reply in zip(asked, written, strict=False)]
    high, low = (read(model, texts, sites) for texts in (asked, kind[: len(asked)]))
    refused, complied = read(model, refusals, sites), read(model, answers, sites)
    calm = read(model, [behind(text, reply) for text, reply in zip(kind, written, strict=True)], sites)
    quiet, general = (read(model, texts, sites) for texts in (quiet_prompts(model, parts, traps), _general(len(asked))))
    found: list[Fitted] = []
    for at, layer in enumerate(tried):
        probe = _probe(model, layer, high, low, quiet, general, at, rate, seed)
        harm, rest = _behind(high, low, (refused, complied), at), np.concatenate([one.values[at][1:] for one in calm])
        kept = _spread(np.concatenate([one.values[at][one.ends] for one in low]), model.architecture.d_model // 2, seed)
        direction = _mean_end(high, low, at)
        found.append(Fitted(layer, probe, redirect(layer, harm, rest.astype(np.float64), kept, direction, strength or 1.0)))
    return _best(model, parts, how, found, (strength,) if strength is not None else STRENGTHS)


def _probe(
    model: TransformerModel,
    layer: int,
    high: Sequence[Reading],
    low: Sequence[Reading],
    quiet: Sequence[Reading],
    general: Sequence[Reading],
    at: int,
    rate: float,
    seed: int,
) -> Probe:
    weights, bias = fitted(*rows(high, low, at, further=general))
    probe = Probe(
        name="harmful_intent",
        layer=layer,
        component="residual",
        reading=SEGMENTS,
        provenance=provenance(model, None, seed, positive=len(high), negative=len(low), calibrating=len(quiet)),
        _weights=weights,
        _bias=bias,
    )
    return probe.at_rate([float(probe.values(one.values[at])[one.ends].max()) for one in quiet], rate)


def _behind(high: Sequence[Reading], low: Sequence[Reading], longer: Sequence[Sequence[Reading]], at: int) -> Numbers:
    """Activations at which the redirect will act: behind the segment's end at which a request has become harmful."""
    found = []
    for number, (one, other) in enumerate(zip(high, low, strict=True)):
        ends = np.flatnonzero(one.ends & (np.arange(len(one.ids)) >= divergence(one.ids, other.ids)))
        found += [texts[number].values[at][ends[0] :] for texts in longer if len(ends)]
    return np.concatenate(found).astype(np.float64)


def _mean_end(high: Sequence[Reading], low: Sequence[Reading], at: int) -> Numbers:
    values, labels = rows(high, low, at)
    direction: Numbers = values[labels].mean(0, dtype=np.float64) - values[~labels].mean(0, dtype=np.float64)
    return direction


def _spread(values: Numbers, most: int, seed: int) -> Numbers:
    """At most so many rows, drawn at random."""
    order = np.random.default_rng(seed).permutation(len(values))[:most]
    return values[order].astype(np.float64)


def _best(
    model: TransformerModel, parts: Mapping[str, Parts], how: Manner, found: Sequence[Fitted], strengths: Sequence[float]
) -> Found:
    texts = [text for mine in parts.values() for text in harmful(mine.calibrating)[:_ASKED]]
    asked = [
        (prompt(model, around.of(text), how.space + around.begun if around.begun else ""), how.space + how.refusal)
        for around in CHOOSING
        for text in texts
    ]
    scores: dict[str, float] = {}
    best: tuple[float, Fitted | None] = (-np.inf, None)
    totals = np.zeros((len(found), len(strengths)))
    alone = 0.0
    with events.progress("choosing layer and strength", total=len(asked), unit="requests") as job:
        for first in range(0, len(asked), _AT_ONCE):
            part = asked[first : first + _AT_ONCE]
            batch = model.encode([behind(*one) for one in part])
            starts = [model.encode(before).positions for before, _ in part]
            kept = [Site.at(one.layer, "residual") for one in found]
            run = model.engine.forward(batch, capture=kept, logits=None)
            for number, one in enumerate(found):
                values = model.engine.ops.to_numpy(run[kept[number]]).astype(np.float64)
                gate = _gate(model, batch, one.probe, values)
                for at, strength in enumerate(strengths):
                    step = dataclasses.replace(one.redirect, strength=strength).step(values)
                    moved = values + np.where(gate[..., None], step, 0.0)
                    totals[number, at] += _likely(model, batch, moved, one.layer, starts).sum()
                if not number:
                    alone += float(_likely(model, batch, values, one.layer, starts).sum())
            job.advance(len(part))
    scores["alone"] = alone / len(asked)
    for number, one in enumerate(found):
        for at, strength in enumerate(strengths):
            score = float(totals[number, at]) / len(asked)
            scores[f"{one.layer} × {strength:g}"] = score
            if score > best[0]:
                best = score, dataclasses.replace(one, redirect=dataclasses.replace(one.redirect, strength=strength))
    return Found(best[1], scores)


def _gate(model: TransformerModel, batch: TokenBatch, probe: Probe, values: Numbers) -> BoolArray:
    at = segment_ends(model)[batch.ids] & batch.real
    at[:, 0] = False
    assert probe.threshold is not None
    return opened(probe.values(values), at, probe.threshold)


def _likely(model: TransformerModel, batch: TokenBatch, values: Numbers, layer: int, starts: Sequence[int]) -> Numbers:
    """(rows,): mean log-probability of what stands behind `starts`, from the residual stream after a layer."""
    engine = model.engine
    run = engine.forward(batch, start=layer + 1, residual=engine.ops.asarray(values.astype(np.float32)))
    logs = engine.ops.to_numpy(engine.ops.log_softmax(run.logits))
    return log_probabilities(logs, batch.ids, starts, batch.lengths.tolist())
