"""The same content in formal and in informal register.

    clean    Informal: Thanks for the gift, Mary! Formal:   → I   (the formal wording begins so)

Each content has a formal and an informal wording with the same slots; an example shows one and asks for the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neuroscope.tasks.dataset import Example
from neuroscope.tasks.draw import Draw, units
from neuroscope.tasks.lexicon import NAMES, OBJECTS, PLACES
from neuroscope.tasks.split import Split, Template, belongs

#: (formal, informal) wordings.
CONTENTS = (
    ("I am most grateful for the {thing}, {name}.", "Thanks for the {thing}, {name}!"),
    ("I would appreciate it if you could come to the {place}.", "Come on over to the {place}!"),
    ("I regret to inform you that {name} cannot attend.", "Sorry, {name} just can't make it."),
    ("May I request the {thing}, please?", "Hey, gimme the {thing}!"),
    ("I wish to express my concern about the {place}.", "Man, the {place} is a mess."),
    ("Please allow me to introduce {name}.", "Hey guys, this is {name}."),
    ("It is my pleasure to invite you to the {place}.", "Wanna hang out at the {place}?"),
    ("We kindly ask you to return the {thing}.", "Hey, bring back the {thing}!"),
    ("I must apologise for the delay, {name}.", "Oops, sorry I'm late, {name}."),
    ("One should exercise caution at the {place}.", "Watch out at the {place}, dude."),
    ("I do not possess the {thing} at present.", "Nope, I don't got the {thing}."),
    ("I shall await your reply, {name}.", "Text me back, {name}!"),
)
#: Further wordings, for the task and for free texts of one register; contrasts and concepts use those above.
FURTHER = (
    ("I would be grateful for the {thing} from the {place}.", "Hey, grab the {thing} from the {place}, okay?"),
    ("We regret that the {place} has no {thing} at present.", "Nope, no {thing} at the {place}, sorry dude."),
    ("Dear {name}, I write to you concerning the {place}.", "Yo {name}, about the {place}, man."),
    ("It would be an honour to meet {name} at the {place}.", "Wanna meet {name} at the {place}? Cool!"),
    ("Kindly accept the {thing} with my regards, {name}.", "Here, take the {thing}, {name}, cheers!"),
    ("I must decline the {thing}, {name}.", "Nah, keep the {thing}, {name}."),
    ("One is requested to leave the {thing} at the {place}.", "Just dump the {thing} at the {place}, okay?"),
    ("The {place} remains closed, {name}, to my regret.", "Ugh, the {place} is closed, {name}!"),
    ("I am pleased to confirm that {name} received the {thing}.", "Yeah, {name} got the {thing}, awesome!"),
    ("Permit me to thank {name} for the {thing}.", "Thanks a lot for the {thing}, {name}!"),
    ("I do not know the {place}, {name}.", "Dunno the {place}, {name}."),
    ("Should you require the {thing}, please inform {name}.", "Need the {thing}? Just tell {name}, dude."),
)
#: How texts of either register begin and end.
GREETINGS = (("Dear Sir,", "Dear Madam,", "Dear {name},"), ("Hey dude,", "Yo,", "Hey {name},"))
CLOSINGS = (("Yours sincerely, {name}.", "With kind regards, {name}."), ("See ya, {name}!", "Cheers, {name}!"))
#: Openings that do not reveal the register.
OPENINGS = ("Message to {name}:", "A note for {name}:", "{name} wrote:", "Letter from {name}:", "{name} said to {other}:")
#: Openings, for texts of one register without its counterpart.
LABELS = ("formal", "informal")
_ALL = (*CONTENTS, *FURTHER)
_TEMPLATE = Template("register")


def sentence(random: np.random.Generator, formal: bool) -> str:
    """One sentence of a register."""
    wording = CONTENTS[random.integers(len(CONTENTS))][0 if formal else 1]
    return _filled(wording, random)


def pair(random: np.random.Generator, content: int) -> tuple[str, str]:
    """A content's formal and informal wording, with the same words in their slots."""
    words = _words(random)
    formal, informal = CONTENTS[content]
    return formal.format(**words), informal.format(**words)


def _filled(wording: str, random: np.random.Generator) -> str:
    return wording.format(**_words(random))


def _words(random: np.random.Generator) -> dict[str, str]:
    return {"name": str(random.choice(NAMES)), "place": str(random.choice(PLACES)), "thing": str(random.choice(OBJECTS))}


def examples(draw: Draw, split: Split = "test") -> Iterator[Example]:
    """Sentences labelled formal or informal; `answer` is the label's word, as `Style:` asks for it."""
    while True:
        formal = draw.random.random() < 0.5
        content = draw.one("template", _ALL, _name)
        words = {
            "name": draw.one("name", NAMES),
            "place": draw.one("place", PLACES),
            "thing": draw.one("object", OBJECTS),
        }
        wordings = [wording.format(**words) for wording in content]
        if not belongs(split, _TEMPLATE, wordings[0]):
            continue
        mine, other = wordings if formal else wordings[::-1]
        used = {"object" if slot == "thing" else slot: word for slot, word in words.items() if f"{{{slot}}}" in content[0]}
        yield Example(
            clean=f"{mine} Style:",
            answer=" formal" if formal else " informal",
            wrong=" informal" if formal else " formal",
            label="formal" if formal else "informal",
            meta={"template": _TEMPLATE.text, "entities": wordings[0], "other": other},
            units=units(template=_name(content), **used),
        )


def _name(content: tuple[str, str]) -> str:
    """A content's name: its formal wording."""
    return content[0]
