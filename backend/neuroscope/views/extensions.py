"""Extensions of results: pages, and drawings of circuits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from neuroscope import places
from neuroscope.circuits.circuit import Circuit
from neuroscope.errors import ArgumentError, CircuitError
from neuroscope.extensions import extends
from neuroscope.files import save
from neuroscope.results import Result
from neuroscope.validation.report import ValidationReport
from neuroscope.views import page
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

    def _repr_html_(self) -> str:
        """For notebooks."""
        return page.embedded(cast(Result, self))


@extends(Circuit)
class DrawingsOfCircuits:
    """A circuit as a drawing."""

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
