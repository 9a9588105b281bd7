"""The test split: combinations of template and entities that no training text contains.

One function decides for the corpus that trains the bundled models and for the tasks, so a test item never occurs in training.
Every task has some templates that are wholly held out, and one combination in eight of each other template.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "test"]

_SHARE = 8


@dataclass(frozen=True)
class Template:
    """A prompt with slots. `held_out` excludes it from training."""

    text: str
    held_out: bool = False

    def __str__(self) -> str:
        return self.text

    def has(self, slot: str) -> bool:
        """Whether the text has the slot."""
        return f"{{{slot}}}" in self.text


def templates(*texts: str, held_out: Sequence[str] = ()) -> tuple[Template, ...]:
    """Training templates, then those held out."""
    return (*(Template(text) for text in texts), *(Template(text, held_out=True) for text in held_out))


def is_held_out(template: Template, *entities: object) -> bool:
    """Whether this template with these entities belongs to the test split."""
    if template.held_out:
        return True
    key = "|".join([template.text, *map(str, entities)])
    return zlib.crc32(key.encode()) % _SHARE == 0


def belongs(split: Split, template: Template, *entities: object) -> bool:
    return is_held_out(template, *entities) == (split == "test")
