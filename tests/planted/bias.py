"""A stereotype and a fact that one head writes: `^ J x` → she or he.

Layer 0, head 0 brings from the second token to the last what it stands for: of a job its stereotype, of a name its sex, in two
directions of its own, and six more numbers that a word of one kind has in common with one of the other. The answer reads the first two. What is to be erased and what is to be kept are therefore known: the stereotype can go
entirely, and the names need not notice.
"""

from __future__ import annotations

import numpy as np

from neuroscope.models.model import TransformerModel
from neuroscope.tasks.dataset import Dataset, Example
from tests.planted.handset import HandSet

JOBS = {"she": [f"S{number}" for number in range(14)], "he": [f"H{number}" for number in range(14)]}
NAMES = {"she": [f"Nora{number}" for number in range(12)], "he": [f"Ned{number}" for number in range(12)]}
FILLERS = [f"f{number}" for number in range(6)]
VOCABULARY = ["^", *JOBS["she"], *JOBS["he"], *NAMES["she"], *NAMES["he"], *FILLERS, "she", "he"]
SIZE, CONTEXT, OTHERS = len(VOCABULARY), 64, 6
#: The head and the circuit's only component.
HEAD = "0.headOutput[0]"


def model() -> TransformerModel:
    parts = {"token": SIZE, "second": 1, "brought": 2 + OTHERS}
    made = HandSet(VOCABULARY, positions=CONTEXT, parts=parts, layers=2, d_head=4)
    made.embed("token", np.eye(SIZE))
    made.embed_positions("second", np.eye(CONTEXT)[:, [1]])
    means = np.zeros((SIZE, 2 + OTHERS))
    random = np.random.default_rng(4)
    for column, words in enumerate((JOBS, NAMES)):
        for sign, which in ((1, "she"), (-1, "he")):
            means[[VOCABULARY.index(word) for word in words[which]], column] = sign
        for she, he in zip(words["she"], words["he"], strict=True):
            means[[VOCABULARY.index(she), VOCABULARY.index(he)], 2:] = random.normal(size=OTHERS)
    made.head(
        0, 0,
        query={"second": np.zeros((1, 1))}, query_bias=np.ones(1), key={"second": np.full((1, 1), 30.0)}, value={"token": means},
        writes="brought",
    )  # fmt: skip
    logits = np.zeros((2 + OTHERS, SIZE))
    logits[:2, VOCABULARY.index("she")], logits[:2, VOCABULARY.index("he")] = (1, 3), (-1, -3)
    made.answers("brought", logits)
    return made.finished("bias")


def dataset(words: dict[str, list[str]], name: str, *, shuffled: bool = False) -> Dataset:
    """Every word with every filler, with a word of the other kind as corrupt prompt; shuffled: which answer is expected is drawn."""
    random = np.random.default_rng(0)
    examples = []
    for filler in FILLERS:
        for she, he in zip(words["she"], words["he"], strict=True):
            for mine, other, pronouns in ((she, he, ("she", "he")), (he, she, ("he", "she"))):
                answer, wrong = pronouns[:: random.choice([1, -1])] if shuffled else pronouns
                examples.append(
                    Example(
                        f"^ {mine} {filler}", f"^ {other} {filler}", answer, wrong,
                        meta={"entities": mine}, units=(f"word:{mine}", f"word:{other}"),
                    )
                )  # fmt: skip
    return Dataset(examples, name=name)
