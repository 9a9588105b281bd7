"""What an edited fact is judged by: the same fact in other words, other facts that it must leave alone, and what follows from it.

For the built-in relations of countries these are made here; for other facts they come with published datasets (`tasks.records`).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuroscope.editing.statements import Fact
from neuroscope.errors import ArgumentError
from neuroscope.names import Names
from neuroscope.tasks.countries import RELATIONS
from neuroscope.tasks.lexicon import ALIASES, CITIES, COUNTRIES, Country
from neuroscope.tasks.records import FactExample, FactQuestion

#: The objects that follow from facts about a country, one hop on: relation → what is asked of its capital.
_HOPS = {
    "language": "People in {town} speak",
    "continent": "The city {town} lies in",
    "currency": "In {town}, people pay with the",
}
#: Wordings of the relations that are in none of `RELATIONS`: an edit is made with these and judged by those.
_REWORDED = {
    "capital": (
        "We know that the capital of {c} is",
        "Over in {c}, the main city is",
        "Tell me about the country {c}. The capital is",
        "Q: Tell me the capital city of {c}. A:",
        "Here in {c}, the capital city is",
        "Q: In the country {c}, what is the capital city? A:",
    ),
    "language": (
        "We know that the language of {c} is",
        "Over in {c}, people speak",
        "Tell me about the country {c}. The language is",
        "Q: Tell me the language of {c}. A:",
        "Children in {c} learn to speak",
        "Q: In the country {c}, what is the language? A:",
    ),
    "continent": (
        "We know that the continent of {c} is",
        "Over in {c}, the continent is",
        "Tell me about the country {c}. The continent is",
        "Q: Tell me the continent of {c}. A:",
        "Here in {c}, you are in",
        "Q: In the country {c}, what is the continent? A:",
    ),
    "currency": (
        "We know that the currency of {c} is the",
        "Over in {c}, you pay with the",
        "Tell me about the country {c}. The currency is the",
        "Q: Tell me the currency of {c}. A: the",
        "Here in {c}, shops take the",
        "Q: In the country {c}, what is the currency? A: the",
    ),
}
#: Which of them choose a layer and are not used otherwise, and of how many other subjects the same is asked meanwhile.
_UNSEEN, _BYSTANDERS = (1, 5), 12
_COUNTRY = {country.name: country for country in COUNTRIES}


@dataclass(frozen=True)
class Question:
    """A prompt and the object that is right behind it. subject: what it asks about. topic: what kind of question it is.

    others: objects that are right too.
    """

    prompt: str
    answer: str
    subject: str
    topic: str
    others: tuple[str, ...] = ()

    @property
    def fact(self) -> Fact:
        """The question as a fact."""
        return Fact(self.prompt, self.subject, self.answer)


@dataclass(frozen=True)
class Probes:
    """Questions about an edit. fact: what it is to say; old: what the model said before, where that is known.

    paraphrases: other wordings, with the new object. neighbours: the same of other subjects, which must not change. own: other facts of
    the subject, which must not change either. consequences: what follows from the new fact (alias, reversal, one hop on).
    """

    fact: Fact
    old: str | None = None
    paraphrases: Sequence[Question] = ()
    neighbours: Sequence[Question] = ()
    own: Sequence[Question] = ()
    consequences: Sequence[Question] = ()


def probes(fact: Fact, record: FactExample | None = None, *, but: Container[str] = ()) -> Probes:
    """The questions that judge a fact, without neighbours among the subjects `but`; for one of no built-in relation its own prompt alone.

    record: of a dataset that the fact comes from, with its questions.
    """
    if record is not None:
        groups = (record.paraphrases, record.neighbours, record.own, record.consequences)
        return Probes(fact, record.wrong, *([_recorded(one, fact) for one in group] for group in groups))
    country = _COUNTRY.get(fact.subject)
    if fact.relation is None or country is None:
        return Probes(fact)
    relation, prompt = fact.relation, fact.prompt
    wordings = [template.text.format(c=country) for template in RELATIONS[relation]]
    shape = prompt.replace(fact.subject, "{c}")
    return Probes(
        fact,
        f" {getattr(country, relation)}",
        [Question(text, fact.object, fact.subject, "paraphrase") for text in wordings if text != prompt],
        [_asked(shape, relation, other) for other in COUNTRIES if other is not country and other.name not in but],
        [_asked(RELATIONS[name][0].text, name, country) for name in RELATIONS if name != relation],
        list(_consequences(fact, country)),
    )


def _recorded(question: FactQuestion, fact: Fact) -> Question:
    return Question(question.prompt, question.answer, fact.subject, question.kind, question.others)


def kept_prompts(fact: Fact) -> list[str]:
    """What the subject's other facts are asked by while the value is sought, in other words than those that judge them."""
    country = _COUNTRY.get(fact.subject)
    if fact.relation is None or country is None:
        return []
    return [frame.format(c=country) for name in RELATIONS if name != fact.relation for frame in _REWORDED[name]]


def rewordings(fact: Fact) -> tuple[list[str], list[str]]:
    """The prompt in other words: those that an edit is made with, and those that choose its layer. None of them judges the fact."""
    country = _COUNTRY.get(fact.subject)
    if fact.relation is not None and country is not None:
        frames = [frame.format(c=country) for frame in _REWORDED[fact.relation]]
        return [frame for at, frame in enumerate(frames) if at not in _UNSEEN], [frames[at] for at in _UNSEEN]
    first, rest = fact.prompt[:1], fact.prompt[1:]
    said = f"{first if fact.prompt.startswith(fact.subject) else first.lower()}{rest}"
    return [f"Everyone knows that {said}"], [f"It is true that {said}"]


def bystanders(fact: Fact, seed: int) -> list[str]:
    """The same of other subjects, in words that do not judge the fact; none for a fact of no built-in relation."""
    if fact.relation is None or fact.subject not in _COUNTRY:
        return []
    others = [country for country in COUNTRIES if country.name != fact.subject]
    frame = _REWORDED[fact.relation][_UNSEEN[0]]
    return [frame.format(c=others[at]) for at in np.random.default_rng([seed, 9]).permutation(len(others))[:_BYSTANDERS]]


def _asked(shape: str, relation: str, country: Country) -> Question:
    return Question(shape.format(c=country), f" {getattr(country, relation)}", country.name, f"{relation} of a country")


def _consequences(fact: Fact, country: Country) -> Iterator[Question]:
    hop = _HOPS.get(fact.relation or "")
    if hop is not None:
        yield Question(hop.format(town=country.capital), fact.object, country.capital, "one hop")
    if fact.relation == "capital":
        new = fact.object.strip()
        yield Question(f"{new} is the capital of", f" {country}", new, "reversal")
        for alias, name in ALIASES.items():
            if name == country.name:
                yield Question(f"The capital of {alias} is", fact.object, alias, "alias")


# --- topics -------------------------------------------------------------------------------------------------------------


def _facts_of(continent: str | None, relations: Sequence[str]) -> list[Question]:
    among = [country for country in COUNTRIES if continent in (None, country.continent)]
    return [_asked(RELATIONS[name][0].text, name, country) for name in relations for country in among]


def _cities(continent: str | None) -> list[Question]:
    among = {town: _COUNTRY[home] for town, home in CITIES.items() if continent in (None, _COUNTRY[home].continent)}
    towns = [Question(f"{town} is a city in", f" {home}", town, "country of a city") for town, home in among.items()]
    return [*_facts_of(continent, ["capital"]), *towns]


_CONTINENTS = {"european": "Europe", "asian": "Asia", "african": "Africa", "american": "America"}
#: Related facts by topic, as `preservingRelated:` names them.
TOPICS = Names(
    "topic of related facts",
    {
        "geography": [*_facts_of(None, ["capital", "continent"])],
        "capitals": _facts_of(None, ["capital"]),
        "languages": _facts_of(None, ["language"]),
        "continents": _facts_of(None, ["continent"]),
        "currencies": _facts_of(None, ["currency"]),
        "cities": _cities(None),
        **{f"{name}_cities": _cities(continent) for name, continent in _CONTINENTS.items()},
        **{f"{name}_countries": _facts_of(continent, list(RELATIONS)) for name, continent in _CONTINENTS.items()},
    },
    listing="Topics",
)


def related(topics: object, but: Sequence[str]) -> dict[str, list[Question]]:
    """The facts of each topic, without those about the subjects `but`. Raises `ArgumentError` for an unknown topic, with the nearest."""
    names = [topics] if isinstance(topics, str) else topics
    try:
        listed = [TOPICS.name(topic) for topic in names]  # type: ignore[attr-defined]
    except TypeError as error:
        raise ArgumentError(f"Topics are names, not {topics!r}.", remedy="Write #(#geography #europeanCities).") from error
    return {name: [one for one in TOPICS[name] if one.subject not in but] for name in listed}


def divided(
    topics: Mapping[str, Sequence[Question]], most: int, seed: int
) -> tuple[dict[str, list[Question]], dict[str, list[Question]]]:
    """Of each topic the questions to keep, `most` at most, and others, about subjects that no kept one of any topic is about."""
    subjects = list(dict.fromkeys(one.subject for questions in topics.values() for one in questions))
    order = dict(zip(subjects, np.random.default_rng(seed).permutation(len(subjects)), strict=True))
    kept = {}
    for topic, questions in topics.items():
        once = sorted({one.prompt: one for one in questions}.values(), key=lambda one: order[one.subject])
        kept[topic] = once[: min(most, len(once) * 2 // 3)]
    known = {one.subject for questions in kept.values() for one in questions}
    others = {topic: [one for one in questions if one.subject not in known] for topic, questions in topics.items()}
    return kept, others
