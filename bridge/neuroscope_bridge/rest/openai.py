"""Answers in the shapes of OpenAI's API."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from neuroscope_bridge.rest.generation import GeneratedToken, GenerationRequest, TokenLogprob

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel
    from neuroscope_bridge.rest.echo import Echo
    from neuroscope_bridge.rest.schemas import StreamOptions


@dataclass
class Answer(ABC):
    """One generation's answer. Subclasses have the endpoints' shapes."""

    model: TransformerModel
    asked: GenerationRequest
    index: int = 0
    id: str = field(default_factory=lambda: f"{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    pieces: list[GeneratedToken] = field(default_factory=list)

    kind = ""
    chunk_kind = ""
    prefix = ""

    def take(self, piece: GeneratedToken) -> None:
        """Store a piece for the whole answer."""
        self.pieces.append(piece.without_arrays())

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def finish(self) -> str | None:
        return self.pieces[-1].finish if self.pieces else None

    def usage(self, new: int | None = None) -> dict[str, int]:
        prompt, new = len(self.asked.prompt_ids), len(self.pieces) if new is None else new
        return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"{self.prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model.name,
            "ran": self.model.ran,
            "system_fingerprint": self.model.weights_hash[:16],
            "seed": self.asked.settings.seed,
        }

    def whole(self) -> dict[str, Any]:
        """The complete answer."""
        return {**self._head(self.kind), "choices": [self.choice()], "usage": self.usage()}

    def choice(self) -> dict[str, Any]:
        """The complete answer's choice."""
        return {"index": self.index, **self._content(), "logprobs": self._logprobs(self.pieces), "finish_reason": self.finish}

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before the first token."""
        return []

    def chunk(self, piece: GeneratedToken) -> dict[str, Any]:
        """One token."""
        choice = {
            "index": self.index,
            **self._delta(piece),
            "logprobs": self._logprobs([piece]),
            "finish_reason": piece.finish,
        }
        return {**self._head(self.chunk_kind), "choices": [choice]}

    def last(self, options: StreamOptions | None) -> Callable[[int], dict[str, Any]] | None:
        """`closing`, if the request asks for it."""
        return self.closing if options is not None and options.include_usage else None

    def closing(self, new: int) -> dict[str, Any]:
        """The chunk with only the usage."""
        return {**self._head(self.chunk_kind), "choices": [], "usage": self.usage(new)}

    @abstractmethod
    def _content(self) -> dict[str, Any]: ...

    @abstractmethod
    def _delta(self, piece: GeneratedToken) -> dict[str, Any]: ...

    @abstractmethod
    def _logprobs(self, pieces: Sequence[GeneratedToken]) -> Any: ...


class ChatAnswer(Answer):
    kind, chunk_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def opening(self) -> list[dict[str, Any]]:
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return [{**self._head(self.chunk_kind), "choices": [choice]}]

    def _content(self) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": self.text, "refusal": None}}

    def _delta(self, piece: GeneratedToken) -> dict[str, Any]:
        return {"delta": {"content": piece.text}}

    def _logprobs(self, pieces: Sequence[GeneratedToken]) -> Any:
        if self.asked.logprobs is None:
            return None
        content = []
        for piece in pieces:
            assert piece.token is not None
            content.append({**_chance(piece.token), "top_logprobs": [_chance(one) for one in piece.top]})
        return {"content": content, "refusal": None}


@dataclass
class TextAnswer(Answer):
    """The answer to one prompt; with `echo` it begins with the prompt. alone: nothing follows the prompt."""

    echo: Echo | None = None
    alone: bool = False

    kind, chunk_kind, prefix = "text_completion", "text_completion", "cmpl"

    @property
    def finish(self) -> str | None:
        return "length" if self.alone else super().finish

    def opening(self) -> list[dict[str, Any]]:
        """The prompt."""
        if self.echo is None:
            return []
        choice = {"index": self.index, "text": self.echo.text, "logprobs": self._logprobs([], whole=True)}
        choice["finish_reason"] = self.finish
        return [{**self._head(self.chunk_kind), "choices": [choice]}]

    def _content(self) -> dict[str, Any]:
        return {"text": self.text if self.echo is None else self.echo.text + self.text}

    def _delta(self, piece: GeneratedToken) -> dict[str, Any]:
        return {"text": piece.text}

    def choice(self) -> dict[str, Any]:
        return {**super().choice(), "logprobs": self._logprobs(self.pieces, whole=True)}

    def _logprobs(self, pieces: Sequence[GeneratedToken], *, whole: bool = False) -> Any:
        """whole: with the prompt's tokens, where the answer has them."""
        if self.asked.logprobs is None:
            return None
        before = self.echo.tokens if whole and self.echo is not None else ()
        start = 0 if self.echo is None else len(self.echo.text)
        tokens = [piece.token for piece in pieces if piece.token is not None]
        tops = [*(None if one.chance is None else _named(one.top) for one in before), *(_named(piece.top) for piece in pieces)]
        return {
            "tokens": [*(one.text for one in before), *(_name(token) for token in tokens)],
            "token_logprobs": [
                *(None if one.chance is None else one.chance.logprob for one in before),
                *(token.logprob for token in tokens),
            ],
            "top_logprobs": tops if self.asked.logprobs else None,
            "text_offset": [*(one.offset for one in before), *(start + piece.offset for piece in pieces)],
        }


class TextAnswers:
    """The answers to the prompts of one request, as the choices of one."""

    def __init__(
        self, model: TransformerModel, requests: Sequence[GenerationRequest], echoes: Sequence[Echo] | None, *, alone: bool
    ) -> None:
        of = [None] * len(requests) if echoes is None else echoes
        self._parts = [
            TextAnswer(model, asked, index, echo=echo, alone=alone)
            for index, (asked, echo) in enumerate(zip(requests, of, strict=True))
        ]
        for part in self._parts:
            part.id, part.created = self._parts[0].id, self._parts[0].created

    def take(self, piece: GeneratedToken) -> None:
        self._parts[piece.choice].take(piece)

    def whole(self) -> dict[str, Any]:
        first = self._parts[0].whole()
        return {**first, "choices": [part.choice() for part in self._parts], "usage": self._usage()}

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before the first token."""
        return [chunk for part in self._parts for chunk in part.opening()]

    def chunk(self, piece: GeneratedToken) -> dict[str, Any]:
        return self._parts[piece.choice].chunk(piece)

    def last(self, options: StreamOptions | None) -> Callable[[int], dict[str, Any]] | None:
        """The chunk with only the usage, if the request asks for it."""
        if options is None or not options.include_usage:
            return None
        return lambda new: {**self._parts[0].closing(0), "usage": self._usage(new)}

    def _usage(self, new: int | None = None) -> dict[str, int]:
        prompt = sum(len(part.asked.prompt_ids) for part in self._parts)
        new = sum(len(part.pieces) for part in self._parts) if new is None else new
        return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def _name(chance: TokenLogprob) -> str:
    """A token as text; `bytes:\\xe2` for part of a character, as OpenAI writes it."""
    return chance.text if chance.whole else f"bytes:{chance.text}"


def _named(chances: Sequence[TokenLogprob]) -> dict[str, float]:
    """Log-probabilities by the token's text; if several tokens have the same text, the less likely ones by their ids."""
    found: dict[str, float] = {}
    for chance in chances:
        name = _name(chance)
        found[f"token_id:{chance.id}" if name in found else name] = chance.logprob
    return found


def _chance(chance: TokenLogprob) -> dict[str, Any]:
    return {"token": chance.text, "logprob": chance.logprob, "bytes": list(chance.data)}
