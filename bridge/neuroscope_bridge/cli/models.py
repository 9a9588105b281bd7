"""`neuroscope models` and `neuroscope verify`."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from neuroscope.results import plain
from neuroscope_bridge.cli import show
from neuroscope_bridge.cli.run import RunOptions, loaded, loading


def list_models(given: list[str], embedded: bool, as_json: bool) -> None:
    """List what every name resolves to, without loading anything."""
    from neuroscope.models import aliases
    from neuroscope.models.catalogue import catalogue

    with aliases.in_force(given, embedded=embedded):
        entries = catalogue()
    if as_json:
        print(json.dumps([plain(entry) for entry in entries], indent=2, ensure_ascii=False))
        return
    table = Table("name", "resolves to", "parameters", "float32", "bfloat16", "note", box=None, pad_edge=False)
    for entry in entries:
        table.add_row(
            entry.name,
            f"{entry.kind}: {entry.target}",
            _count(entry.parameters),
            _size(entry.bytes_float32),
            _size(entry.bytes_bfloat16),
            entry.note or "",
        )
    console = Console()
    if not console.is_terminal:
        console.width = 240  # whole lines for pipes
    console.print(table)


def verify_model(name: str, options: RunOptions, as_json: bool) -> None:
    """Run every parity check and print it; a failed one exits with an error."""
    with loading(options), show.progress_shown():
        report = loaded(name, options).verify()
    print(json.dumps(report.as_dictionary(), indent=2) if as_json else report.summary())


def _count(number: int | None) -> str:
    return "" if number is None else f"{number / 1e9:.1f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"


def _size(size: int | None) -> str:
    return "" if size is None else f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
