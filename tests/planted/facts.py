"""A fact in one MLP (after Meng et al. 2022): `… S r` → the object of S.

The MLP of layer 1 has a neuron for every subject and writes its object where the subject stands; layer 2, head 0 looks from
the last token at the subject and brings the object. In the corrupt prompt another subject stands there.
"""

from __future__ import annotations

import numpy as np

from neuroscope.tasks.dataset import Example
from tests.planted.circuit import Planted
from tests.planted.handset import HandSet, draw

SUBJECTS = [f"S{number}" for number in range(12)]
OBJECTS = [f"O{number}" for number in range(12)]
FILLERS = [f"f{number}" for number in range(16)]
VOCABULARY = ["^", *SUBJECTS, *OBJECTS, *FILLERS]
LENGTH = 7


def planted(n: int = 60, *, seed: int = 0) -> Planted:
    size, count = len(VOCABULARY), len(SUBJECTS)
    parts = {"token": size, "object": count, "answer": count}
    made = HandSet(VOCABULARY, positions=LENGTH, parts=parts, d_head=size)
    one = np.eye(size)
    made.embed("token", one)
    is_subject = one[:, 1 : 1 + count]
    made.neurons(1, read={"token": 4 * is_subject}, bias=-np.full(count, 1.0), writes="object", out=np.eye(count) / 3)
    made.head(
        2, 0,
        query={"token": np.zeros((size, 1))}, query_bias=np.ones(1), key={"token": 6 * is_subject.sum(1, keepdims=True)},
        value={"object": np.eye(count)}, writes="answer",
    )  # fmt: skip
    made.answers("answer", 8 * one[1 + count : 1 + 2 * count])
    random = np.random.default_rng(seed)
    examples = []
    for _ in range(n):
        (s, t), fillers = random.permutation(count)[:2], draw(random, FILLERS, LENGTH - 2)
        place = int(random.integers(0, LENGTH - 2))
        clean, corrupt = ([*fillers] for _ in range(2))
        clean[place], corrupt[place] = SUBJECTS[s], SUBJECTS[t]
        examples.append(Example(f"^ {' '.join(clean)}", f"^ {' '.join(corrupt)}", answer=OBJECTS[s], wrong=OBJECTS[t]))
    edges = {("embedding", "1.mlpInput"), ("1.mlpOutput", "2.value[0]"), ("2.headOutput[0]", "logits")}
    return Planted("fact in one MLP", made.finished("fact in one MLP"), examples, frozenset(edges))
