"""Documented scripts as `neuroscope run --embedded` runs them, within the tests' process: torch is there already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neuroscope_bridge.cli.run import RunOptions, run_files

EXAMPLES = Path(__file__).parents[2] / "examples"


def ran(folder: Path, *scripts: str, model: str = "gpt2-medium", engine: str = "torch") -> dict[str, Any]:
    """The variables that the scripts leave, as JSON."""
    out = folder / "out.json"
    files = [EXAMPLES / script for script in scripts]
    run_files(RunOptions(files, model=model, engine=engine, embedded=True, json_out=out, quiet=True))
    return dict(json.loads(out.read_text())["variables"])
