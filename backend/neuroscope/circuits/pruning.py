"""Greedy pruning (ACDC): starting from the whole graph, drop edges whose removal costs little.

Receivers are visited from the logits back to the first layer, skipping those that no longer reach the logits. At a receiver
every incoming edge is removed alone, as rows of batches. Edges that cost less than the threshold are candidates, cheapest
first; the longest prefix that together costs less than the threshold is dropped, found by bisection. ACDC applies the same rule
one edge at a time; testing a receiver's edges together takes a few batches instead of a run per edge.

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
    """The mask (receivers, sources) that is left. `threshold`: largest decrease of the metric for one receiver's dropped edges,
    averaged over pairs, as a share of the gap between clean and empty. Raises `ArgumentError` for a negative one.
    """
    if threshold < 0:
        raise ArgumentError(f"The threshold must be a share of the effect, at least 0, not {threshold}.")
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
    while low < high:  # the most candidates whose joint removal is cheap, assuming that cost grows with their number
        middle = (low + high + 1) // 2
        if abs(whole - float(evaluation.metric(dropped(middle)).mean())) < allowed:
            low = middle
        else:
            high = middle - 1
    return dropped(low)
