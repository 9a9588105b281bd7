"""The residual stream on a text, layer by layer.

For each layer, over the text's tokens except the first (an attention sink with a much larger norm): the stream's norm, the
relative size of attention's and the MLP's writes and their cosine with it, the rotation by the layer (cosine of before and
after), the dimension of the tokens (participation ratio, (Σλ)² / Σλ² of their covariance), and the divergence of the prediction
from the final one (logit lens).

Sources: Elhage et al. 2021; nostalgebraist 2020; Gao et al. 2017 (participation ratio).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.analyses.inputs import text_of
from neuroscope.analyses.texts import PROMPT
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError
from neuroscope.lenses.logit_lens import LogitLens, logit_lens
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.results import Provenance, Result
from neuroscope.vocabulary import public

_MOST_TOKENS = 256
_LEAST_TOKENS = 3
Numbers = NDArray[np.float64]


@public
@dataclass(frozen=True)
class StreamAnalysis(Result):
    """The stream by layer. norms: (layers + 1, tokens); the other lists are means over tokens except the first.

    attention_size, mlp_size: the norm of the write relative to that of the stream before the layer. attention_cosine,
    mlp_cosine: between the write and that stream. turning: 1 − cosine of the stream before and after the layer. dimensions:
    participation ratio, from the embedding on; at most tokens − 2. kl: nats to the final prediction, from the embedding on.
    """

    text: str
    tokens: list[str]
    norms: list[list[float]]
    attention_size: list[float]
    mlp_size: list[float]
    attention_cosine: list[float]
    mlp_cosine: list[float]
    turning: list[float]
    dimensions: list[float]
    kl: list[float]
    lens: LogitLens
    provenance: Provenance

    def print_string(self) -> str:
        return f"a StreamAnalysis({len(self.tokens)} tokens × {len(self.turning)} layers)"

    def summary(self) -> str:
        lines = [
            f"Residual stream of {self.provenance.title} on {self.text!r}",
            "  layer      norm   attention  (cosine)     MLP  (cosine)  turned  dimensions  KL to final",
        ]
        norms = np.array(self.norms)[:, 1:].mean(1)
        lines.append(f"  embedding {norms[0]:>7.1f} {'':>48} {self.dimensions[0]:>5.1f}  {self.kl[0]:>11.3f}")
        for layer in range(len(self.turning)):
            lines.append(
                f"  {layer:<9} {norms[layer + 1]:>7.1f}  {self.attention_size[layer]:>8.2f}  ({self.attention_cosine[layer]:+.2f})  "
                f"{self.mlp_size[layer]:>8.2f}  ({self.mlp_cosine[layer]:+.2f})  {self.turning[layer]:>6.2f}  "
                f"{self.dimensions[layer + 1]:>10.1f}  {self.kl[layer + 1]:>11.3f}"
            )
        return "\n".join(lines)


def residual_stream(model: TransformerModel, on: Any, seed: int) -> StreamAnalysis:
    """Measure the stream and every layer's writes."""
    text = text_of(model, on, PROMPT, most=_MOST_TOKENS)
    engine, batch = model.engine, model.encode(text)
    if batch.positions < _LEAST_TOKENS:
        raise ArgumentError(
            f"The text {text!r} is too short: it has {batch.positions} tokens, and the first does not count.",
            remedy=f"Give at least {_LEAST_TOKENS} tokens.",
        )
    layers = range(engine.anatomy.layers)
    kinds = (Component.ATTENTION, Component.MLP_OUTPUT, Component.RESIDUAL)
    sites = [Site(None, Component.EMBEDDING), *(Site(layer, kind) for layer in layers for kind in kinds)]
    run = engine.forward(batch, capture=sites, logits=None)
    values = {site: engine.ops.to_numpy(run[site])[0].astype(np.float64) for site in sites}
    streams = np.stack([values[sites[0]], *(values[Site(layer, Component.RESIDUAL)] for layer in layers)])
    written = {kind: np.stack([values[Site(layer, kind)] for layer in layers])[:, 1:] for kind in kinds[:2]}
    before, after = streams[:-1, 1:], streams[1:, 1:]
    lens = logit_lens(model, text)
    return StreamAnalysis(
        text=text,
        tokens=lens.tokens,
        norms=np.linalg.norm(streams, axis=-1).tolist(),
        attention_size=_size(written[Component.ATTENTION], before),
        mlp_size=_size(written[Component.MLP_OUTPUT], before),
        attention_cosine=_cosine(written[Component.ATTENTION], before).mean(1).tolist(),
        mlp_cosine=_cosine(written[Component.MLP_OUTPUT], before).mean(1).tolist(),
        turning=(1 - _cosine(before, after)).mean(1).tolist(),
        dimensions=[participation_ratio(stream[1:]) for stream in streams],
        kl=np.array(lens.kl)[:, 1:].mean(1).tolist(),
        lens=lens,
        provenance=provenance(model, None, seed, tokens=batch.positions),
    )


def participation_ratio(values: Numbers) -> float:
    """(Σλ)² / Σλ² of the covariance of rows (samples, width): 1 on a line, n for equal variance in n dimensions."""
    squares = np.linalg.svd(values - values.mean(0), compute_uv=False) ** 2
    total = float((squares**2).sum())
    return float(squares.sum()) ** 2 / total if total > 0 else 0.0


def _size(written: Numbers, before: Numbers) -> list[float]:
    found: list[float] = (
        (np.linalg.norm(written, axis=-1) / np.maximum(np.linalg.norm(before, axis=-1), 1e-12)).mean(1).tolist()
    )
    return found


def _cosine(a: Numbers, b: Numbers) -> Numbers:
    found: Numbers = (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12)
    return found
