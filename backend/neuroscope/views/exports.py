"""Results for other programs: figures as objects and images, rows as data frames, circuits as graphs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from neuroscope import places
from neuroscope.circuits.circuit import Circuit
from neuroscope.errors import ArgumentError, MissingExtraError
from neuroscope.files import save
from neuroscope.remedies import install
from neuroscope.results import Result
from neuroscope.views import page
from neuroscope.views.layered import readers
from neuroscope.views.panels import Panel
from neuroscope.views.static import svg

_IMAGES = (".svg", ".png", ".pdf")


def figure(result: Result, number: int) -> Any:
    """The plotly figure of that number, from 1."""
    plots = [item for item in page.drawings(result) if not isinstance(item, Panel)]
    if not 1 <= number <= len(plots):
        has = f"{len(plots)} figure{'s' * (len(plots) != 1)}"
        raise ArgumentError(
            f"{result.print_string()} has {has}, none of number {number}.",
            remedy="save_page writes everything that it shows." if not plots else f"Numbers: 1 to {len(plots)}.",
        )
    return plots[number - 1]


def save_image(result: Result, path: str, number: int) -> str:
    """Write a figure as an image."""
    target = Path(path)
    if target.suffix.lower() not in _IMAGES:
        raise ArgumentError(f"An image is not written as {target.name!r}.", remedy=f"Endings: {', '.join(_IMAGES)}.")
    kind = target.suffix[1:].lower()
    if kind != "svg":
        places.check_display()  # kaleido starts a browser
    target = places.to_write(target, "image")
    drawn = figure(result, number)
    if kind == "svg":
        return str(save(target, svg(drawn), "The image", ArgumentError))
    _package("kaleido", "images", f"A {kind.upper()} image")
    try:
        image = drawn.to_image(format=kind, width=900, scale=2)
    except Exception as error:  # kaleido, its browser and plotly have errors of their own for a Chrome that is missing or dies
        reason = str(error.args[0] if error.args else error).strip().splitlines()
        raise MissingExtraError(
            f"No {kind.upper()} image: {reason[0] if reason else type(error).__name__}",
            remedy="It needs a Chrome or Chromium that starts (plotly_get_chrome brings one); .svg needs none.",
        ) from error
    return str(save(target, image, "The image", ArgumentError))


def to_frame(result: Result, field: str | None) -> Any:
    """Rows as a data frame."""
    data = result.as_dictionary()
    lists = {name: value for name, value in data.items() if _is_rows(value)}
    if field is not None and field not in lists:
        raise ArgumentError(f"{result.print_string()} has no rows {field!r}.", remedy=f"Rows: {', '.join(lists) or 'none'}.")
    chosen = field or max(lists, key=lambda name: len(lists[name]), default=None)
    rows = [_flat(row) for row in lists[chosen]] if chosen is not None else [_flat(data)]
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)}
    # polars wants one type in a column, unless it may find one for all: whole numbers and others, numbers and texts as texts.
    for package, options in (("pandas", {}), ("polars", {"strict": False})):
        try:
            return importlib.import_module(package).DataFrame(columns, **options)
        except ImportError:
            continue
    raise MissingExtraError("A data frame needs the package pandas, or polars.", remedy=install("frames"))


def to_networkx(circuit: Circuit) -> Any:
    """A circuit as a graph."""
    graph = _package("networkx", "figures", "A graph").MultiDiGraph(task=circuit.task, model=circuit.provenance.title)
    receivers, sources = np.nonzero(circuit.mask)
    for receiver, source in zip(receivers.tolist(), sources.tolist(), strict=True):
        through = str(circuit.graph.receiver_site(receiver))
        for reader in readers(circuit, receiver):
            node = "logits" if reader is None else str(circuit.graph.source_site(reader))
            score = float(circuit.scores[receiver, source])
            graph.add_edge(str(circuit.graph.source_site(source)), node, key=through, score=score)
    return graph


def _package(name: str, extra: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{what} needs the package {name}.", remedy=install(extra)) from error


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _flat(row: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested dictionaries as columns with dots."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found
