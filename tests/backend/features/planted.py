"""A tiny GPT-2 with a feature planted by hand: one neuron sees a direction that only some tokens carry.

Tokens of the concept carry +u, all others −u, so that no norm gives them away. Every other reader of the stream has u
projected out; the planted neuron reads nothing else, and writes towards one token and against another.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from neuroscope.models.model import TransformerModel
from tests import tiny

LAYER, NEURON = 1, 7
CONCEPT = range(50, 70)
OTHERS = range(10, 50)
#: What the planted neuron writes towards, and against.
ANSWER, WRONG = 80, 81


def planted_model(*, seed: int = 0, planted: bool = True, on: str = "torch", layers: int = tiny.LAYERS) -> TransformerModel:
    hf: Any = tiny.hf_model("gpt2", seed=seed)
    hf.transformer.h.extend(copy.deepcopy(hf.transformer.h[layer % tiny.LAYERS]) for layer in range(tiny.LAYERS, layers))
    hf.config.n_layer = layers
    width = hf.config.n_embd
    direction = torch.zeros(width)
    direction[0], direction[1] = 1.0, -1.0  # sums to nothing, so that layer norm's centring leaves it
    direction /= direction.norm()
    keep = torch.eye(width) - torch.outer(direction, direction)
    with torch.no_grad():
        embedding = hf.transformer.wte.weight
        embedding.copy_(embedding @ keep)
        hf.transformer.wpe.weight.copy_(hf.transformer.wpe.weight @ keep)
        for block in hf.transformer.h:
            for norm in (block.ln_1, block.ln_2):
                norm.weight.fill_(1)
                norm.bias.zero_()
            block.attn.c_attn.weight.copy_(keep @ block.attn.c_attn.weight)
            block.mlp.c_fc.weight.copy_(keep @ block.mlp.c_fc.weight)
            for writer in (block.attn.c_proj, block.mlp.c_proj):
                writer.weight.copy_(writer.weight @ keep)
                writer.bias.copy_(keep @ writer.bias)
        if planted:
            size = float(embedding.norm(dim=1).mean())
            sign = torch.full((len(embedding),), -1.0)
            sign[list(CONCEPT)] = 1.0
            embedding += size * sign[:, None] * direction
            hf.transformer.h[LAYER].mlp.c_fc.weight[:, NEURON] = 2 * direction
            hf.transformer.h[LAYER].mlp.c_fc.bias[NEURON] = 0
            answer = embedding[ANSWER] - embedding[WRONG]
            hf.transformer.h[LAYER].mlp.c_proj.weight[NEURON] = 2 * answer / answer.norm()
    return TransformerModel(tiny.engine_of(on, hf), tiny.tokenizer(), "planted", f"planted-{seed}-{planted}")


def texts(count: int, *, seed: int = 0) -> tuple[list[str], list[str]]:
    """Texts that end in a word of the concept, and texts that end in another; what comes before is drawn alike."""
    random = np.random.default_rng(seed)

    def several(words: range) -> list[str]:
        found: set[str] = set()
        while len(found) < count:
            before = random.choice(np.array(OTHERS), 3)
            found.add(" ".join(f"w{token}" for token in [*before, random.choice(np.array(words))]))
        return sorted(found)

    return several(CONCEPT), several(OTHERS)
