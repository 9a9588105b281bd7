"""Induction: a previous-token head, and a head that looks for where the current token was (Olsson et al. 2022).

Layer 0, head 0 looks at the position before and writes the token there into "previous"; layer 1, head 0 looks to where
"previous" is the current token, and writes the token there into "answer". `… A B … A` → B; in the corrupt prompt another
token stands in place of the first A. Only that token differs, so the whole effect runs along three edges.
"""

from __future__ import annotations

import numpy as np

from neuroscope.tasks.dataset import Example
from tests.planted.circuit import Planted
from tests.planted.handset import HandSet, draw

WORDS = [f"w{number}" for number in range(24)]
LENGTH = 8


def planted(n: int = 60, *, seed: int = 0) -> Planted:
    size = len(WORDS)
    parts = {"token": size, "position": LENGTH, "previous": size, "answer": size}
    made = HandSet(WORDS, positions=LENGTH, parts=parts, d_head=size)
    one = np.eye(size)
    made.embed("token", one)
    made.embed_positions("position", np.eye(LENGTH))
    before = {"query": {"position": 6 * np.eye(LENGTH, k=-1)}, "key": {"position": np.eye(LENGTH)}}
    made.head(0, 0, **before, value={"token": one}, writes="previous")
    made.head(1, 0, query={"token": 5 * one}, key={"previous": one}, value={"token": one}, writes="answer")
    made.answers("answer", 8 * one)
    random = np.random.default_rng(seed)
    examples = []
    for _ in range(n):
        a, b, c, d, e, f, g, h = draw(random, WORDS, 8)
        examples.append(Example(f"{c} {d} {a} {b} {e} {g} {a}", f"{c} {d} {f} {b} {e} {g} {a}", answer=b, wrong=h))
    edges = {("embedding", "0.value[0]"), ("0.headOutput[0]", "1.key[0]"), ("1.headOutput[0]", "logits")}
    return Planted("induction", made.finished("induction"), examples, frozenset(edges))
