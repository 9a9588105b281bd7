"""Statements of facts, taken apart: "The capital of France is Paris" is a prompt, a subject within it and an object behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from neuroscope.errors import ArgumentError, EditError
from neuroscope.models.text import plain_ids, prompt_ids
from neuroscope.remedies import Remedy
from neuroscope.tasks.countries import RELATIONS

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

#: Words of a relation, which are never a subject although they may begin a statement with a capital.
_FUNCTION_WORDS = frozenset(
    "a an the in on at of to from by with for and or is are was were be it its this that people most who what where when "
    "which one q: a: how".split()
)


@dataclass(frozen=True)
class Fact:
    """A statement in three parts.

    prompt: what stands before the object. subject: the part of the prompt that it is about. object: what follows, with its space.
    relation: the name of the built-in relation whose wording it has, if any.
    """

    prompt: str
    subject: str
    object: str
    relation: str | None = None

    def __str__(self) -> str:
        return f"{self.prompt}{self.object}"

    def with_object(self, other: str) -> Fact:
        """The same prompt with another object."""
        return replace(self, object=other)

    def end(self, text: str | None = None) -> int:
        """Where the subject ends in the prompt, or in another text: the character behind its last occurrence."""
        text = self.prompt if text is None else text
        at = text.rfind(self.subject)
        if at < 0:
            raise ArgumentError(f"{text!r} does not name the subject {self.subject!r}.", remedy="Give texts about the subject.")
        return at + len(self.subject)


def split_statement(statement: str, *, subject: str | None = None, target: str | None = None) -> list[Fact]:
    """The ways to read a statement, the likeliest first; more than one where several words could be its subject.

    A built-in relation's own wording is recognised. In any other statement the object is its last word, or the words with capitals
    that end it, and a subject is a run of words with capitals, or a word that carries meaning. subject, target: subject and object, where they are
    known. Raises `ArgumentError` for what is not a statement, and for a subject or an object that it does not have.
    """
    if not isinstance(statement, str) or not statement.strip():
        raise ArgumentError(f"A fact is a sentence, not {statement!r}.", remedy="Write 'The capital of France is Paris'.")
    text = " ".join(statement.split()).rstrip(".")
    known = None if subject or target else _in_a_known_wording(text)
    if known is not None:
        return [known]
    prompt, found = _without_object(text, target)
    subjects = [subject] if subject else _subjects(prompt)
    if subject and not re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt):
        raise ArgumentError(
            f"{statement!r} does not name the subject {subject!r} before its object {found!r}.",
            remedy="The subject stands in the statement, before the object.",
        )
    if not subjects:
        raise ArgumentError(
            f"{statement!r} has no word that it could be about before {found!r}.",
            remedy=Remedy("Name it: subject='France'.", smalltalk="Name it: subject: 'France'."),
        )
    return [Fact(prompt, one, f" {found}") for one in subjects]


def subject_token(model: TransformerModel, text: str, end: int) -> int:
    """Index of the token of a prompt that holds the last character before `end`, special tokens counted.

    Raises `EditError` for a tokenizer that does not tell where its tokens stand.
    """
    tokenizer = model.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise EditError(f"The tokenizer of {model.title} does not tell where its tokens stand.", remedy="Use a fast tokenizer.")
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    added = len(prompt_ids(tokenizer, text)) - len(plain_ids(tokenizer, text))
    within = [index for index, (first, last) in enumerate(spans) if first < end <= last]
    if not within:
        raise EditError(f"The tokens of {text!r} cannot be told apart at {text[:end]!r}.")
    return added + within[-1]


def _in_a_known_wording(text: str) -> Fact | None:
    """The statement by the wording that leaves the shortest subject: of "the country France" it is France."""
    found: list[Fact] = []
    for relation, wordings in RELATIONS.items():
        for wording in wordings:
            before, after = wording.text.split("{c}")
            match = re.fullmatch(rf"{re.escape(before)}([^.?!]+?){re.escape(after)} (\S.*)", text)
            if match:
                found.append(Fact(f"{before}{match[1]}{after}", match[1], f" {match[2]}", relation))
    return min(found, key=lambda fact: len(fact.subject), default=None)


def _without_object(text: str, given: str | None) -> tuple[str, str]:
    """The prompt and the object."""
    if given is not None:
        given = given.strip()
        if not given or not text.endswith(f" {given}"):
            raise ArgumentError(f"{text!r} does not end in the object {given!r}.", remedy="The object ends the statement.")
        return text[: -len(given)].rstrip(), given
    words = text.split()
    first = len(words) - 1
    while first > 1 and words[first][:1].isupper() and words[first - 1][:1].isupper():
        first -= 1
    if first < 1:
        raise ArgumentError(f"{text!r} is not a statement with an object.", remedy="Write 'The capital of France is Paris'.")
    return " ".join(words[:first]), " ".join(words[first:])


def _subjects(prompt: str) -> list[str]:
    """Runs of words with capitals; where there are none, every word that is not a function word; the last first."""
    words = [word.strip(",;:!?\"'()") for word in prompt.split()]
    runs: list[list[str]] = [[]]
    for word in words:
        if word[:1].isupper() and word.lower() not in _FUNCTION_WORDS:
            runs[-1].append(word)
        elif runs[-1]:
            runs.append([])
    named = [" ".join(run) for run in runs if run]
    plain = [word for word in words if word and word.lower() not in _FUNCTION_WORDS]
    return list(dict.fromkeys((named or plain)[::-1]))
