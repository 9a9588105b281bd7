"""Indirect object identification (Wang et al. 2022, "Interpretability in the Wild").

    clean         When Mary and John went to the shop, John gave a drink to   → Mary

Half of the examples name the giver first (BABA), half second (ABBA). The corrupt prompt is one of

    third_person  When Mary and John went to the shop, Anna gave a drink to
    abc           When Anna and Luke went to the shop, Kate gave a drink to
    s2_io_flip    When Mary and John went to the shop, Mary gave a drink to   → John
    random_names  When Anna and Luke went to the shop, Luke gave a drink to   → Anna

third_person changes only the giver, so nothing distinguishes the first two names, which stay in place. abc replaces all three
names by unrelated ones (p_ABC of Wang et al. 2022): nothing repeats and the answer does not occur, so components that read the
first names (previous-token heads, induction) matter too. s2_io_flip makes the receiver the giver: the counterfactual of MIB's
circuit track (Mueller et al. 2025, arXiv 2504.13151), whose dataset also has the other two. random_names keeps the pattern and
replaces the names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from neuroscope.names import Names
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.draw import Draw, units
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


#: Kinds of corrupt prompts; the first is the default.
CORRUPTIONS = ("third_person", "abc", "s2_io_flip", "random_names")
_OTHER_NAMES = {"mib": "s2_io_flip", "p_abc": "abc", "three_names": "abc", "s2_io_flip_counterfactual": "s2_io_flip"}
TASK = "indirect_object_identification"


def task_name(corruption: str) -> str:
    """The name of the task with this corruption. Raises `ArgumentError` with the nearest names."""
    known = Names("corruption", {name: name for name in CORRUPTIONS}, aliases=_OTHER_NAMES, listing="Corruptions")
    found = known[corruption]
    return TASK if found == CORRUPTIONS[0] else f"{TASK}_{found}"


def corrupted(corruption: str) -> Callable[[Draw, Split], Iterator[Example]]:
    """The generator of examples with one of `CORRUPTIONS`."""

    def examples(draw: Draw, split: Split = "test") -> Iterator[Example]:
        while True:
            receiver, giver, *others = draw.several("name", NAMES, 3 if corruption == "third_person" else 5)
            template = draw.one("template", TEMPLATES)
            first, second = (receiver, giver) if draw.random.random() < 0.5 else (giver, receiver)
            place, thing = draw.one("place", PLACES), draw.one("object", OBJECTS)
            if not belongs(split, template, first, second, giver):
                continue
            words = {"place": place, "thing": thing}
            told = _told(corruption, first, second, receiver, giver, others)
            yield Example(
                clean=template.text.format(A=first, B=second, S=giver, **words),
                corrupt=template.text.format(**told, **words),
                answer=f" {receiver}",
                wrong=f" {giver}",
                meta={
                    "template": template.text,
                    "entities": f"{first} {second} {giver}",
                    "order": "ABBA" if first == receiver else "BABA",
                },
                units=units(name=(first, second, *told.values()), place=place, object=thing, template=template.text),
            )

    return examples


def _told(corruption: str, first: str, second: str, receiver: str, giver: str, others: list[str]) -> dict[str, str]:
    """The names of the corrupt prompt: the first two, and the giver."""
    if corruption == "third_person":
        return {"A": first, "B": second, "S": others[0]}
    if corruption == "s2_io_flip":
        return {"A": first, "B": second, "S": receiver}
    if corruption == "abc":
        return {"A": others[0], "B": others[1], "S": others[2]}
    return {"A": others[0], "B": others[1], "S": others[1] if second == giver else others[0]}


#: Examples with the default corruption.
examples = corrupted(CORRUPTIONS[0])
