"""Random sequences repeated once: heads' attention on them, and pairs of prompts.

On tokens 0 … n − 1 and their repetition, a head's scores are its mean attention in the second half:
    previous-token   from token i to i − 1
    duplicate-token  from token i to i − n, the same token before
    induction        from token i to i − n + 1, the token after the same token before (Olsson et al. 2022)
These describe attention. The heads' effects are measured on pairs: the repetition stops at a token A; the answer is B, which
followed A the first time, against another token of the first half. The corrupt prompt replaces the first A by another token, so
only the path A → (attention to the previous token) → key of the second A → B distinguishes the two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines.protocol import Engine, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.tasks.metrics import PromptMetric
from neuroscope.tasks.pairs import PairBatch

_ROWS = 8
_LENGTH = 20
_PAIR_LENGTH = 12
#: Least score of a head of such a kind.
REPEAT_THRESHOLD = 0.25

#: (heads,) of every layer, by kind of head.
RepeatScores = dict[str, dict[int, NDArray[np.float64]]]


def repeat_scores(engine: Engine, layers: list[int], seed: int) -> RepeatScores:
    """Scores of the heads of some layers as previous-token, duplicate-token and induction heads."""
    random = np.random.default_rng(seed)
    length = _length(engine)
    once = random.integers(0, engine.anatomy.vocabulary, (_ROWS, length))
    batch = TokenBatch.of(np.concatenate([once, once], axis=1).tolist())
    sites = [Site(layer, Component.ATTENTION_PATTERN) for layer in layers]
    run = engine.forward(batch, capture=sites, logits=None, stop=max(layers) + 1)
    offsets = {"previous-token": 1, "duplicate-token": length, "induction": length - 1}
    found: RepeatScores = {name: {} for name in offsets}
    for layer, site in zip(layers, sites, strict=True):
        pattern = engine.ops.to_numpy(run[site]).astype(np.float64)
        for name, offset in offsets.items():
            # Only in the second half do all three offsets exist and differ.
            queries = np.arange(length, 2 * length)
            found[name][layer] = pattern[:, :, queries, queries - offset].mean((0, 2))
    return found


def uniform_score(engine: Engine) -> float:
    """The score of uniform attention on repeats."""
    length = _length(engine)
    return float((1 / np.arange(length + 1, 2 * length + 1)).mean())


def repeat_pairs(engine: Engine, rows: int, seed: int) -> PairBatch | None:
    """The pairs that the module's docstring describes; None if vocabulary or context are too small for them."""
    random = np.random.default_rng(seed)
    length = min(_PAIR_LENGTH, _length(engine), engine.anatomy.vocabulary - 1)
    if length < 4:
        return None
    clean, corrupt, answers, wrongs = [], [], [], []
    for _ in range(rows):
        *once, other = random.choice(engine.anatomy.vocabulary, length + 1, replace=False).tolist()
        # Late, so that clean and corrupt prompts share most of the first half as a prefix.
        at = int(random.integers(min(3 * length // 4, length - 2), length - 1))
        clean.append([*once, *once[: at + 1]])
        corrupt.append([*once[:at], other, *once[at + 1 :], *once[: at + 1]])
        answers.append(once[at + 1])
        wrongs.append(once[int(random.choice([index for index in range(length) if index not in (at, at + 1)]))])
    return PairBatch(
        TokenBatch.of(clean),
        TokenBatch.of(corrupt),
        PromptMetric("logit_difference", np.array(answers, dtype=np.int64), np.array(wrongs, dtype=np.int64)),
    )


def _length(engine: Engine) -> int:
    return min(_LENGTH, (engine.anatomy.context or 2 * _LENGTH) // 2)
