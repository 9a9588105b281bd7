"""Where a model keeps a fact: causal tracing (Meng et al. 2022, "Locating and editing factual associations in GPT", sec. 2).

The subject's embeddings are disturbed by noise until the model no longer says the object. Then single states of the clean run are put
back: a layer's stream, or what a few layers' MLPs or attentions write, at one token. What they recover of the object's probability,
as a share of what the noise cost, shows where the fact passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.editing.statements import Fact, subject_token
from neuroscope.engines.protocol import Array, Edit, EditScope, LogitRequest, Run, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.models.model import TransformerModel
from neuroscope.models.text import Texts
from neuroscope.provenance import provenance
from neuroscope.results import Provenance, Result
from neuroscope.tasks.statistics import Estimate, mean_of
from neuroscope.vocabulary import public

if TYPE_CHECKING:
    from neuroscope.editing.keys import Numbers

#: Noise in standard deviations of the embeddings, draws of it, and how many layers' writes are put back at once.
NOISE, DRAWS, WINDOW = 3.0, 12, 3
#: Least cost of the noise: below it, it takes nothing away that could be recovered.
_LEAST_COST = 0.1
#: Least share of it that MLPs must recover to be where the fact is.
_SUBSTANTIAL = 0.1

_KINDS = {"stream": Component.RESIDUAL, "mlp": Component.MLP_OUTPUT, "attention": Component.ATTENTION}


@public
@dataclass(frozen=True, kw_only=True)
class FactCircuit(Result):
    """Where a model keeps a fact, or in `reason` why that cannot be said.

    tokens: of the prompt. subject_token: index of the subject's last one. clean, disturbed: probability of the object (of its first
    token), as the model is and with noise on the subject, over draws of the noise. stream, mlp, attention: (layers, tokens), the
    share of the loss that putting back one layer's stream, or the writes of a window of layers, recovers.
    layer: where the fact shows most, of the layers up to `asked_layer`: where MLPs beyond the first recover most at the subject, or,
    where they hardly do, the last layer whose stream at the subject still carries half of what it can. The first MLP is part of what
    a token is (`judging.extended_embedding`), so that it recovers everything in any model. layers: those up to `asked_layer` whose stream at
    the subject carries half of what it can, and the first not among them where there are others: there later layers still read what is
    written at the subject, so that an edit can change the fact.
    """

    statement: str
    subject: str
    object: str
    exists: bool
    reason: str | None = None
    tokens: list[str]
    subject_token: int
    clean: float
    disturbed: Estimate
    stream: list[list[float]] = field(default_factory=list)
    mlp: list[list[float]] = field(default_factory=list)
    attention: list[list[float]] = field(default_factory=list)
    layer: int
    layers: list[int]
    asked_layer: int | None
    provenance: Provenance
    _fact: Fact = field(repr=False)

    @property
    def fact(self) -> Any:
        """The statement in parts."""
        return self._fact

    def print_string(self) -> str:
        """One line."""
        if not self.exists:
            return f"a FactCircuit({self.statement}: none, {self.reason})"
        return f"a FactCircuit({self.statement}: layer {self.layer}, at {self.tokens[self.subject_token].strip()!r})"

    def summary(self) -> str:
        """What the noise costs, and what each layer's MLPs give back at the subject."""
        head = f"{self.statement}, in {self.provenance.title}"
        cost = f"  P({self.object.strip()})  {self.clean:.3f} as it is, {self.disturbed} with noise on {self.subject!r}"
        if not self.exists:
            return f"{head}: no circuit, {self.reason}\n{cost}"
        rows = [
            f"  {layer:>3}  {self.stream[layer][self.subject_token]:>8.3f} {self.mlp[layer][self.subject_token]:>8.3f} "
            f"{self.attention[layer][self.subject_token]:>10.3f} {self.stream[layer][-1]:>18.3f}"
            for layer in range(len(self.mlp))
        ]
        asked = "" if self.asked_layer in (None, self.layer) else f" (of layers up to {self.asked_layer}, as asked)"
        return "\n".join(
            [
                head,
                cost,
                "  recovered at the subject's last token, and by the stream at the prompt's last:",
                "  layer  stream      MLP  attention   stream at the end",
                *rows,
                f"  the MLPs around layer {self.layer} recover most{asked}; an edit can change the fact in layers {_listed(self.layers)}",
            ]
        )


def editable(layers: int) -> list[int]:
    """The layers of which one is edited where no trace says more: the first half, but for the first."""
    return list(range(1, layers // 2 + 1)) if layers > 2 else [0]


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))


def trace(model: TransformerModel, facts: Sequence[Fact], *, layer: int | None = None, seed: int = 0) -> FactCircuit:
    """The trace of a fact. facts: the ways to read its statement (`statements.split_statement`); the subject whose noise costs most is taken.

    layer: the last layer to consider, by default all. Raises `SiteError` for a layer that the model does not have.
    """
    asked = None if layer is None else model.architecture.checked_layer(layer)
    return _costliest(model, facts, seed).result(asked)


def about(model: TransformerModel, facts: Sequence[Fact], seed: int) -> Fact:
    """Of the ways to read a statement the one whose subject, disturbed, costs the object most."""
    return facts[0] if len(facts) == 1 else _costliest(model, facts, seed).fact


def _costliest(model: TransformerModel, facts: Sequence[Fact], seed: int) -> _Trace:
    return max((_Trace(model, fact, seed) for fact in facts), key=lambda one: one.cost)


class _Trace:
    """One reading of a statement: its clean run and its runs with noise on the subject."""

    def __init__(self, model: TransformerModel, fact: Fact, seed: int) -> None:
        self.model, self.fact, self.seed = model, fact, seed
        texts, ops = Texts(model.tokenizer), model.engine.ops
        self.ids = texts.prompt(fact.prompt)
        self.answer = texts.answer(fact.prompt, fact.object)[0]
        self.last = subject_token(model, fact.prompt, fact.end())
        self.first = subject_token(model, fact.prompt, fact.end() - len(fact.subject) + 1)
        self.layers = model.architecture.layers
        kept = [Site(at, component) for at in range(self.layers) for component in _KINDS.values()]
        alone, many = TokenBatch.of([self.ids]), TokenBatch.of([self.ids] * DRAWS)
        self.clean = model.engine.forward(alone, capture=kept, logits=LogitRequest.last(alone))
        self.probability = float(self._probabilities(self.clean)[0])
        table = model.weights("embed.W_E").read()
        shape = (DRAWS, self.last - self.first + 1, table.shape[1])
        noise = np.random.default_rng(seed).normal(scale=NOISE * float(table.std()), size=shape)
        whole = np.zeros((DRAWS, len(self.ids), table.shape[1]), dtype=np.float32)
        whole[:, self.first : self.last + 1] = noise

        def disturb(value: Array, _: EditScope) -> Array:
            return value + ops.precise(whole)

        edit = Edit(Site(None, Component.EMBEDDING), disturb)
        entry = Site(0, Component.RESIDUAL_PRE)
        self.noisy = model.engine.forward(many, capture=[*kept, entry], edits=[edit], logits=LogitRequest.last(many))
        self.disturbed = self._probabilities(self.noisy)
        here = np.arange(len(self.ids)) == np.asarray(self._tokens)[:, None]
        self._where = ops.asarray(np.repeat(here, DRAWS, axis=0)[:, :, None])

    @property
    def cost(self) -> float:
        """How much of the object's probability the noise takes away."""
        return self.probability - float(self.disturbed.mean())

    def result(self, asked: int | None) -> FactCircuit:
        """The trace with what follows from it."""
        likeliest = self.model.predictions(self.fact.prompt, 1)[0][0]
        spread = mean_of(self.disturbed)
        reason = None
        if self.model.answer_token(self.fact.prompt, likeliest) != self.answer:
            reason = f"the model says {likeliest.strip()!r} and not {self.fact.object.strip()!r} (P = {self.probability:.3f})"
        elif self.cost < _LEAST_COST or self.probability < spread.high:
            reason = f"noise on {self.fact.subject!r} does not take the object away"
        maps = {} if reason else self._maps()
        return FactCircuit(
            statement=str(self.fact),
            subject=self.fact.subject,
            object=self.fact.object,
            exists=reason is None,
            reason=reason,
            tokens=self.model.tokens(self.fact.prompt),
            subject_token=self.last,
            clean=self.probability,
            disturbed=spread,
            **{kind: values.tolist() for kind, values in maps.items()},
            layer=self._layer(maps, asked) if maps else 0,
            layers=self._layers(maps, asked) if maps else [],
            asked_layer=asked,
            provenance=provenance(self.model, self.fact.relation, self.seed, draws=DRAWS),
            _fact=self.fact,
        )

    def _layer(self, maps: dict[str, NDArray[np.float64]], asked: int | None) -> int:
        upto = (
            self.layers - 1 if asked is None else min(asked + 1, self.layers - 1)
        )  # nothing reads the last layer's write here
        own = maps["mlp"][: max(upto, 1), self.last].copy()
        own[: WINDOW // 2 + 1] = 0.0  # windows that hold the first MLP
        if own.max() >= _SUBSTANTIAL:
            return int(own.argmax())
        carried = maps["stream"][: max(upto, 1), self.last]
        return int(np.flatnonzero(carried >= carried.max() / 2)[-1])

    def _layers(self, maps: dict[str, NDArray[np.float64]], asked: int | None) -> list[int]:
        carried = maps["stream"][:, self.last]
        upto = self.layers - 1 if asked is None else asked + 1
        found = [layer for layer in range(min(upto, self.layers - 1)) if carried[layer] >= carried[: self.layers - 1].max() / 2]
        return found[1:] if found[:1] == [0] and len(found) > 1 else found

    def _maps(self) -> dict[str, NDArray[np.float64]]:
        found = {kind: np.zeros((self.layers, len(self.ids))) for kind in _KINDS}
        with events.progress("causal trace", total=len(_KINDS) * self.layers, unit="layers") as job:
            for layer in range(self.layers):
                for kind in _KINDS:
                    recovered = self._stream(layer) if kind == "stream" else self._writes(layer, _KINDS[kind])
                    found[kind][layer, self.first :] = (recovered - self.disturbed.mean()) / self.cost
                    job.advance()
        return found

    @property
    def _tokens(self) -> range:
        """The tokens from the subject on: before it there is nothing to put back."""
        return range(self.first, len(self.ids))

    def _stream(self, layer: int) -> Numbers:
        """Mean probability with the layer's clean stream put back at each token."""
        if layer + 1 == self.layers:  # of the last stream only the last token is read
            return np.array([float(self.disturbed.mean())] * (len(self._tokens) - 1) + [self.probability])
        site = Site(layer, Component.RESIDUAL)
        return self._run(layer + 1, self._put_back(self._repeated(layer + 1), site))

    def _writes(self, layer: int, component: Component) -> Numbers:
        """The same with the clean writes of the layers around it."""
        first, behind = max(0, layer - WINDOW // 2), min(self.layers, layer + WINDOW // 2 + 1)
        sites = [Site(at, component) for at in range(first, behind)]
        edits = [Edit(site, lambda value, _, site=site: self._put_back(value, site)) for site in sites]  # type: ignore[misc]
        return self._run(first, self._repeated(first), edits)

    def _repeated(self, layer: int) -> Array:
        """The disturbed streams before a layer, once for each token that something is put back at."""
        before = Site(layer - 1, Component.RESIDUAL) if layer else Site(0, Component.RESIDUAL_PRE)
        return self.model.engine.ops.repeat(self.noisy[before], len(self._tokens))

    def _put_back(self, value: Array, site: Site) -> Array:
        """(tokens · draws, positions, …) with the clean value at each block's own token."""
        ops = self.model.engine.ops
        return ops.where(self._where, ops.repeat(self.clean[site], len(self._tokens) * DRAWS), value)

    def _run(self, start: int, residual: Array, edits: Sequence[Edit] = ()) -> Numbers:
        batch = TokenBatch.of([self.ids] * (len(self._tokens) * DRAWS))
        run = self.model.engine.forward(batch, start=start, residual=residual, edits=edits, logits=LogitRequest.last(batch))
        found: Numbers = self._probabilities(run).reshape(len(self._tokens), DRAWS).mean(1)
        return found

    def _probabilities(self, run: Run) -> Numbers:
        """Of the object's first token, in every row."""
        ops = self.model.engine.ops
        found: Numbers = np.exp(ops.to_numpy(ops.log_softmax(run.logits))[:, self.answer].astype(np.float64))
        return found
