"""Tasks by name: what a model is asked to do, with examples that measure it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from neuroscope.errors import TaskNotFoundError, did_you_mean
from neuroscope.naming import fold
from neuroscope.tasks import ioi
from neuroscope.tasks.dataset import Dataset, Generator


@dataclass(frozen=True)
class Task:
    """A capability with a name, what it asks, and a generator of examples."""

    name: str
    title: str
    generator: Callable[[], Generator]
    aliases: tuple[str, ...] = ()

    def dataset(self, n: int = 100, seed: int = 0) -> Dataset:
        """`n` different examples, the same for the same seed."""
        return Dataset.generated(self.generator(), n, name=self.title, task=self.name, seed=seed)


TASKS: tuple[Task, ...] = (
    Task("indirect_object_identification", "indirect object identification", lambda: ioi.examples, ("ioi", "indirect_object")),
)

_BY_NAME = {fold(name): task for task in TASKS for name in (task.name, *task.aliases)}


def get(name: str) -> Task:
    """The task of that name, snake or camel case, string or symbol. `TaskNotFoundError` names the nearest."""
    found = _BY_NAME.get(fold(str(name)))
    if found is None:
        raise TaskNotFoundError(
            f"There is no task {str(name)!r}.",
            remedy=did_you_mean(str(name), [task.name for task in TASKS], listing="Tasks")
            + " Your own examples come from `Dataset fromFile:`.",
        )
    return found
