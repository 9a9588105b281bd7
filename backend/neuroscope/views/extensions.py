"""Extensions of results: pages, and drawings of circuits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from neuroscope import places
from neuroscope.circuits.circuit import Circuit
from neuroscope.errors import ArgumentError, CircuitError
from neuroscope.extensions import extends
from neuroscope.files import save
from neuroscope.results import Result
from neuroscope.validation.report import ValidationReport
from neuroscope.views import exports, notebook, page
from neuroscope.views.layered import svg


@extends(Result)
class PagesOfResults:
    """A result as a page, and in a notebook."""

    def save_page(self, path: str) -> str:
        """Write the result as one HTML page that needs no network. Return its path.

        Raises `ArgumentError` if this kind of result has no figure.
        """
        return str(page.save_page(self, path))

    def open_browser(self) -> str:
        """Show the result's page in the browser, or report its path. Return the path."""
        return str(page.open_page(cast(Result, self)))

    def figure(self, number: int = 1) -> Any:
        """A plotly figure of the result, the first by default. Raises `ArgumentError` if it has fewer."""
        return exports.figure(cast(Result, self), number)

    def save_image(self, path: str, number: int = 1) -> str:
        """Write a figure as SVG, PNG or PDF, by the file's ending. Return its path.

        number: which figure. PNG and PDF need the package kaleido and a Chrome. Raises `ArgumentError` for another ending or a
        figure that is not there, `MissingExtraError` without kaleido or a Chrome that starts.
        """
        return exports.save_image(cast(Result, self), path, number)

    def to_frame(self, field: str | None = None) -> Any:
        """The result's rows as a pandas data frame, or polars' without pandas.

        field: which list of rows, by its name in `as_dictionary` (default: the longest); without any, one row of all values.
        Columns of nested values have names with dots: `recovered.low`. Raises `ArgumentError` for a field without rows,
        `MissingExtraError` without both packages.
        """
        return exports.to_frame(cast(Result, self), field)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return notebook.embedded(cast(Result, self))


@extends(Circuit)
class DrawingsOfCircuits:
    """A circuit as a drawing, and as a graph."""

    def to_networkx(self) -> Any:
        """The circuit as a `networkx.MultiDiGraph`: nodes are sites, an edge's key is the input that it goes into, with its `score`.

        Raises `MissingExtraError` without networkx.
        """
        return exports.to_networkx(cast(Circuit, self))

    def draw(self, path: str) -> str:
        """Write the circuit as a layered graph to an SVG file. Return its path."""
        target = Path(path)
        target = places.to_write(target if target.suffix == ".svg" else target.with_name(target.name + ".svg"), "drawing")
        return str(save(target, svg(cast(Circuit, self)), "The drawing", CircuitError))


@extends(ValidationReport)
class FilesOfReports:
    """A report as a file."""

    def save_as(self, path: str) -> str:
        """Write the report as JSON (`.json`) or as one HTML page that needs no network (`.html`), and answer its path.

        Raises `ArgumentError` for another kind of file, and where it cannot be written.
        """
        target = places.to_write(path, "report")
        report = cast(ValidationReport, self)
        if target.suffix not in (".json", ".html"):
            raise ArgumentError(f"A report is not written as {target.name!r}.", remedy="Name the file .json or .html.")
        if target.suffix == ".html":
            text = page.page(report)
        else:
            text = json.dumps(report.as_dictionary(), indent=1, ensure_ascii=False)
        return str(save(target, text + "\n", "The report", ArgumentError))
