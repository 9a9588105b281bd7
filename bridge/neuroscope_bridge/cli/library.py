"""`neuroscope library`: list, show, verify and build circuits."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from neuroscope.circuits.library import CircuitLibrary
from neuroscope.errors import NeuroScopeError
from neuroscope.results import plain
from neuroscope_bridge.cli import show
from neuroscope_bridge.cli.run import RunOptions, prepared


def list_circuits(text: str | None, as_json: bool) -> None:
    """Print a line for each circuit."""
    entries = CircuitLibrary.entries() if text is None else CircuitLibrary.search(text)
    if as_json:
        print(json.dumps(plain(entries), indent=2, ensure_ascii=False))
        return
    table = Table("circuit", "version", "task", "model", "edges", "held-out faithfulness", "quality", box=None, pad_edge=False)
    for entry in entries:
        quality = "" if entry.overall_score is None else f"{entry.overall_score:.2f}"
        table.add_row(
            f"{entry.folder}/{entry.name}",
            str(entry.version),
            entry.task,
            entry.model,
            str(entry.edges),
            str(entry.held_out_faithfulness),
            quality,
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 240  # whole lines for pipes
    console.print(table)


def show_circuit(name: str, as_json: bool) -> None:
    """Print a circuit's file."""
    entry = CircuitLibrary.entry(name)
    print(json.dumps(entry.as_dictionary(), indent=2, ensure_ascii=False) if as_json else entry.summary())


def verify_circuits(names: list[str], options: RunOptions) -> bool:
    """Measure circuits again (by default all). Return whether all agree with their files."""
    chosen = names or [entry.name for entry in CircuitLibrary.entries()]
    fine = True
    with prepared(options), show.progress_shown(options.quiet):
        for name in chosen:
            try:
                report = CircuitLibrary.verify(name)
            except NeuroScopeError as error:
                if len(chosen) == 1:
                    raise
                show.show_error(error)
                fine = False
            else:
                print(report.print_string())
                fine = fine and report.agrees
    return fine


def build_library(model: str, names: list[str], options: RunOptions) -> None:
    """Find, assure and store circuits on a model."""
    from neuroscope.circuits.recipes import build
    from neuroscope.models.model import TransformerModel

    with prepared(options), show.progress_shown(options.quiet):
        for entry in build(TransformerModel.from_hugging_face(model, revision=options.revision), names, seed=options.seed):
            print(entry.summary())
