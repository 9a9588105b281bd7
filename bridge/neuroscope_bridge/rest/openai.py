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
    from neuroscope_bridge.rest.schemas import StreamOptions


@dataclass
class Answer(ABC):
    """One generation's answer. Subclasses have the endpoints' shapes."""

    model: TransformerModel
    asked: GenerationRequest
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
        choice = {"index": 0, **self._content(), "logprobs": self._logprobs(self.pieces), "finish_reason": self.finish}
        return {**self._head(self.kind), "choices": [choice], "usage": self.usage()}

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before the first token."""
        return []

    def chunk(self, piece: GeneratedToken) -> dict[str, Any]:
        """One token."""
        choice = {
            "index": 0,
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


class TextAnswer(Answer):
    kind, chunk_kind, prefix = "text_completion", "text_completion", "cmpl"

    def _content(self) -> dict[str, Any]:
        return {"text": self.text}

    def _delta(self, piece: GeneratedToken) -> dict[str, Any]:
        return {"text": piece.text}

    def _logprobs(self, pieces: Sequence[GeneratedToken]) -> Any:
        if self.asked.logprobs is None:
            return None
        tokens = [piece.token for piece in pieces if piece.token is not None]
        return {
            "tokens": [_name(token) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [_named(piece.top) for piece in pieces] if self.asked.logprobs else None,
            "text_offset": [piece.offset for piece in pieces],
        }


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
