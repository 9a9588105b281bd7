"""Indirect object identification (Wang et al. 2022, "Interpretability in the Wild").

    clean    When Mary and John went to the shop, John gave a drink to   → Mary
    corrupt  When Mary and John went to the shop, Anna gave a drink to

The corrupt prompt names a third person as giver (the ABC scheme), so that nothing tells the two first names apart,
and every token but one stays where it was. Half of the examples name the giver first (BABA), half second (ABBA).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neuroscope.tasks.dataset import Example
from neuroscope.tasks.lexicon import NAMES, OBJECTS, PLACES
from neuroscope.tasks.split import Split, belongs, templates

#: {A} and {B} are the two people in the order they are named, {S} the giver.
TEMPLATES = templates(
    "When {A} and {B} went to the {place}, {S} gave a {thing} to",
    "When {A} and {B} were at the {place}, {S} handed a {thing} to",
    "While {A} and {B} were working at the {place}, {S} gave a {thing} to",
    "Then, {A} and {B} went to the {place}. {S} gave a {thing} to",
    "Then, {A} and {B} had a lot of fun at the {place}. {S} gave a {thing} to",
    "Then, {A} and {B} were thinking about going to the {place}. {S} wanted to give a {thing} to",
    "Friends {A} and {B} found a {thing} at the {place}. {S} gave it to",
    "The {place} {A} and {B} went to had a {thing}. {S} gave it to",
    "After the lunch, {A} and {B} went to the {place}. {S} decided to give a {thing} to",
    "Today {A} and {B} met at the {place}. {S} passed a {thing} to",
    "Once {A} and {B} were in the {place}, and {S} offered a {thing} to",
    "At the {place}, {A} sat beside {B}. {S} sent a {thing} to",
    held_out=(
        "After {A} and {B} went to the {place}, {S} gave a {thing} to",
        "Then, {A} and {B} were working at the {place}. {S} decided to give a {thing} to",
    ),
)


def examples(random: np.random.Generator, split: Split = "test") -> Iterator[Example]:
    """Examples without end; answers carry their leading space."""
    while True:
        receiver, giver, third = (str(name) for name in random.choice(NAMES, 3, replace=False))
        template = TEMPLATES[random.integers(len(TEMPLATES))]
        first, second = (receiver, giver) if random.random() < 0.5 else (giver, receiver)
        place, thing = str(random.choice(PLACES)), str(random.choice(OBJECTS))
        if not belongs(split, template, first, second, giver):
            continue
        words = {"A": first, "B": second, "place": place, "thing": thing}
        yield Example(
            clean=template.text.format(S=giver, **words),
            corrupt=template.text.format(S=third, **words),
            answer=f" {receiver}",
            wrong=f" {giver}",
            meta={
                "template": template.text,
                "entities": f"{first} {second} {giver}",
                "order": "ABBA" if first == receiver else "BABA",
            },
        )
