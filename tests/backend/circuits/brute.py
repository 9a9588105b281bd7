"""GPT-2 in plain numpy, one prompt at a time, every read of the stream apart: the truth that circuit code is held against.

Written from the architecture's definition, without NeuroScope's engine: one forward pass per intervention.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Receiver = tuple[int, str, int]  # layer, "q" "k" "v" "mlp", head; the logits are (layers, "logits", 0)


@dataclass
class Trace:
    """What one run wrote: the embedding, each head's output and write, each MLP's write."""

    logits: Numbers
    embedding: Numbers
    heads: dict[tuple[int, int], Numbers] = field(default_factory=dict)
    head_writes: dict[tuple[int, int], Numbers] = field(default_factory=dict)
    mlps: dict[int, Numbers] = field(default_factory=dict)
    streams: list[Numbers] = field(default_factory=list)


class BruteGPT2:
    """A GPT-2 model's weights as float64 arrays."""

    def __init__(self, model: Any) -> None:
        self.w = {name: value.detach().double().numpy() for name, value in model.state_dict().items()}
        self.layers, self.heads = model.config.n_layer, model.config.n_head
        self.d_head = model.config.n_embd // self.heads
        self.epsilon = model.config.layer_norm_epsilon

    def run(
        self,
        tokens: list[int],
        *,
        embedding: Numbers | None = None,
        heads: dict[tuple[int, int], Numbers] | None = None,
        mlps: dict[int, Numbers] | None = None,
        streams: dict[tuple[int, int], Numbers] | None = None,
        reads: dict[Receiver, Numbers] | None = None,
    ) -> Trace:
        """One pass. embedding: to begin with in place of the tokens'; heads: head outputs to use; mlps: MLP writes to use; streams: (layer, position) → stream after the layer;
        reads: what to add to the stream as one receiver alone reads it."""
        heads, mlps, streams, reads = heads or {}, mlps or {}, streams or {}, reads or {}
        if embedding is None:
            embedding = self.w["transformer.wte.weight"][tokens] + self.w["transformer.wpe.weight"][: len(tokens)]
        x = embedding.copy()
        trace = Trace(np.zeros(0), x.copy())
        for layer in range(self.layers):
            trace.streams.append(x.copy())
            attention = np.zeros_like(x) + self.w[f"transformer.h.{layer}.attn.c_proj.bias"]
            for head in range(self.heads):
                z = heads.get((layer, head), self._head(layer, head, x, reads))
                trace.heads[layer, head] = z
                rows = slice(head * self.d_head, (head + 1) * self.d_head)
                trace.head_writes[layer, head] = z @ self.w[f"transformer.h.{layer}.attn.c_proj.weight"][rows]
                attention = attention + trace.head_writes[layer, head]
            x = x + attention
            write = mlps.get(layer, self._mlp(layer, x + reads.get((layer, "mlp", 0), 0.0)))
            trace.mlps[layer] = write
            x = x + write
            for (at, position), value in streams.items():
                if at == layer:
                    x[position] = value
        trace.streams.append(x.copy())
        x = x + reads.get((self.layers, "logits", 0), 0.0)
        trace.logits = self._norm("transformer.ln_f", x) @ self.w["lm_head.weight"].T
        return trace

    def _head(self, layer: int, head: int, x: Numbers, reads: dict[Receiver, Numbers]) -> Numbers:
        prefix = f"transformer.h.{layer}"
        parts = []
        for index, name in enumerate("qkv"):
            normed = self._norm(f"{prefix}.ln_1", x + reads.get((layer, name, head), 0.0))
            columns = slice(index * x.shape[1] + head * self.d_head, index * x.shape[1] + (head + 1) * self.d_head)
            weight, bias = self.w[f"{prefix}.attn.c_attn.weight"], self.w[f"{prefix}.attn.c_attn.bias"]
            parts.append(normed @ weight[:, columns] + bias[columns])
        q, k, v = parts
        scores = q @ k.T / np.sqrt(self.d_head)
        scores[np.triu_indices(len(x), 1)] = -np.inf
        weights = np.exp(scores - scores.max(1, keepdims=True))
        return (weights / weights.sum(1, keepdims=True)) @ v

    def _mlp(self, layer: int, x: Numbers) -> Numbers:
        prefix = f"transformer.h.{layer}"
        hidden = self._norm(f"{prefix}.ln_2", x) @ self.w[f"{prefix}.mlp.c_fc.weight"] + self.w[f"{prefix}.mlp.c_fc.bias"]
        hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        return hidden @ self.w[f"{prefix}.mlp.c_proj.weight"] + self.w[f"{prefix}.mlp.c_proj.bias"]

    def _norm(self, name: str, x: Numbers) -> Numbers:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]
