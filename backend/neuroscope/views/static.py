"""Figures as SVG without a script, for where none runs: a notebook on GitHub, a mail, a document.

Draws what NeuroScope's figures have: points, lines, bars, heatmaps, their intervals, axes (linear, logarithmic, of categories),
panels next to each other, lines across and notes. Marks name their values when pointed at.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroscope.views.axes import Axis, axis_of
from neuroscope.views.theme import INK, PALETTE

WIDTH = 900
_RULE = "#dfe4ec"
_DASHES = {"dot": "2 3", "dash": "7 4", "dashdot": "7 3 2 3", "longdash": "12 5"}
_TAG = re.compile(r"<[^>]*>")


def svg(figure: Any) -> str:
    """A plotly figure as an SVG document, `WIDTH` pixels wide and as high as the figure."""
    drawing = _Drawing(figure)
    drawing.draw()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {drawing.height}" width="{WIDTH}" height="{drawing.height}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}" role="img">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(drawing.parts) + "\n</svg>\n"
    )


@dataclass
class _Drawing:
    """The parts of an SVG document as they are drawn."""

    figure: Any
    parts: list[str] = field(default_factory=list)

    def draw(self) -> None:
        layout = self.figure.layout
        self.height = int(layout.height or 440)
        self.traces = [trace for trace in self.figure.data if trace.visible is not False]
        if layout.title.text:
            self.text(12, 26, layout.title.text, size=16)
        if any(trace.type == "table" for trace in self.traces):
            self._table()
            return
        drawn = sorted({(trace.xaxis or "x", trace.yaxis or "y") for trace in self.traces if trace.type in _DRAWERS})
        axes = {name: axis_of(self.figure, name, self.traces) for pair in drawn for name in pair}
        self._place(axes, drawn)
        for pair in drawn:
            x, y = axes[pair[0]], axes[pair[1]]
            self._frame(x, y)
            own = [trace for trace in self.traces if (trace.xaxis or "x", trace.yaxis or "y") == pair]
            bars = _stacked([trace for trace in own if trace.type == "bar"], layout.barmode or "group", x, y)
            for trace in own:
                if trace.type == "bar":
                    self._bars(trace, bars[id(trace)], x, y)
                elif trace.type in _DRAWERS:
                    _DRAWERS[trace.type](self, trace, x, y)
        self._shapes(axes)
        self._notes(axes)
        self._legend()

    # --- where things are -----------------------------------------------------------------------------------------

    def _place(self, axes: dict[str, Axis], pairs: Sequence[tuple[str, str]]) -> None:
        """Give every axis its pixels, with room for labels, legend and colour scale."""
        layout = self.figure.layout
        names = [7 * max((len(label) for label in axis.labels), default=4) for key, axis in axes.items() if key[0] == "y"]
        left = min(70 + max([0, *(width - 30 for width in names)]), WIDTH // 3)
        scale = any(trace.type == "heatmap" and trace.showscale is not False for trace in self.traces)
        second = any(axis.side == "right" for axis in axes.values())
        right = WIDTH - (100 if scale else 70 if second else 24)
        top, bottom = 64, self.height - 62
        for key, axis in axes.items():
            if key[0] == "x":
                axis.low, axis.high = (left + (right - left) * share for share in axis.domain)
                axis.slanted = sum(7 * len(label) + 10 for label in axis.labels) > axis.high - axis.low
                if axis.slanted:
                    bottom = min(bottom, self.height - 40 - 5 * min(20, max(map(len, axis.labels))))
        if layout.legend.y is not None and layout.legend.y < 0:
            bottom -= 16
        for key, axis in axes.items():
            if key[0] == "y":
                axis.low, axis.high = (bottom - (bottom - top) * share for share in axis.domain)
        for x, y in pairs:
            if axes[y].overlaying:
                axes[y].low, axes[y].high = axes[axes[y].overlaying].low, axes[axes[y].overlaying].high
            axes[y].beside = axes[x].high if axes[y].side == "right" else axes[x].low

    def _frame(self, x: Axis, y: Axis) -> None:
        """Grid, ticks and titles."""
        for place, label in x.ticks():
            at = x.pixel(place)
            if not x.labels and not y.overlaying:
                self.line(at, y.low, at, y.high, _RULE)
            if x.slanted:
                self.text(at, y.low + 14, _short(label, 24), anchor="end", turn=-45)
            else:
                self.text(at, y.low + 16, label, anchor="middle")
        for place, label in y.ticks():
            at = y.pixel(place)
            if not y.overlaying and not y.labels:
                self.line(x.low, at, x.high, at, _RULE)
            if y.side == "right":
                self.text(y.beside + 6, at + 4, label)
            else:
                self.text(y.beside - 6, at + 4, _short(label, 40), anchor="end")
        if x.title:
            self.text((x.low + x.high) / 2, self.height - 10, x.title, anchor="middle")
        if y.title:
            side = y.beside + 52 if y.side == "right" else 14
            self.text(side, (y.low + y.high) / 2, y.title, anchor="middle", turn=-90)

    # --- marks ----------------------------------------------------------------------------------------------------

    def _points(self, trace: Any, x: Axis, y: Axis) -> None:
        colour = self.colour(trace)
        xs, ys = _values(trace.x), _values(trace.y)
        xs = xs or list(range(len(ys)))
        spots = [(x.pixel(a), y.pixel(b)) for a, b in zip(xs, ys, strict=False)]
        mode = trace.mode or "lines"
        if "lines" in mode:
            run = " ".join(f"{a:.1f},{b:.1f}" for a, b in spots if math.isfinite(a) and math.isfinite(b))
            dash = f' stroke-dasharray="{_DASHES[trace.line.dash]}"' if trace.line.dash in _DASHES else ""
            filled = colour if trace.fill == "toself" else "none"
            width = trace.line.width if trace.line.width is not None else 2
            self.parts.append(
                f'<polyline points="{run}" fill="{filled}" stroke="{_safe(trace.line.color) or colour}" stroke-width="{width}"{dash}/>'
            )
        self._intervals(trace, spots, xs, ys, x, y)
        texts = _values(trace.text) if not isinstance(trace.text, str) else [trace.text] * len(xs)
        sizes, colours = trace.marker.size, trace.marker.color
        for at, (a, b) in enumerate(spots):
            if not (math.isfinite(a) and math.isfinite(b)):
                continue
            if "markers" in mode:
                size = float(sizes[at] if isinstance(sizes, (list, tuple, np.ndarray)) else sizes or 6)
                own = colours[at] if isinstance(colours, (list, tuple)) and isinstance(colours[at], str) else None
                about = f"{trace.name or ''} {xs[at]}: {_number(ys[at])}"
                self.parts.append(
                    f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{size / 2:.1f}" fill="{_safe(own) or colour}">{_title(about)}</circle>'
                )
            if "text" in mode and at < len(texts):
                self.text(a, b - 6 if "top" in str(trace.textposition) else b + 4, str(texts[at]), anchor="middle", size=11)

    def _intervals(self, trace: Any, spots: Any, xs: Any, ys: Any, x: Axis, y: Axis) -> None:
        for axis, bars, values, upright in ((y, trace.error_y, ys, True), (x, trace.error_x, xs, False)):
            if bars.array is None:
                continue
            above = _values(bars.array)
            below = above if bars.arrayminus is None else _values(bars.arrayminus)
            for (a, b), value, up, down in zip(spots, values, above, below, strict=False):
                if math.isfinite(a) and math.isfinite(b) and _real(value):
                    ends = axis.pixel(value - down), axis.pixel(value + up)

                    place = (a, ends[0], a, ends[1]) if upright else (ends[0], b, ends[1], b)
                    if all(map(math.isfinite, place)):
                        self.line(place[0], place[1], place[2], place[3], INK)

    def _bars(self, trace: Any, boxes: Sequence[tuple[Any, float, float, float, float]], x: Axis, y: Axis) -> None:
        flat = trace.orientation == "h"
        colours, texts = trace.marker.color, trace.text
        along, across = (x, y) if flat else (y, x)
        spots = []
        for at, (place, start, end, offset, width) in enumerate(boxes):
            first, last = across.pixel_at(place, offset), across.pixel_at(place, offset + width)
            low, high = along.pixel(start), along.pixel(end)
            spots.append((high, (first + last) / 2) if flat else ((first + last) / 2, high))
            box = (min(low, high), min(first, last), abs(high - low), abs(last - first))
            box = box if flat else (box[1], box[0], box[3], box[2])
            if not all(map(math.isfinite, box)):
                continue
            own = colours[at] if isinstance(colours, (list, tuple)) else colours
            about = f"{trace.name or ''} {place}: {_number(end - start)}"
            fill = _safe(own) or self.colour(trace)
            self.parts.append(
                f'<rect x="{box[0]:.1f}" y="{box[1]:.1f}" width="{box[2]:.1f}" height="{box[3]:.1f}" fill="{fill}">{_title(about)}</rect>'
            )
            if isinstance(texts, (list, tuple, np.ndarray)) and at < len(texts):
                self.text(spots[-1][0], spots[-1][1] - 4, str(texts[at]), anchor="middle", size=11)
        ends = [box[2] for box in boxes]
        empty: list[float] = [math.nan] * len(boxes)
        self._intervals(trace, spots, ends if flat else empty, empty if flat else ends, x, y)

    def _cells(self, trace: Any, x: Axis, y: Axis) -> None:
        rows = [list(row) for row in trace.z]
        if not rows:
            return
        numbers = np.array([[value if _real(value) else math.nan for value in row] for row in rows], dtype=float)
        low = float(trace.zmin) if trace.zmin is not None else float(np.nanmin(numbers)) if np.isfinite(numbers).any() else 0.0
        high = float(trace.zmax) if trace.zmax is not None else float(np.nanmax(numbers)) if np.isfinite(numbers).any() else 1.0
        scale = [
            (float(at), _rgba(colour)) for at, colour in trace.colorscale or ((0, "rgb(255,255,255)"), (1, "rgb(63,127,232)"))
        ]
        xs = _values(trace.x) or list(range(numbers.shape[1]))
        ys = _values(trace.y) or list(range(numbers.shape[0]))
        texts = trace.text if trace.texttemplate and trace.text is not None else None
        step_x, step_y = x.step(xs), y.step(ys)
        for row, b in enumerate(ys):
            for column, a in enumerate(xs):
                value = numbers[row, column]
                if not math.isfinite(value):
                    continue
                left, right = sorted((x.pixel_at(a, -step_x / 2), x.pixel_at(a, step_x / 2)))
                top, bottom = sorted((y.pixel_at(b, -step_y / 2), y.pixel_at(b, step_y / 2)))
                fill = _between(scale, (value - low) / (high - low or 1.0))
                self.parts.append(
                    f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" fill="{fill}">'
                    f"{_title(f'{a}, {b}: {_number(value)}')}</rect>"
                )
                if texts is not None and right - left > 24 and bottom - top > 10:
                    room = int((right - left) / 6.5)
                    self.text(
                        (left + right) / 2,
                        (top + bottom) / 2 + 4,
                        _short(str(texts[row][column]), room),
                        anchor="middle",
                        size=10,
                    )
        if trace.showscale is not False:
            self._scale(trace, scale, low, high, y)

    def _scale(self, trace: Any, scale: Any, low: float, high: float, y: Axis) -> None:
        top, bottom = min(y.low, y.high), max(y.low, y.high)
        steps = 40
        for at in range(steps):
            fill = _between(scale, 1 - (at + 0.5) / steps)
            place = top + (bottom - top) * at / steps
            self.parts.append(
                f'<rect x="{WIDTH - 84}" y="{place:.1f}" width="14" height="{(bottom - top) / steps + 0.5:.1f}" fill="{fill}"/>'
            )
        self.text(WIDTH - 66, top + 4, _number(high))
        self.text(WIDTH - 66, bottom + 4, _number(low))
        if trace.colorbar.title.text:
            self.text(WIDTH - 8, top - 12, trace.colorbar.title.text, anchor="end")

    def _table(self) -> None:
        trace = next(trace for trace in self.traces if trace.type == "table")
        columns = [list(column) for column in trace.cells.values or ()]
        width = (WIDTH - 24) / max(1, len(columns))
        for number, (name, column) in enumerate(zip(trace.header.values, columns, strict=False)):
            self.text(12 + number * width, 56, f"{name}", size=13)
            for row, value in enumerate(column):
                self.text(12 + number * width, 78 + 20 * row, _short(str(value), int(width / 6.5)), size=11)

    # --- across the figure ----------------------------------------------------------------------------------------

    def _shapes(self, axes: dict[str, Axis]) -> None:
        for shape in self.figure.layout.shapes:
            x, y = self._reference(shape.xref, axes, "x"), self._reference(shape.yref, axes, "y")
            if shape.type == "line" and x is not None and y is not None:
                ends = x(shape.x0), y(shape.y0), x(shape.x1), y(shape.y1)
                if all(map(math.isfinite, ends)):
                    self.line(
                        ends[0], ends[1], ends[2], ends[3], _safe(shape.line.color) or INK, _DASHES.get(shape.line.dash or "")
                    )

    def _notes(self, axes: dict[str, Axis]) -> None:
        for note in self.figure.layout.annotations:
            x, y = self._reference(note.xref, axes, "x"), self._reference(note.yref, axes, "y")
            if note.text and x is not None and y is not None:
                anchor = {"left": "start", "right": "end"}.get(note.xanchor or "", "middle")
                self.text(
                    x(note.x),
                    y(note.y) - (4 if note.yanchor == "bottom" else -4),
                    note.text,
                    anchor=anchor,
                    size=13 if note.showarrow is False and note.yref == "paper" else 11,
                )

    def _reference(self, name: str | None, axes: dict[str, Axis], kind: str) -> Any:
        """A function from a place to a pixel: on an axis, of its length (`x domain`), or of all panels (`paper`)."""
        own = [axis for key, axis in axes.items() if key[0] == kind]
        if not own:
            return None
        if name == "paper":
            low = min(axis.low for axis in own) if kind == "x" else max(axis.low for axis in own)
            high = max(axis.high for axis in own) if kind == "x" else min(axis.high for axis in own)
            return lambda share: low + (high - low) * share
        axis = axes.get((name or kind).removesuffix(" domain"))
        if axis is None:
            return None
        return axis.share if (name or "").endswith(" domain") else axis.pixel

    def _legend(self) -> None:
        layout = self.figure.layout
        named = {
            trace.name: trace
            for trace in self.traces
            if trace.name and trace.showlegend is not False and trace.type != "heatmap"
        }
        if layout.showlegend is False or (len(named) < 2 and not layout.showlegend):
            return
        below = layout.legend.y is not None and layout.legend.y < 0
        place, line = 12.0, self.height - 26 if below else 48
        for name, trace in named.items():
            label = _short(_plain(name), 60)
            if place + 26 + 7 * len(label) > WIDTH and place > 12:
                place, line = 12.0, line + (13 if not below else 12)
            self.parts.append(f'<rect x="{place:.1f}" y="{line - 9}" width="12" height="10" fill="{self.colour(trace)}"/>')
            self.text(place + 17, line, label, size=11)
            place += 34 + 6.6 * len(label)

    # --- pieces ---------------------------------------------------------------------------------------------------

    def colour(self, trace: Any) -> str:
        """The trace's colour, or the next of the palette."""
        given = trace.marker.color if trace.type in ("bar", "scatter") else None
        given = given if isinstance(given, str) else getattr(trace.line, "color", None) if trace.type == "scatter" else None
        return _safe(given) or PALETTE[self.traces.index(trace) % len(PALETTE)]

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: str, dash: str | None = None) -> None:
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}"{dashed}/>')

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, turn: int = 0) -> None:
        if not (math.isfinite(x) and math.isfinite(y)):
            return
        turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{turned}>{html.escape(_plain(text))}</text>'
        )


_DRAWERS: dict[str, Any] = {"scatter": _Drawing._points, "bar": _Drawing._bars, "heatmap": _Drawing._cells}


def _stacked(traces: Sequence[Any], mode: str, x: Axis, y: Axis) -> dict[int, list[tuple[Any, float, float, float, float]]]:
    """For each bar of each trace: its place, start and end, and its offset and width in units of the axis."""
    boxes: dict[int, list[tuple[Any, float, float, float, float]]] = {}
    tops: dict[tuple[Any, bool], float] = {}
    side_by_side = mode == "group" and len(traces) > 1
    for number, trace in enumerate(traces):
        flat = trace.orientation == "h"
        places, ends = (_values(trace.y), _values(trace.x)) if flat else (_values(trace.x), _values(trace.y))
        places = places or list(range(len(ends)))
        step = (y if flat else x).step(places)
        width = 0.8 * step / (len(traces) if side_by_side else 1)
        offset = -0.4 * step + (number * width if side_by_side else 0)
        own = []
        for place, value in zip(places, ends, strict=False):
            end = float(value) if _real(value) else math.nan
            key = (place, end >= 0)
            start = tops.get(key, 0.0) if mode in ("stack", "relative") else 0.0
            if math.isfinite(end):
                tops[key] = start + end
            own.append((place, start, start + end, offset, width))
        boxes[id(trace)] = own
    return boxes


def _values(given: Iterable[Any] | None) -> list[Any]:
    return [] if given is None else [value.item() if isinstance(value, np.generic) else value for value in given]


def _real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any) -> str:
    return f"{value:.3g}" if _real(value) else str(value)


def _plain(text: Any) -> str:
    """A text of plotly without its tags."""
    return html.unescape(_TAG.sub(" ", str(text)))


def _short(text: str, room: int) -> str:
    text = _plain(text)
    return text if len(text) <= room else f"{text[: max(1, room - 1)]}…"


def _title(text: str) -> str:
    return f"<title>{html.escape(_plain(text).strip())}</title>"


def _safe(colour: Any) -> str | None:
    """A colour that is one, and nothing else."""
    return colour if isinstance(colour, str) and re.fullmatch(r"[#\w(),.% ]+", colour) else None


def _rgba(colour: str) -> tuple[float, float, float, float]:
    if colour.startswith("#"):
        return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16), 1.0
    parts = [float(part) for part in re.findall(r"[\d.]+", colour)]
    return parts[0], parts[1], parts[2], parts[3] if len(parts) > 3 else 1.0


def _between(scale: Sequence[tuple[float, tuple[float, float, float, float]]], share: float) -> str:
    """The colour at a share of the scale."""
    share = min(1.0, max(0.0, share))
    mixed = [float(np.interp(share, [at for at, _ in scale], [colour[part] for _, colour in scale])) for part in range(4)]
    return f"rgba({mixed[0]:.0f},{mixed[1]:.0f},{mixed[2]:.0f},{mixed[3]:.2f})"
