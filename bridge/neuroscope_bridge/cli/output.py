"""What a run leaves behind: its variables as JSON, and a page for each result that has figures, wherever it lies."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

from neuroscope import settings, vocabulary
from neuroscope.errors import NeuroScopeError, first_line
from neuroscope.files import write_whole
from neuroscope.results import plain
from neuroscope_dsl.errors import SmalltalkError
from neuroscope_dsl.runtime.values import Association, Character, SmalltalkObject
from neuroscope_dsl.workspace import Workspace

#: Collections within collections in which results are still looked for.
_DEEPEST = 8


@dataclasses.dataclass(frozen=True)
class Failure:
    """Where a run ended before its end, and why."""

    place: str | None
    error: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        position = error.position if isinstance(error, SmalltalkError) else None
        if isinstance(error, KeyboardInterrupt):
            return cls(None, "interrupted")
        text = getattr(error, "title", None) or (error.message if isinstance(error, NeuroScopeError) else None)
        said = str(text) if text else first_line(error) if isinstance(error, Exception) else type(error).__name__
        return cls(None if position is None else str(position), said)

    def __str__(self) -> str:
        where = "" if self.place is None else f" at {self.place}"
        return f"The run failed{where}: {self.error} This was found before."


def write_json(workspace: Workspace, path: Path, failed: Failure | None = None) -> None:
    """Variables, model, seed and versions; the file appears whole or not at all. `failed` marks what a failed run held."""
    from neuroscope.models.model import TransformerModel
    from neuroscope.provenance import versions

    variables = dict(workspace.variables)
    models = [value for value in variables.values() if isinstance(value, TransformerModel)]
    document = {
        **({} if failed is None else {"failed": plain(failed)}),
        "variables": {name: plain(value, _printed(workspace)) for name, value in variables.items()},
        "model": plain(models[-1]) if models else None,
        "seed": settings.seed(),
        "versions": versions(),
    }
    write_whole(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _printed(workspace: Workspace) -> Callable[[Any], str]:
    """What a script's own objects print of themselves, where their printing does not fail; dates as ISO 8601 has them, characters alone."""

    def printed(value: Any) -> str:
        if isinstance(value, (datetime.date, datetime.time)):
            return value.isoformat()
        if isinstance(value, Character):
            return str(value)
        try:
            return workspace.print_string(value)
        except SmalltalkError:
            return f"({type(value).__name__})"

    return printed


def write_figures(workspace: Workspace, folder: Path, failed: Failure | None = None) -> None:
    """A page for each variable that has figures, and for each result with figures within the others; of a circuit a drawing too."""
    from neuroscope.circuits.circuit import Circuit
    from neuroscope.views import page

    note = None if failed is None else str(failed)
    for name, value in drawable(workspace.variables):
        print(f"{name}: {page.save_page(value, folder / f'{name}.html', note=note)}", file=sys.stderr)
        if isinstance(value, Circuit) and value.exists:
            print(f"{name}: {value.draw(str(folder / f'{name}.svg'))}", file=sys.stderr)


def drawable(variables: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Every value with figures, each once, under its variable's name and its way from there: `circuits-2`, `growth-small`."""
    from neuroscope.views import page

    found = [(name, value) for name, value in variables.items() if page.has_figures(value)]
    seen = {id(value) for _, value in found}
    for name, value in variables.items():
        found += [(place, one) for place, one in _within(value, name, seen, 0) if page.has_figures(one)]
    return found


def _within(value: Any, name: str, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    """What a value without figures of its own holds, and what those hold; each object once."""
    from neuroscope.views import page

    if depth > _DEEPEST or page.has_figures(value):
        return
    for part, one in _parts(value):
        if id(one) in seen or isinstance(one, (str, bytes, int, float)) or one is None:
            continue
        seen.add(id(one))
        place = f"{name}-{re.sub(r'[^0-9A-Za-z]+', '_', part).strip('_') or 'item'}"
        yield place, one
        yield from _within(one, place, seen, depth + 1)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), one) for key, one in value.items())
    elif _is_collection(value):
        yield from ((str(number), one) for number, one in enumerate(value, 1))
    elif isinstance(value, (Association, SmalltalkObject)):
        yield from value.as_dictionary().items()
    elif vocabulary.is_public(type(value)) or dataclasses.is_dataclass(type(value)):
        yield from getattr(value, "__dict__", {}).items()


def _is_collection(value: Any) -> bool:
    """Whether a value is there to hold others; arrays hold numbers alone, and the vocabulary's objects are looked into by name."""
    counted = isinstance(value, Sized) and isinstance(value, Iterable)
    return counted and not (
        isinstance(value, (str, bytes, bytearray)) or hasattr(value, "tolist") or vocabulary.is_public(type(value))
    )
