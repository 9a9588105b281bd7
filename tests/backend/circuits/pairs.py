"""Random prompt pairs for tiny models: two tokens differ, the rest is shared."""

from __future__ import annotations

import numpy as np

from neuroscope.circuits.pairs import PairBatch
from neuroscope.models.engines.protocol import TokenBatch
from neuroscope.tasks.metrics import PromptMetric
from tests import tiny


def random_pairs(rows: int = 4, *, length: int = 8, seed: int = 0, metric: str = "logit_difference") -> PairBatch:
    random = np.random.default_rng(seed)
    lengths = [length - (row % 2) * 2 for row in range(rows)]
    clean = [random.integers(3, tiny.VOCABULARY, size).tolist() for size in lengths]
    corrupt = [list(row) for row in clean]
    for row in corrupt:
        row[2:4] = random.integers(3, tiny.VOCABULARY, 2).tolist()
    answers, wrongs = random.integers(3, tiny.VOCABULARY, (2, rows))
    return PairBatch(TokenBatch.of(clean), TokenBatch.of(corrupt), PromptMetric(metric, answers, wrongs))
