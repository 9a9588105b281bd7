"""`neuroscope analyses` and `neuroscope analyze`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from neuroscope.errors import ArgumentError
from neuroscope_bridge.cli import show
from neuroscope_bridge.cli.run import RunOptions, loaded, loading
from neuroscope_bridge.files import check_writable


def list_analyses(as_json: bool) -> None:
    """List every analysis with its question."""
    from neuroscope.analyses.registry import ANALYSES

    if as_json:
        print(json.dumps([analysis.as_dictionary() for analysis in ANALYSES], indent=2, ensure_ascii=False))
        return
    table = Table("analysis", "works on", "asks", box=None, pad_edge=False)
    for analysis in ANALYSES:
        table.add_row(analysis.name, analysis.works_on, analysis.asks)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 240  # whole lines for pipes
    console.print(table)


def run_analysis(
    model: str, name: str, on: str | None, file: Path | None, page: Path | None, options: RunOptions, as_json: bool
) -> None:
    """Load a model, run an analysis, print its result and write its page if requested."""
    from neuroscope.analyses import registry
    from neuroscope.tasks.dataset import Dataset

    if registry.has(model) and not registry.has(name):
        model, name = name, model  # a person who names the analysis first means the same
    analysis = registry.get(name)  # check the name before loading a model
    if on is not None and file is not None:
        raise ArgumentError("--on and --file both give the input.", remedy="Give one of them.")
    if page is not None:
        check_writable(page)
    material: Any = Dataset.from_file(str(file)) if file is not None else on
    with loading(options), show.progress_shown(options.quiet):
        result = registry.analyze(loaded(model, options), analysis.name, material)
    print(json.dumps(result.as_dictionary(), indent=2, ensure_ascii=False) if as_json else result.summary())
    if page is not None:
        print(f"page: {result.save_page(str(page))}", file=sys.stderr)
