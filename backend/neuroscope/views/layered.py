"""A circuit drawn as a layered graph: the embedding below, the logits above, a row for each layer between.

Heads are in their layer's row and MLPs in a separate column, half a row higher. An edge's colour shows its receiver (query,
key, value, MLP, logits), its width the size of its score; a dashed line is a negative score. For a large circuit only the
strongest edges are drawn, and the caption says how many. The SVG file and the interactive figure use the same layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import plotly.graph_objects as go

from neuroscope.circuits.circuit import Circuit
from neuroscope.engines.sites import Component
from neuroscope.views.theme import BLUE, GREEN, INK, ORANGE, OUTLINE, PAPER, VIOLET, dressed

MOST_EDGES = 120
_COLOURS = {
    Component.QUERY: BLUE,
    Component.KEY: ORANGE,
    Component.VALUE: GREEN,
    Component.MLP_INPUT: VIOLET,
    Component.LOGITS: INK,
}
_NAMES = {
    Component.QUERY: "into a query",
    Component.KEY: "into a key",
    Component.VALUE: "into a value",
    Component.MLP_INPUT: "into an MLP",
    Component.LOGITS: "into the logits",
}
_WIDTH, _ROW, _MARGIN = 1000.0, 54.0, 60.0


@dataclass(frozen=True)
class Node:
    """A box of the drawing: its text, its full name with role, and its centre."""

    label: str
    title: str
    x: float
    y: float


@dataclass(frozen=True)
class Edge:
    """A line of the drawing. weight: |score| over the largest."""

    title: str
    start: Node
    end: Node
    kind: Component
    weight: float
    negative: bool


@dataclass(frozen=True)
class Layout:
    """Positions in points; y grows downwards."""

    caption: str
    nodes: list[Node]
    edges: list[Edge]
    height: float


def layout(circuit: Circuit, most: int = MOST_EDGES) -> Layout:
    """The strongest `most` edges of a circuit with their nodes."""
    graph, scores = circuit.graph, np.where(circuit.mask, circuit.scores, 0.0)
    receivers, sources = np.nonzero(circuit.mask)
    order = np.argsort(-np.abs(scores[receivers, sources]), kind="stable")[:most]
    joins = [
        (int(source), node, int(receiver))
        for receiver, source in zip(receivers[order], sources[order], strict=True)
        for node in readers(circuit, int(receiver))
    ]
    shown = sorted({source for source, _, _ in joins} | {node for _, node, _ in joins if node is not None})
    nodes = _placed(circuit, shown)
    largest = float(np.abs(scores).max()) or 1.0
    edges = []
    for source, node, receiver in joins:
        site, value = graph.receiver_site(receiver), float(scores[receiver, source])
        title = f"{graph.source_site(source)} → {site}: {value:+.3g}"
        edges.append(Edge(title, nodes[source], nodes[node], site.component, abs(value) / largest, value < 0))
    drawn = len(order)
    whole = f"all {drawn} edges" if drawn == circuit.edge_count else f"the {drawn} strongest of {circuit.edge_count} edges"
    caption = f"{circuit.task} in {circuit.provenance.title}: {whole}"
    return Layout(caption, list(nodes.values()), edges, 2 * _MARGIN + (graph.layers + 1) * _ROW)


def svg(circuit: Circuit, most: int = MOST_EDGES) -> str:
    """The drawing as an SVG document; names and scores are tooltips."""
    drawn = layout(circuit, most)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {drawn.height:.0f}" '
        f'font-family="system-ui, sans-serif" font-size="11">',
        "<style>.edge{fill:none;opacity:.65}.edge:hover{opacity:1;stroke-width:6}</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_MARGIN}" y="24" font-size="15">{escape(drawn.caption)}</text>',
    ]
    for position, (kind, colour) in enumerate(_COLOURS.items()):
        x = _MARGIN + 130 * position
        parts.append(f'<line x1="{x}" y1="40" x2="{x + 22}" y2="40" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 28}" y="44">{_NAMES[kind]}</text>')
    parts.append(f'<text x="{_MARGIN + 650}" y="44">dashed: against the answer</text>')
    for edge in sorted(drawn.edges, key=lambda edge: edge.weight):
        a, b = edge.start, edge.end
        bend = (a.y - b.y) / 2
        path = f"M{a.x:.1f} {a.y - 10:.1f}C{a.x:.1f} {a.y - bend:.1f} {b.x:.1f} {b.y + bend:.1f} {b.x:.1f} {b.y + 10:.1f}"
        dashes = ' stroke-dasharray="5 3"' if edge.negative else ""
        parts.append(
            f'<path class="edge" d="{path}" stroke="{_COLOURS[edge.kind]}" stroke-width="{_thickness(edge.weight):.2f}"{dashes}>'
            f"<title>{escape(edge.title)}</title></path>"
        )
    for node in drawn.nodes:
        width = 12 + 6.5 * len(node.label)
        parts.append(
            f'<g><title>{escape(node.title)}</title><rect x="{node.x - width / 2:.1f}" y="{node.y - 10:.1f}" width="{width:.1f}" '
            f'height="20" rx="5" fill="{PAPER}" stroke="{OUTLINE}"/><text x="{node.x:.1f}" y="{node.y + 4:.1f}" '
            f'text-anchor="middle">{escape(node.label)}</text></g>'
        )
    return "\n".join([*parts, "</svg>"])


def circuit_graph(circuit: Circuit, most: int = MOST_EDGES) -> Any:
    """The drawing as an interactive figure."""
    drawn = layout(circuit, most)
    figure = go.Figure()
    for kind, colour in _COLOURS.items():
        mine = [edge for edge in drawn.edges if edge.kind is kind]
        for number, edge in enumerate(mine):
            figure.add_scatter(
                x=[edge.start.x, (edge.start.x + edge.end.x) / 2, edge.end.x],
                y=[edge.start.y, (edge.start.y + edge.end.y) / 2, edge.end.y],
                mode="lines",
                line={"color": colour, "width": _thickness(edge.weight), "dash": "dash" if edge.negative else "solid"},
                opacity=0.65,
                text=edge.title,
                hoverinfo="text",
                name=_NAMES[kind],
                legendgroup=kind.value,
                showlegend=number == 0,
            )
    figure.add_scatter(
        x=[node.x for node in drawn.nodes],
        y=[node.y for node in drawn.nodes],
        mode="markers+text",
        marker={"size": 26, "color": PAPER, "line": {"color": OUTLINE, "width": 1}},
        text=[node.label for node in drawn.nodes],
        hovertext=[node.title for node in drawn.nodes],
        hoverinfo="text",
        textfont={"size": 9, "color": INK},
        showlegend=False,
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    return dressed(figure, drawn.caption, height=max(500, round(drawn.height)), hovermode="closest")


def _thickness(weight: float) -> float:
    return 0.8 + 4.2 * weight


def readers(circuit: Circuit, receiver: int) -> list[int | None]:
    """The nodes of the circuit that read through a receiver; None is the logits."""
    graph = circuit.graph
    if receiver == graph.logits:
        return [None]
    alive = graph.nodes(circuit.mask)
    return [node for node in alive if receiver in graph.node_receivers(node)]


def _placed(circuit: Circuit, sources: list[int]) -> dict[int | None, Node]:
    graph = circuit.graph
    roles = {str(role.head): role.role for role in reversed(circuit.roles)}
    bottom = _MARGIN + (graph.layers + 1) * _ROW
    placed: dict[int | None, Node] = {None: Node("logits", "logits", _WIDTH / 2, _MARGIN + _ROW * 0.2)}
    rows: dict[int, list[int]] = {}
    for source in sources:
        site = graph.source_site(source)
        if site.layer is None:
            placed[source] = Node("embedding", "embedding", _WIDTH / 2, bottom)
        else:
            rows.setdefault(site.layer, []).append(source)
    for layer, members in rows.items():
        heads = [source for source in members if graph.source_site(source).component is Component.HEAD_OUTPUT]
        for source in members:
            site = graph.source_site(source)
            y = bottom - (layer + 0.85) * _ROW
            if site.component is Component.MLP_OUTPUT:
                placed[source] = Node(f"MLP {layer}", str(site), _WIDTH - _MARGIN - 20, y - 0.45 * _ROW)
                continue
            role = roles.get(str(site))
            x = _MARGIN + (_WIDTH - 2 * _MARGIN - 110) * (heads.index(source) + 0.5) / len(heads)
            placed[source] = Node(f"{layer}.{site.head}", f"{site} ({role})" if role else str(site), x, y)
    return placed
