"""The axes of a figure drawn without a script: from values to pixels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Axis:
    """An axis. start, end: its range (of exponents, if it is logarithmic); labels: its categories, if it has some."""

    start: float
    end: float
    domain: tuple[float, float]
    title: str
    labels: list[str]
    logarithmic: bool = False
    side: str = "left"
    overlaying: str = ""
    texts: dict[float, str] | None = None
    low: float = 0.0
    high: float = 1.0
    beside: float = 0.0
    slanted: bool = False
    least: float = 0.0

    def place(self, value: Any) -> float:
        """A value in the units of the range."""
        if self.labels:
            return float(self.labels.index(str(value))) if str(value) in self.labels else _float(value)
        number = _float(value)
        if self.logarithmic:
            return math.log10(number) if number > 0 else math.nan
        return number

    def pixel(self, value: Any) -> float:
        return self._at(self.place(value))

    def pixel_at(self, value: Any, offset: float) -> float:
        """The pixel at a distance from a value, in the units of the range."""
        return self._at(self.place(value) + offset)

    def share(self, share: float) -> float:
        return self.low + (self.high - self.low) * share

    def _at(self, place: float) -> float:
        return self.low + (self.high - self.low) * (place - self.start) / ((self.end - self.start) or 1.0)

    def step(self, values: Sequence[Any]) -> float:
        """The distance of neighbouring values."""
        places = sorted({place for place in map(self.place, values) if math.isfinite(place)})
        return min((b - a for a, b in itertools.pairwise(places)), default=1.0)

    def ticks(self) -> Iterator[tuple[Any, str]]:
        """Values with their labels."""
        if self.texts is not None:
            yield from self.texts.items()
            return
        low, high = sorted((self.start, self.end))
        if self.labels:
            every = max(1, len(self.labels) // 60)
            yield from ((label, label) for label in self.labels[::every])
        elif self.logarithmic:
            parts = (1,) if high - low > 2 else (1, 2, 5)
            for power in range(math.floor(low), math.ceil(high) + 1):
                for part in parts:
                    if low <= math.log10(part * 10.0**power) <= high:
                        yield part * 10.0**power, f"{part * 10.0**power:g}"
        else:
            step = max(self.least, _round((high - low) / 6 or 1.0))
            for at in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
                yield at * step, f"{at * step:g}"


def axis_of(figure: Any, name: str, traces: Sequence[Any]) -> Axis:
    """The axis `x`, `y2` …: its range as the layout says, or wide enough for its traces."""
    kind = name[0]
    given = figure.layout[f"{kind}axis{name[1:]}"]
    own = [trace for trace in traces if trace.type != "table" and (trace[f"{kind}axis"] or kind) == name]
    values = [value for trace in own for value in _drawn(trace, kind)]
    categories = given.type == "category" or any(isinstance(value, str) for value in values)
    labels = (
        list(dict.fromkeys([*map(str, given.categoryarray if given.categoryarray is not None else ()), *map(str, values)]))
        if categories
        else []
    )
    logarithmic = given.type == "log"
    if given.range is not None and None not in given.range:
        start, end = float(given.range[0]), float(given.range[1])
    elif labels:
        start, end = -0.5, len(labels) - 0.5
    else:
        start, end = _extent(own, kind, logarithmic, given.rangemode == "tozero")
    if given.autorange == "reversed":
        start, end = end, start
    texts: dict[float, str] | None = None if given.visible is not False else {}
    if given.tickvals is not None and given.ticktext is not None:
        texts = {_float(value): str(text) for value, text in zip(given.tickvals, given.ticktext, strict=False)}
    return Axis(
        start, end, tuple(given.domain or (0.0, 1.0)), given.title.text or "", labels, logarithmic,
        given.side or "left", given.overlaying or "", texts if not labels or texts == {} else None,
        least=1.0 if any(trace.type == "heatmap" for trace in own) else 0.0,
    )  # fmt: skip


def _drawn(trace: Any, kind: str) -> list[Any]:
    """The values of a trace along an axis."""
    if trace[kind] is not None:
        return [value.item() if isinstance(value, np.generic) else value for value in trace[kind]]
    if trace.type == "heatmap" and trace.z is not None:
        return list(range(len(trace.z) if kind == "y" else len(trace.z[0]) if len(trace.z) else 0))
    other = trace["y" if kind == "x" else "x"]
    return [] if other is None else list(range(len(other)))


def _extent(traces: Sequence[Any], kind: str, logarithmic: bool, from_zero: bool) -> tuple[float, float]:
    """Wide enough for values and their intervals; bars begin at zero, and may be stacked."""
    ends: list[float] = [0.0] if from_zero else []
    sums: dict[tuple[Any, bool], float] = {}
    cells = False
    for trace in traces:
        values = [_float(value) for value in _drawn(trace, kind)]
        cells = cells or trace.type == "heatmap"
        if trace.type == "heatmap":
            step = min((b - a for a, b in itertools.pairwise(sorted(values))), default=1.0)
            ends += [min(values, default=0.0) - step / 2, max(values, default=0.0) + step / 2]
            continue
        bars = None if trace.type not in ("scatter", "bar") else trace[f"error_{kind}"]
        above = list(bars.array) if bars is not None and bars.array is not None else [0.0] * len(values)
        below = list(bars.arrayminus) if bars is not None and bars.arrayminus is not None else above
        ends += [edge for value, up, down in zip(values, above, below, strict=False) for edge in (value - down, value + up)]
        if trace.type == "bar":
            across = (trace.orientation == "h") != (kind == "x")
            if across:
                ends += [min(values, default=0.0) - 0.5, max(values, default=0.0) + 0.5]
            else:
                ends.append(0.0)
                for place, value in zip(_drawn(trace, "y" if kind == "x" else "x"), values, strict=False):
                    sums[place, value >= 0] = sums.get((place, value >= 0), 0.0) + (value if math.isfinite(value) else 0.0)
    if sums and getattr(traces[0].parent.layout, "barmode", None) in ("stack", "relative"):
        ends += sums.values()
    if logarithmic:
        ends = [math.log10(end) for end in ends if end > 0]
    ends = [end for end in ends if math.isfinite(end)] or [0.0, 1.0]
    low, high = min(ends), max(ends)
    room = 0.0 if cells else 0.05 * ((high - low) or 1.0)
    return low - room, high + room


def _float(value: Any) -> float:
    return float(value) if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) else math.nan


def _round(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(part * power for part in (1.0, 2.0, 5.0, 10.0) if part * power >= step)
