"""Output of a run: its variables as JSON, and a page for each result with figures, including nested ones."""

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
from neuroscope.files import save
from neuroscope.results import plain
from neuroscope_dsl.errors import SmalltalkError
from neuroscope_dsl.runtime.values import Association, Character, SmalltalkObject
from neuroscope_dsl.workspace import Workspace

#: Largest nesting of collections in which results are searched.
_DEEPEST = 8


@dataclasses.dataclass(frozen=True)
class Failure:
    """The place and error at which a run failed."""

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
        return f"The run failed{where}: {self.error} These are the results before that."


def write_json(workspace: Workspace, path: Path, failed: Failure | None = None) -> None:
    """Write variables, model, seed and versions, whole or not at all, to a file or (`-`) to standard output.

    failed: marks the results of a failed run.
    """
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
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if path == Path("-"):
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        save(path, text, "The JSON of the run")


def _printed(workspace: Workspace) -> Callable[[Any], str]:
    """The printed form of a script's objects, if printing succeeds; dates in ISO 8601, characters without marks."""

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
    """Write a page for each result with figures in the variables, also nested ones, and a drawing for each circuit."""
    from neuroscope.circuits.circuit import Circuit
    from neuroscope.views import page

    note = None if failed is None else str(failed)
    for name, value in drawable(workspace.variables):
        print(f"{name}: {page.save_page(value, folder / f'{name}.html', note=note)}", file=sys.stderr)
        if isinstance(value, Circuit) and value.exists:
            print(f"{name}: {value.draw(str(folder / f'{name}.svg'))}", file=sys.stderr)


def drawable(variables: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Every value with figures, once, named by its variable and path: `circuits-2`, `growth-small`."""
    from neuroscope.views import page

    found = [(name, value) for name, value in variables.items() if page.has_figures(value)]
    seen = {id(value) for _, value in found}
    for name, value in variables.items():
        found += [(place, one) for place, one in _within(value, name, seen, 0) if page.has_figures(one)]
    return found


def _within(value: Any, name: str, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    """The nested values with figures of a value without figures; each object once."""
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
    """Whether a value is a collection; arrays, which hold numbers, and objects of the vocabulary are not."""
    counted = isinstance(value, Sized) and isinstance(value, Iterable)
    return counted and not (
        isinstance(value, (str, bytes, bytearray)) or hasattr(value, "tolist") or vocabulary.is_public(type(value))
    )
