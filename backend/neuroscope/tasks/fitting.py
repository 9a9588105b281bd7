"""Whether a tokenizer can express an example, and as which tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from neuroscope.errors import ArgumentError
from neuroscope.models.text import Texts

if TYPE_CHECKING:
    from neuroscope.tasks.dataset import Example

#: Token ids of a text.
Ids = tuple[int, ...]


class Fit:
    """One tokenizer with the texts it has met: answers must be one token, the prompts of a pair equally long.

    `template` makes the prompt of a request, for tasks whose prompts stand in a model's chat template.
    """

    def __init__(self, tokenizer: Any, template: Callable[[str], str] | None = None) -> None:
        self._texts = Texts(tokenizer)
        self._tokenizer = tokenizer
        self._template = template

    @property
    def fingerprint(self) -> str | None:
        """The same for tokenizers that read every text alike, as far as what they are made of tells; None where it does not."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        told = [
            getattr(self._tokenizer, name, None) for name in ("chat_template", "special_tokens_map", "split_special_tokens")
        ]
        known = [type(self._tokenizer).__qualname__, self._template is not None, *told, backend.to_str()]
        return hashlib.sha256(repr(known).encode()).hexdigest()

    def read(self, examples: Iterable[Example]) -> None:
        """Tokenise the prompts and answers of many examples at once, which is several times faster than one by one."""
        prompts = [(text, e) for e in examples for text in (e.clean, e.corrupt) if text is not None]
        behind = [f"{text}{answer}" for text, e in prompts for answer in (e.answer, e.wrong) if answer is not None]
        self._texts.read([*(text for text, _ in prompts), *behind])

    def prompt(self, text: str) -> Ids:
        """A prompt's tokens."""
        return tuple(self._texts.prompt(text))

    def complaint(self, example: Example) -> str | None:
        """Why the tokenizer cannot express an example, or None."""
        texts = [text for text in (example.answer, example.wrong) if text is not None]
        prompt = example.clean if self._template is None else self._template(example.clean)
        try:
            answers = [self._texts.example_token(prompt, example.corrupt, text) for text in texts]
        except ArgumentError as error:
            return error.brief
        if len(answers) == 2 and answers[0] == answers[1]:
            return f"The answers {example.answer!r} and {example.wrong!r} are one token to it."
        if example.corrupt is not None:
            clean, corrupt = self.prompt(example.clean), self.prompt(example.corrupt)
            if len(clean) != len(corrupt):
                return f"{example.clean!r} has {len(clean)} tokens and {example.corrupt!r} has {len(corrupt)}."
            if clean == corrupt:
                return f"{example.clean!r} and {example.corrupt!r} are the same to it."
        return None
