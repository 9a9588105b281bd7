"""Pages: a result as one self-contained HTML file that needs no network."""

from __future__ import annotations

import html
import importlib
import tempfile
import webbrowser
from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

from neuroscope import events
from neuroscope.errors import ArgumentError
from neuroscope.results import Result

#: Modules that register figures for their results; imported when a page is first made.
_DRAWERS = ("neuroscope.views.circuits",)

_STYLE = """
:root { color-scheme: light dark; --ink: #1b2230; --paper: #ffffff; --faint: #5d6778; --rule: #dfe4ec; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7ebf2; --paper: #12161d; --faint: #97a3b6; --rule: #2a3240; } }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
       font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; }
pre { font: 13px/1.5 ui-monospace, monospace; overflow-x: auto; padding: 1rem; border: 1px solid var(--rule); border-radius: 6px; }
figure { margin: 2rem 0 0; border: 1px solid var(--rule); border-radius: 6px; padding: .5rem; background: #fff; }
footer { margin-top: 2rem; color: var(--faint); font-size: .85rem; }
"""


@singledispatch
def figures(result: object) -> Sequence[Any]:
    """The plotly figures that show a result; a type without any raises `ArgumentError`."""
    raise ArgumentError(f"{type(result).__name__} has no figure.")


def has_figures(result: object) -> bool:
    """Whether `page` can draw this object."""
    _load_drawers()
    return figures.dispatch(type(result)) is not figures.dispatch(object)


def page(result: Result) -> str:
    """The whole page as HTML, scripts included."""
    import plotly.io

    _load_drawers()
    drawn = [
        plotly.io.to_html(figure, full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        for index, figure in enumerate(figures(result))
    ]
    title = html.escape(result.print_string())
    body = "\n".join(f"<figure>{figure}</figure>" for figure in drawn)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n<pre>{html.escape(result.summary())}</pre>\n{body}\n"
        f"<footer>NeuroScope</footer></body></html>\n"
    )


def save_page(result: Result, path: str | Path) -> Path:
    """Write the page; the folder is made where it is missing. Answers the file's path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(result), encoding="utf-8")
    return target


def open_page(result: Result) -> Path:
    """Write the page to a temporary file and open it; where there is no browser, say where it lies."""
    folder = Path(tempfile.mkdtemp(prefix="neuroscope-"))
    target = save_page(result, folder / f"{type(result).__name__}.html")
    if not webbrowser.open(target.as_uri()):
        events.notice(f"No browser here; the page is {target}")
    return target


def _load_drawers() -> None:
    for module in _DRAWERS:
        importlib.import_module(module)
