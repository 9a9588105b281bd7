"""Pages: a result as one self-contained HTML file that needs no network."""

from __future__ import annotations

import base64
import dataclasses
import functools
import html
import importlib
import os
import sys
import tempfile
import webbrowser
from collections.abc import Iterable, Iterator, Sequence
from functools import singledispatch
from importlib import resources
from pathlib import Path
from typing import Any

import neuroscope
from neuroscope import events, places
from neuroscope.errors import ArgumentError
from neuroscope.files import save
from neuroscope.results import Provenance, Result
from neuroscope.views.panels import Panel, asset, markup, scripts
from neuroscope.views.static import svg

#: Modules that register figures for their results, imported on first use.
_DRAWERS = tuple(
    f"neuroscope.views.{room}"
    for room in (
        "activations",
        "analyses",
        "circuits",
        "editing",
        "entanglement",
        "facts",
        "features",
        "lenses",
        "patching",
        "safety",
        "transfer",
        "tuning",
        "validation",
    )
)

_THEME = "theme.js"

#: How far within a result provenances are looked for.
_DEEPEST = 4

#: plotly.js' bundle of Cartesian figures (plotly.js-cartesian-dist-min 4.1.1, MIT licence), as `gzip -9n` packs it.
_PLOTLY = "plotly-cartesian.min.js.gz"


@singledispatch
def figures(result: object) -> Sequence[Any]:
    """The plotly figures and panels of a result. Raises `ArgumentError` for a type without any."""
    raise ArgumentError(f"{type(result).__name__} has no figure.")


def has_figures(result: object) -> bool:
    """Whether `page` can draw this object."""
    _load_drawers()
    return figures.dispatch(type(result)) is not figures.dispatch(object)


def page(result: Any, note: str | None = None) -> str:
    """The page as HTML, including scripts, with an optional note above the figures."""
    drawn = drawings(result)
    title = html.escape(result.print_string())
    told = "" if note is None else f'<p role="alert"><strong>{html.escape(note)}</strong></p>\n'
    summary = result.summary() if isinstance(result, Result) else ""
    body = f"<h1>{title}</h1>\n{told}<pre>{html.escape(summary)}</pre>\n{_bodies(drawn)}\n<footer>{foot(result)}</footer>"
    return document(title, body, drawn, f"{plotting_script()}<script>{asset('draw.js')}</script>")


def drawings(result: Any) -> list[Any]:
    """The figures and panels of a result. Raises `ArgumentError` if it has none."""
    _load_drawers()
    return list(figures(result))


def document(title: str, body: str, drawn: Sequence[Any], plotting: str) -> str:
    """A document with styles and the scripts that draw its panels and figures. plotting: the script that loads plotly."""
    panels = [item for item in drawn if isinstance(item, Panel)]
    plots = f"{plotting}\n<script>{asset(_THEME)}</script>" if len(panels) < len(drawn) else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{asset('page.css')}{asset('panels.css') if panels else ''}</style></head>\n"
        f"<body>\n{body}\n{scripts(panels)}{plots}</body></html>\n"
    )


def _bodies(drawn: Sequence[Any]) -> str:
    return "\n".join(
        markup(item) if isinstance(item, Panel) else plotted(item, number, static=True) for number, item in enumerate(drawn)
    )


def plotted(figure: Any, number: int, *, static: bool) -> str:
    """A figure's element and data, drawn when plotly is loaded. static: with the drawing that is shown where no script runs."""
    from plotly.io.json import to_json_plotly

    if any(trace.type == "table" for trace in figure.data):
        return _table(figure)
    data, layout = (to_json_plotly(part).replace("<", "\\u003c") for part in (figure.data, figure.layout))
    picture = f"<noscript>{svg(figure)}</noscript>" if static else ""
    height = int(figure.layout.height or 440)
    return (
        f'<figure><div id="{number:08x}" class="plotly-graph-div" style="min-height:{height}px"></div>{picture}'
        f'<script>(window.neuroscopeFigures ??= []).push(() => Plotly.newPlot("{number:08x}", {data}, {layout}, '
        '{"displaylogo": false, "responsive": true}))</script></figure>'
    )


def _table(figure: Any) -> str:
    """A figure that is a table, as one."""

    def row(kind: str, values: Iterable[Any]) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(str(value))}</{kind}>" for value in values) + "</tr>"

    (trace,) = figure.data
    rows = "".join(row("td", values) for values in zip(*trace.cells.values, strict=True))
    return f"<figure><h2>{html.escape(figure.layout.title.text)}</h2><table>{row('th', trace.header.values)}{rows}</table></figure>"


@functools.cache
def plotting_script() -> str:
    """plotly.js, compressed: what figures need, once for a page."""
    packed = (resources.files("neuroscope.views") / "assets" / _PLOTLY).read_bytes()
    return f'<script>window.neuroscopePlotly = "{base64.b64encode(packed).decode()}"</script>'


def foot(result: Any) -> str:
    """What a result was measured on and with, as HTML: enough to repeat it."""
    lines = [html.escape(line) for line in footnotes(result)]
    return "<br>".join(lines or [f"NeuroScope {html.escape(neuroscope.__version__)}"])


def footnotes(result: Any) -> list[str]:
    """A line for each provenance in a result: model that ran and that was asked for, hash, engine, precision, device, seed, versions."""
    return list(dict.fromkeys(given.footnote() for given in _provenances(result, 0)))


def _provenances(value: Any, depth: int) -> Iterator[Provenance]:
    """The provenances in a value, its fields and its collections, outer ones first."""
    if isinstance(value, Provenance):
        yield value
    elif depth < _DEEPEST and isinstance(value, (list, tuple, dict, Result)):
        if isinstance(value, Result):
            held = [vars(value)[name] for name in _names(value)]
        else:
            held = list(value.values() if isinstance(value, dict) else value)
        own = [one for one in held if isinstance(one, Provenance)]
        yield from own
        for one in held if not own else ():
            yield from _provenances(one, depth + 1)


def _names(result: Result) -> list[str]:
    return (
        [field.name for field in dataclasses.fields(result) if field.name in vars(result)]
        if dataclasses.is_dataclass(result)
        else []
    )


def save_page(result: Any, path: str | Path, *, note: str | None = None) -> Path:
    """Write the page to a file that ends in `.html`, creating the folder if needed. Return its path. Raises `FileError`."""
    target = Path(path)
    target = places.to_write(target if target.suffix in (".html", ".htm") else target.with_name(target.name + ".html"), "page")
    return save(target, page(result, note), "The page")


def open_page(result: Result) -> Path:
    """Write the page to a temporary file and open it, or report its path if there is no browser."""
    places.check_display()
    folder = Path(tempfile.mkdtemp(prefix="neuroscope-"))
    target = save_page(result, folder / f"{type(result).__name__}.html")
    if not (_has_display() and webbrowser.open(target.as_uri())):
        events.notice(f"No browser here; the page is {target}")
    return target


def _has_display() -> bool:
    """Whether a browser can show a window; a text browser would take over the terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _load_drawers() -> None:
    for module in _DRAWERS:
        importlib.import_module(module)
