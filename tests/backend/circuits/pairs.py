"""Random prompt pairs for tiny models: two tokens differ, the rest is shared."""

from __future__ import annotations

import numpy as np

from neuroscope.circuits.finder import PairParts
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.engines.protocol import TokenBatch
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.metrics import PromptMetric
from neuroscope.tasks.pairs import PairBatch
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


def in_parts(pairs: PairBatch) -> PairParts:
    """The rows in three parts, a third each: nothing is known that they share."""
    third = pairs.rows // 3
    return PairParts(*(pairs.take(slice(part * third, (part + 1) * third)) for part in range(3)))


def pairs_with_an_effect(model: TransformerModel, rows: int = 30, *, seed: int = 0) -> PairParts:
    """Random pairs of a random model, right and wrong answer exchanged where the gap is negative: there is something to find."""
    pairs = random_pairs(rows, seed=seed)
    runs = PairRuns(model.engine, pairs)
    swapped = runs.clean.metric < runs.corrupt.metric
    answers, wrongs = pairs.metric.answers, pairs.metric.wrongs
    metric = PromptMetric(pairs.metric.name, np.where(swapped, wrongs, answers), np.where(swapped, answers, wrongs))
    return in_parts(PairBatch(pairs.clean, pairs.corrupt, metric))
