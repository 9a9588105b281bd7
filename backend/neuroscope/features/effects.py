"""Neurons that a model's answers depend on: attributed over all layers, and judged on independent items.

With m the log-odds of an item's answer, a the neurons of one layer at all tokens except the first (see `features.ablated`) and
ā their means over the items' tokens, mean-ablating the whole layer along the line from a to ā changes m by

    m(a) − m(ā) = Σ over neurons and tokens of (a − ā) · ∫₀¹ ∂m/∂a (ā + α (a − ā)) dα

Each neuron's term is its contribution to the answer: integrated gradients (Sundararajan et al. 2017), the Aumann–Shapley value
of the neuron in its layer. The gradient of the intact model alone (attribution patching) is the first-order term, which is less
exact if other neurons compensate.

1. Items are divided into parts that share no prompt, entity or template: choosing, judging, held out
   (`Dataset.parts_for_model`).
2. There must be an effect: the answer's margin must be larger on clean prompts than on corrupt ones, on the choosing items and
   again on the judging ones (`circuits.effect`).
3. The choosing items choose the neurons with the largest mean terms, `_CHOSEN` of a layer at most.
4. The judging items test each: its terms' mean against 0, with rows that share units as dependent, corrected over all chosen
   neurons of all layers (Benjamini & Hochberg 1995). The layer whose confirmed neurons contribute most is taken.
5. An intervention must confirm the terms: mean-ablating the layer's confirmed neurons together must damage the answers of the
   judging items.

Sources: Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks"; Dhamdhere et al. 2018, "How Important Is a Neuron?";
Nanda 2023 and Kramár et al. 2024, "AtP*" (attribution patching); Marks et al. 2024, "Sparse Feature Circuits" (with integrated gradients).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from neuroscope import events
from neuroscope.circuits.effect import Effect, confirmed, paired_effect
from neuroscope.engines.protocol import Array, Edit, EditScope, Engine, IntArray, LogitRequest, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.features.ablated import AblatedRuns, after_first, answer_tokens, by_length, left_alone
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.statistics import Test, difference_test

Terms = NDArray[np.float32]
Numbers = NDArray[np.float64]

#: Points of the midpoint rule, for choosing (every layer, only the order matters) and for judging.
_COARSE, _STEPS = 2, 4
#: Largest number of judged neurons, in one layer and in all.
_CHOSEN, _JUDGED = 20, 100


@dataclass(frozen=True)
class Effective:
    """The result of the search. ids, tests, q_values, terms: of the layer's confirmed neurons, largest contribution first.

    tests: of each neuron's mean term. terms: (neurons, items) of the judging items. by_layer: the sum of every layer's
    confirmed mean terms, in nats. elsewhere: sites of confirmed neurons of other layers. damage: of mean-ablating all of the
    layer's; None without neurons. reason: why there are none.
    """

    layer: int
    ids: list[int]
    tests: list[Test]
    q_values: list[float]
    terms: Terms
    by_layer: list[float]
    elsewhere: list[str]
    damage: Test | None
    candidates: int
    reason: str | None


def find_effective(
    model: TransformerModel, choosing: Sequence[Example], judging: Sequence[Example], *, level: float, seed: int
) -> Effective:
    """Search all layers. Every item has an answer and a wrong answer."""
    count = model.architecture.layers
    effect = _effect(model, choosing, judging)
    if not effect.exists:
        return _nothing(count, 0, effect.reason)
    chosen = candidates(attributed(model, choosing, range(count), steps=_COARSE, name="choosing by effect").mean(0))
    layers = sorted({layer for layer, _ in chosen})
    terms = attributed(model, judging, layers, name="judging by effect")
    of = np.stack([terms[:, layers.index(layer), neuron] for layer, neuron in chosen])
    units = [example.independent_units for example in judging]
    tests = [difference_test(values, units) for values in of]
    q = stats.false_discovery_control([test.p_value if test.estimate.value > 0 else 1.0 for test in tests], method="bh")
    kept = [at for at in range(len(tests)) if q[at] <= level]
    if not kept:
        reason = (
            f"none of {len(chosen)} judged neurons contributes to the answers of held-out items, at a false-discovery rate "
            f"of {level:.0%}."
        )
        return _nothing(count, len(chosen), reason)
    kept.sort(key=lambda at: -tests[at].estimate.value)
    by_layer = [0.0] * count
    for at in kept:
        by_layer[chosen[at][0]] += tests[at].estimate.value
    layer = int(np.argmax(by_layer))
    mine = [at for at in kept if chosen[at][0] == layer]
    ids = [chosen[at][1] for at in mine]
    damage = _silenced(model, layer, ids, judging, seed)
    if damage.p_value > level or damage.estimate.value <= 0:
        reason = f"{len(ids)} of layer {layer} seem to contribute to the answers, but mean-ablating them does damage of {damage.estimate} nats, which does not differ significantly from 0."
        return _nothing(count, len(chosen), reason)
    return Effective(
        layer=layer,
        ids=ids,
        tests=[tests[at] for at in mine],
        q_values=[float(q[at]) for at in mine],
        terms=of[mine],
        by_layer=by_layer,
        elsewhere=[str(Site(chosen[at][0], Component.MLP, neuron=chosen[at][1])) for at in kept if at not in mine],
        damage=damage,
        candidates=len(chosen),
        reason=None,
    )


def candidates(means: Terms) -> list[tuple[int, int]]:
    """Layer and neuron of the largest mean terms (layers, neurons), largest first, up to `_CHOSEN` per layer."""
    best = np.argsort(-means, axis=1, kind="stable")[:, :_CHOSEN]
    every = [(layer, int(neuron)) for layer, row in enumerate(best) for neuron in row]
    return sorted(every, key=lambda at: -means[at])[:_JUDGED]


def attributed(
    model: TransformerModel, items: Sequence[Example], layers: Sequence[int], *, steps: int = _STEPS, name: str = "attributing"
) -> Terms:
    """Each neuron's term (items, layers, neurons) in nats, by the midpoint rule.

    For a mixture of experts neurons are expert · width + neuron.
    """
    engine = model.engine
    neurons = [Site(layer, Component.MLP) for layer in layers]
    streams = [Site(layer, Component.RESIDUAL_PRE) for layer in layers]
    found = np.zeros((len(items), len(layers), model.architecture.neurons), dtype=np.float32)
    parts, totals, tokens = [], np.zeros(found.shape[1:]), 0
    for chunk in by_length(model, items):
        examples = [items[index] for index in chunk]
        batch = model.encode([example.clean for example in examples])
        run = engine.forward(batch, capture=[*neurons, *streams], logits=None)
        values = [engine.ops.to_numpy(run[site]) for site in neurons]
        parts.append((chunk, batch, answer_tokens(model, examples), values, [run[site] for site in streams]))
        counted = [after_first(value) for value in values]
        totals += np.stack([value.sum(0, dtype=np.float64) for value in counted])
        tokens += len(counted[0])
    means = (totals / tokens).astype(np.float32)
    with events.progress(name, total=len(items) * len(layers), unit="items and layers") as job:
        for chunk, batch, answers, values, entries in parts:
            for at, layer in enumerate(layers):
                gradient = _mean_gradient(engine, layer, batch, answers, means[at], entries[at], steps)
                along = ((values[at] - means[at]) * gradient)[:, left_alone(batch.positions) :]
                found[chunk, at] = along.sum(1)
                job.advance(batch.rows)
    return found


def _mean_gradient(
    engine: Engine, layer: int, batch: TokenBatch, answers: IntArray, means: Terms, entry: Array, steps: int
) -> Terms:
    """∂m/∂a averaged along the line from the layer's means to its activations: (rows, positions, neurons)."""
    site, ops = Site(layer, Component.MLP), engine.ops
    together = min(steps, max(1, engine.rows_that_fit(batch.positions) // batch.rows))
    total = np.zeros((batch.rows, batch.positions, len(means)), dtype=np.float32)
    for first in range(0, steps, together):
        alphas = (np.arange(first, min(first + together, steps)) + 0.5) / steps
        along = np.repeat(alphas, batch.rows)[:, None].repeat(batch.positions, 1)
        along[:, : left_alone(batch.positions)] = 1.0
        places = ops.precise(along[:, :, None])
        base = ops.precise(means)

        def towards(value: Array, _: EditScope, base: Array = base, places: Array = places) -> Array:
            return base + (value - base) * places

        times = len(alphas)
        repeated = batch.repeat(times)
        run = engine.gradients(
            repeated,
            log_odds(engine, np.tile(answers, (times, 1))),
            [site],
            edits=[Edit(site, towards)],
            start=layer,
            residual=ops.repeat(entry, times),
            logits=LogitRequest.last(repeated),
        )
        total += ops.to_numpy(run.gradients[site]).reshape(times, *total.shape).sum(0)
    return total / np.float32(steps)


def log_odds(engine: Engine, answers: IntArray) -> Callable[[Array], Array]:
    """log P − log(1 − P) of each row's answer from the logits (rows, vocabulary); answers: tokens (rows, 2), the answer and
    another.

    The sum over all tokens except the answer comes from the log-probability of the other token, with the answer's logit
    removed, since 1 − P would be lost in rounding.
    """
    ops = engine.ops
    answer, other = (ops.wide(ops.one_hot(answers[:, at], engine.anatomy.vocabulary)) for at in (0, 1))

    def metric(logits: Array) -> Array:
        wide = ops.wide(logits)
        margin = (wide * (answer - other)).sum(-1)
        return margin + (ops.log_softmax(wide - 1e9 * answer) * other).sum(-1)

    return metric


def _effect(model: TransformerModel, choosing: Sequence[Example], judging: Sequence[Example]) -> Effect:
    """Whether the margin of the answer over the wrong one depends on the prompt, on both parts."""
    units = [[example.independent_units for example in part] for part in (choosing, judging)]
    (first, without), (second, again) = (_margins(model, part) for part in (choosing, judging))
    return confirmed(paired_effect(first, without, units[0]), second, again, units[1])


def _margins(model: TransformerModel, items: Sequence[Example]) -> tuple[Numbers, Numbers]:
    """logit(answer) − logit(wrong) of clean and of corrupt prompts (items,); 0 for items without a corrupt prompt."""
    answers = answer_tokens(model, items)
    sides: tuple[list[str | None], ...] = ([item.clean for item in items], [item.corrupt for item in items])
    found = np.zeros((len(sides), len(items)))
    for side, prompts in enumerate(sides):
        given = [index for index, prompt in enumerate(prompts) if prompt is not None]
        size = max(1, model.engine.rows_that_fit(64))
        for first in range(0, len(given), size):
            rows = given[first : first + size]
            batch = model.encode([str(prompts[row]) for row in rows])
            run = model.engine.forward(batch, logits=LogitRequest.last(batch, answers[rows]))
            logits = model.engine.ops.to_numpy(run.logits).astype(np.float64)
            found[side, rows] = logits[:, 0] - logits[:, 1]
    return found[0], found[1]


def _silenced(model: TransformerModel, layer: int, ids: list[int], items: Sequence[Example], seed: int) -> Test:
    """The decrease of the answers' log-odds when the neurons are mean-ablated."""
    runs = AblatedRuns(model, layer, items, seed=seed)
    with events.progress("silencing", total=len(items), unit="items") as job:
        (scores,) = runs.scores("mean", [ids], job)
    return difference_test((runs.whole - scores)[:, 0], [example.independent_units for example in items])


def _nothing(layers: int, candidates: int, reason: str | None) -> Effective:
    return Effective(0, [], [], [], np.zeros((0, 0), np.float32), [0.0] * layers, [], None, candidates, reason)
