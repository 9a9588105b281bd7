"""Generating for HTTP: prompts as tokens, tokens as text, stop texts, log-probabilities.

`pieces` runs a model step by step. A piece is one token with the text that has become certain with it: characters
that are still incomplete, and text that may be the beginning of a stop text, wait for the next piece.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope.errors import ArgumentError
from neuroscope.models.engines.protocol import GenerationSettings, Step, TokenBatch
from neuroscope.models.sites import Site

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

#: Most tokens of an answer whose request does not say how many it wants.
USUAL_TOKENS = 512

#: Smaller temperatures are greedy: dividing by them leaves nothing to draw.
_GREEDY_BELOW = 1e-3

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Chance:
    """A token and the logarithm of its probability."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class Piece:
    """One generated token. `finish` is "stop" or "length" on the last one; `step` has what was captured."""

    token: Chance | None
    id: int
    text: str
    top: tuple[Chance, ...]
    step: Step
    finish: str | None

    def without_arrays(self) -> Piece:
        """The same without what was captured, to be kept."""
        return replace(self, step=Step(self.step.index, self.step.tokens, None))


@dataclass(frozen=True)
class Ask:
    """What to generate. `seed` None draws one, so that the answer can say which it was."""

    batch: TokenBatch
    settings: GenerationSettings
    logprobs: int | None = None  # how many alternatives of each token; None for no log-probabilities at all

    @property
    def prompt_ids(self) -> list[int]:
        return [int(token) for token in self.batch.ids[0]]


def ask(
    model: TransformerModel,
    ids: Sequence[int],
    *,
    max_tokens: int | None,
    temperature: float,
    top_p: float,
    seed: int | None,
    stop: Sequence[str],
    logprobs: int | None,
) -> Ask:
    """Checked settings for a prompt of these tokens; `ArgumentError` for what cannot be."""
    if not ids:
        raise ArgumentError("The prompt has no tokens.", remedy="Give at least one token.")
    context = model.architecture.context
    room = context - len(ids) if context else USUAL_TOKENS
    if context and room < 1:
        raise ArgumentError(
            f"The prompt's {len(ids)} tokens fill the model's context of {context}.", remedy="Shorten the prompt."
        )
    if context and max_tokens is not None and max_tokens > room:
        raise ArgumentError(
            f"{len(ids)} prompt tokens and {max_tokens} new ones exceed the model's context of {context}.",
            remedy=f"Ask for at most {room} new tokens.",
        )
    settings = GenerationSettings(
        max_tokens=min(USUAL_TOKENS, room) if max_tokens is None else max_tokens,
        temperature=0.0 if temperature < _GREEDY_BELOW else temperature,
        top_p=top_p,
        seed=secrets.randbelow(1 << 31) if seed is None else seed,
        stop=tuple(stop),
        end_tokens=model.end_tokens,
    )
    return Ask(TokenBatch.of([list(ids)]), settings, logprobs)


def chat_tokens(model: TransformerModel, messages: Sequence[dict[str, str]]) -> list[int]:
    """Messages in the model's own chat template, up to where its reply begins; `ArgumentError` when it has none."""
    if not model.has_chat_template:
        raise ArgumentError(f"{model.name} has no chat template.", remedy="Send the whole prompt as text to /v1/completions.")
    try:
        text = model.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program of the model's makers and may refuse in its own way
        raise ArgumentError(f"The chat template of {model.name} refuses these messages: {error}") from error
    return text_tokens(model, str(text), special=False)


def text_tokens(model: TransformerModel, text: str, *, special: bool = True) -> list[int]:
    """Token ids of a text, with the special tokens that the tokenizer adds to a text unless `special` is false."""
    return [int(token) for token in model.tokenizer(text, add_special_tokens=special)["input_ids"]]


def pieces(model: TransformerModel, asked: Ask, sites: Sequence[Site] = ()) -> Iterator[Piece]:
    """Generate with the model's hooks, capturing `sites`; the last piece says why it ended."""
    text = _Text(model, asked.settings.stop)
    ends = set(asked.settings.end_tokens)
    last = asked.settings.max_tokens - 1
    with closing(model.stream(asked.batch, asked.settings, sites)) as steps:
        for step in steps:  # asked for one more after an end of its own, the stream checks that no hook was inert
            id_ = int(step.tokens[0])
            token, top = (None, ()) if asked.logprobs is None else _chances(model, step, id_, asked.logprobs)
            shown = "" if id_ in ends else text.add(id_)
            finish = "stop" if id_ in ends or text.stopped else "length" if step.index == last else None
            if finish is not None and not text.stopped:
                shown += text.rest()
            yield Piece(token, id_, shown, top, step, finish)
            if text.stopped:
                return


def token_text(model: TransformerModel, id_: int) -> str:
    """One token as text, special ones too."""
    return str(model.tokenizer.decode([id_]))


def _chances(model: TransformerModel, step: Step, chosen: int, count: int) -> tuple[Chance, tuple[Chance, ...]]:
    """The chosen token and the `count` likeliest, best first, under the model's own distribution."""
    ops = model.engine.ops
    logs = ops.to_numpy(ops.log_softmax(step.logits))[0]
    best = likeliest(logs, count)
    top = tuple(Chance(int(id_), token_text(model, int(id_)), float(logs[id_])) for id_ in best)
    return Chance(chosen, token_text(model, chosen), float(logs[chosen])), top


def likeliest(scores: Any, count: int) -> Any:
    """Indices of the `count` largest along the last axis, largest first."""
    count = min(count, scores.shape[-1])
    if count == 0:
        return np.empty((*scores.shape[:-1], 0), dtype=np.int64)
    part = np.argpartition(-scores, count - 1, axis=-1)[..., :count]
    order = np.argsort(-np.take_along_axis(scores, part, -1), axis=-1, kind="stable")
    return np.take_along_axis(part, order, -1)


class _Text:
    """Tokens to text as they come.

    A window of recent tokens is decoded twice, with and without the new one, and the difference is the new text: so a
    tokenizer whose text depends on the token before (spaces, bytes of one character) gives the text that it gives whole.
    """

    def __init__(self, model: TransformerModel, stops: Sequence[str]) -> None:
        self._model = model
        self._stops = [stop for stop in stops if stop]
        self._ids: list[int] = []
        self._from = self._read = 0
        self._held = ""
        self.stopped = False

    def add(self, id_: int) -> str:
        """The text that is certain now."""
        self._ids.append(id_)
        known = self._model.decode(self._ids[self._from : self._read])
        now = self._model.decode(self._ids[self._from :])
        if now.endswith(_INCOMPLETE) or len(now) <= len(known):
            return ""
        self._from, self._read = self._read, len(self._ids)
        self._held += now[len(known) :]
        return self._release()

    def _release(self) -> str:
        cut = min((at for at in (self._held.find(stop) for stop in self._stops) if at >= 0), default=-1)
        if cut >= 0:
            self.stopped = True
            return self._held[:cut]
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def rest(self) -> str:
        """What was held back, when nothing follows."""
        known = self._model.decode(self._ids[self._from : self._read])
        tail = self._model.decode(self._ids[self._from :])[len(known) :]
        return self._held + tail


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0
