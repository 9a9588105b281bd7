"""The value that makes a model say something: what an MLP should write at the subject, found by gradient.

    δ* = argmin  −mean log P(object | prompt, δ)  +  κ mean KL(P₀ ‖ P_δ on what is kept)  +  ω ‖δ‖²/‖stream‖²

δ is added to what the MLP writes at the last token of the subject. The prompts are the fact's own, the same behind beginnings that the
model writes itself, and other wordings of it, so that the value holds wherever the subject stands. What is kept is what the model says
of the subject otherwise: "subject is a", and other facts of the subject where they are known. The search ends once every token of the
object is likely behind every context and little of what is kept has moved, which keeps δ small (Meng et al. 2022, sec. 3.1; the early end
after ENCORE, Gupta et al. 2025). An end at the object alone, which may be likely after a few steps, leaves the subject's other facts overwritten.

δ changes nothing before the subject's token and below its layer. So of every row what stands before the subject runs once and leaves its
keys and values, and a step runs the rest, from the layer on. A step takes all the prompts and, in turn, one of a few shares of what
is kept, which counts for all of it; a cycle of steps has the whole gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroscope.editing.keys import Numbers
from neuroscope.editing.statements import Fact, subject_token
from neuroscope.engines.protocol import Array, Edit, EditScope, LogitRequest, Prefix, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import EditError, NonFiniteActivationError
from neuroscope.models import batching
from neuroscope.models.model import TransformerModel
from neuroscope.models.text import Texts

#: Weights of the two regularisers, and the largest δ in norms of the stream that it joins.
KAPPA, OMEGA, LARGEST = 0.25, 0.2, 4.0
#: How likely every token of the object is when the search ends, how far what is kept has moved (mean KL in nats), and after how many steps it
#: ends in any case.
LIKELY, MOVED, STEPS, RATE = 0.9, 0.3, 60, 0.12
#: Rows of a share of what is kept, and how much longer one row of a batch may be behind its subject than another.
_SHARE, _LONGER = 6, 2
#: First words of the contexts, and how many tokens the model adds to each.
_STARTS, _ADDED = ("The", "A", "I", "In", "It"), 6


@dataclass(frozen=True)
class Target:
    """delta: (d_model,), what is added. probability: of the object's least likely token, the mean over prompts. steps: of the search."""

    delta: Numbers
    probability: float
    steps: int


def contexts(model: TransformerModel, seed: int) -> list[str]:
    """What may stand before a prompt: nothing, and short texts that the model writes."""
    with batching.alone():
        written = [
            start + model.generate(start, max_tokens=_ADDED, temperature=1.0, seed=seed + at)
            for at, start in enumerate(_STARTS)
        ]
    return ["", *(" ".join(text.split()).rstrip(".") + ". " for text in written)]


class Search:
    """The search for δ* of this module's head, at the output of the MLP of one of the `layers`.

    prompts: what is to be followed by the object, the fact's own prompt first. keeping: further prompts that name the subject.
    """

    def __init__(
        self, model: TransformerModel, layers: Sequence[int], fact: Fact, prompts: Sequence[str], keeping: Sequence[str] = ()
    ) -> None:
        self.model, self.fact = model, fact
        texts = Texts(model.tokenizer)
        self._length = len(texts.answer(fact.prompt, fact.object))
        said: list[_Row] = []
        for prompt in prompts:
            ids, answer = texts.prompt(prompt), texts.answer(prompt, fact.object)
            end = subject_token(model, prompt, fact.end(prompt))
            said += [_Row([*ids, *answer[:at]], end, len(said) + at, token) for at, token in enumerate(answer)]
        kept = [
            _Row(texts.prompt(text), subject_token(model, text, fact.end(text))) for text in (f"{fact.subject} is a", *keeping)
        ]
        kept.sort(key=lambda row: row.rest)
        shares = np.array_split(np.arange(len(kept)), -(-len(kept) // _SHARE))
        self._said = [_Part(model, layers, rows, 1 / len(said)) for rows in _alike(said)]
        self._kept = [_Part(model, layers, [kept[at] for at in share], KAPPA / len(kept)) for share in shares]
        self._count = len(said)

    def target(self, layer: int) -> Target:
        """δ* in that layer. Raises `EditError` where the object does not become the likeliest: nothing later reads the subject there, or
        the model never says it.
        """
        scale = self._scale(layer)
        delta = np.zeros(self.model.architecture.d_model)
        moment, square = np.zeros_like(delta), np.zeros_like(delta)
        rate = RATE * scale / np.sqrt(delta.size)
        moved = np.full(len(self._kept), np.inf)  # of each share of what is kept, as it was met last
        for steps in range(1, STEPS + 1):
            probabilities, gradient, met = self.evaluate(layer, delta, steps)
            moved[steps % len(moved)] = met
            if probabilities.min() >= LIKELY and moved.sum() <= MOVED:
                break
            gradient += 2 * OMEGA * delta / scale**2
            moment = 0.9 * moment + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            step = (moment / (1 - 0.9**steps)) / (np.sqrt(square / (1 - 0.999**steps)) + 1e-12)
            delta = delta - rate * step
            norm = float(np.linalg.norm(delta))
            if norm > LARGEST * scale:
                delta *= LARGEST * scale / norm
        probabilities, likeliest = self._outcome(layer, delta)
        if not likeliest[: self._length].all():
            fact = self.fact
            raise EditError(
                f"No value at {fact.subject!r} in layer {layer} makes {self.model.title} say {fact.object.strip()!r} behind {fact.prompt!r} "
                f"(it reaches P = {probabilities.mean():.2g}).",
                site=f"{layer}.mlpOutput",
                remedy="Edit an earlier layer, whose write at the subject later ones still read; or give an object that the model uses.",
            )
        return Target(delta, float(probabilities.mean()), steps)

    def evaluate(self, layer: int, delta: Numbers, step: int | None = None) -> tuple[Numbers, Numbers, float]:
        """The probability of each of the object's tokens, the gradient (d_model,) of the loss without its last term, and how far what is kept has
        moved, in nats.

        step: which of the shares of what is kept stands for all of it; None for all of it.
        """
        probabilities, gradient = np.zeros(self._count), np.zeros_like(delta)
        for part in self._said:
            values, found = part.gradient(layer, delta)
            probabilities[part.rows] = np.exp(values * self._count)
            gradient += found
        moved = 0.0
        for part in self._kept if step is None else [self._kept[step % len(self._kept)]]:
            values, found = part.gradient(layer, delta)
            gradient += found * (1 if step is None else len(self._kept))
            moved += (part.certain - float(values.sum())) / KAPPA
        return probabilities, gradient, moved

    def _outcome(self, layer: int, delta: Numbers) -> tuple[Numbers, NDArray[np.bool_]]:
        """The probability of each of the object's tokens, and whether it is the likeliest."""
        probabilities, likeliest = np.zeros(self._count), np.zeros(self._count, dtype=np.bool_)
        for part in self._said:
            logs = part.logs(layer, delta)
            probabilities[part.rows] = np.exp(logs[np.arange(len(part.rows)), part.tokens])
            likeliest[part.rows] = logs.argmax(1) == part.tokens
        return probabilities, likeliest

    def _scale(self, layer: int) -> float:
        """The norm of the stream at the subject, behind the fact's own prompt."""
        return next(part.scales[layer] for part in self._said if part.rows[0] == 0)


@dataclass(frozen=True)
class _Row:
    """Tokens, the column of the subject, and where an object's token is to follow, which row of the objects' it is and that token."""

    ids: list[int]
    end: int
    index: int = -1
    token: int = -1

    @property
    def rest(self) -> int:
        """How many tokens there are from the subject on."""
        return len(self.ids) - self.end


def _alike(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Rows with about as much behind their subjects together, the first of all first among its own."""
    left = sorted(rows, key=lambda row: (row.rest, row.index))
    while left:
        fits = [row for row in left if row.rest <= left[0].rest + _LONGER]
        yield sorted(fits, key=lambda row: row.index)
        left = left[len(fits) :]


class _Part:
    """Rows that run together from the subject on; with an object's token to follow or, without, with what the model says as it is.

    weight: of each row in the loss. scales: by layer the norm of the stream at the subject in the first row.
    """

    def __init__(self, model: TransformerModel, layers: Sequence[int], rows: Sequence[_Row], weight: float) -> None:
        self._model = model
        engine, ops = model.engine, model.engine.ops
        self._batch = TokenBatch.of([row.ids for row in rows], side="left")
        self.rows = np.array([row.index for row in rows])
        self.tokens = np.array([row.token for row in rows])
        ends = self._batch.offsets + [row.end for row in rows]
        self._prefix: Prefix | None = engine.prefix(self._batch, int(ends.min()))
        first = 0 if self._prefix is None else self._prefix.columns
        self._at = np.arange(len(rows)), ends - first
        mask = np.zeros((len(rows), self._batch.positions - first), dtype=np.float32)
        mask[self._at] = 1.0
        self._mask = ops.precise(mask)
        self._request = LogitRequest.last(self._batch)
        before = {layer: Site(layer, Component.RESIDUAL_PRE) for layer in layers}
        behind = {layer: Site(layer, Component.RESIDUAL) for layer in layers}
        run = engine.forward(
            self._batch, capture=[*before.values(), *behind.values()], logits=self._request, prefix=self._prefix
        )
        self._residuals: Mapping[int, Array] = {layer: run[site] for layer, site in before.items()}
        self.scales = {
            layer: float(np.linalg.norm(ops.to_numpy(run[site])[0, self._at[1][0]])) for layer, site in behind.items()
        }
        logs = ops.to_numpy(ops.log_softmax(run.logits)).astype(np.float64)
        wanted = weight * np.exp(logs)
        if self.tokens[0] >= 0:
            wanted = np.zeros_like(logs)
            wanted[np.arange(len(rows)), self.tokens] = weight
        self._wanted = ops.precise(wanted)
        #: what is wanted as it is known now: a row's moves are how far the logarithms fall below it
        self.certain = float((wanted * logs).sum())

    def gradient(self, layer: int, delta: Numbers) -> tuple[Numbers, Numbers]:
        """Of each row the logarithm of what is wanted, weighted (rows,), and the gradient (d_model,) of minus their sum."""
        ops, site = self._model.engine.ops, Site(layer, Component.MLP_OUTPUT)

        def loss(logits: Array) -> Array:
            return -ops.einsum("rv,rv->r", ops.log_softmax(logits), self._wanted)

        found = self._model.engine.gradients(
            self._batch,
            loss,
            [site],
            edits=[self._adding(layer, delta)],
            start=layer,
            residual=self._residuals[layer],
            logits=self._request,
            prefix=self._prefix,
        )
        gradient: Numbers = ops.to_numpy(found.gradients[site])[self._at].sum(0).astype(np.float64)
        if not np.isfinite(gradient).all():
            raise NonFiniteActivationError("The gradient of the value is NaN or infinite.", site=site)
        return -ops.to_numpy(found.metric).astype(np.float64), gradient

    def logs(self, layer: int, delta: Numbers) -> Numbers:
        """(rows, vocabulary): log-probabilities with δ added."""
        ops = self._model.engine.ops
        run = self._model.engine.forward(
            self._batch,
            edits=[self._adding(layer, delta)],
            start=layer,
            residual=self._residuals[layer],
            logits=self._request,
            prefix=self._prefix,
        )
        found: Numbers = ops.to_numpy(ops.log_softmax(run.logits)).astype(np.float64)
        return found

    def _adding(self, layer: int, delta: Numbers) -> Edit:
        ops = self._model.engine.ops
        added = ops.precise(delta)

        def add(value: Array, _: EditScope) -> Array:
            return value + ops.einsum("rp,d->rpd", self._mask, added)

        return Edit(Site(layer, Component.MLP_OUTPUT), add)
