"""Judging a circuit on held-out pairs: completeness, minimality, controls, doubts.

completeness   after Wang et al. 2022: removing the same nodes K from the circuit C and from the whole model M should have the
               same effect, |F(C∖K) − F(M∖K)| = 0, for every K. Measured for K = ∅, for random K (every node with probability
               ½), and for a K grown greedily towards the largest difference. F is the metric as a share of the gap.
minimality     the share of the circuit's edges whose removal alone costs more than 1 % of the gap, with an interval that
               excludes zero.
controls       circuits of the same size: connected random ones, the circuit's nodes rewired, and degree-preserving swaps
               (`controls`).

The embedding and the first MLP carry every token's identity, so every circuit depends on them: they are the *extended
embedding*, and K never contains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroscope import events
from neuroscope.circuits.controls import CONTROLS
from neuroscope.circuits.curve import closeness
from neuroscope.circuits.estimates import normalised
from neuroscope.circuits.evaluation import CircuitEvaluation, Removal
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.pair_runs import Numbers
from neuroscope.engines.protocol import BoolArray
from neuroscope.tasks.statistics import Estimate, mean_of, ratio_of, wilson

#: Least share of the gap that the removal of a needed edge costs.
LEAST_COST = 0.01
#: A circuit with a larger share of the graph's edges gets a doubt.
LARGEST_SHARE = 0.25
_RANDOM_SUBSETS, _GREEDY_STEPS, _GREEDY_CANDIDATES = 5, 2, 3


@dataclass(frozen=True)
class Completeness:
    """`typical`: 1 − |F(C∖K) − F(M∖K)|, mean over K = ∅ and random K. `worst`: the smallest over all K tried."""

    typical: Estimate
    worst: float


@dataclass(frozen=True)
class Control:
    """Figures of one kind of control on the held-out pairs; n counts draws.

    as_close: the share of draws that are as close to the model, pair by pair, as the circuit.
    """

    kind: str
    faithfulness: Estimate
    closeness: Estimate
    as_close: Estimate


def extended_embedding(graph: Graph) -> frozenset[int]:
    """The sources that carry every token's identity: the embedding and the first MLP."""
    return frozenset({0, graph.mlp(0)})


def held_out_closeness(evaluation: CircuitEvaluation, mask: BoolArray) -> Estimate:
    """Closeness to the model pair by pair (`curve.closeness`) with its interval."""
    metric = evaluation.metric(mask)
    far = ratio_of(
        np.abs(metric - evaluation.clean), np.abs(evaluation.clean - evaluation.empty), evaluation.pairs.units or None
    )
    return Estimate(1 - far.value, 1 - far.high, 1 - far.low, far.n)


def completeness(evaluation: CircuitEvaluation, mask: BoolArray, *, seed: int) -> Completeness:
    """Compare the circuit with the model when both lose the same nodes."""
    graph, random = evaluation.graph, np.random.default_rng(seed)
    nodes = [node for node in graph.nodes(mask) if node not in extended_embedding(graph)]
    gap = float((evaluation.clean - evaluation.empty).mean())

    def differences(subsets: Sequence[Sequence[int]]) -> list[float]:
        masks = []
        for removed in subsets:
            kept = np.ones(graph.sources, dtype=np.bool_)
            kept[list(removed)] = False
            masks.append(mask & kept[None])
        circuit, model = evaluation.metrics(masks).mean(1), evaluation.without(subsets).mean(1)
        job.advance(len(subsets))
        return [float(value) for value in np.abs(circuit - model) / abs(gap)]

    steps = 1 + (_RANDOM_SUBSETS + _GREEDY_STEPS * _GREEDY_CANDIDATES if nodes else 0)
    with events.progress("testing completeness", total=steps, unit="subsets") as job:
        drawn = [[node for node in nodes if random.random() < 0.5] for _ in range(_RANDOM_SUBSETS if nodes else 0)]
        sampled = differences([[], *drawn])
        worst: list[float] = []
        grown: list[int] = []
        for _ in range(_GREEDY_STEPS if nodes else 0):
            tried = random.permutation([node for node in nodes if node not in grown])[:_GREEDY_CANDIDATES].tolist()
            if tried:
                found = differences([[*grown, node] for node in tried])
                grown.append(tried[int(np.argmax(found))])
                worst.append(max(found))
    return Completeness(mean_of(1 - np.array(sampled)), 1 - max([*sampled, *worst]))


def minimality(evaluation: CircuitEvaluation, mask: BoolArray, sample: int, *, seed: int) -> Estimate:
    """The share of a sample of edges whose removal alone costs more than `LEAST_COST` of the gap, beyond its error."""
    edges = np.argwhere(mask)
    random = np.random.default_rng(seed)
    if len(edges) > sample:
        edges = edges[random.choice(len(edges), sample, replace=False)]
    falls: Numbers = evaluation.metric(mask) - evaluation.removals(mask, [Removal(int(c), int(s)) for c, s in edges])
    least = LEAST_COST * float((evaluation.clean - evaluation.empty).mean())
    costs = [mean_of(fall, evaluation.pairs.units or None) for fall in falls]
    return wilson(sum(cost.low > 0 and cost.value > least for cost in costs), len(edges))


def controls(evaluation: CircuitEvaluation, mask: BoolArray, draws: int, *, seed: int) -> list[Control]:
    """Measure `draws` circuits of every kind of control, except kinds for which the circuit is too small."""
    graph = evaluation.graph
    found: list[Control] = []
    mine = closeness(evaluation, evaluation.metric(mask))
    with events.progress("measuring controls", total=len(CONTROLS) * draws, unit="circuits") as job:
        for kind, draw in CONTROLS.items():
            random = np.random.default_rng([seed, len(found)])
            others = [other for _ in range(draws) if (other := draw(graph, mask, random)) is not None]
            job.advance(draws)
            if others:
                metrics = evaluation.metrics(others)
                shares = [normalised(metric, evaluation.empty, evaluation.clean).value for metric in metrics]
                near = [closeness(evaluation, metric) for metric in metrics]
                as_close = wilson(sum(value >= mine for value in near), len(near))
                found.append(Control(kind, mean_of(np.array(shares)), mean_of(np.array(near)), as_close))
    return found


def doubts(*, held_out: Estimate, closeness: Estimate, share: float, target: float, controls: Sequence[Control]) -> list[str]:
    """Reasons to doubt a circuit that reached its target on the pairs that chose it."""
    found = []
    slack = 1 - target
    if held_out.low > 1 + slack or held_out.high < 1 - slack or abs(1 - held_out.value) > 2 * slack:
        found.append(f"on held-out pairs its faithfulness is {held_out}")
    if 1 - closeness.value > 4 * slack:
        found.append(f"pair by pair it is far from the model (closeness {closeness})")
    if share > LARGEST_SHARE:
        found.append(f"it takes {share:.0%} of all edges")
    found += [
        f"{control.as_close.value:.0%} of {control.kind} circuits come as close to the model"
        for control in controls
        if control.as_close.value > 0.05
    ]
    return found
