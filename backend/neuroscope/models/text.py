"""Tokenisation of prompts and of answers after their prompts, and decoding of continuations.

The tokens of a text depend on its context. SentencePiece tokenizers put a space before every text, so ` Paris` is two tokens
alone and one after a prompt; others merge the end of a prompt with what follows; some add special tokens before a text, some
after it. So a prompt and its answer are tokenised together and split, a continuation is decoded after its prompt, and special
tokens are added only here:

- those that a tokenizer puts *before* a text (usually a beginning-of-sequence token) are added unless the text already has
  them, as in chat templates;
- those *after* a text (usually an end-of-sequence token) are left out, since a prompt is to be continued.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from neuroscope import events
from neuroscope.errors import ArgumentError
from neuroscope.models.token_texts import TokenTexts

_QUOTED = 40  # characters of a prompt that an error quotes
_PROBES = ("a", "0", ".", "\n")
#: Marks usually followed by a space, except in names of programs and in addresses.
_BEFORE_SPACE = ".,;:?!"
#: Operators in addition to Unicode's mathematical symbols. In `2 + 2 =` a space follows, in `2+2=` none.
_SIGNS = "-*/%&"


class ChatText(str):
    """A text in a model's chat template. It includes its special tokens, so none are added."""

    __slots__ = ()


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, without special tokens that the tokenizer adds."""
    return _ids(tokenizer, text, special=False)


def prompt_ids(tokenizer: Any, text: str, *, special: bool = True) -> list[int]:
    """Token ids of a text to be continued.

    Includes the special tokens that the tokenizer puts before a text, unless `special` is false or the text is a `ChatText`.
    Raises `ArgumentError` for anything that is not a text.
    """
    return Texts(tokenizer).prompt(text) if special else plain_ids(tokenizer, text)


def answer_token(tokenizer: Any, prompt: str, answer: str) -> int:
    """`Texts.answer_token` for a single answer."""
    return Texts(tokenizer).answer_token(prompt, answer)


class Texts:
    """A tokenizer with a cache of texts."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._met: dict[tuple[bool, str], list[int]] = {}
        self._begin: list[int] | None = None
        self._told = False

    def read(self, texts: Iterable[str]) -> None:
        """Tokenise many texts at once, several times faster than one by one."""
        new = [text for text in dict.fromkeys(texts) if not isinstance(text, ChatText) and (False, text) not in self._met]
        if new:
            encoded = self._tokenizer([_checked(text) for text in new], add_special_tokens=False)["input_ids"]
            for text, ids in zip(new, encoded, strict=True):
                self._met[False, text] = self._begun([int(token) for token in ids])

    def prompt(self, text: str) -> list[int]:
        """Token ids of a text to be continued; a `ChatText` includes its special tokens."""
        key = isinstance(text, ChatText), text
        if key not in self._met:
            plain = plain_ids(self._tokenizer, text)
            self._met[key] = plain if key[0] else self._begun(plain)
        return list(self._met[key])

    def answer(self, prompt: str, answer: str) -> list[int]:
        """The tokens of an answer after its prompt: both are tokenised together and split.

        Raises `ArgumentError` if the tokenizer merges the two, or if an answer without a space would continue the prompt's last
        word.
        """
        if not answer:
            raise ArgumentError("The answer is empty.", remedy="Give the text that follows the prompt.")
        found = self._behind(prompt, answer)
        if found is not None:
            self._check_space(prompt, answer, found)
            return found
        if not answer[0].isspace() and not prompt[-1:].isspace():
            spaced = self._behind(prompt, f" {answer}")
            # A word-level tokenizer drops spaces: an answer is the same with and without.
            if spaced is not None and spaced == self._behind(prompt, f"  {answer}"):
                return spaced
        raise self._joined(prompt, answer)

    def answer_token(self, prompt: str, answer: str) -> int:
        """The one token of an answer after its prompt. Raises `ArgumentError` for several, and the errors of `answer`."""
        found = self.answer(prompt, answer)
        if len(found) != 1:
            raise ArgumentError(
                f"The answer {answer!r} is {len(found)} tokens after {_end_of(prompt)!r} "
                f"({self._pieces(found)}), but must be one.",
                remedy="Use answers of one token.",
            )
        return found[0]

    def example_token(self, prompt: str, other: str | None, answer: str) -> int:
        """`answer_token`, if it is the same after both prompts; otherwise raises `ArgumentError`."""
        found = self.answer_token(prompt, answer)
        if other is not None and self.answer_token(other, answer) != found:
            raise ArgumentError(
                f"The answer {answer!r} is one token after {_end_of(prompt)!r} and another after {_end_of(other)!r}.",
                remedy="Let both prompts end in the same way.",
            )
        return found

    def token(self, text: str, name: str = "this tokenizer") -> int:
        """The id of a text that is one token within other text; `ArgumentError` when it is none or several."""
        lengths = set()
        for probe in _PROBES:
            found = self._behind(probe, text) if text else []
            if found is not None and len(found) == 1:
                return found[0]
            if found is not None:
                lengths.add(len(found))
        alone = plain_ids(self._tokenizer, text)
        if len(alone) == 1:  # special tokens, and texts that merge with any text before
            return alone[0]
        raise ArgumentError(f"{text!r} is {min(lengths | {len(alone)})} tokens for {name}, not one.")

    def _begun(self, plain: list[int]) -> list[int]:
        """A text's tokens, preceded once by those that the tokenizer puts before every text."""
        if self._begin is None:
            self._begin = _before(self._tokenizer)
        return plain if self._begin == plain[: len(self._begin)] else self._begin + plain

    def _behind(self, prompt: str, text: str) -> list[int] | None:
        """The tokens of a text after a prompt; None if it changes the prompt's tokens."""
        before = self.prompt(prompt)
        whole = self.prompt(_together(prompt, text))
        return whole[len(before) :] if len(whole) > len(before) and whole[: len(before)] == before else None

    def _check_space(self, prompt: str, answer: str, found: list[int]) -> None:
        """Raises `ArgumentError` for `Paris` after `France is`, which would read `isParis`, if ` Paris` is a token too.

        After a mark, as in `Answer:` or `2 + 2 =`, a notice says so once: there it may be intended.
        """
        after_word = _cased(prompt[-1:]) and (_cased(answer[0]) or answer[0].isdigit())
        after_mark = _goes_on_with_a_space(prompt, answer) and not self._told
        if not prompt or not (after_word or after_mark):
            return
        spaced = self._behind(prompt, f" {answer}")
        if spaced is None or len(spaced) != 1 or spaced == found:
            return
        if after_mark:
            self._told = True
            events.notice(
                f"The answer {answer!r} has no space before it; if a space follows {_end_of(prompt)!r}, write {f' {answer}'!r}."
            )
        else:
            raise ArgumentError(
                f"The answer {answer!r} has no space before it, so after {_end_of(prompt)!r} it reads "
                f"{prompt.split()[-1] + answer!r}.",
                remedy=f"Write {f' {answer}'!r}.",
            )

    def _joined(self, prompt: str, answer: str) -> ArgumentError:
        if prompt[-1:].isspace():
            return ArgumentError(
                f"The prompt {_end_of(prompt)!r} ends in a space, which the tokenizer merges with the answer {answer!r}.",
                remedy=f"Move the space from the end of the prompt to the answer: {f' {answer.lstrip()}'!r}.",
            )
        before, whole = self.prompt(prompt), self.prompt(_together(prompt, answer))
        same = next((at for at, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), min(len(before), len(whole)))
        return ArgumentError(
            f"The tokenizer merges the answer {answer!r} with the end of {_end_of(prompt)!r} into {self._pieces(whole[same:])}.",
            remedy="End the prompt where a token ends, or use another answer.",
        )

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        tokens = TokenTexts.of(self._tokenizer)
        return [tokens.text(token) for token in ids]


def decoded(tokenizer: Any, ids: Sequence[int], *, special: bool = False) -> str:
    """Tokens as text, with all spaces; special tokens are left out unless `special`."""
    return str(
        tokenizer.decode([int(token) for token in ids], skip_special_tokens=not special, clean_up_tokenization_spaces=False)
    )


def continuation(tokenizer: Any, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """The text of tokens that continue a prompt's tokens, with its leading space."""
    known, whole = decoded(tokenizer, prompt), decoded(tokenizer, [*prompt, *ids])
    return whole[shared(known, whole) :]


def shared(known: str, whole: str) -> int:
    """Number of characters of `whole` that are in `known`, whose tail may be an incomplete character."""
    settled = known.rstrip("\N{REPLACEMENT CHARACTER}")
    return len(known) if whole.startswith(known) else min(len(settled), len(whole))


# --- inside -----------------------------------------------------------------------------------------------------------


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise ArgumentError(f"{text!r:.60} is not a text.", remedy="Give a string.")
    if len(text) > LONGEST_TEXT:
        raise ArgumentError(
            f"A text of {len(text):,} characters is too long to tokenise.",
            remedy=f"At most {LONGEST_TEXT:,}; give it in parts.",
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError("The text holds half of a surrogate pair.", remedy="Give whole characters.") from error
    return str(text)


def _ids(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    if isinstance(text, str) and len(text) > _LONG:  # the call for several texts lets other threads run meanwhile
        return [int(token) for token in tokenizer([_checked(text)], add_special_tokens=special)["input_ids"][0]]
    return [int(token) for token in tokenizer(_checked(text), add_special_tokens=special)["input_ids"]]


#: Longest text in characters: a tokenizer cannot be interrupted.
LONGEST_TEXT = 1_000_000

_LONG = 2_000


def _before(tokenizer: Any) -> list[int]:
    """The special tokens that the tokenizer puts before a text."""
    for probe in _PROBES:
        alone, whole = plain_ids(tokenizer, probe), _ids(tokenizer, probe, special=True)
        for start in range(len(whole) - len(alone) + 1) if alone else ():
            if whole[start : start + len(alone)] == alone:
                return whole[:start]
    return []


def _together(prompt: str, text: str) -> str:
    return ChatText(prompt + text) if isinstance(prompt, ChatText) else prompt + text


def _cased(character: str) -> bool:
    """Whether a character is a letter of a script with spaces between words (recognised by its having capitals)."""
    return character.isalpha() and character.lower() != character.upper()


def _goes_on_with_a_space(prompt: str, answer: str) -> bool:
    """Whether a prompt ends in a mark that a space probably follows.

    A point, comma or colon after a digit may be part of a number (`3.`, `1,`, `12:`). A space follows an operator between terms
    if one precedes it; the minus of `x = -` precedes a term.
    """
    mark, before = prompt[-1:], prompt[-2:-1]
    if mark and mark in _BEFORE_SPACE:
        return _cased(answer[0]) or (answer[0].isdigit() and not before.isdigit())
    if not (mark and (mark in _SIGNS or unicodedata.category(mark) == "Sm") and before.isspace()):
        return False
    term = prompt[:-1].rstrip()[-1:]
    return (term.isalnum() or term in ")]}") and (_cased(answer[0]) or answer[0].isdigit())


def _end_of(prompt: str) -> str:
    return str(prompt) if len(prompt) <= _QUOTED else f"… {prompt[-_QUOTED:].split(' ', 1)[-1]}"
