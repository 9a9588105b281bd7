"""From facts to the edit of one layer: values, keys, and the mildest change that makes the model say the facts.

1. In each layer that is considered a value is sought for every fact (`targets`), and the keys of its prompts are read (`keys`).
2. The change is computed with less and less regard for text (`methods`, λ), until on trial the model says every object behind every
   prompt that the edit is made with. The mildest change that does is taken.
3. Of several layers the one is taken whose change costs least: −log P(object) in wordings that the change was not made with, plus
   κ KL(P₀ ‖ P) of what the model says of the subject otherwise (κ as in `targets`), plus KL(P₀ ‖ P) of general text and other
   subjects, each a mean, in nats.

A causal trace does not tell which layer is best to edit (Hase et al. 2023, "Does localization inform editing?"), so the layer is chosen by
the edit's own objective. Nothing that judges an edit afterwards takes part: neither its prompts, nor its wordings, nor its texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.editing import methods
from neuroscope.editing.keys import Memory, Numbers, keys_at, memory, moments
from neuroscope.editing.statements import Fact, subject_token
from neuroscope.editing.targets import KAPPA, Search, Target
from neuroscope.engines.protocol import LogitRequest, Run, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import EditError
from neuroscope.models.model import TransformerModel
from neuroscope.models.text import Texts
from neuroscope.tasks.domains import DOMAINS

#: λ from the mildest change to the strongest.
STRENGTHS = (200.0, 100.0, 50.0, 25.0, 12.0, 6.0, 3.0, 1.5, 0.7)
#: The least probability of each of an object's tokens behind each prompt at which a fact holds.
HOLDS = 0.5
#: Facts by which the layer of an edit of many is chosen, layers that are tried, and texts that a change is tried on, with their length.
_FACTS, _LAYERS, _TEXTS, _LENGTH = 3, 4, 24, 12


@dataclass(frozen=True)
class Wanted:
    """A fact with what its edit is made with.

    prompts: what is to be followed by the object, the fact's own prompt first. unseen: the same in wordings that choose the layer only.
    keeping: what else is asked of the subject. others: the same of other subjects.
    """

    fact: Fact
    prompts: Sequence[str]
    unseen: Sequence[str] = ()
    keeping: Sequence[str] = ()
    others: Sequence[str] = ()


@dataclass(frozen=True)
class Change:
    """The change of one layer's memory. strength: its λ, None for a method without. held: the share of prompts that the facts hold behind.

    cost: in nats, None where no layer had to be chosen.
    """

    memory: Memory
    targets: list[Target]
    change: Numbers
    strength: float | None
    held: float
    cost: float | None = None


@dataclass(frozen=True)
class Kept:
    """Prompts of which one token's key must, or should, give what it gives: prompts and the subject's end in each."""

    prompts: Sequence[str] = ()
    ends: Sequence[int] = ()

    def keys(self, model: TransformerModel, place: Memory) -> Numbers | None:
        """(n, keys); None where there are none."""
        if not self.prompts:
            return None
        at = [subject_token(model, text, end) for text, end in zip(self.prompts, self.ends, strict=True)]
        return keys_at(model, place, self.prompts, at)


def tried(layers: Sequence[int]) -> list[int]:
    """Of the layers at which an edit is possible those that are tried: a few, evenly spread."""
    at = np.linspace(0, len(layers) - 1, min(_LAYERS, len(layers)))
    return [layers[round(float(index))] for index in at]


def best_change(
    model: TransformerModel,
    layers: Sequence[int],
    wanted: Sequence[Wanted],
    method: str,
    *,
    kept: Kept = Kept(),
    spared: Kept = Kept(),
    seed: int = 0,
    fits: Callable[[Change], bool] = lambda _: True,
) -> Change:
    """The change of this module's head, in the best of the layers. kept, spared: as in `methods.change`.

    fits: whether a change may be made at all; one that may not is taken only where there is no other.

    Raises `EditError` where none of the layers can be edited, with what the last one said, and `WeightError` for a quantised one.
    """
    if len(layers) == 1:
        return _Planner(model, layers[0], wanted, method, kept, spared).change()
    few = wanted[:_FACTS]
    searches = [Search(model, layers, one.fact, one.prompts, one.keeping) for one in few]
    price = _Price(model, layers, few, seed)
    found: list[Change] = []
    refusals: list[EditError] = []
    with events.progress("layers for facts", total=len(layers), unit="layers") as job:
        for layer in layers:
            try:
                one = _Planner(model, layer, few, method, kept, spared, searches).change()
                found.append(replace(one, cost=price(one)))
            except EditError as error:
                refusals.append(error)
            job.advance()
    if not found:
        raise refusals[-1]
    best = max(found, key=lambda one: (fits(one), one.held, -(one.cost or 0.0)))
    if len(few) == len(wanted):
        return best
    return _Planner(model, best.memory.layer, wanted, method, kept, spared).change()


class _Planner:
    """One layer, with the values and the keys of the facts there."""

    def __init__(
        self,
        model: TransformerModel,
        layer: int,
        wanted: Sequence[Wanted],
        method: str,
        kept: Kept,
        spared: Kept,
        searches: Sequence[Search] | None = None,
    ) -> None:
        self.model, self.method, self.wanted = model, method, wanted
        texts = [text for one in wanted for text in one.prompts]
        counts = [len(one.prompts) for one in wanted]
        owners = [one.fact for one in wanted for _ in one.prompts]
        columns = [subject_token(model, text, fact.end(text)) for text, fact in zip(texts, owners, strict=True)]
        batch = model.encode(texts)
        self.memory = memory(model, layer, batch, columns)
        for name in self.memory.names:
            model.weights(name).snapshot()  # refuses a quantised weight, before anything is computed for it
        self.targets = []
        with events.progress(f"values in layer {layer}", total=len(wanted), unit="facts") as job:
            for index, one in enumerate(wanted):
                search = searches[index] if searches else Search(model, [layer], one.fact, one.prompts, one.keeping)
                self.targets.append(search.target(layer))
                job.advance()
        run = model.engine.forward(batch, capture=self.memory.sites, stop=layer + 1, logits=None)
        found = self.memory.keys(model, run)
        at = np.arange(batch.rows), np.asarray(columns)
        others = batch.real.copy()
        others[at] = False
        others[np.arange(batch.rows), batch.offsets] = False  # an attention sink, whose key is like no other's
        keys, deltas = found[at], np.stack([target.delta for target in self.targets])
        if method == "rome":  # which gives one value at one key, the mean over the prompts
            keys = np.stack([part.mean(0) for part in np.split(keys, np.cumsum(counts)[:-1])])
        else:
            deltas = np.repeat(deltas, counts, axis=0)
        before = spared.keys(model, self.memory)
        rest = found[others] if before is None else np.concatenate([found[others], before])
        self._solver = methods.Solver(
            method, keys, deltas, moments(model, self.memory, seed=0), kept=kept.keys(model, self.memory), spared=rest
        )
        self._trial = _Trial(model, self.memory, wanted)

    def change(self) -> Change:
        """The mildest change with which the facts hold; the strongest of those that hold behind most prompts where none does."""
        if self.method == "rome":
            return self._tried(None)
        mildest, strongest = 0, len(STRENGTHS) - 1
        found = self._tried(STRENGTHS[strongest])
        if found.held < 1:
            return max((self._tried(strength) for strength in STRENGTHS[-4:]), key=lambda one: one.held)
        while mildest < strongest:  # it holds at the strongest
            middle = (mildest + strongest) // 2
            one = self._tried(STRENGTHS[middle])
            if one.held < 1:
                mildest = middle + 1
            else:
                strongest, found = middle, one
        return found

    def _tried(self, strength: float | None) -> Change:
        change = self._solver.change(strength)
        return Change(self.memory, self.targets, change, strength, self._trial.held(change))


class _Rows:
    """Rows of tokens as they run now, from which it follows what they would with a change of a layer's output matrix: the keys do not
    depend on it, so that the layer writes key @ Δ more. before: log-probabilities behind each (rows, vocabulary).
    """

    def __init__(self, model: TransformerModel, layers: Sequence[int], rows: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._batch = TokenBatch.of(rows)
        self._request = LogitRequest.last(self._batch)
        experts = (0,) if model.architecture.experts else ()
        keys = [site for layer in layers for site in Memory(layer, model.architecture.d_mlp, experts).sites]
        capture = [*keys, *(Site(layer, Component.RESIDUAL) for layer in layers)]
        self._run: Run = model.engine.forward(self._batch, capture=capture, logits=self._request)
        self.before = self._logs(self._run.logits)

    def after(self, place: Memory, change: Numbers) -> Numbers:
        """The log-probabilities with the change of one of the layers."""
        engine = self._model.engine
        keys = place.keys(self._model, self._run).astype(np.float32)
        residual = self._run[Site(place.layer, Component.RESIDUAL)] + engine.ops.asarray(keys @ change.astype(np.float32))
        return self._logs(engine.forward(self._batch, start=place.layer + 1, residual=residual, logits=self._request).logits)

    def _logs(self, logits: object) -> Numbers:
        ops = self._model.engine.ops
        found: Numbers = np.asarray(ops.to_numpy(ops.log_softmax(logits))).astype(np.float64)
        return found


class _Trial:
    """The prompts of facts with a change, without writing it."""

    def __init__(self, model: TransformerModel, place: Memory, wanted: Sequence[Wanted]) -> None:
        self._place = place
        rows, self._spoken = _asked(model, [(prompt, one.fact.object) for one in wanted for prompt in one.prompts])
        self._rows = _Rows(model, [place.layer], rows)

    def held(self, change: Numbers) -> float:
        """The share of the objects' tokens that are likely behind the prompts."""
        logs = self._rows.after(self._place, change)
        return float((logs[np.arange(len(logs)), self._spoken] >= np.log(HOLDS)).mean())


class _Price:
    """What a change of one of some layers costs, in nats."""

    def __init__(self, model: TransformerModel, layers: Sequence[int], wanted: Sequence[Wanted], seed: int) -> None:
        texts = Texts(model.tokenizer)
        rows, self._spoken = _asked(model, [(prompt, one.fact.object) for one in wanted for prompt in one.unseen])
        kept = [texts.prompt(prompt) for one in wanted for prompt in one.keeping]
        others = [texts.prompt(prompt) for one in wanted for prompt in one.others]
        self._kept = len(kept)
        random = np.random.default_rng([seed, 8])
        for make in DOMAINS.values():
            for _ in range(_TEXTS // len(DOMAINS)):
                others.append(texts.prompt(make(random))[: random.integers(2, _LENGTH + 1)])
        self._rows = _Rows(model, layers, [*rows, *kept, *others])

    def __call__(self, one: Change) -> float:
        """Of the change."""
        count = len(self._spoken)
        logs, before = self._rows.after(one.memory, one.change), self._rows.before[count:]
        moved = (np.exp(before) * (before - logs[count:])).sum(1)
        parts = -logs[np.arange(count), self._spoken], KAPPA * moved[: self._kept], moved[self._kept :]
        return float(sum(part.mean() for part in parts if len(part)))


def _asked(model: TransformerModel, pairs: Sequence[tuple[str, str]]) -> tuple[list[list[int]], NDArray[np.int64]]:
    """Prompts with each beginning of their objects' tokens, and the token that comes next."""
    texts, rows, spoken = Texts(model.tokenizer), [], []
    for prompt, object_ in pairs:
        ids, answer = texts.prompt(prompt), texts.answer(prompt, object_)
        rows += [[*ids, *answer[:at]] for at in range(len(answer))]
        spoken += answer
    return rows, np.asarray(spoken, dtype=np.int64)
