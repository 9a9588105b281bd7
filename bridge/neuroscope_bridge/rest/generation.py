"""Generation for HTTP: settings of requests, and tokens with log-probabilities."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope.engines.lengths import new_tokens
from neuroscope.engines.protocol import GenerationSettings, Step, TokenBatch
from neuroscope.engines.sites import Site
from neuroscope.errors import ArgumentError
from neuroscope.models.text import prompt_ids
from neuroscope.models.token_texts import TokenTexts
from neuroscope.settings import given_seed

if TYPE_CHECKING:
    from neuroscope.models.generation import Written
    from neuroscope.models.model import TransformerModel
    from neuroscope_bridge.rest.schemas import Message

#: Default number of tokens of an answer.
USUAL_TOKENS = 512

#: Smaller temperatures are greedy.
_GREEDY_BELOW = 1e-3


@dataclass(frozen=True)
class TokenLogprob:
    """A token and the logarithm of its probability. `data` are its bytes, which may be an incomplete character."""

    id: int
    text: str
    data: bytes
    logprob: float

    @property
    def whole(self) -> bool:
        """Whether the bytes are complete text."""
        return self.text.encode("utf-8", "replace") == self.data


@dataclass(frozen=True)
class GeneratedToken:
    """One generated token.

    `text` is the text that it made certain, `offset` the number of characters before the token. `finish` is "stop" or "length"
    on the last one; `step` has the captured activations.
    """

    token: TokenLogprob | None
    id: int
    text: str
    offset: int
    top: tuple[TokenLogprob, ...]
    step: Step
    finish: str | None
    choice: int = 0  # the number of the prompt, where a request has several

    def without_arrays(self) -> GeneratedToken:
        """A copy without the captured activations."""
        return replace(self, step=Step(self.step.index, self.step.tokens, None))


@dataclass(frozen=True)
class GenerationRequest:
    """Settings of a generation. `seed` None: the server's, or a random one, which the answer reports."""

    batch: TokenBatch
    settings: GenerationSettings
    logprobs: int | None = None  # number of alternatives of each token; None: no log-probabilities

    @property
    def prompt_ids(self) -> list[int]:
        return [int(token) for token in self.batch.ids[0]]


def ask(
    model: TransformerModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int | None,
    usual: int,
    temperature: float,
    top_p: float,
    seed: int | None,
    stop: Sequence[str],
    logprobs: int | None,
) -> tuple[GenerationRequest, ...]:
    """Checked settings for prompts of these tokens, which share a seed. Raises `ArgumentError`.

    max_tokens: 0 for prompts that are only read, which may fill the context.
    """
    if not prompts:
        raise ArgumentError("There is no prompt.", remedy="Give at least one.")
    seed, found, alone = _drawn(seed), [], max_tokens == 0
    for number, ids in enumerate(prompts):
        if not ids:
            which = "The prompt" if len(prompts) == 1 else f"Prompt {number}"
            raise ArgumentError(f"{which} has no tokens.", remedy="Give at least one token.")
        settings = model.generation_settings(
            max_tokens=new_tokens(model.architecture.context, len(ids) - alone, 1 if alone else max_tokens, usual),
            temperature=0.0 if temperature < _GREEDY_BELOW else temperature,
            top_p=top_p,
            seed=seed,
            stop=tuple(stop),
        )
        found.append(GenerationRequest(TokenBatch.of([list(ids)]), settings, logprobs))
    return tuple(found)


def _drawn(seed: int | None) -> int:
    """`seed`, or the server's, or a random one."""
    seed = given_seed() if seed is None else seed
    return secrets.randbelow(1 << 31) if seed is None else seed


def chat_tokens(model: TransformerModel, messages: Sequence[dict[str, str]]) -> list[int]:
    """Messages in the model's chat template, up to the start of its reply. Raises `ArgumentError` without a template."""
    if not model.has_chat_template:
        raise ArgumentError(f"{model.name} has no chat template.", remedy="Send the whole prompt as text to /v1/completions.")
    return text_tokens(model, model.chat_prompt(messages))


def text_tokens(model: TransformerModel, text: str, *, special: bool = True) -> list[int]:
    """Token ids of a text, with the special tokens that the tokenizer puts before a text unless `special` is false."""
    return prompt_ids(model.tokenizer, text, special=special)


def pieces(
    model: TransformerModel, requests: Sequence[GenerationRequest], sites: Sequence[Site] = ()
) -> Iterator[GeneratedToken]:
    """Generate with the model's hooks, one prompt after the other, capturing `sites`; each prompt's last piece has the reason to end. The
    first joins the model's other generations now.

    At its end, raises `InertHookError` for a hook that never fired.
    """
    if not requests:
        return iter(())
    first = model.written(requests[0].batch, requests[0].settings, sites, ahead=True)
    return _pieces(model, requests, sites, first)


def _pieces(
    model: TransformerModel, requests: Sequence[GenerationRequest], sites: Sequence[Site], first: Generator[Written]
) -> Iterator[GeneratedToken]:
    for choice, asked in enumerate(requests):
        with closing(model.written(asked.batch, asked.settings, sites) if choice else first) as written:
            for one in written:
                token, top = (None, ()) if asked.logprobs is None else _chances(model, one.step, one.id, asked.logprobs)
                yield GeneratedToken(token, one.id, one.text, one.offset, top, one.step, one.finish, choice)


def token_text(model: TransformerModel, id_: int) -> str:
    """One token as text, including special ones."""
    return model.token_text(id_)


def _chances(model: TransformerModel, step: Step, chosen: int, count: int) -> tuple[TokenLogprob, tuple[TokenLogprob, ...]]:
    """The chosen token and the `count` most likely, best first, under the model's distribution."""
    ops = model.engine.ops
    return chances(model, ops.to_numpy(ops.log_softmax(step.logits))[0], chosen, count)


def chances(model: TransformerModel, logs: Any, chosen: int, count: int) -> tuple[TokenLogprob, tuple[TokenLogprob, ...]]:
    """A token and the `count` most likely, best first. logs: (vocabulary,), log-probabilities."""
    tokens = TokenTexts.of(model.tokenizer)

    def chance(id_: int) -> TokenLogprob:
        return TokenLogprob(id_, tokens.text(id_), tokens.data(id_), float(logs[id_]))

    return chance(chosen), tuple(chance(int(id_)) for id_ in likeliest(logs, count))


def likeliest(scores: Any, count: int) -> Any:
    """Indices of the `count` largest along the last axis, largest first."""
    count = min(count, scores.shape[-1])
    if count == 0:
        return np.empty((*scores.shape[:-1], 0), dtype=np.int64)
    part = np.argpartition(-scores, count - 1, axis=-1)[..., :count]
    order = np.argsort(-np.take_along_axis(scores, part, -1), axis=-1, kind="stable")
    return np.take_along_axis(part, order, -1)


def prompt_tokens(model: Any, messages: Sequence[Message] | None, prompt: str | list[int] | None) -> list[int]:
    """The prompt's tokens: from messages in the model's template, a text, or token ids."""
    if messages is not None:
        return chat_tokens(model, [{"role": one.role, "content": one.text} for one in messages])
    assert prompt is not None
    return text_tokens(model, prompt) if isinstance(prompt, str) else prompt
