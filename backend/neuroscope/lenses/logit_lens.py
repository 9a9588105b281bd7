"""The logit lens: what the model would predict if it stopped after each layer.

The model's final norm and unembedding are applied to the residual stream after each layer. Row 0 is the embedding; the last row
is the model's prediction. Each row has the likeliest token and the Kullback–Leibler divergence from the final prediction, in
nats, which is zero in the last row. For each token, `decided` is the first layer from which on the final prediction remains the
likeliest.

Sources: nostalgebraist 2020, "interpreting GPT: the logit lens"; Belrose et al. 2023 (divergence as its measure).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.engines.protocol import ALL_LOGITS, Array, Engine, IntArray, LogitRequest, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.results import Provenance, Result
from neuroscope.vocabulary import public

Numbers = NDArray[np.float64]


@public
@dataclass(frozen=True)
class LogitLens(Result):
    """What each layer would predict, token by token.

    layers: "embedding", then each layer's number. top, probability, final_probability, kl: (layers + 1, tokens): the likeliest
    next token, its probability, that of the model's final prediction, and the divergence from it. decided: for each token the
    first row from which on the final prediction remains the likeliest.
    """

    text: str
    tokens: list[str]
    layers: list[str]
    top: list[list[str]]
    probability: list[list[float]]
    final_probability: list[list[float]]
    kl: list[list[float]]
    decided: list[int]
    provenance: Provenance

    @property
    def predictions(self) -> list[str]:
        """The model's prediction after each token."""
        return self.top[-1]

    def print_string(self) -> str:
        return f"a LogitLens({len(self.tokens)} tokens × {len(self.layers)} layers)"

    def summary(self) -> str:
        lines = [
            f"Logit lens of {self.provenance.title} on {self.text!r}",
            f"  {'read after':<10}  {'would predict':<18} {'p':>6}  {'p of ' + repr(self.top[-1][-1]):>16}  KL to final",
        ]
        for row, layer in enumerate(self.layers):
            name = layer if layer == "embedding" else f"layer {layer}"
            lines.append(
                f"  {name:<10}  {self.top[row][-1]!r:<18} {self.probability[row][-1]:>6.3f}  "
                f"{self.final_probability[row][-1]:>16.3f}  {self.kl[row][-1]:>11.3f}"
            )
        decided = self.layers[self.decided[-1]]
        lines.append(f"  decided from {decided if decided == 'embedding' else f'layer {decided}'} on")
        return "\n".join(lines)


def logit_lens(model: TransformerModel, text: str) -> LogitLens:
    """Each layer's prediction for each token of a text; hooks are not included."""
    engine, batch = model.engine, model.encode(text)
    layers = engine.anatomy.layers
    tops, probabilities, finals, divergences = [], [], [], []
    streams = read_streams(engine, batch)
    final = read_out(engine, streams[layers])[0]
    decided_tokens = final.argmax(-1)
    positions = np.arange(batch.positions)
    with events.progress("logit lens", total=layers + 1, unit="layers") as job:
        for stream in streams:
            logs = read_out(engine, stream)[0]
            best = logs.argmax(-1)
            tops.append(best)
            probabilities.append(np.exp(logs[positions, best]))
            finals.append(np.exp(logs[positions, decided_tokens]))
            divergences.append((np.exp(final) * (final - logs)).sum(-1))
            job.advance()
    table = np.stack(tops)
    return LogitLens(
        text=text,
        tokens=model.tokens(text),
        layers=["embedding", *map(str, range(layers))],
        top=[[model.token_text(token) for token in row] for row in table],
        probability=np.stack(probabilities).tolist(),
        final_probability=np.stack(finals).tolist(),
        kl=np.maximum(np.stack(divergences), 0.0).tolist(),
        decided=decided_from(table).tolist(),
        provenance=provenance(model, None, 0, tokens=batch.positions),
    )


def read_streams(engine: Engine, batch: TokenBatch) -> list[Array]:
    """The residual stream (rows, positions, d_model) before the first layer and after each: layers + 1 arrays."""
    sites = [Site(None, Component.EMBEDDING), *(Site(layer, Component.RESIDUAL) for layer in range(engine.anatomy.layers))]
    run = engine.forward(batch, capture=sites, logits=None)
    return [run[site] for site in sites]


def decided_from(table: IntArray) -> IntArray:
    """Predictions (rows, tokens) → the first row (tokens,) from which on the last row's prediction remains."""
    same = np.logical_and.accumulate((table == table[-1])[::-1], axis=0)
    return (len(table) - same.sum(0)).astype(np.int64)


def answers_by_layer(engine: Engine, batch: TokenBatch, answers: IntArray) -> tuple[Numbers, Numbers]:
    """Probability and rank (0 is first, ties count half) of each row's answer, at its last token: both (layers + 1, rows)."""
    rows = np.arange(batch.rows)
    probabilities, ranks = [], []
    for stream in read_streams(engine, batch):
        logs = read_out(engine, stream, LogitRequest.last(batch))
        mine = logs[rows, answers]
        probabilities.append(np.exp(mine))
        ranks.append((logs > mine[:, None]).sum(1) + ((logs == mine[:, None]).sum(1) - 1) / 2)
    return np.stack(probabilities), np.stack(ranks).astype(np.float64)


def read_out(engine: Engine, stream: Array, request: LogitRequest = ALL_LOGITS) -> Numbers:
    """Log-probabilities of residual streams (rows, positions, d_model) after the final norm and the unembedding.

    (rows, positions, vocabulary), or (rows, vocabulary) if the request names a column for each row.
    """
    shape = int(stream.shape[0]), int(stream.shape[1])
    tokens = TokenBatch(np.zeros(shape, np.int64), np.ones(shape, np.bool_))  # no layer that would use them runs
    found = engine.forward(tokens, start=engine.anatomy.layers, residual=stream, logits=request).logits
    return np.asarray(engine.ops.to_numpy(engine.ops.log_softmax(found)), dtype=np.float64)
