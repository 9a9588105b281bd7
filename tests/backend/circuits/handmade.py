"""Attention-only transformers whose circuits are set by hand.

GPT-2 architecture with silent MLPs. The stream has four parts: token (one-hot), position (one-hot), previous token,
answer; the logits read the answer alone. Layer 0, head 0 attends to the position before and copies the token there
into "previous token"; layer 1, head 0 attends to where "previous token" is the current token and copies the token
there into "answer". Together: induction (Elhage et al. 2021; Olsson et al. 2022). All other heads are silent, unless
a distractor is wanted: then layer 0, head 1 copies the previous token too, into a part that nothing reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.tasks.metrics import PromptMetric
from neuroscope.tasks.pairs import PairBatch

TOKENS = 10
POSITIONS = 10
_PARTS = {"token": 0, "position": TOKENS, "previous": TOKENS + POSITIONS, "answer": 2 * TOKENS + POSITIONS}
_UNREAD = 3 * TOKENS + POSITIONS
HEADS = 2
WIDTH = 52  # the four parts, an unread one, and two constants that keep the norm's scale the same everywhere
CONSTANT = 10.0
D_HEAD = WIDTH // HEADS
#: How sharply the heads look. Not so sharply that the softmax saturates: gradients would say nothing there.
SHARPNESS = (120.0, 60.0)
ANSWER = 8.0


def induction_model(*, distractor: bool = False) -> TorchEngine:
    """The model of this module's text, in float64 so that comparisons are exact."""
    config = GPT2Config(
        vocab_size=TOKENS, n_positions=POSITIONS, n_embd=WIDTH, n_layer=2, n_head=HEADS, n_inner=4, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for block in model.transformer.h:
            block.ln_1.weight.fill_(1)
            block.ln_2.weight.fill_(1)
        model.transformer.ln_f.weight.fill_(1)
        model.transformer.wte.weight[:, _part("token")] = torch.eye(TOKENS).double()
        model.transformer.wpe.weight[:, _part("position", POSITIONS)] = torch.eye(POSITIONS).double()
        model.transformer.wpe.weight[:, -2:] = torch.tensor([CONSTANT, -CONSTANT]).double()
        model.lm_head.weight[:, _part("answer")] = ANSWER * torch.eye(TOKENS).double()
        shift = torch.diag(torch.ones(POSITIONS - 1), 1).double()  # position p asks for p − 1
        position = (_part("position", POSITIONS), shift), (_part("position", POSITIONS), torch.eye(POSITIONS).double())
        _set_head(model, 0, 0, query=position[0], key=position[1], value="token", writes="previous")
        if distractor:
            _set_head(model, 0, 1, query=position[0], key=position[1], value="token", writes=None)
        token = (_part("token"), torch.eye(TOKENS).double()), (_part("previous"), torch.eye(TOKENS).double())
        _set_head(model, 1, 0, query=token[0], key=token[1], value="token", writes="answer")
    return TorchEngine(model)


def _part(name: str, size: int = TOKENS) -> slice:
    return slice(_PARTS[name], _PARTS[name] + size)


def _set_head(model: Any, layer: int, head: int, *, query: Any, key: Any, value: str, writes: str | None) -> None:
    attention = model.transformer.h[layer].attn
    first = head * D_HEAD
    for index, (part, matrix) in enumerate((query, key)):
        size = matrix.shape[0]
        columns = slice(index * WIDTH + first, index * WIDTH + first + size)
        attention.c_attn.weight[part, columns] = matrix.T * SHARPNESS[layer] if index == 0 else matrix
    columns = slice(2 * WIDTH + first, 2 * WIDTH + first + TOKENS)
    attention.c_attn.weight[_part(value), columns] = torch.eye(TOKENS).double()
    target = slice(_UNREAD, _UNREAD + TOKENS) if writes is None else _part(writes)
    attention.c_proj.weight[first : first + TOKENS, target] = torch.eye(TOKENS).double()


def induction_pairs(rows: int = 12, *, seed: int = 0) -> PairBatch:
    """`… A B … A`, answer B; the corrupt prompt has another token in place of the first A.

    Only that token differs, so the whole effect runs through value and key: embedding → previous-token head's value →
    induction head's key → logits.
    """
    random = np.random.default_rng(seed)
    clean, corrupt, answers, wrongs = [], [], [], []
    for _ in range(rows):
        a, b, c, d, e, f = (int(token) for token in random.permutation(TOKENS)[:6])
        clean.append([c, a, b, d, e, a])
        corrupt.append([c, f, b, d, e, a])
        answers.append(b)
        wrongs.append(d)
    metric = PromptMetric("logit_difference", np.array(answers), np.array(wrongs))
    return PairBatch(TokenBatch.of(clean), TokenBatch.of(corrupt), metric)
