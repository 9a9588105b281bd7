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

NAMES = (
    "Mary John Tom James Sarah Emma Anna David Mark Paul Peter Alice Bob Jack Kate Lisa Kevin Laura Simon Steve Daniel "
    "Michael Robert William Richard Thomas Charles Joseph George Edward Henry Frank Martin Andrew Brian Scott Eric Adam "
    "Ben Sam Max Leo Luke Ryan Jason Justin Aaron Nathan Jessica Jennifer Elizabeth Maria Susan Karen Nancy Helen Ruth "
    "Amy Rachel Rebecca Julia Grace Rose Jane Claire Diana Victoria Hannah Sophie Olivia Lucy Ella Chloe Lily"
).split()
PLACES = "store park school office garden house restaurant station hospital beach library museum market bank hotel".split()
OBJECTS = "drink book ring ball letter bottle key gift kiss snack bag card ticket flower basket".split()

#: {A} and {B} are the two people in the order they are named, {S} the giver.
TEMPLATES = (
    "When {A} and {B} went to the {place}, {S} gave a {thing} to",
    "After {A} and {B} went to the {place}, {S} gave a {thing} to",
    "When {A} and {B} were at the {place}, {S} handed a {thing} to",
    "While {A} and {B} were working at the {place}, {S} gave a {thing} to",
    "Then, {A} and {B} went to the {place}. {S} gave a {thing} to",
    "Then, {A} and {B} had a lot of fun at the {place}. {S} gave a {thing} to",
    "Then, {A} and {B} were thinking about going to the {place}. {S} wanted to give a {thing} to",
    "Friends {A} and {B} found a {thing} at the {place}. {S} gave it to",
    "The {place} {A} and {B} went to had a {thing}. {S} gave it to",
    "After the lunch, {A} and {B} went to the {place}. {S} decided to give a {thing} to",
)


def examples(random: np.random.Generator) -> Iterator[Example]:
    """Examples without end; answers carry their leading space."""
    while True:
        receiver, giver, third = (str(name) for name in random.choice(NAMES, 3, replace=False))
        template = int(random.integers(len(TEMPLATES)))
        first, second = (receiver, giver) if random.random() < 0.5 else (giver, receiver)
        words = {"A": first, "B": second, "place": str(random.choice(PLACES)), "thing": str(random.choice(OBJECTS))}
        yield Example(
            clean=TEMPLATES[template].format(S=giver, **words),
            corrupt=TEMPLATES[template].format(S=third, **words),
            answer=f" {receiver}",
            wrong=f" {giver}",
            meta={"template": f"ioi-{template}", "order": "ABBA" if first == receiver else "BABA"},
        )
