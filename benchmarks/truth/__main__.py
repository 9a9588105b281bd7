"""The command: run both halves, print and write the tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from benchmarks.truth import nothing, planted
from benchmarks.truth.nothing import NullRow
from benchmarks.truth.planted import PlantedRow

from neuroscope.tasks.statistics import wilson

Row = TypeVar("Row")
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description="Conclusions held against what is known.")
    parser.add_argument("--only", choices=("planted", "models", "data"), help="one part")
    parser.add_argument("--quick", action="store_true", help="the default method, 12 null models, 4 null data sets")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for RESULTS.md and results.json")
    options = parser.parse_args()
    wanted = (options.only,) if options.only else ("planted", "models", "data")
    kept = options.out / "results.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    if "planted" in wanted:
        rows = planted.rows(pairs=60, every_method=not options.quick)
        found["planted"] = [asdict(row) for row in _told(rows)]
    if "models" in wanted:
        found["models"] = [asdict(row) for row in _told(nothing.null_models(models=12 if options.quick else 60))]
    if "data" in wanted:
        found["data"] = [asdict(row) for row in _told(nothing.null_data(sets=4 if options.quick else 20))]
    options.out.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    text = report(
        [PlantedRow(**row) for row in found.get("planted", [])],
        [NullRow(**row) for part in ("models", "data") for row in found.get(part, [])],
    )
    (options.out / "RESULTS.md").write_text(text)
    print(text)


def _told(rows: Iterable[Row]) -> list[Row]:
    found = []
    for row in rows:
        print(row, flush=True)
        found.append(row)
    return found


def report(known: Sequence[PlantedRow], nothing_there: Sequence[NullRow]) -> str:
    """The tables as markdown."""
    lines = [
        "# The truth bench",
        "",
        "Written by `make truth`.",
        "",
        "## Planted circuits",
        "",
        "`tests/planted` tells what is planted. AUROC: of the edges' |score|. Precision, recall, closeness (held out, pair by pair) and",
        f"doubts: of the circuit that the finder answers at a target of {planted.TARGET}; one without doubts is called trustworthy.",
        "",
        "| circuit | method | rule | AUROC | edges | precision | recall | closeness | doubts |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in known:
        doubts = "; ".join(row.doubts) or "–"
        figures = f"{row.auroc:.3f} | {row.edges} | {row.precision:.2f} | {row.recall:.2f} | {row.closeness:.3f}"
        lines.append(f"| {row.circuit} | {row.method} | {row.rule} | {figures} | {doubts} |")
    lines += [
        "",
        "## Where there is nothing",
        "",
        "How often an instrument claims to have found something in models with random weights and in data sets whose answers the prompts",
        "do not decide (`benchmarks/truth/nothing.py`), with Wilson's 95 % interval.",
        "",
        "| | instrument | cases | found | share |",
        "|---|---|---|---|---|",
    ]
    for kind, instrument in dict.fromkeys((row.kind, row.instrument) for row in nothing_there):
        these = [row.found for row in nothing_there if (row.kind, row.instrument) == (kind, instrument)]
        lines.append(f"| {kind} | {instrument} | {len(these)} | {sum(these)} | {wilson(sum(these), len(these))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
