"""An attention-only transformer that does indirect object identification, set by hand.

Prompts are `A B S to`: two names, one of them again, and `to`; the answer is the other. In the corrupt prompt a third name
stands in place of S. The stream has parts for the token, its position, the subject and the answer (which the logits read).

    0.0  from `to` attends to S and copies it into "subject"                       S-inhibition
    0.1  the same, into a part that nothing reads                                  nothing
    1.0  from `to` attends to the two names, less to the subject, copies it        name mover
    1.1  the same, and writes 0.3 of it against it                                 negative mover
    1.2  the same, into a part that nothing reads                                  nothing
    1.3  from `to` attends to S and writes 0.3 of it against it                    attends to S2, writes to the logits
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

_NAMES, _TO = 10, 10
_TOKENS, _POSITIONS, _HEADS, _WIDTH = 12, 8, 4, 60
_HEAD = _WIDTH // _HEADS
_TOKEN, _POSITION, _SUBJECT = 0, _TOKENS, _TOKENS + _POSITIONS
_ANSWER, _UNREAD = _SUBJECT + _TOKENS, _SUBJECT + 2 * _TOKENS
#: So large that what heads write does not change the norm's scale.
_CONSTANT = 100.0
#: Attention logits: to a position that is looked for, and away from the subject.
_SHARP, _AWAY = 20.0, 6.0


def indirect_object_model() -> TorchEngine:
    """The model of this module's text, in float64."""
    config = GPT2Config(
        vocab_size=_TOKENS, n_positions=_POSITIONS, n_embd=_WIDTH, n_layer=2, n_head=_HEADS, n_inner=4,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel(config).double()
    scale = _CONSTANT * (2 / _WIDTH) ** 0.5
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for norm in (*(norm for block in model.transformer.h for norm in (block.ln_1, block.ln_2)), model.transformer.ln_f):
            norm.weight.fill_(scale)
        model.transformer.wte.weight[:, _TOKEN : _TOKEN + _TOKENS] = torch.eye(_TOKENS).double()
        model.transformer.wpe.weight[:, _POSITION : _POSITION + _POSITIONS] = torch.eye(_POSITIONS).double()
        model.transformer.wpe.weight[:, -2:] = torch.tensor([_CONSTANT, -_CONSTANT]).double()
        model.lm_head.weight[:, _ANSWER : _ANSWER + _TOKENS] = 4 * torch.eye(_TOKENS).double()
        _set(model, 0, 0, to=(2,), away=False, writes=_SUBJECT, size=1.0)
        _set(model, 0, 1, to=(2,), away=False, writes=_UNREAD, size=1.0)
        _set(model, 1, 0, to=(0, 1), away=True, writes=_ANSWER, size=1.0)
        _set(model, 1, 1, to=(0, 1), away=True, writes=_ANSWER, size=-0.3)
        _set(model, 1, 2, to=(0, 1), away=True, writes=_UNREAD, size=1.0)
        _set(model, 1, 3, to=(2,), away=False, writes=_ANSWER, size=-0.3)
    return TorchEngine(model)


def _set(model: Any, layer: int, head: int, *, to: tuple[int, ...], away: bool, writes: int, size: float) -> None:
    """From position 3 to positions `to`, away from the subject or not; the token there is copied."""
    attention, first, root = model.transformer.h[layer].attn, head * _HEAD, _HEAD**0.5
    attention.c_attn.weight[_POSITION + 3, first] = _SHARP * root
    for position in to:
        attention.c_attn.weight[_POSITION + position, _WIDTH + first] = 1
    names = torch.eye(_TOKENS).double()
    if away:
        columns = slice(first + 1, first + 1 + _TOKENS)
        attention.c_attn.weight[_SUBJECT : _SUBJECT + _TOKENS, columns] = _AWAY * root * names
        keys = slice(_WIDTH + first + 1, _WIDTH + first + 1 + _TOKENS)
        attention.c_attn.weight[_TOKEN : _TOKEN + _TOKENS, keys] = -names
    attention.c_attn.weight[_TOKEN : _TOKEN + _TOKENS, 2 * _WIDTH + first : 2 * _WIDTH + first + _TOKENS] = names
    attention.c_proj.weight[first : first + _TOKENS, writes : writes + _TOKENS] = size * names


def indirect_object_pairs(rows: int = 12, *, seed: int = 0) -> PairBatch:
    random = np.random.default_rng(seed)
    clean, corrupt, answers, wrongs = [], [], [], []
    for _ in range(rows):
        receiver, giver, third = (int(name) for name in random.permutation(_NAMES)[:3])
        names = [receiver, giver] if random.random() < 0.5 else [giver, receiver]
        clean.append([*names, giver, _TO])
        corrupt.append([*names, third, _TO])
        answers.append(receiver)
        wrongs.append(giver)
    metric = PromptMetric("logit_difference", np.array(answers), np.array(wrongs))
    return PairBatch(TokenBatch.of(clean), TokenBatch.of(corrupt), metric)
