"""Induction examples in words that the tiny tokenizer and the handmade models know."""

from __future__ import annotations

import numpy as np

from neuroscope.models.model import TransformerModel
from neuroscope.tasks.dataset import Example
from tests import tiny
from tests.backend.circuits.handmade import induction_model


def induction_examples(count: int, *, seed: int = 0) -> list[Example]:
    """`… A B … A` → B; in the corrupt prompt another word stands in place of the first A."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        a, b, c, d, e, f = (f"w{token}" for token in random.permutation(np.arange(3, 10))[:6])
        found.append(Example(f"{c} {a} {b} {d} {e} {a}", f"{c} {f} {b} {d} {e} {a}", answer=b, wrong=d))
    return found


def handmade(*, distractor: bool = False) -> TransformerModel:
    """The handmade induction model with a tokenizer."""
    return TransformerModel(induction_model(distractor=distractor), tiny.tokenizer(), "induction by hand", "handmade")
