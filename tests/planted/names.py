"""The indirect object, with a head that works against the answer (after Wang et al. 2022).

`^ A x B y A z` → B. Layer 0, head 0: the second A looks for the first and writes where it stands; layer 1, head 0 brings that
to the last token; layer 2, heads 0 and 1 look there at the two names, except at the place they are brought, and write the
name: head 0 towards the logits (a name mover), head 1 with less weight against them (a negative name mover). Without the
negative one the circuit gives 1.46 of the model's difference: faithful by a mean that is only asked to be large enough.

In the corrupt prompt the name that repeats is the other one, so the answer turns round.
"""

from __future__ import annotations

import numpy as np

from neuroscope.tasks.dataset import Example
from tests.planted.circuit import Planted
from tests.planted.handset import HandSet, draw

NAMES = [f"N{number}" for number in range(12)]
FILLERS = [f"f{number}" for number in range(12)]
VOCABULARY = ["^", *NAMES, *FILLERS]
LENGTH, FIRST, SECOND, REPEATED = 7, 1, 3, 5
AGAINST = 0.3155


def planted(n: int = 60, *, seed: int = 0) -> Planted:
    size = len(VOCABULARY)
    parts = {"token": size, "position": LENGTH, "where": LENGTH, "brought": LENGTH, "answer": size}
    made = HandSet(VOCABULARY, positions=LENGTH, parts=parts, d_head=size + LENGTH)
    token, place = np.eye(size), np.eye(LENGTH)
    made.embed("token", token)
    made.embed_positions("position", np.eye(LENGTH))
    beside = np.zeros((LENGTH, 1))
    beside[REPEATED] = -20  # the repeated name does not look at itself
    made.head(
        0, 0,
        query={"token": np.c_[6 * token, np.zeros(size)]}, query_bias=np.r_[np.zeros(size), 1],
        key={"token": np.c_[token, np.zeros(size)], "position": np.c_[np.zeros((LENGTH, size)), beside]},
        value={"position": place}, writes="where",
    )  # fmt: skip
    last = np.zeros(LENGTH)
    last[REPEATED] = 8
    nothing = np.zeros((LENGTH, LENGTH))
    made.head(
        1, 0, query={"position": nothing}, query_bias=last, key={"position": place}, value={"where": place}, writes="brought"
    )
    names = np.zeros(LENGTH)
    names[[FIRST, SECOND]] = 7
    for head, gain in ((0, 1.0), (1, -AGAINST)):
        made.head(
            2, head,
            query={"brought": -4 * place}, query_bias=names, key={"position": place}, value={"token": token},
            writes="answer", gain=gain,
        )  # fmt: skip
    made.answers("answer", 8 * token)
    random = np.random.default_rng(seed)
    examples = []
    for index in range(n):
        (a, b), (x, y, z) = draw(random, NAMES, 2), draw(random, FILLERS, 3)
        repeated, other = (a, b) if index % 2 else (b, a)
        clean, corrupt = (f"^ {a} {x} {b} {y} {name} {z}" for name in (repeated, other))
        examples.append(Example(clean, corrupt, answer=other, wrong=repeated))
    edges = {
        ("embedding", "0.query[0]"),
        ("0.headOutput[0]", "1.value[0]"),
        *(("1.headOutput[0]", f"2.query[{head}]") for head in (0, 1)),
        *((f"2.headOutput[{head}]", "logits") for head in (0, 1)),
    }
    return Planted(
        "indirect object, negative mover", made.finished("indirect object, negative mover"), examples, frozenset(edges)
    )
