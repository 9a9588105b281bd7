"""Prompts as parts of their answers: OpenAI's `echo`, with the log-probability of each of their tokens.

This is what lm-evaluation-harness' `local-completions` asks for: log P(token | the tokens before it). The first token has none.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from neuroscope.engines.protocol import TokenBatch
from neuroscope.models.text import decoded
from neuroscope.models.token_texts import TokenTexts
from neuroscope_bridge.rest.generation import GenerationRequest, TokenLogprob, chances

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

#: Bytes of logits that are computed at once.
_LOGITS = 256 << 20


@dataclass(frozen=True)
class EchoedToken:
    """A token of a prompt: its text, the number of characters before it, and its chance among the likeliest; None for the first one."""

    text: str
    offset: int
    chance: TokenLogprob | None
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class Echo:
    """A prompt's text and tokens. Without log-probabilities, `tokens` is empty."""

    text: str
    tokens: tuple[EchoedToken, ...] = ()


def batches(model: TransformerModel, requests: Sequence[GenerationRequest]) -> Iterator[Sequence[GenerationRequest]]:
    """The requests in parts whose logits fit in `_LOGITS`; at least one in each."""
    first, wide = 0, 0
    for at, request in enumerate(requests):
        wide = max(wide, len(request.prompt_ids))
        if at > first and (at + 1 - first) * wide * model.architecture.vocabulary * 4 > _LOGITS:
            yield requests[first:at]
            first, wide = at, len(request.prompt_ids)
    yield requests[first:]


def echoes(model: TransformerModel, prompts: Sequence[str | list[int]], requests: Sequence[GenerationRequest]) -> list[Echo]:
    """The echo of each prompt, with the model's hooks; one run for all of them if log-probabilities are asked for."""
    texts = [
        prompt if isinstance(prompt, str) else decoded(model.tokenizer, asked.prompt_ids)
        for prompt, asked in zip(prompts, requests, strict=True)
    ]
    if requests[0].logprobs is None:
        return [Echo(text) for text in texts]
    rows = [asked.prompt_ids for asked in requests]
    batch = TokenBatch.of(rows)
    ops = model.engine.ops
    logs = ops.to_numpy(ops.log_softmax(model.run(batch).logits))
    found = []
    for text, ids, log, asked in zip(texts, rows, logs, requests, strict=True):
        likely = [(None, ()), *(chances(model, log[at], id_, asked.logprobs or 0) for at, id_ in enumerate(ids[1:]))]
        places = _offsets(model, ids, text)
        names = TokenTexts.of(model.tokenizer)
        tokens = (
            EchoedToken(names.text(id_) if names.is_whole(id_) else f"bytes:{names.text(id_)}", place, chance, tuple(top))
            for id_, place, (chance, top) in zip(ids, places, likely, strict=True)
        )
        found.append(Echo(text, tuple(tokens)))
    return found


def _offsets(model: TransformerModel, ids: Sequence[int], text: str) -> list[int]:
    """The number of a text's characters before each of its tokens. Special tokens that the text does not have count none."""
    names, decoder = TokenTexts.of(model.tokenizer), codecs.getincrementaldecoder("utf-8")("replace")
    parts = ["" if names.is_special(id_) and names.text(id_) not in text else decoder.decode(names.data(id_)) for id_ in ids]
    whole = "".join(parts)
    extra = len(whole) - len(text)  # the space that a SentencePiece tokenizer puts before a text
    if whole.endswith(text):
        return [max(0, at - extra) for at in accumulate(map(len, parts[:-1]), initial=0)]
    found, end = [], 0  # the tokenizer drops spaces, or writes the text in another way
    for part in parts:
        at = text.find(part, end)
        found.append(end if at < 0 else at)
        end = found[-1] + (0 if at < 0 else len(part))
    return found
