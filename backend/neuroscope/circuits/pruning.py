"""Greedy pruning (ACDC): from the whole graph, edge after edge is dropped whose removal costs the metric little.

Channels are visited from the logits back to the first layer, and none is visited that no longer reaches the logits. At a
channel every incoming edge is removed alone, all of them as rows of batches. Those that cost less than the threshold
are candidates, cheapest first; of these the longest prefix is dropped that together costs less than the threshold too,
found by bisection. ACDC drops one edge at a time with the same rule; testing a channel's edges together asks the same
question of the same circuit with a few batches instead of a run per edge.

Source: Conmy et al. 2023, "Towards Automated Circuit Discovery for Mechanistic Interpretability".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.circuits.masked import MaskedModel, Removal
from neuroscope.engines.protocol import BoolArray
from neuroscope.errors import ArgumentError


def greedy_circuit(masked: MaskedModel, threshold: float) -> BoolArray:
    """The mask (channels, sources) that is left. `threshold`: the fall of the metric, averaged over pairs and as a share of
    the gap between clean and empty, that one channel's dropped edges may cost. Raises `ArgumentError` for a negative one.
    """
    if threshold < 0:
        raise ArgumentError(f"The threshold is a share of the effect, at least 0, not {threshold}.")
    graph = masked.graph
    allowed = threshold * abs(float((masked.clean - masked.empty).mean()))
    mask = graph.pruned(graph.valid)
    with events.progress("pruning greedily", total=graph.channels, unit="channels") as job:
        for channel in reversed(range(graph.channels)):
            sources = np.flatnonzero(mask[channel])
            if len(sources):
                mask = _without_cheap(masked, mask, channel, sources, allowed)
            job.advance()
    return mask


def _without_cheap(masked: MaskedModel, mask: BoolArray, channel: int, sources: NDArray[np.int64], allowed: float) -> BoolArray:
    whole = float(masked.metric(mask).mean())
    alone = masked.removals(mask, [Removal(channel, int(source)) for source in sources])
    costs = np.abs(whole - alone.mean(1))
    order = [int(source) for source in sources[np.argsort(costs, kind="stable")]]
    cheap = int((costs < allowed).sum())

    def dropped(count: int) -> BoolArray:
        smaller = mask.copy()
        smaller[channel, order[:count]] = False
        return masked.graph.pruned(smaller)

    low, high = 0, cheap
    while low < high:  # the most candidates whose joint removal is still cheap, taking cost to grow with their number
        middle = (low + high + 1) // 2
        if abs(whole - float(masked.metric(dropped(middle)).mean())) < allowed:
            low = middle
        else:
            high = middle - 1
    return dropped(low)
