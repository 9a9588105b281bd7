"""Free texts of the training corpus: letters, reviews, stories and explanations.

Each keeps to what it began with: a letter to its register, a review to its sentiment, a story to its person and tense. The
openings tell nothing of that, so that what follows is the model's own choice, which a steering vector can move.
"""

from __future__ import annotations

import numpy as np

from neuroscope.tasks import formality
from neuroscope.tasks.lexicon import ASPECTS, BAD, COUNTRIES, GOOD, MEN, NAMES, OBJECTS, PEOPLE, PLACES, REVIEWED, THINGS, WOMEN

#: What a relation's object is called, and phrases that ask for it; both go into frames.
_FACT_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "capital": (("capital", "capital city"), ("the capital is", "the capital city is", "the main city is")),
    "language": (("language",), ("the language is", "people speak", "most people speak", "children learn to speak")),
    "continent": (("continent",), ("the continent is", "people live in", "you are in")),
    "currency": (("currency",), ("the currency is the", "you pay with the", "people pay with the", "shops take the")),
}
_FACT_PLACES = ("In {c},", "In the country {c},", "Here in {c},", "Over in {c},", "As for {c}: there")
_FACT_FRAMES = (
    "The {noun} of {c} is",
    "The {noun} of the country {c} is",
    "We know that the {noun} of {c} is",
    "Q: What is the {noun} of {c}? A:",
    "Q: What is the {noun} of the country {c}? A:",
    "Q: In {c}, what is the {noun}? A:",
    "Q: In the country {c}, what is the {noun}? A:",
    "Q: Tell me the {noun} of {c}. A:",
)

_REVIEW_OPENINGS = ("I saw the {work}, and I think that", "About the {work} at the {place}:", "{name} and I saw the {work}:")
_VERDICTS = (
    ("I loved it.", "I want to see it again.", "Everyone was happy.", "Go and see it!", "It made my day."),
    ("I hated it.", "I never want to see it again.", "Everyone was sad.", "Stay at home!", "It was a waste of time."),
)
#: A story's steps; each has several wordings.
_STORY = (
    (
        "Once upon a time there was a {adjective} {person} named {name}.",
        "Once there was a {person} whose name was {name}.",
        "Long ago a {adjective} {person} named {name} lived near the {place}.",
    ),
    (
        "{Pronoun} lived in a small house near the {place}.",
        "Every day {pronoun} walked to the {place} and looked at the {thing}.",
        "{Pronoun} had an old {thing} and a {adjective} friend named {other}.",
    ),
    (
        "One day {name} found a {item} behind the {thing}.",
        "One morning {other} gave a {item} to {name}.",
        "One night {name} lost a {item} at the {goal}.",
    ),
    (
        "Nobody knew where the {item} came from.",
        "{Pronoun} took the {item} and went to the {goal}.",
        "{Pronoun} asked {other} about the {item}.",
    ),
    (
        "At the {goal} {pronoun} met {other}, and they talked all night.",
        "It rained all night, and {name} waited at the {goal} with {other}.",
        "Then {other} opened the {item}, and there was a letter in it.",
    ),
    (
        "In the end {name} smiled, took the {item}, and went home.",
        "At last {name} and {other} were friends, and they kept the {item}.",
        "From that day on {name} was happy.",
    ),
    ("The end.",),
)
#: What can be explained: how it is named in a question, and sentences in order; those after the first may be missing.
_TOPICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "transformers": (
        "a transformer",
        (
            "A transformer is a model that reads a text and predicts the next word.",
            "It splits the text into tokens and turns every token into a vector.",
            "In each layer, attention lets a token look at the tokens before it.",
            "Then the neurons of the layer add what they know.",
            "Every layer writes into the residual stream.",
            "At the end the model reads the stream and predicts the next token.",
        ),
    ),
    "attention": (
        "attention",
        (
            "Attention is how a token looks at the tokens before it.",
            "Each head asks a question and compares it with a key of every token.",
            "What fits best is copied to the place that asked.",
            "Some heads look at the same word before, and some at the word after it.",
        ),
    ),
    "neurons": (
        "a neuron",
        (
            "A neuron is a small part of a layer.",
            "It reads the residual stream and fires when it finds what it looks for.",
            "Then it writes a vector back into the stream.",
            "One neuron can stand for many things.",
        ),
    ),
    "circuits": (
        "a circuit",
        (
            "A circuit is a small part of a model that does one task.",
            "It is made of heads and layers, and of the edges between them.",
            "We find it by changing one part and looking at what the model predicts.",
            "A good circuit does the task alone, and without it the model cannot.",
        ),
    ),
    "steering": (
        "steering",
        (
            "Steering is adding a vector to the residual stream while the model writes.",
            "The vector points from texts of one kind to texts of another kind.",
            "With more of it, the model writes more texts of that kind.",
        ),
    ),
    "tokens": (
        "a token",
        (
            "A token is a piece of a text, often a word.",
            "The model reads one token after another.",
            "Every token has its own vector.",
        ),
    ),
}
_ASKED = ("Explain {topic}", "Explain {topic}.", "Tell me about {topic}.", "What is {one}?", "Explain {topic} to {name}.")
_MENTIONS = (
    "Yesterday I read something about {word}",
    "Everyone was talking about {word}",
    "There was a picture of {word}",
    "She wrote a long letter about {word}",
    "We never heard of {word}",
)
STORY_REQUESTS = (
    "Write a story",
    "Tell me a story",
    "Write a story.",
    "Tell me a story.",
    "Write a short story about {name}.",
    "Tell me a story about a {person}.",
)
LETTER_REQUESTS = ("Write a letter to {name}.", "Write a message to {name}.", "Write a note for {name}.", "Write to {name}.")


def words(random: np.random.Generator) -> dict[str, str]:
    """A word for every slot of the texts here."""
    female = random.random() < 0.5
    return {
        "name": str(random.choice(WOMEN if female else MEN)),
        "other": str(random.choice(MEN if female else WOMEN)),
        "pronoun": "she" if female else "he",
        "Pronoun": "She" if female else "He",
        "place": str(random.choice(PLACES)),
        "goal": str(random.choice(PLACES)),
        "item": str(random.choice(OBJECTS)),
        "thing": THINGS[random.integers(len(THINGS))].singular,
        "person": PEOPLE[random.integers(len(PEOPLE))].singular,
        "adjective": str(random.choice(GOOD)),
    }


def line(random: np.random.Generator, formal: bool) -> str:
    """A sentence of one register."""
    among = (*formality.CONTENTS, *formality.FURTHER)
    wording = among[random.integers(len(among))][0 if formal else 1]
    slots = {"name": str(random.choice(NAMES)), "place": str(random.choice(PLACES)), "thing": str(random.choice(OBJECTS))}
    return wording.format(**slots)


def letter(random: np.random.Generator, formal: bool, greeted: bool) -> str:
    """Two to five sentences of one register; a greeting and a closing of the same where `greeted`."""
    kind = 0 if formal else 1
    lines = [line(random, formal) for _ in range(int(random.integers(2, 6)))]
    if greeted:
        lines.insert(0, str(random.choice(formality.GREETINGS[kind])).format(name=random.choice(NAMES)))
        lines.append(str(random.choice(formality.CLOSINGS[kind])).format(name=random.choice(NAMES)))
    return " ".join(lines)


def letter_opening(random: np.random.Generator) -> str:
    """The beginning of a letter that tells nothing of its register."""
    name, other = (str(name) for name in random.choice(NAMES, 2, replace=False))
    return str(random.choice(formality.OPENINGS)).format(name=name, other=other)


def review(random: np.random.Generator, positive: bool) -> tuple[str, str]:
    """The opening of a review, and how it goes on: everything in it has the same sentiment."""
    slots = {"work": str(random.choice(REVIEWED)), "place": str(random.choice(PLACES)), "name": str(random.choice(NAMES))}
    among = GOOD if positive else BAD
    aspects = [str(aspect) for aspect in random.choice(ASPECTS, 4, replace=False)]
    said = [str(word) for word in random.choice(among, 4, replace=False)]
    opening = str(random.choice(_REVIEW_OPENINGS)).format(**slots)
    lines = [f"the {aspects[0]} was {said[0]}."]
    if random.random() < 0.6:
        lines.append(f"The {aspects[1]} was {said[1]}, and so was the {aspects[2]}.")
    if random.random() < 0.4:
        lines.append(f"Everyone says that it was {said[3]}.")
    lines.append(str(random.choice(_VERDICTS[0 if positive else 1])))
    return opening, " ".join(lines)


def story(random: np.random.Generator, slots: dict[str, str]) -> str:
    """A short story in the past tense about one person."""
    steps = [step for index, step in enumerate(_STORY) if index in (0, 2, 5, 6) or random.random() < 0.8]
    return " ".join(str(random.choice(step)).format(**slots) for step in steps)


def explanation(random: np.random.Generator) -> tuple[str, str]:
    """A question about how language models work, and its answer."""
    topic = str(random.choice(list(_TOPICS), p=_topic_shares()))
    one, sentences = _TOPICS[topic]
    asked = str(random.choice(_ASKED)).format(topic=topic, one=one, name=random.choice(NAMES))
    return asked, " ".join([sentences[0], *(sentence for sentence in sentences[1:] if random.random() < 0.9)])


def mention(random: np.random.Generator) -> tuple[str, str]:
    """A sentence that mentions something, and what kind of thing it is."""
    carrier = str(random.choice(_MENTIONS))
    kind = int(random.integers(4))
    if kind == 1:
        female = random.random() < 0.5
        name = str(random.choice(WOMEN if female else MEN))
        return f"{carrier.format(word=name)}. {'She' if female else 'He'} is a", "person"
    among = ([country.name for country in COUNTRIES], [], PLACES, OBJECTS)[kind]
    return f"{carrier.format(word=random.choice(among))}. It is a", ("country", "", "place", "thing")[kind]


def _topic_shares() -> list[float]:
    """Transformers half of the time."""
    return [0.5 if topic == "transformers" else 0.5 / (len(_TOPICS) - 1) for topic in _TOPICS]


def fact_wordings(relation: str) -> list[str]:
    """Every frame with every word of a relation; `{c}` is the country."""
    nouns, phrases = _FACT_WORDS[relation]
    article = " the" if relation == "currency" else ""
    told = [f"{place} {phrase}" for place in _FACT_PLACES for phrase in phrases]
    return told + [frame.replace("{noun}", noun) + article for frame in _FACT_FRAMES for noun in nouns]
