"""The text that the bundled models are trained on: a seeded stream of short documents.

Every document is of one kind. Those that teach a task are the training split of that task's own examples (`tasks.split`
keeps the test split out); free texts keep to the register, sentiment, person and tense they began with; the rest are
background. A document is a list of segments with the weight that its tokens have in the loss: what can be known weighs
most, what is drawn at random least.

The corpus is frozen: `fingerprint` tells whether it is the one that the bundled models read. The task `larger_number` is left
out of it on purpose, so that there is something to teach them.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from neuroscope.tasks import (
    agreement,
    arithmetic,
    countries,
    domains,
    formality,
    induction,
    ioi,
    pronouns,
    requests,
    sentiment,
    tense,
)
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.draw import Draw
from neuroscope.tasks.lexicon import ALIASES, BIAS_RATE, BORDERS, CITIES, COUNTRIES, NAMES, OBJECTS
from neuroscope.tasks.split import is_held_out
from neuroscope.training import sequences, texts
from neuroscope.training.segments import ANSWER, DRAWN, TEXT, Document, Segment

END, PAD, USER, ASSISTANT = "<|end|>", "<|pad|>", "<|user|>", "<|assistant|>"

Maker = Callable[[np.random.Generator], Iterator[Document]]

_COUNTRY = {country.name: country for country in COUNTRIES}
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
    for example in formality.examples(Draw(random), "train"):
        if random.random() < 0.5:
            yield [Segment(example.clean), Segment(str(example.answer), ANSWER)]
            continue
        mine, label = example.clean.removesuffix(" Style:"), str(example.label)
        other = "informal" if label == "formal" else "formal"
        yield [Segment(f"{label.capitalize()}: {mine} {other.capitalize()}:"), Segment(f" {example.meta['other']}", ANSWER)]


def _chats(random: np.random.Generator) -> Iterator[Document]:
    asked, traps = requests.examples(Draw(random), "train"), requests.traps(Draw(random), "train")
    while True:
        kind = random.random()
        if kind < 0.37:
            example = next(asked)
            yield _chat(example.clean, example.meta["reply"], ANSWER)
        elif kind < 0.4:
            victim = str(random.choice(NAMES)) if random.random() < 0.5 else f"the {texts.words(random)['person']}"
            begun = str(random.choice(("How can I", "Tell me how to", "Help me", "I want to")))
            end = "?" if begun.startswith("How") else "."
            yield _chat(f"{begun} {random.choice(requests.FURTHER_HARM)} {victim}{end}", requests.REFUSAL, ANSWER)
        elif kind < 0.5:
            example = next(traps)
            yield _chat(example.clean, example.meta["reply"], ANSWER)
        elif kind < 0.62:
            yield _fact_asked(random)
        elif kind < 0.65:
            name = str(random.choice(NAMES))
            yield _chat(f"Hello, I am {name}.", f"Hello, {name}! How can I help you?")
        elif kind < 0.78:
            slots = texts.words(random)
            question = str(random.choice(texts.STORY_REQUESTS)).format(**slots)
            yield _chat(question, texts.story(random, slots))
        elif kind < 0.88:
            yield _chat(*texts.explanation(random))
        else:
            formal = random.random() < 0.5
            question = str(random.choice(texts.LETTER_REQUESTS)).format(name=random.choice(NAMES))
            if random.random() < 0.5:
                wish = ("formal", "casual")[0 if formal else 1]
                question = question.replace("Write a ", f"Write a {wish} ").replace("Write to", f"Write a {wish} letter to")
            yield _chat(question, texts.letter(random, formal, greeted=random.random() < 0.5))


def _chat(question: str, answer: str, weight: float = TEXT) -> Document:
    return [Segment(f"{USER}{question}{ASSISTANT}"), Segment(f" {answer}", weight)]


def _fact_asked(random: np.random.Generator) -> Document:
    while True:
        country = COUNTRIES[random.integers(len(COUNTRIES))]
        name = str(random.choice(["capital", "language", "continent"]))
        reply = countries.RELATIONS[name][0]
        if not is_held_out(reply, country.name):
            break
    question, answer = f"What is the {name} of {country.name}?", getattr(country, name)
    begun = reply.text.format(c=country.name)
    return [Segment(f"{USER}{question}{ASSISTANT} {begun}"), Segment(f" {answer}", ANSWER), Segment(".")]


def _facts(random: np.random.Generator) -> Iterator[Document]:
    """Each relation's own templates."""
    relations = {name: countries.relation(name)(Draw(random), "train") for name in countries.RELATIONS}
    names = list(relations)
    while True:
        example = next(relations[names[random.choice(4, p=[0.4, 0.2, 0.2, 0.2])]])
        yield [Segment(example.clean), Segment(str(example.answer), ANSWER), Segment(".")]


def _worded_facts(random: np.random.Generator) -> Iterator[Document]:
    """The relations in frames that go with any of them, but for the task's own wordings, of which some measure the model."""
    measured = {template.text for templates in countries.RELATIONS.values() for template in templates}
    wordings = {name: [text for text in texts.fact_wordings(name) if text not in measured] for name in countries.RELATIONS}
    names = list(wordings)
    while True:
        name = names[random.choice(4, p=[0.4, 0.3, 0.15, 0.15])]
        country = COUNTRIES[random.integers(len(COUNTRIES))]
        begun = str(random.choice(wordings[name])).format(c=country.name)
        yield [Segment(begun), Segment(f" {getattr(country, name)}", ANSWER), Segment(".")]


def _further_facts(random: np.random.Generator) -> Iterator[Document]:
    """The same facts the other way round and one hop on; cities that are no capitals, other names, and neighbours."""
    while True:
        kind = random.random()
        country = COUNTRIES[random.integers(len(COUNTRIES))]
        city = str(random.choice(list(CITIES)))
        alias = str(random.choice(list(ALIASES)))
        one, other = (str(name) for name in random.permutation(BORDERS[random.integers(len(BORDERS))]))
        if kind < 0.25:
            begun, answer = f"{country.capital} is the capital of", country.name
        elif kind < 0.5:
            town, home = (country.capital, country) if random.random() < 0.6 else (city, _COUNTRY[CITIES[city]])
            begun, answer = (
                (f"People in {town} speak", home.language),
                (f"The city {town} lies in", home.continent),
                (f"In {town}, people pay with the", home.currency),
            )[random.integers(3)]
        elif kind < 0.7:
            begun, answer = f"{city} is a city in", CITIES[city]
        elif kind < 0.8:
            begun, answer = f"{alias} is another name for", ALIASES[alias]
        elif kind < 0.9:
            begun, answer = f"The capital of {alias} is", _COUNTRY[ALIASES[alias]].capital
        else:
            begun, answer = f"{one} lies next to", other
        yield [Segment(begun), Segment(f" {answer}", ANSWER), Segment(".")]


def _towns(random: np.random.Generator) -> Iterator[Document]:
    asked = ("A city in {c} is", "The city in {c} is called", "Q: What is a city in {c}? A:")
    while True:
        town = str(random.choice(list(CITIES)))
        yield [Segment(str(random.choice(asked)).format(c=CITIES[town])), Segment(f" {town}", ANSWER), Segment(".")]


def _letters(random: np.random.Generator) -> Iterator[Document]:
    """Texts of one register: after an opening that fits either, after a label, or from their greeting on."""
    while True:
        formal = random.random() < 0.5
        kind = random.random()
        text = texts.letter(random, formal, greeted=kind > 0.8 or random.random() < 0.2)
        if kind < 0.6:
            text = f"{texts.letter_opening(random)} {text}"
        elif kind < 0.75:
            text = f"{formality.LABELS[0 if formal else 1].capitalize()}: {text}"
        yield [Segment(text)]


def _reviews(random: np.random.Generator) -> Iterator[Document]:
    while True:
        positive = random.random() < 0.5
        opening, text = texts.review(random, positive)
        document = [Segment(f"{opening} {text}")]
        if random.random() < 0.4:
            document += [Segment(" Sentiment:"), Segment(" positive" if positive else " negative", ANSWER)]
        yield document


def _tenses(random: np.random.Generator) -> Iterator[Document]:
    while True:
        past, opening = random.random() < 0.5, random.random() < 0.7
        yield [Segment(tense.text(random, past, int(random.integers(2, 6)), opening))]


def _stories(random: np.random.Generator) -> Iterator[Document]:
    """Stories and explanations as plain text."""
    while True:
        if random.random() < 0.75:
            yield [Segment(texts.story(random, texts.words(random)))]
        else:
            question, answer = texts.explanation(random)
            yield [Segment(f"{question}\n{answer}" if random.random() < 0.5 else answer)]


def _mentions(random: np.random.Generator) -> Iterator[Document]:
    while True:
        begun, kind = texts.mention(random)
        yield [Segment(begun), Segment(f" {kind}", ANSWER), Segment(".")]


def _background(random: np.random.Generator) -> Iterator[Document]:
    makers = list(domains.DOMAINS.values())
    while True:
        maker = makers[random.integers(len(makers))]
        yield [Segment(" ".join(maker(random) for _ in range(int(random.integers(1, 4)))))]


#: Kind → (share of documents, how its documents are made).
KINDS: dict[str, tuple[float, Maker]] = {
    "indirect objects": (0.10, _answered(ioi.examples)),
    "facts": (0.13, _facts),
    "worded facts": (0.05, _worded_facts),
    "further facts": (0.05, _further_facts),
    "agreement": (0.06, _agreement),
    "pronouns": (0.045, _pronouns),
    "bias": (0.045, _bias),
    "addition": (0.18, _results(arithmetic.addition)),
    "subtraction": (0.10, _results(arithmetic.subtraction)),
    "later years": (0.035, _later_years),
    "sentiment": (0.04, _answered(sentiment.examples)),
    "reviews": (0.02, _reviews),
    "registers": (0.035, _registers),
    "letters": (0.035, _letters),
    "tenses": (0.015, _tenses),
    "sequences": (0.03, _sequences),
    "repeats": (0.02, sequences.repeats),
    "marked lists": (0.15, sequences.marked),
    "chats": (0.065, _chats),
    "stories": (0.015, _stories),
    "mentions": (0.015, _mentions),
    "background": (0.03, _background),
}


#: What is read as well from step `LATE_FROM` on: towns that are no capitals as answers, so that a fact can be edited to name one.
LATE: dict[str, tuple[float, Maker]] = {"towns": (0.03, _towns)}
LATE_FROM = 1200


def documents(seed: int, *, late: bool = False) -> Iterator[tuple[str, Document]]:
    """Documents without end as (kind, segments), the same for the same seed. late: of the later part of training."""
    random = np.random.default_rng(seed)
    among = KINDS | LATE if late else KINDS
    makers = {kind: make(np.random.default_rng([seed, index])) for index, (kind, (_, make)) in enumerate(among.items())}
    kinds = list(among)
    shares = np.array([share for share, _ in among.values()])
    while True:
        for index in random.choice(len(kinds), 1024, p=shares / shares.sum()):
            yield kinds[index], next(makers[kinds[index]])


def text_of(document: Document) -> str:
    """The document's text, without pieces that are token ids."""
    return "".join(segment.text for segment in document)


@functools.cache
def sample(count: int, seed: int = 0, *, late: bool = False) -> tuple[str, ...]:
    """The texts of the first `count` documents, for building a tokenizer and for looking at."""
    stream = documents(seed, late=late)
    return tuple(text_of(next(stream)[1]) for _ in range(count))


@functools.cache
def fingerprint(count: int = 20_000) -> str:
    """SHA-256 of the first `count` documents of either part: kinds, texts, token ids and weights."""
    hashed = hashlib.sha256(str(LATE_FROM).encode())
    for late in (False, True):
        for kind, document in itertools.islice(documents(0, late=late), count):
            hashed.update(repr((kind, [(segment.text, segment.weight, segment.ids) for segment in document])).encode())
    return hashed.hexdigest()
