"""Texts by domain, each with its template, so that texts of one template can be kept together.

A domain is a set of templates whose slots are filled at random. Texts of one template are not independent: they share all but a
few words. So claims about a domain are judged on held-out templates (Clark 1973, "The language-as-fixed-effect fallacy").

Domains differ in content but overlap in form: numbers, line breaks, brackets and operators occur in letters, notices and
conversations as well as in programs and mathematics, so that a token's class does not reveal the domain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from neuroscope.tasks import countries, domains
from neuroscope.tasks.formality import CONTENTS
from neuroscope.tasks.lexicon import ASPECTS, BAD, COUNTRIES, GOOD, NAMES, OBJECTS, PEOPLE, PLACES, REVIEWED, THINGS


class Text(NamedTuple):
    """A text and its group: its template or its word."""

    text: str
    group: str


Source = Callable[[np.random.Generator], Text]

_PROSE = (
    *domains.PROSE,
    "When the rain stopped, {name} and {other} carried the {item} across the field.",
    "There had always been a {thing} behind the {place}, but nobody spoke of it.",
    '"You came back," said the {person}, and {name} looked away.',
    "All summer the {person} sat by the {thing} and waited for a letter.",
    "{name} had never seen such a {adjective} evening; even the {place} was silent.",
    "The old house had 3 doors, and behind the last one stood a {thing}.",
    "In the dark {name} heard a voice, a step, and then the sound of the {thing}.",
    "Years later, {other} would remember the {item} and the smell of the {place}.",
    "The {person} turned 40 that winter and gave the {item} away.",
    "So they left the {place}\nand walked until the road ended\nunder a {adjective} sky.",
)
_MATHEMATICS = (
    *domains.MATHEMATICS,
    "Every even number is divisible by two, and {a} times two is even.",
    "The derivative of x is one, so the slope of the line is constant.",
    "Let n be an integer. If n is odd, then n plus one is even.",
    "A triangle has three angles, and their sum is a straight angle.",
    "There are infinitely many primes: suppose there were only {a}.",
    "The set A contains {a} elements and the set B contains {b}.",
    "By induction, the formula holds for n plus one and hence for all n.",
    "The area of a circle grows with the square of its radius.",
    "A matrix with {a} rows and {b} columns maps vectors to vectors.",
    "The function f is continuous, so it attains its maximum.",
)
_PROGRAMS = (
    *domains.PROGRAMS,
    "with open({x}) as {y}:\n    {f}({y}.read())\n",
    "assert isinstance({x}, int), {y}\n",
    "lambda {x}: {f}({x}) + {a}\n",
    "from {f} import {x} as {y}\nprint({y})\n",
    "{x} = {{{a}: None, {b}: True}}\ndel {x}[{a}]\n",
    "raise ValueError({x})\n",
    "async def {f}(self):\n    await self.{x}({a})\n",
    "if not {x} or {y} is None:\n    return False\n",
    "{x}.append({y})\n{x}.sort(key=len)\nprint({x}[{a}])\n",
    "while True:\n    {x} = input()\n    if {x}: break\n",
)
_REVIEWS = (
    "The {work} was {x}: the {aspect} was {y}, and so was the {other}.",
    "I saw the {work} twice. {y} {aspect}, {x} {other}.",
    "What a {x} {work}! We all thought that the {aspect} was {y}.",
    "{a} out of 10. The {aspect} is {x}, the {other} less so.",
    "Not my kind of {work}; the {aspect} felt {x}.",
    "Critics called the {work} {x}, and the {aspect} even {y}.",
    "Pros: {x} {aspect}\nCons: {y} {other}\n",
    "The {aspect} of this {work} (all {a} minutes of it) is {x}.",
    "If you liked the first {work}, you will find this one {x}.",
    "A {x} {work} with a {y} {aspect}. Rating: {a}/20.",
    "The audience left early, because the {aspect} was {x}.",
    "{x}, {y} and never boring: the {work} of the year.",
)
_LETTERS = (
    "Dear {name},\nthank you for the {item}.\nYours, {other}",
    "{name} {other}\n{a} High Street\nEngland",
    "To: {name}\nFrom: {other}\nRe: the {item} (no. {a})",
    "{a} May 18{b}\nMy dear {name},\nI am still at the {place}.",
    "P.S. Please send the {item} to the {place} before the {a}th.",
    "We write to tell you that your {item} (ref. {a}-{b}) has arrived.",
    "With love from all {b} of us at the {place},\n{name}",
    "Dear Sir or Madam,\n\nthe {thing} you sold me on the {a}th is broken.",
    "{name}, I got your letter of {a}/{b} only today. Forgive me!",
    "Enclosed: {a} photographs, 1 {item}, 2 stamps.",
)
_NOTICES = (
    "Open Monday - Friday, {a} - {b}\nClosed on holidays\n",
    "TODAY\n[1] {item}\n[2] {thing}\n[3] {item}\n",
    "Lost: one {item} (red) near the {place}. Call 555-{a}{b}.",
    "{place}: +{a} steps, then left.\n{thing}: {b} steps.\n",
    "Price list\n{item} = {a}.00\n{thing} = {b}.50\n",
    "* {item}\n* {thing}\n* {a} eggs\n",
    "No smoking (see rule {a}). No dogs!",
    "Bus {a} -> {place}: 9:{b}, 10:{b}, 11:{b}",
    "Name: {name}\nAge: {a}\nRoom: {b}\n",
    "Warning: the {thing} is wet.\nUse the other door.\n",
    "SALE!!! {item} -{a}% / {thing} -{b}%",
    "Score: {name} {a}, {other} {b}",
)
_CONVERSATION = (
    *(informal for _, informal in CONTENTS),
    "See you at {a}:30, {name}!",
    "OK so {a} or {b} people are coming to the {place}, right?",
    "lol no way {name} lost the {thing} again",
    "- Got the {item}?\n- Yep.\n- Cool!\n",
    "Guess what: {name} (yeah, that {name}) got {a} of them.",
    "Dunno, maybe 1 or 2? Ask {name}.",
)
_FORMAL = (
    *(formal for formal, _ in CONTENTS),
    "Pursuant to section {a}, the {item} remains the property of the {place}.",
    "The committee shall consist of {a} members, one of whom shall preside.",
    "Applicants are requested to submit the following:\n1. the {item}\n2. a photograph\n",
    "It is hereby certified that {name} attended the {place} (19{a} - 19{b}).",
    "Should any difficulty arise, kindly notify the undersigned.",
    "The honour of your company is requested at {a} o'clock.",
)
_GEOGRAPHY = (
    *(template.text for relation in countries.RELATIONS.values() for template in relation if "Q:" not in template.text),
    "{c} lies in {continent}, and {capital} is its largest city.",
    "The river runs through {c} for {a}00 km before it reaches the sea.",
    "{capital} ({c}): {a} degrees north, {b} degrees east.",
    "Country: {c}\nCapital: {capital}\nLanguage: {language}\n",
    "Most of {c} is mountains, deserts and forests.",
    "North of {c} lies the sea; south of it, the plains of {continent}.",
    "About {a} million people live in {c}.",
)


def prose(random: np.random.Generator) -> Text:
    """A sentence of a story."""
    return _made(_PROSE, random)


def mathematics(random: np.random.Generator) -> Text:
    """A mathematical statement, true."""
    return _made(_MATHEMATICS, random)


def program(random: np.random.Generator) -> Text:
    """A few lines of Python."""
    return _made(_PROGRAMS, random)


def formal(random: np.random.Generator) -> Text:
    """A sentence in formal register."""
    return _made(_FORMAL, random)


def informal(random: np.random.Generator) -> Text:
    """A sentence in informal register."""
    return _made(_CONVERSATION, random)


#: Domains under the names that scripts use.
DOMAINS: Mapping[str, Source] = {
    "literature": prose,
    "mathematics": mathematics,
    "programming": program,
    "geography": lambda random: _made(_GEOGRAPHY, random),
    "reviews": lambda random: _made(_REVIEWS, random),
    "conversation": informal,
    "formal_writing": formal,
    "letters": lambda random: _made(_LETTERS, random),
    "notices": lambda random: _made(_NOTICES, random),
}


def several(make: Source, n: int, random: np.random.Generator) -> list[Text]:
    """Up to `n` different texts."""
    found: dict[str, Text] = {}
    for _ in range(20 * n):
        if len(found) == n:
            break
        text = make(random)
        found.setdefault(text.text, text)
    return list(found.values())


def _made(templates: Sequence[str], random: np.random.Generator) -> Text:
    template = templates[int(random.integers(len(templates)))]
    country = COUNTRIES[random.integers(len(COUNTRIES))]
    a, b = (int(number) for number in random.integers(11, 50, 2))
    x, y = (str(word) for word in random.choice(domains.VARIABLES, 2, replace=False))
    if "{work}" in template or "{aspect}" in template:
        x, y = (str(word) for word in random.choice([*GOOD, *BAD], 2, replace=False))
    aspect, second = (str(word) for word in random.choice(ASPECTS, 2, replace=False))
    name, other = (str(word) for word in random.choice(NAMES, 2, replace=False))
    text = template.format(
        name=name,
        other=second if "{aspect}" in template else other,
        place=random.choice(PLACES),
        item=random.choice(OBJECTS),
        thing=THINGS[random.integers(len(THINGS))].singular,
        person=PEOPLE[random.integers(len(PEOPLE))].singular,
        adjective=random.choice(GOOD),
        work=random.choice(REVIEWED),
        aspect=aspect,
        a=a,
        b=b,
        sum=a + b,
        f=random.choice(domains.FUNCTIONS),
        x=x,
        y=y,
        c=country.name,
        capital=country.capital,
        continent=country.continent,
        language=country.language,
    )
    return Text(text, template)
