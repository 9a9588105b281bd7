"""Values that the shell completes: models, tasks, analyses, circuits, experiments. Each list is imported when Tab is pressed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from neuroscope.errors import NeuroScopeError

Completer = Callable[[str], list[str]]


def completer(names: Callable[[], Iterable[str]]) -> Completer:
    """A function for `autocompletion=`: the names that begin with what was typed."""

    def complete(incomplete: str) -> list[str]:
        try:
            return sorted({name for name in names() if name.startswith(incomplete)})
        except (NeuroScopeError, OSError):  # a prompt shows no errors
            return []

    return complete


def models() -> list[str]:
    """Aliases, models that ship, and those of the local Hugging Face cache."""
    from neuroscope.models import aliases
    from neuroscope.models.resolve import cached_repositories

    return [*aliases.table(), *aliases.EMBEDDED.values(), *cached_repositories()]


def tasks() -> list[str]:
    from neuroscope.tasks.registry import TASKS

    return [task.name for task in TASKS]


def analyses() -> list[str]:
    from neuroscope.analyses.registry import ANALYSES

    return [analysis.name for analysis in ANALYSES]


def circuits() -> list[str]:
    from neuroscope.circuits.library import CircuitLibrary

    return [entry.name for entry in CircuitLibrary.entries()]


def experiments() -> list[str]:
    from neuroscope_bridge.cli.examples import examples

    return [str(example.number) for example in examples()]


def engines() -> list[str]:
    from neuroscope.engines import ENGINES

    return list(ENGINES)
