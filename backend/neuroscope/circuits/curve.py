"""Faithfulness as a function of circuit size, and the two figures that integrate it.

CPR, the circuit performance ratio: the area under faithfulness over the share of edges kept, edges in order of score (largest
first); more is better. CMD, the circuit–model distance: the area between faithfulness and 1, edges in order of |score|; less is
better. Both use the trapezoidal rule over `SIZES`.

Source: Mueller et al. 2025, "MIB: A Mechanistic Interpretability Benchmark".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroscope.circuits.attribution import Scores
from neuroscope.circuits.estimates import normalised
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.pair_runs import Numbers
from neuroscope.engines.protocol import BoolArray, IntArray
from neuroscope.results import Provenance, Result
from neuroscope.tasks.statistics import Estimate
from neuroscope.vocabulary import public

#: Shares of the graph's edges at which circuits are measured.
SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class CurvePoint:
    """Faithfulness of the `edges` best-scored edges (after pruning), which are `fraction` of the graph's.

    closeness: 1 − Σ|circuit − clean| / Σ|clean − empty| of the metric over pairs, where errors of different pairs do not
    cancel. negative_weight: the weight of negative scores in the order.
    """

    edges: int
    fraction: float
    faithfulness: Estimate
    closeness: float
    negative_weight: float


@public
@dataclass(frozen=True)
class FaithfulnessCurve(Result):
    """Faithfulness of growing circuits on held-out pairs, for one way of scoring edges and one ablation.

    points: edges in order of |score|. signed_points: in order of score. cpr, cmd: as defined in the module's docstring.
    """

    task: str
    method: str
    ablation: str
    cpr: float
    cmd: float
    points: list[CurvePoint]
    signed_points: list[CurvePoint]
    provenance: Provenance

    def print_string(self) -> str:
        return f"a FaithfulnessCurve({self.task}, {self.method}: CPR {self.cpr:.3f}, CMD {self.cmd:.3f})"

    def summary(self) -> str:
        lines = [
            f"Faithfulness for {self.task} in {self.provenance.title}: {self.method}, {self.ablation} ablation",
            f"  CPR {self.cpr:.3f} (area under the curve, by score)   CMD {self.cmd:.3f} (area to 1, by |score|)",
            f"  {'asked':>7}  {'kept edges':>10}  {'by |score|':<24} by score",
        ]
        for share, point, signed in zip(SIZES, self.points, self.signed_points, strict=True):
            lines.append(f"  {share:>7.1%}  {point.edges:>10,}  {point.faithfulness!s:<24} {signed.faithfulness}")
        return "\n".join(lines)


def ranked(graph: Graph, scores: Scores, negative_weight: float) -> IntArray:
    """Flat indices of the graph's edges, largest score first; a negative one counts as `negative_weight` times its size.

    With weight 0 negative edges come last, the most negative at the very end.
    """
    flat = np.flatnonzero(graph.valid)
    values = scores.reshape(-1)[flat]
    keys = values if negative_weight == 0 else np.maximum(values, -negative_weight * values)
    return flat[np.argsort(-keys, kind="stable")]


def prefix(graph: Graph, order: IntArray, count: int) -> BoolArray:
    """The mask (receivers, sources) of the first `count` edges of an order, before pruning."""
    mask = np.zeros(graph.valid.size, dtype=np.bool_)
    mask[order[:count]] = True
    return mask.reshape(graph.valid.shape)


def measured(
    evaluation: CircuitEvaluation, order: IntArray, counts: Sequence[int], weight: float
) -> list[tuple[BoolArray, CurvePoint]]:
    """The pruned circuits of the first `counts` edges, and their figures. Raises `CircuitError` if pairs show no effect."""
    graph = evaluation.graph
    masks = [graph.pruned(prefix(graph, order, count)) for count in counts]
    found = []
    for mask, metric in zip(masks, evaluation.metrics(masks), strict=True):
        value = normalised(metric, evaluation.empty, evaluation.clean, units=evaluation.pairs.units)
        edges = int(mask.sum())
        found.append((mask, CurvePoint(edges, edges / graph.edges, value, closeness(evaluation, metric), weight)))
    return found


def closeness(evaluation: CircuitEvaluation, metric: Numbers) -> float:
    """1 − Σ|metric − clean| / Σ|clean − empty| over pairs, for a circuit's metric (rows,); 1 if it equals the model's."""
    return float(1 - np.abs(metric - evaluation.clean).sum() / np.abs(evaluation.clean - evaluation.empty).sum())


def curve_points(evaluation: CircuitEvaluation, scores: Scores, weight: float) -> list[CurvePoint]:
    """Points at every size of `SIZES`."""
    counts = [max(1, round(share * evaluation.graph.edges)) for share in SIZES]
    return [point for _, point in measured(evaluation, ranked(evaluation.graph, scores, weight), counts, weight)]


def area(points: Sequence[CurvePoint], *, from_one: bool) -> float:
    """The trapezoidal area over `SIZES` under faithfulness, or between faithfulness and 1."""
    heights = np.array([point.faithfulness.value for point in points])
    return float(np.trapezoid(np.abs(1 - heights) if from_one else heights, SIZES))
