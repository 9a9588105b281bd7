"""Whether a tokenizer can express an example, and as which tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuroscope.tasks.dataset import Example

#: Token ids of a text.
Ids = tuple[int, ...]


class Fit:
    """One tokenizer with the texts it has met: answers must be one token, the prompts of a pair equally long."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._prompts: dict[str, Ids] = {}
        self._answers: dict[str, Ids] = {}

    def read(self, examples: Iterable[Example]) -> None:
        """Tokenise the prompts and answers of many examples at once, which is several times faster than one by one."""
        examples = list(examples)
        prompts = [text for e in examples for text in (e.clean, e.corrupt) if text is not None]
        answers = [text for e in examples for text in (e.answer, e.wrong) if text is not None]
        for texts, known, special in ((prompts, self._prompts, True), (answers, self._answers, False)):
            new = [text for text in dict.fromkeys(texts) if text not in known]
            if new:
                encoded = self._tokenizer(new, add_special_tokens=special)["input_ids"]
                known.update((text, tuple(ids)) for text, ids in zip(new, encoded, strict=True))

    def prompt(self, text: str) -> Ids:
        """A prompt's tokens."""
        if text not in self._prompts:
            self._prompts[text] = tuple(self._tokenizer(text)["input_ids"])
        return self._prompts[text]

    def _answer(self, text: str) -> Ids:
        if text not in self._answers:
            self._answers[text] = tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        return self._answers[text]

    def complaint(self, example: Example) -> str | None:
        """Why the tokenizer cannot express an example, or None."""
        texts = [text for text in (example.answer, example.wrong) if text is not None]
        answers = [self._answer(text) for text in texts]
        for text, pieces in zip(texts, answers, strict=True):
            if len(pieces) != 1:
                return f"The answer {text!r} is {len(pieces)} tokens."
        if len(answers) == 2 and answers[0] == answers[1]:
            return f"The answers {example.answer!r} and {example.wrong!r} are one token to it."
        if example.corrupt is not None:
            clean, corrupt = self.prompt(example.clean), self.prompt(example.corrupt)
            if len(clean) != len(corrupt):
                return f"{example.clean!r} has {len(clean)} tokens and {example.corrupt!r} has {len(corrupt)}."
            if clean == corrupt:
                return f"{example.clean!r} and {example.corrupt!r} are the same to it."
        return None
