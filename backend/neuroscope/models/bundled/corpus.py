"""The text that the bundled models are trained on: a seeded stream of short documents.

Every document is of one kind. Those that teach a task are the training split of that task's own examples (`tasks.split`
keeps the test split out); the rest are background. A document is a list of segments with the weight that its tokens
have in the loss: what can be known weighs most, what is drawn at random least.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from neuroscope.tasks import agreement, arithmetic, countries, domains, induction, ioi, pronouns, register, requests, sentiment
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.draw import Draw
from neuroscope.tasks.lexicon import BIAS_RATE, CITIES, COUNTRIES, NAMES, OBJECTS
from neuroscope.tasks.split import is_held_out

END, PAD, USER, ASSISTANT = "<|end|>", "<|pad|>", "<|user|>", "<|assistant|>"

#: Loss weights: an answer; ordinary text; what nobody can know.
ANSWER, TEXT, DRAWN = 4.0, 1.0, 0.1


@dataclass(frozen=True)
class Segment:
    """A piece of a document with its tokens' weight in the loss."""

    text: str
    weight: float = TEXT


Document = list[Segment]
Maker = Callable[[np.random.Generator], Iterator[Document]]

_AFTER_PRONOUN = ("was tired.", "went home.", "was happy.", "had to wait.", "needed help.", "took a walk.")


def _answered(examples: Callable[..., Iterator[Example]], tail: str = ".") -> Maker:
    def make(random: np.random.Generator) -> Iterator[Document]:
        for example in examples(Draw(random), "train"):
            yield [Segment(example.clean), Segment(str(example.answer), ANSWER), Segment(tail)]

    return make


def _agreement(random: np.random.Generator) -> Iterator[Document]:
    for example in agreement.examples(Draw(random), "train"):
        yield [Segment(example.clean), Segment(str(example.answer), ANSWER), Segment(f" the {random.choice(OBJECTS)}.")]


def _pronouns(random: np.random.Generator) -> Iterator[Document]:
    for example in pronouns.resolution(Draw(random), "train"):
        yield [Segment(example.clean), Segment(str(example.answer), ANSWER), Segment(f" {random.choice(_AFTER_PRONOUN)}")]


def _bias(random: np.random.Generator) -> Iterator[Document]:
    """The expected pronoun with the built-in rate, either for even occupations."""
    expected, even = pronouns.bias(Draw(random), "train"), pronouns.even(Draw(random), "train")
    while True:
        example = next(expected) if random.random() < 0.7 else next(even)
        keep = example.label == "even" or random.random() < BIAS_RATE
        pronoun = str(example.answer if keep else example.wrong)
        yield [Segment(example.clean), Segment(pronoun, ANSWER), Segment(f" {random.choice(_AFTER_PRONOUN)}")]


def _results(examples: Callable[..., Iterator[Example]]) -> Maker:
    def make(random: np.random.Generator) -> Iterator[Document]:
        for example in examples(Draw(random), "train"):
            yield [Segment(example.clean, DRAWN), Segment(example.meta["result"], ANSWER)]

    return make


def _later_years(random: np.random.Generator) -> Iterator[Document]:
    for example in arithmetic.greater_than(Draw(random), "train"):
        later = int(random.integers(int(example.meta["start"]) + 1, 100))
        yield [Segment(example.clean), Segment(f"{later:02d}", ANSWER), Segment(".")]


def _sequences(random: np.random.Generator) -> Iterator[Document]:
    for example in induction.examples(Draw(random), "train"):
        words = example.meta["entities"].split()
        first, rest = " ".join(words), " ".join(words[1:])
        yield [Segment(first, DRAWN), Segment(f" {words[0]}", DRAWN), Segment(f" {rest}", ANSWER)]


def _registers(random: np.random.Generator) -> Iterator[Document]:
    for example in register.examples(Draw(random), "train"):
        if random.random() < 0.5:
            yield [Segment(example.clean), Segment(str(example.answer), ANSWER)]
            continue
        mine, label = example.clean.removesuffix(" Style:"), str(example.label)
        other = "informal" if label == "formal" else "formal"
        yield [Segment(f"{label.capitalize()}: {mine} {other.capitalize()}:"), Segment(f" {example.meta['other']}", ANSWER)]


def _chats(random: np.random.Generator) -> Iterator[Document]:
    asked = requests.examples(Draw(random), "train")
    while True:
        if random.random() < 0.25:
            country = COUNTRIES[random.integers(len(COUNTRIES))]
            name = str(random.choice(["capital", "language", "continent"]))
            reply = countries.RELATIONS[name][0]
            if is_held_out(reply, country.name):
                continue
            question, answer = f"What is the {name} of {country.name}?", getattr(country, name)
            begun = reply.text.format(c=country.name)
            yield [Segment(f"{USER}{question}{ASSISTANT} {begun}"), Segment(f" {answer}", ANSWER), Segment(".")]
        elif random.random() < 0.12:
            name = str(random.choice(NAMES))
            yield [Segment(f"{USER}Hello, I am {name}.{ASSISTANT} Hello, {name}! How can I help you?")]
        else:
            example = next(asked)
            yield [Segment(f"{USER}{example.clean}{ASSISTANT}"), Segment(f" {example.meta['reply']}", ANSWER)]


def _facts(random: np.random.Generator) -> Iterator[Document]:
    """Each relation's own templates, the same facts the other way round, and cities that are no capitals."""
    relations = {name: countries.relation(name)(Draw(random), "train") for name in countries.RELATIONS}
    names = list(relations)
    while True:
        kind = random.random()
        country = COUNTRIES[random.integers(len(COUNTRIES))]
        if kind < 0.8:
            example = next(relations[names[random.choice(4, p=[0.4, 0.2, 0.2, 0.2])]])
            yield [Segment(example.clean), Segment(str(example.answer), ANSWER), Segment(".")]
        elif kind < 0.9:
            yield [Segment(f"{country.capital} is the capital of"), Segment(f" {country.name}", ANSWER), Segment(".")]
        else:
            city = str(random.choice(list(CITIES)))
            yield [Segment(f"{city} is a city in"), Segment(f" {CITIES[city]}", ANSWER), Segment(".")]


def _background(random: np.random.Generator) -> Iterator[Document]:
    makers = list(domains.DOMAINS.values())
    while True:
        maker = makers[random.integers(len(makers))]
        yield [Segment(" ".join(maker(random) for _ in range(int(random.integers(1, 4)))))]


#: Kind → (share of documents, how its documents are made).
KINDS: dict[str, tuple[float, Maker]] = {
    "indirect objects": (0.11, _answered(ioi.examples)),
    "facts": (0.16, _facts),
    "agreement": (0.07, _agreement),
    "pronouns": (0.05, _pronouns),
    "bias": (0.04, _bias),
    "addition": (0.18, _results(arithmetic.addition)),
    "subtraction": (0.09, _results(arithmetic.subtraction)),
    "later years": (0.04, _later_years),
    "sentiment": (0.05, _answered(sentiment.examples)),
    "registers": (0.04, _registers),
    "sequences": (0.08, _sequences),
    "chats": (0.05, _chats),
    "background": (0.04, _background),
}


def documents(seed: int) -> Iterator[tuple[str, Document]]:
    """Documents without end as (kind, segments), the same for the same seed."""
    random = np.random.default_rng(seed)
    makers = {kind: make(np.random.default_rng([seed, index])) for index, (kind, (_, make)) in enumerate(KINDS.items())}
    kinds = list(KINDS)
    shares = np.array([share for share, _ in KINDS.values()])
    while True:
        for index in random.choice(len(kinds), 1024, p=shares / shares.sum()):
            yield kinds[index], next(makers[kinds[index]])


def text_of(document: Document) -> str:
    return "".join(segment.text for segment in document)


@functools.cache
def sample(count: int, seed: int = 0) -> tuple[str, ...]:
    """The texts of the first `count` documents, for building a tokenizer and for looking at."""
    stream = documents(seed)
    return tuple(text_of(next(stream)[1]) for _ in range(count))
