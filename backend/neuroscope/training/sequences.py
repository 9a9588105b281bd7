"""Random sequences that repeat: what induction heads and duplicate-token heads are for (Olsson et al. 2022).

Tokens are drawn from the whole vocabulary, as NeuroScope draws them when it looks for such heads, so that what is learned is
to look back, not the words. Only what the text itself foretells weighs in the loss.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neuroscope.tasks.induction import WORDS
from neuroscope.training.segments import DRAWN, FIRST_TOKEN, FORETOLD, VOCABULARY, Document, Segment

AGAIN, NEW = " again", ","


def repeats(random: np.random.Generator) -> Iterator[Document]:
    """A random sequence and the same once more: at once, after something between, or in pieces."""
    while True:
        form = random.random()
        if form < 0.5:
            ids = _ids(random, int(random.integers(30, 100) if random.random() < 0.15 else random.integers(6, 31)))
            document = [Segment(ids=ids, weight=DRAWN), *_copy(ids)]
            if random.random() < 0.3:
                document += _copy(ids[: int(random.integers(2, len(ids) + 1))])
        elif form < 0.8:
            before, ids, between = (_ids(random, int(random.integers(*ends))) for ends in ((1, 11), (5, 21), (1, 9)))
            document = [Segment(ids=before + ids + between, weight=DRAWN), *_copy(ids)]
        else:
            ids = _ids(random, int(random.integers(10, 31)))
            document = [Segment(ids=ids, weight=DRAWN)]
            for _ in range(int(random.integers(3, 7))):
                first, size = int(random.integers(len(ids) - 2)), int(random.integers(3, 9))
                document += _copy(ids[first : first + size])
        yield document


def marked(random: np.random.Generator) -> Iterator[Document]:
    """A list whose every item is followed by whether it stood in the list before: "ring, key, ring again, book,"."""
    while True:
        items: list[str | int] = []
        document: Document = []
        words = random.random() < 0.4
        for _ in range(int(random.integers(8, 21))):
            known = bool(items) and random.random() < 0.4
            if known:
                item = items[int(random.integers(len(items)))]
            else:
                item = f" {WORDS[random.integers(len(WORDS))]}" if words else _ids(random, 1)[0]
                known = item in items
            items.append(item)
            document.append(Segment(item, DRAWN) if isinstance(item, str) else Segment(ids=(item,), weight=DRAWN))
            if known:
                document.append(Segment(AGAIN, FORETOLD))
            document.append(Segment(NEW, DRAWN if known else FORETOLD))
        yield document


def _ids(random: np.random.Generator, size: int) -> tuple[int, ...]:
    """Token ids of which few repeat; in a third of the cases from a small part of the vocabulary."""
    if random.random() < 1 / 3:
        among = random.integers(FIRST_TOKEN, VOCABULARY, 3 * size)
        return tuple(int(token) for token in random.choice(among, size))
    return tuple(int(token) for token in random.integers(FIRST_TOKEN, VOCABULARY, size))


def _copy(ids: tuple[int, ...]) -> Document:
    """What is repeated: its first token nobody could foretell."""
    return [Segment(ids=ids[:1], weight=DRAWN), Segment(ids=ids[1:], weight=FORETOLD)]
