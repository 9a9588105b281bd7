"""Progress and notices at a notebook's or an interpreter's prompt, without being asked for."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from neuroscope import events


def at_a_prompt() -> bool:
    """Whether a person types: in IPython, in a notebook, or at Python's own prompt."""
    ipython = sys.modules.get("IPython")
    return hasattr(sys, "ps1") or (ipython is not None and ipython.get_ipython() is not None)


def show() -> None:
    """Show the events of contexts without a listener of their own as bars and lines."""
    events.set_usual(Bars())


class Bars:
    """A tqdm bar for each job that takes longer than `patience` seconds; notices as lines."""

    def __init__(self, patience: float = 0.5) -> None:
        self._patience = patience
        self._bars: dict[str, Any] = {}

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Notice):
            print(event.message, file=sys.stderr, flush=True)
            return
        bar = self._bars.get(event.job)
        if event.finished:
            if bar is not None:
                bar.update(event.done - bar.n)
                self._bars.pop(event.job).close()
            return
        if bar is None and event.seconds >= self._patience:
            bar = self._bars[event.job] = _bar(event)
        if bar is not None:
            bar.update(event.done - bar.n)


def _bar(event: events.Progress) -> Any:
    """A bar with widgets in a notebook that has them, of letters elsewhere."""
    if "ipykernel" in sys.modules and importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm
    else:
        from tqdm import tqdm
    return tqdm(desc=event.job, total=event.total, unit=f" {event.unit}", leave=False, file=sys.stderr)
