"""The part of a model that needs only its tokenizer: texts as tokens, and tokens as texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines.chat_templates import chat_text
from neuroscope.engines.protocol import TokenBatch
from neuroscope.errors import ArgumentError
from neuroscope.models.text import ChatText, Texts, answer_token, continuation
from neuroscope.models.token_texts import TokenTexts
from neuroscope.vocabulary import public, python_only

#: What a model reads: a text, several, or token ids (positions,) or (rows, positions).
Prompts = str | Sequence[str] | NDArray[np.integer[Any]]


@public
class Tokenized:
    """A named model's tokenizer, by the rules of `neuroscope.models.text`."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name

    @property
    def name(self) -> str:
        """The name under which it was loaded."""
        return self._name

    @property
    @python_only
    def tokenizer(self) -> Any:
        return self._tokenizer

    @python_only
    def encode(self, texts: Prompts, *, side: str = "right") -> TokenBatch:
        """Token ids of one text or several, each ready to be continued, padded on `side`.

        Includes the special tokens that the tokenizer puts before a text (`neuroscope.models.text`). An array of ids, as
        `to_tokens` answers it, is taken as it is. Raises `ArgumentError` for a text without tokens, and for ids that are none
        of the tokenizer's or are padded.
        """
        if hasattr(texts, "__array__"):
            return self._given(np.asarray(texts))
        texts = [texts] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
        known = Texts(self._tokenizer)
        if len(texts) > 1:
            known.read(text for text in texts if isinstance(text, str))
        rows = [known.prompt(text) for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if not row:
                raise ArgumentError(f"The text {text!r} has no tokens.", remedy="Give at least one token.")
        return TokenBatch.of(rows, pad=self._pad, side=side)

    @property
    def _pad(self) -> int:
        pad = self._tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    def _given(self, ids: NDArray[Any]) -> TokenBatch:
        """Token ids as a batch in which every position is a token. Padded ones are refused: nothing in them tells padding apart."""
        known = len(self._tokenizer)
        whole = np.issubdtype(ids.dtype, np.integer) and ids.ndim in (1, 2) and ids.size > 0
        if not whole or ids.min() < 0 or ids.max() >= known:
            raise ArgumentError(
                f"An array {ids.dtype}{list(ids.shape)} is no text, and no token ids of {self._name}.",
                remedy=f"Give texts, or whole numbers from 0 to {known - 1}, (positions,) or (rows, positions).",
            )
        ids = np.atleast_2d(ids)
        if len(ids) > 1 and self._pad in (*ids[:, 0], *ids[:, -1]):
            raise ArgumentError("Token ids with padding are no prompts.", remedy="Give the texts, or rows of one length.")
        return TokenBatch.of(ids.tolist())

    def tokens(self, text: str) -> list[str]:
        """The text's tokens, each as text."""
        return [self.token_text(token) for token in self.encode(text).ids[0]]

    @python_only
    def token_text(self, token: int) -> str:
        """One token as text, with its leading space; bytes of an incomplete character as `\\xe2`."""
        return TokenTexts.of(self._tokenizer).text(int(token))

    @property
    @python_only
    def has_chat_template(self) -> bool:
        return bool(getattr(self._tokenizer, "chat_template", None))

    @python_only
    def token(self, text: str) -> int:
        """The id of a text that is one token within other text. Raises `ArgumentError` if it is none or several."""
        return Texts(self._tokenizer).token(text, self._name)

    @python_only
    def answer_token(self, prompt: str, answer: str) -> int:
        """The one token of an answer after its prompt, tokenised together.

        Raises `ArgumentError` if the answer is several tokens, merges with the end of the prompt, or lacks its space.
        """
        return answer_token(self._tokenizer, prompt, answer)

    @python_only
    def chat_prompt(self, request: str | Sequence[Mapping[str, str]]) -> ChatText:
        """A request, or messages with `role` and `content`, in the model's chat template, up to the start of its reply.

        Raises `ArgumentError` without a template, and for messages that the template refuses.
        """
        if not self.has_chat_template:
            raise ArgumentError(f"{self._name} has no chat template.", remedy="Give the whole prompt as text.")
        messages = [{"role": "user", "content": request}] if isinstance(request, str) else [dict(one) for one in request]
        try:
            return ChatText(chat_text(self._tokenizer, messages))
        except ArgumentError as error:
            raise ArgumentError(f"The chat template of {self._name} refuses these messages: {error.message}") from error

    @python_only
    def decode(self, ids: Sequence[int], *, after: Sequence[int] = ()) -> str:
        """Tokens as text without special tokens, as a continuation of the tokens `after`."""
        return continuation(self._tokenizer, after, ids)
