"""`neuroscope tasks` and `neuroscope evaluate`."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from neuroscope.tasks.registry import TASKS
from neuroscope_bridge.cli import show
from neuroscope_bridge.cli.run import RunOptions, loaded, loading


def list_tasks(as_json: bool) -> None:
    """List every task with an example."""
    firsts = [(task, task.dataset(1)[0]) for task in TASKS]
    if as_json:
        entries = [
            {
                "name": task.name,
                "title": task.title,
                "aliases": list(task.aliases),
                "paired": task.paired,
                "example": example.as_dictionary(),
            }
            for task, example in firsts
        ]
        print(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    table = Table("task", "also", "an example", box=None, pad_edge=False)
    for task, example in firsts:
        table.add_row(task.name, ", ".join(task.aliases), f"{example.clean} →{_spaced(str(example.answer))}")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 240  # whole lines for pipes
    console.print(table)


def evaluate_model(name: str, tasks: list[str] | None, n: int, options: RunOptions, as_json: bool) -> None:
    """Load a model, measure tasks on it and print the table."""
    from neuroscope.tasks.evaluate import evaluate

    with loading(options), show.progress_shown(options.quiet):
        evaluation = evaluate(loaded(name, options), tasks, n)
    print(json.dumps(evaluation.as_dictionary(), indent=2, ensure_ascii=False) if as_json else evaluation.summary())


def _spaced(answer: str) -> str:
    return answer if answer.startswith(" ") else f" {answer}"
