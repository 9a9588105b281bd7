"""Results in a notebook: the figure first, as a still picture that a script, where it runs, turns into the page."""

from __future__ import annotations

import base64
import html
import itertools
import json
import secrets

from neuroscope.results import Result
from neuroscope.views import page as pages
from neuroscope.views.panels import Panel, asset, markup
from neuroscope.views.static import svg

#: The packed plotly comes with the first of so many results that have figures, for all of them.
_TOGETHER = 5

_shown = itertools.count()


def embedded(result: Result) -> str:
    """A result as HTML: its figures, or its summary if it has none."""
    summary = f"<pre>{html.escape(result.summary())}</pre>"
    foot = f'<small style="opacity:.7">{pages.foot(result)}</small>'
    if not pages.has_figures(result):
        return f"{summary}{foot if pages.footnotes(result) else ''}"
    drawn = pages.drawings(result)
    plots = [item for item in drawn if not isinstance(item, Panel)]
    name = f"neuroscope-{secrets.token_hex(6)}"
    page = json.dumps(_frame(result, drawn), ensure_ascii=False).replace("<", "\\u003c")
    script = f"{asset('notebook.js')}(document.getElementById({name!r}), {page}, {json.dumps(bool(plots))});"
    return (
        f'<div id="{name}" title="{html.escape(result.print_string())}">{"".join(map(_still, plots))}{summary}{foot}</div>'
        f"{_plotting() if plots else ''}<script>{script}</script>"
    )


def _frame(result: Result, drawn: list[object]) -> str:
    """The page in the frame: figures, then the summary."""
    bodies = [
        markup(item) if isinstance(item, Panel) else pages.plotted(item, number, static=False)
        for number, item in enumerate(drawn)
    ]
    body = f"{''.join(bodies)}\n<pre>{html.escape(result.summary())}</pre><footer>{pages.foot(result)}</footer>"
    style = "<style>body{margin:0;padding:0;max-width:none}figure,.panel{margin:0 0 .75rem}</style>"
    return pages.document(html.escape(result.print_string()), style + body, drawn, f"<script>{asset('draw.js')}</script>")


def _still(figure: object) -> str:
    picture = base64.b64encode(svg(figure).encode("utf-8")).decode()
    return f'<img style="display:block;max-width:100%" src="data:image/svg+xml;base64,{picture}">'


def _plotting() -> str:
    if next(_shown) % _TOGETHER:
        return ""
    return f'{pages.plotting_script()}<script>window.dispatchEvent(new Event("neuroscope-plotly"))</script>'
