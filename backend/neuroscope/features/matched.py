"""Random sets of neurons as controls of an ablated set: of its layer, with similar firing rate and norm.

Informative neurons are often larger than others, and ablating large neurons costs more, whatever they encode. So each neuron of
a set is replaced by one of those nearest to it in firing rate and in the norm of its output, both as ranks in the layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroscope.models.model import TransformerModel

#: Share of the layer that counts as near.
_NEAR = 0.05
_RETRIES = 20


@dataclass(frozen=True)
class Loudness:
    """Magnitudes of a layer's neurons on some tokens. rate: the share of tokens at which a neuron's magnitude exceeds the
    layer's median magnitude. norm: root mean square of its activation times the norm of its output weights. Both (neurons,).
    """

    rate: NDArray[np.float64]
    norm: NDArray[np.float64]

    @classmethod
    def of(cls, model: TransformerModel, layer: int, activations: NDArray[np.float32]) -> Loudness:
        """From activations (tokens, neurons)."""
        magnitude = np.abs(activations)
        rate = (magnitude > np.median(magnitude)).mean(0)
        return cls(rate, np.sqrt((magnitude.astype(np.float64) ** 2).mean(0)) * output_norms(model, layer))

    def ranks(self) -> NDArray[np.float64]:
        """Both as ranks in the layer, from 0 to 1: (neurons, 2)."""
        from scipy import stats

        both = np.stack([self.rate, self.norm], axis=1)
        return np.asarray(stats.rankdata(both, axis=0) / len(both))


def output_norms(model: TransformerModel, layer: int) -> NDArray[np.float64]:
    """The norm of each neuron's output weights (neurons,)."""
    experts = model.architecture.experts
    names = [f"{layer}.mlp.experts[{expert}].W_out" for expert in range(experts)] if experts else [f"{layer}.mlp.W_out"]
    return np.concatenate([np.linalg.norm(model.weights(name).read().astype(np.float64), axis=1) for name in names])


def matched_sets(loudness: Loudness, neurons: Sequence[int], count: int, random: np.random.Generator) -> list[list[int]]:
    """Up to `count` different sets of other neurons of the layer."""
    ranks, size = loudness.ranks(), len(neurons)
    others = np.setdiff1d(np.arange(len(ranks)), neurons)
    count = min(count, math.comb(len(others), size))
    near = max(round(_NEAR * len(others)), math.ceil(count / size), size)
    distance = np.linalg.norm(ranks[neurons][:, None] - ranks[others][None], axis=2)
    nearest = others[np.argsort(distance, axis=1, kind="stable")]
    found: dict[tuple[int, ...], None] = {}
    for _ in range(_RETRIES * count):
        if len(found) == count:
            break
        found.setdefault(tuple(sorted(_drawn(nearest, near, random))))
    return [list(each) for each in found]


def _drawn(nearest: NDArray[np.int64], near: int, random: np.random.Generator) -> set[int]:
    """One near neuron for each of the set's, all different, chosen in random order."""
    taken: set[int] = set()
    for row in random.permutation(len(nearest)):
        left = [int(each) for each in nearest[row] if int(each) not in taken]
        taken.add(left[int(random.integers(min(near, len(left))))])
    return taken
