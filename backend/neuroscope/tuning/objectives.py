"""What a training descends: three objectives, each one number for a batch, differentiable in the weights.

taskPerformance                −log P(answer's first token) behind the prompt, mean over examples
circuitCoherence               ((m(circuit) − m(model)) / gap)², mean over pairs: m is the circuit's metric, in the run of the circuit
                               alone and of the whole model, and gap = mean of m(clean) − m(corrupt) before training. It is the square
                               of each pair's distance from faithfulness 1. What edges outside the circuit carry is held constant
                               within a step, and computed anew with the weights of each step
generalCapabilityPreservation  KL(original ‖ trained) of the next token, mean over the tokens of text that the original model wrote
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuroscope.circuits.ablated import AblatedRun
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.evaluation import CircuitRun, Written
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.engines.protocol import Array, Engine, GenerationSettings, IntArray, LogitRequest, TokenBatch
from neuroscope.errors import CircuitError, EditError
from neuroscope.models.model import TransformerModel
from neuroscope.models.text import Texts, prompt_ids
from neuroscope.names import only
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.pairs import PairBatch

TASK, COHERENCE, PRESERVATION = "task_performance", "circuit_coherence", "general_capability_preservation"
OBJECTIVES = only("objective", (TASK, COHERENCE, PRESERVATION), listing="Objectives")

#: The original's distributions are kept rather than computed anew in every step while they take no more.
_KEPT_BYTES = 1 << 28


class TaskItems:
    """Prompts with the token that answers each."""

    def __init__(self, model: TransformerModel, examples: Sequence[Example]) -> None:
        texts = Texts(model.tokenizer)
        texts.read(f"{e.clean}{answer}" for e in examples for answer in ("", e.answer))
        self._rows = [texts.prompt(example.clean) for example in examples]
        self._answers: IntArray = np.array([texts.answer_token(e.clean, str(e.answer)) for e in examples], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def loss(self, engine: Engine, rows: IntArray) -> Array:
        """The objective on some items, a scalar."""
        batch = TokenBatch.of([self._rows[row] for row in rows])
        logs = engine.ops.log_softmax(engine.forward(batch, logits=LogitRequest.last(batch)).logits)
        return -(logs * engine.ops.one_hot(self._answers[rows], int(logs.shape[-1]))).sum(-1).mean()


class Coherence:
    """A fixed circuit on pairs of prompts."""

    def __init__(self, engine: Engine, circuit: Circuit, pairs: PairBatch) -> None:
        self._circuit, self._pairs = circuit, pairs
        runs = PairRuns(engine, pairs, share_prefix=False)
        self._gap = float((runs.clean.metric - runs.corrupt.metric).mean())
        if abs(self._gap) < 1e-9:
            raise CircuitError(
                f"Clean and corrupt prompts of {circuit.task} do not differ, so the circuit has no coherence.",
                remedy="Leave the objective circuitCoherence out.",
            )

    def __len__(self) -> int:
        return self._pairs.rows

    def loss(self, engine: Engine, rows: IntArray) -> Array:
        """The objective on some pairs, a scalar."""
        return self.loss_against(engine, *self.constants(engine, rows))

    def constants(self, engine: Engine, rows: IntArray) -> tuple[PairRuns, AblatedRun]:
        """What is held constant within a step: the runs of some pairs, and what edges outside the circuit carry."""
        with engine.differentiable(False):
            runs = PairRuns(engine, self._pairs.take(rows), share_prefix=False)
            return runs, AblatedRun.of(runs, self._circuit.ablation)

    def loss_against(self, engine: Engine, runs: PairRuns, ablated: AblatedRun) -> Array:
        """The objective with those constants, a scalar."""
        batch, metric = runs.pairs.clean, runs.pairs.metric
        compute, request = metric.compute(engine, traced=True), metric.request(batch)
        whole = compute(engine.forward(batch, logits=request).logits)
        run = _Differentiable(engine, ablated, [self._circuit.mask])
        entry = runs.clean.streams[0]
        run.begin(entry)
        edits = [edit for layer in range(engine.anatomy.layers) for edit in run.edits(layer)]
        alone = compute(engine.forward(batch, residual=entry, edits=edits, logits=request).logits)
        return (((alone - whole) / self._gap) ** 2).mean()


class _Differentiable(CircuitRun):
    """A run of one circuit without writes in place, which gradients cannot pass."""

    def begin(self, entry: Array) -> None:
        slots = np.where(self._read_from, np.cumsum(self._read_from) - 1, -1)
        wide = self.engine.ops.wide
        self.written = Written(slots, [wide(entry) - wide(self.ablated.embedding), *[None] * int(self._read_from.sum() - 1)])

    def _read(self, readable: int, receivers: IntArray, stream: Array) -> Array:
        ops, masks = self.engine.ops, self.masks[0, receivers, :readable]
        used = np.flatnonzero(masks.any(0))
        base = ops.stack([ops.wide(stream)] * len(receivers), 0)
        if not len(used):
            return base
        sources = ops.stack([self.written.values[int(self.written.slots[source])] for source in used], 0)
        return base + ops.einsum("cs,srpd->crpd", ops.wide(ops.asarray(masks[:, used].astype(np.float32))), sources)


class Preservation:
    """Text of the original model, whose next-token distributions are to stay."""

    def __init__(self, original: Engine, batch: TokenBatch) -> None:
        self._original, self._batch = original, batch
        self._kept: Array | None = None
        if batch.ids.size * original.anatomy.vocabulary * 4 <= _KEPT_BYTES:
            self._kept = original.ops.settled(original.ops.log_softmax(original.forward(batch).logits))

    def __len__(self) -> int:
        return self._batch.rows

    def loss(self, engine: Engine, rows: IntArray) -> Array:
        """The objective on some texts, a scalar."""
        return self.by_text(engine, rows).mean()

    def by_text(self, engine: Engine, rows: IntArray) -> Array:
        """(rows,): KL per token of each text, in nats."""
        ops, batch = engine.ops, self._batch.take(rows)
        kept = self._kept
        before = ops.log_softmax(self._original.forward(batch).logits) if kept is None else kept[ops.asarray(rows)]
        after = ops.log_softmax(engine.forward(batch).logits)
        real = ops.wide(ops.asarray(batch.real.astype(np.float32)))
        return ((ops.exp(before) * (before - after)).sum(-1) * real).sum(-1) / real.sum(-1)


def own_text(model: TransformerModel, texts: int, tokens: int, seed: int) -> TokenBatch:
    """Texts that the model writes by itself at temperature 1, from the token that begins a text. Raises `EditError` without such a token."""
    tokenizer = model.tokenizer
    ids = prompt_ids(tokenizer, "a")
    first = ids[0] if len(ids) > 1 else tokenizer.eos_token_id
    if first is None:
        raise EditError(
            f"The tokenizer of {model.title} has no token that begins or ends a text, so the model cannot write by itself.",
            remedy="Leave the objective generalCapabilityPreservation out.",
        )
    rows = [[int(first)] for _ in range(texts)]
    settings = GenerationSettings(max_tokens=tokens, temperature=1.0, seed=seed)
    for step in model.engine.generate(TokenBatch.of(rows), settings):
        for row, token in zip(rows, step.tokens, strict=True):
            if token >= 0:
                row.append(int(token))
    return TokenBatch.of(rows)
