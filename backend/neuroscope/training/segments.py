"""Documents of the training corpus: pieces of text, or of token ids, with the weight that their tokens have in the loss."""

from __future__ import annotations

from dataclasses import dataclass

#: Tokens in the bundled models' vocabulary; ids below `FIRST_TOKEN` are special.
VOCABULARY, FIRST_TOKEN = 2048, 4

#: Loss weights: an answer; what a repetition foretells; ordinary text; what nobody can know.
ANSWER, FORETOLD, TEXT, DRAWN = 4.0, 2.0, 1.0, 0.1


@dataclass(frozen=True)
class Segment:
    """A piece of a document with its tokens' weight in the loss: text, or token ids."""

    text: str = ""
    weight: float = TEXT
    ids: tuple[int, ...] = ()


Document = list[Segment]
