"""The value that makes a model say something: what an MLP should write at the subject, found by gradient.

    δ* = argmin  −mean log P(object | prompt, δ)  +  κ mean KL(P₀ ‖ P_δ on what is kept)  +  ω ‖δ‖²/‖stream‖²

δ is added to what the MLP writes at the last token of the subject. The prompts are the fact's own, the same behind beginnings that the
model writes itself, and other wordings of it, so that the value holds wherever the subject stands. What is kept is what the model says
of the subject otherwise: "subject is a", and other facts of the subject where they are known. The search ends once every token of the object is likely behind every context, which
keeps δ small (Meng et al. 2022, sec. 3.1; the early end after ENCORE, Gupta et al. 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroscope.editing.keys import Numbers
from neuroscope.editing.statements import Fact, subject_token
from neuroscope.engines.protocol import Array, Edit, EditScope, LogitRequest, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import EditError, NonFiniteActivationError
from neuroscope.models import batching
from neuroscope.models.model import TransformerModel
from neuroscope.models.text import Texts

#: Weights of the two regularisers, and the largest δ in norms of the stream that it joins.
KAPPA, OMEGA, LARGEST = 0.1, 0.2, 4.0
#: How likely every token of the object is when the search ends, and after how many steps it ends in any case.
LIKELY, STEPS, RATE = 0.95, 60, 0.08
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


def find_target(model: TransformerModel, layer: int, fact: Fact, prompts: Sequence[str], keeping: Sequence[str] = ()) -> Target:
    """δ* of this module's head, at the output of the layer's MLP.

    prompts: what is to be followed by the object, the fact's own prompt first. keeping: further prompts that name the subject.
    Raises `EditError` where the object does not become the likeliest: nothing later reads the subject there, or the model never says it.
    """
    problem = _Problem(model, layer, fact, prompts, keeping)
    delta = np.zeros(model.architecture.d_model)
    moment, square = np.zeros_like(delta), np.zeros_like(delta)
    rate = RATE * problem.scale / np.sqrt(delta.size)
    steps = 0
    for steps in range(1, STEPS + 1):
        probabilities, gradient = problem.evaluate(delta)
        if probabilities.min() >= LIKELY:
            break
        gradient += 2 * OMEGA * delta / problem.scale**2
        moment = 0.9 * moment + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        step = (moment / (1 - 0.9**steps)) / (np.sqrt(square / (1 - 0.999**steps)) + 1e-12)
        delta = delta - rate * step
        norm = float(np.linalg.norm(delta))
        if norm > LARGEST * problem.scale:
            delta *= LARGEST * problem.scale / norm
    else:
        probabilities, _ = problem.evaluate(delta)
    if not problem.says(delta):
        raise EditError(
            f"No value at {fact.subject!r} in layer {layer} makes {model.title} say {fact.object.strip()!r} behind {fact.prompt!r} "
            f"(it reaches P = {probabilities.mean():.2g}).",
            site=f"{layer}.mlpOutput",
            remedy="Edit an earlier layer, whose write at the subject later ones still read; or give an object that the model uses.",
        )
    return Target(delta, float(probabilities.mean()), steps)


class _Problem:
    """The rows of one search: the object's tokens behind every prompt, and what the model says of the subject as it is."""

    def __init__(self, model: TransformerModel, layer: int, fact: Fact, prompts: Sequence[str], keeping: Sequence[str]) -> None:
        self.model, self.layer = model, layer
        engine, ops = model.engine, model.engine.ops
        texts = Texts(model.tokenizer)
        rows: list[list[int]] = []
        ends: list[int] = []
        spoken: list[int] = []
        self._length = len(texts.answer(fact.prompt, fact.object))
        for prompt in prompts:
            ids, answer = texts.prompt(prompt), texts.answer(prompt, fact.object)
            end = subject_token(model, prompt, fact.end(prompt))
            for at, token in enumerate(answer):
                rows.append([*ids, *answer[:at]])
                ends.append(end)
                spoken.append(token)
        for text in (f"{fact.subject} is a", *keeping):
            rows.append(texts.prompt(text))
            ends.append(subject_token(model, text, fact.end(text)))
        self.batch = TokenBatch.of(rows)
        self.site = Site(layer, Component.MLP_OUTPUT)
        self._request = LogitRequest.last(self.batch)
        stream = Site(layer, Component.RESIDUAL)
        run = engine.forward(self.batch, capture=[stream], logits=self._request)
        self.scale = float(np.linalg.norm(ops.to_numpy(run[stream])[0, ends[0]]))
        logs = ops.to_numpy(ops.log_softmax(run.logits)).astype(np.float64)
        self._spoken = np.asarray(spoken)
        self._wanted = np.zeros_like(logs)
        self._count = len(spoken)
        self._wanted[np.arange(self._count), spoken] = 1 / self._count
        self._wanted[self._count :] = KAPPA * np.exp(logs[self._count :]) / (1 + len(keeping))
        self._rows = np.arange(self.batch.rows)
        self._ends = np.asarray(ends)
        mask = np.zeros((self.batch.rows, self.batch.positions), dtype=np.float32)
        mask[self._rows, self._ends] = 1.0
        self._mask = ops.precise(mask)
        self._residual = engine.forward(self.batch, stop=layer, logits=None).residual if layer else None

    def says(self, delta: Numbers) -> bool:
        """Whether every token of the object is the likeliest one, behind the prompt alone."""
        run = self.model.engine.forward(
            self.batch, edits=[self._adding(delta)], start=self.layer, residual=self._residual, logits=self._request
        )
        likeliest = self.model.engine.ops.to_numpy(run.logits)[: self._length].argmax(1)
        return bool((likeliest == self._spoken[: self._length]).all())

    def _adding(self, delta: Numbers) -> Edit:
        ops = self.model.engine.ops
        added = ops.precise(delta)

        def add(value: Array, _: EditScope) -> Array:
            return value + ops.einsum("rp,d->rpd", self._mask, added)

        return Edit(self.site, add)

    def evaluate(self, delta: Numbers) -> tuple[NDArray[np.float64], Numbers]:
        """The probability of each of the object's tokens, and the gradient (d_model,) of the loss without its last term."""
        engine, ops = self.model.engine, self.model.engine.ops
        wanted = ops.precise(self._wanted)

        def loss(logits: Array) -> Array:
            return -ops.einsum("rv,rv->r", ops.log_softmax(logits), wanted)

        found = engine.gradients(
            self.batch,
            loss,
            [self.site],
            edits=[self._adding(delta)],
            start=self.layer,
            residual=self._residual,
            logits=self._request,
        )
        gradient = ops.to_numpy(found.gradients[self.site])[self._rows, self._ends].sum(0).astype(np.float64)
        if not np.isfinite(gradient).all():
            raise NonFiniteActivationError("The gradient of the value is NaN or infinite.", site=self.site)
        losses = ops.to_numpy(found.metric)[: self._count].astype(np.float64)
        return np.exp(-losses * self._count), gradient
