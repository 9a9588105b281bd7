"""OR and AND of two tokens that may stand anywhere in the prompt.

Layer 0, head 0 looks for P and writes a flag, head 1 for Q; where there is none they look at the first token. The MLP of
layer 1 is the gate. OR is saturated: one flag is enough, and at the clean prompt the gate is flat whatever is on, so that the
gradient there says nothing (`eap` is blind). Some clean prompts have only P, some only Q, some both, so both branches matter.

In `either_redundant` every clean prompt has both. Either branch is enough, so patching an edge of one alone does nothing
(`exact` is blind too), and a circuit that has only one of them is as faithful as the model, but not complete.

In `either_in_one_head` one head looks everywhere alike and writes how much of P and Q there is: three edges in a row.
"""

from __future__ import annotations

import numpy as np

from neuroscope.tasks.dataset import Example
from tests.planted.circuit import Planted
from tests.planted.handset import HandSet, draw

FILLERS = [f"f{number}" for number in range(16)]
VOCABULARY = ["^", "P", "Q", "?", "yes", "no", *FILLERS]
LENGTH = 8
_TWO_HEADS = {
    *((("embedding"), f"0.{kind}[{head}]") for kind in ("key", "value") for head in (0, 1)),
    *((f"0.headOutput[{head}]", "1.mlpInput") for head in (0, 1)),
    ("1.mlpOutput", "logits"),
}


def either(n: int = 60, *, seed: int = 0) -> Planted:
    made = _with_flags(looking=True)
    _clip(made, slope=8, low=2, high=6)
    examples = _examples(n, seed, [("PQ", ""), ("P", ""), ("Q", "")])
    return Planted("or", made.finished("or"), examples, frozenset(_TWO_HEADS), frozenset({"eap"}))


def either_redundant(n: int = 60, *, seed: int = 0) -> Planted:
    made = _with_flags(looking=True)
    _clip(made, slope=8, low=2, high=6)
    name, blind = "or, both on", frozenset({"eap", "exact"})
    return Planted(name, made.finished(name), _examples(n, seed, [("PQ", "")]), frozenset(_TWO_HEADS), blind, redundant=True)


def either_in_one_head(n: int = 60, *, seed: int = 0) -> Planted:
    made = _with_flags(looking=False)
    _clip(made, slope=8 * LENGTH, low=2, high=6)
    edges = {("embedding", "0.value[0]"), ("0.headOutput[0]", "1.mlpInput"), ("1.mlpOutput", "logits")}
    examples = _examples(n, seed, [("PQ", ""), ("P", ""), ("Q", "")])
    return Planted("or in one head", made.finished("or in one head"), examples, frozenset(edges), frozenset({"eap"}))


def both(n: int = 60, *, seed: int = 0) -> Planted:
    made = _with_flags(looking=True)
    _clip(made, slope=8, low=10, high=None)
    examples = _examples(n, seed, [("PQ", ""), ("PQ", "P"), ("PQ", "Q")])
    return Planted("and", made.finished("and"), examples, frozenset(_TWO_HEADS))


def _token(name: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.eye(len(VOCABULARY))[:, [VOCABULARY.index(name)]]


def _with_flags(*, looking: bool) -> HandSet:
    made = HandSet(
        VOCABULARY, positions=LENGTH, parts={"token": len(VOCABULARY), "flag": 1, "answer": 1}, d_head=len(VOCABULARY)
    )
    made.embed("token", np.eye(len(VOCABULARY)))
    if looking:
        for head, name in enumerate("PQ"):
            key = {"token": 8 * _token(name) + 4 * _token("^")}
            made.head(
                0,
                head,
                query={"token": 0 * _token(name)},
                query_bias=np.ones(1),
                key=key,
                value={"token": _token(name)},
                writes="flag",
            )
    else:
        nothing = {"token": 0 * _token("P")}
        made.head(0, 0, query=nothing, key=nothing, value={"token": _token("P") + _token("Q")}, writes="flag")
    made.answers("answer", np.array([[{"yes": 4.0, "no": -4.0}.get(word, 0.0) for word in VOCABULARY]]))
    return made


def _clip(made: HandSet, *, slope: float, low: float, high: float | None) -> None:
    """answer = slope · flags between `low` and `high`, scaled so that it is 1 at the upper end."""
    bends = [low] if high is None else [low, high]
    size = 1 / ((high or 2 * slope) - low)
    out = np.array([[size], [-size]])[: len(bends)]
    made.neurons(1, read={"flag": np.full((1, len(bends)), slope)}, bias=-np.array(bends), writes="answer", out=out)


def _examples(n: int, seed: int, kinds: list[tuple[str, str]]) -> list[Example]:
    """`^ f P f Q f f ?`; kinds: which of P and Q the clean and the corrupt prompt have. Others stand in their places."""
    random = np.random.default_rng(seed)
    found = []
    for index in range(n):
        clean_has, corrupt_has = kinds[index % len(kinds)]
        fillers = draw(random, FILLERS, LENGTH)
        where = dict(zip("PQ", random.permutation(np.arange(1, LENGTH - 1))[:2], strict=True))
        texts = []
        for has in (clean_has, corrupt_has):
            prompt = ["^", *fillers[1 : LENGTH - 1], "?"]
            for name in has:
                prompt[int(where[name])] = name
            texts.append(" ".join(prompt))
        found.append(Example(texts[0], texts[1], answer="yes", wrong="no"))
    return found
