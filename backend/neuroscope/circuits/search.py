"""Search for the smallest faithful circuit among the prefixes of several orders of the edges.

Edges with negative scores work against the answer. If they count like positive ones (Hanna et al. 2024), small circuits fall
short; if they count less, small circuits overshoot. The best weight depends on the task, and faithfulness is not monotone in
the number of edges. So for every weight:

1. prefixes of growing size are measured. A size that reaches the target must hold: a slightly larger one must reach it too. If
   one size falls short and the next overshoots, sizes between the two are tried;
2. between the last size that fell short and the one that reached, sizes are measured downwards, as long as they reach, twice
   finer;
3. the smallest circuit of all weights is taken, not counting edges off every path from embedding to logits.

A circuit reaches a target t if its faithfulness is within 1 − t of 1, above or below, and its distance pair by pair (1 −
`CurvePoint.closeness`), where errors of different pairs do not cancel, is at most three times that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from neuroscope import events
from neuroscope.circuits.attribution import Scores
from neuroscope.circuits.curve import SIZES, CurvePoint, measured, ranked
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.engines.protocol import BoolArray, IntArray

#: Weights of negative scores relative to positive ones; one curve is measured for each.
NEGATIVE_WEIGHTS = (1.0, 0.85, 0.7, 0.5, 0.3)
_FINER, _STEPS, _BISECTIONS = 4, 5, 4
#: Ratio of the allowed distance pair by pair to that on average.
_PAIR_BY_PAIR = 3
#: Relative resolution of sizes; below 20 edges it is a single edge.
_CLOSE_ENOUGH = 1.05
#: Sizes this much smaller than a circuit found on another curve are skipped.
_HOPELESS = 3
#: Sizes measured in one batch while following a curve upwards.
_AT_ONCE = 5


def reaches(faithfulness: float, closeness: float, target: float) -> bool:
    """Whether a measured circuit reaches the target, on average and pair by pair."""
    slack = 1 - target + 1e-9
    return abs(1 - faithfulness) <= slack and 1 - closeness <= _PAIR_BY_PAIR * slack


def smallest(evaluation: CircuitEvaluation, scores: Scores, target: float) -> tuple[BoolArray, list[CurvePoint]]:
    """The mask (receivers, sources) of the smallest circuit that reaches the target and holds, and all measured points.

    The whole graph always does. Raises `CircuitError` if the pairs show no effect.
    """
    best: tuple[BoolArray, CurvePoint] | None = None
    points: list[CurvePoint] = []
    with events.progress("measuring circuits", total=len(NEGATIVE_WEIGHTS), unit="curves") as job:
        for weight in NEGATIVE_WEIGHTS:
            order = ranked(evaluation.graph, scores, weight)
            at_most = evaluation.graph.edges if best is None else best[1].edges
            line = _Line(evaluation, order, weight, target, from_size=1 if best is None else at_most // _HOPELESS)
            found = line.smallest(at_most)
            if found is not None and (best is None or found[1].edges < best[1].edges):
                best = found
            points += line.points
            job.advance()
    assert best is not None
    return best[0], points


@dataclass
class _Line:
    """The curve of one weight, measured where the search needs it."""

    evaluation: CircuitEvaluation
    order: IntArray
    weight: float
    target: float
    from_size: int
    _known: dict[int, tuple[BoolArray, CurvePoint]] = field(default_factory=dict)

    @property
    def points(self) -> list[CurvePoint]:
        return [self._known[count][1] for count in sorted(self._known)]

    def smallest(self, at_most: int) -> tuple[BoolArray, CurvePoint] | None:
        """The smallest circuit on this curve of at most `at_most` edges that reaches the target and holds, or None."""
        below = 0
        sizes = self._sizes(at_most)
        for index, size in enumerate(sizes):
            if size not in self._known:
                self._measure(sizes[index : index + _AT_ONCE])
            if self._holds(size):
                return self._refined(below, size)
            if below and self._faithfulness(below) < 1 < self._faithfulness(size):
                between = self._between(below, size)
                if between is not None:
                    return self._refined(below, between)
            below = size
        return None

    def _sizes(self, at_most: int) -> list[int]:
        """Sizes to try in turn: those of the curve, and denser ones near a circuit found with another weight."""
        edges = self.evaluation.graph.edges
        if self.from_size > 1:
            return sorted({int(size) for size in np.geomspace(self.from_size, at_most, _STEPS).round()})
        return [size for size in sorted({max(1, round(share * edges)) for share in SIZES}) if size < at_most] + [at_most]

    def _between(self, low: int, high: int) -> int | None:
        """Bisect for a size that reaches the target and holds, between one that falls short and one that overshoots."""
        for _ in range(_BISECTIONS):
            middle = round((low * high) ** 0.5)
            if middle in (low, high):
                break
            if self._holds(middle):
                return middle
            if self._faithfulness(middle) < 1:
                low = middle
            else:
                high = middle
        return None

    def _holds(self, count: int) -> bool:
        larger = min(max(count + 1, round(_CLOSE_ENOUGH * count)), self.evaluation.graph.edges)
        return self._reaches(count) and self._reaches(larger)

    def _refined(self, low: int, high: int) -> tuple[BoolArray, CurvePoint]:
        for _ in range(2):
            if high <= _CLOSE_ENOUGH * low:
                break
            inner = {int(size) for size in np.geomspace(max(low, 1), high, _FINER + 2)[:-1].round()}
            inner = {size for size in inner if low < size < high}
            self._measure(sorted(inner))
            for size in sorted(inner, reverse=True):
                if not self._reaches(size):
                    low = size
                    break
                high = size
        return self._known[high]

    def _faithfulness(self, count: int) -> float:
        return self._point(count).faithfulness.value

    def _point(self, count: int) -> CurvePoint:
        if count not in self._known:
            self._measure([count])
        return self._known[count][1]

    def _measure(self, counts: Sequence[int]) -> None:
        """Measure several sizes in one batch."""
        new = [count for count in dict.fromkeys(counts) if count not in self._known]
        if new:
            self._known.update(zip(new, measured(self.evaluation, self.order, new, self.weight), strict=True))

    def _reaches(self, count: int) -> bool:
        point = self._point(count)
        return reaches(point.faithfulness.value, point.closeness, self.target)
