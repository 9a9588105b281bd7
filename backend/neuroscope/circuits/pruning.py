"""Greedy pruning (ACDC): from the whole graph, edge after edge is dropped whose removal costs the metric little.

Receivers are visited from the logits back to the first layer, and none is visited that no longer reaches the logits. At a
receiver every incoming edge is removed alone, all of them as rows of batches. Those that cost less than the threshold
are candidates, cheapest first; of these the longest prefix is dropped that together costs less than the threshold too,
found by bisection. ACDC drops one edge at a time with the same rule; testing a receiver's edges together asks the same
question of the same circuit with a few batches instead of a run per edge.

Source: Conmy et al. 2023, "Towards Automated Circuit Discovery for Mechanistic Interpretability".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.circuits.evaluation import CircuitEvaluation, Removal
from neuroscope.engines.protocol import BoolArray
from neuroscope.errors import ArgumentError


def greedy_circuit(evaluation: CircuitEvaluation, threshold: float) -> BoolArray:
    """The mask (receivers, sources) that is left. `threshold`: the fall of the metric, averaged over pairs and as a share of
    the gap between clean and empty, that one receiver's dropped edges may cost. Raises `ArgumentError` for a negative one.
    """
    if threshold < 0:
        raise ArgumentError(f"The threshold is a share of the effect, at least 0, not {threshold}.")
    graph = evaluation.graph
    allowed = threshold * abs(float((evaluation.clean - evaluation.empty).mean()))
    mask = graph.pruned(graph.valid)
    with events.progress("pruning greedily", total=graph.receivers, unit="receivers") as job:
        for receiver in reversed(range(graph.receivers)):
            sources = np.flatnonzero(mask[receiver])
            if len(sources):
                mask = _without_cheap(evaluation, mask, receiver, sources, allowed)
            job.advance()
    return mask


def _without_cheap(
    evaluation: CircuitEvaluation, mask: BoolArray, receiver: int, sources: NDArray[np.int64], allowed: float
) -> BoolArray:
    whole = float(evaluation.metric(mask).mean())
    alone = evaluation.removals(mask, [Removal(receiver, int(source)) for source in sources])
    costs = np.abs(whole - alone.mean(1))
    order = [int(source) for source in sources[np.argsort(costs, kind="stable")]]
    cheap = int((costs < allowed).sum())

    def dropped(count: int) -> BoolArray:
        smaller = mask.copy()
        smaller[receiver, order[:count]] = False
        return evaluation.graph.pruned(smaller)

    low, high = 0, cheap
    while low < high:  # the most candidates whose joint removal is still cheap, taking cost to grow with their number
        middle = (low + high + 1) // 2
        if abs(whole - float(evaluation.metric(dropped(middle)).mean())) < allowed:
            low = middle
        else:
            high = middle - 1
    return dropped(low)
