"""Sharing chunks out, and putting their results back in order."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any

from neuroscope import events
from neuroscope.errors import WorkerLostError
from neuroscope.models.model import TransformerModel
from neuroscope.parallel import executors, worker
from neuroscope.parallel.executors import Executor

#: How often work is repeated that dead workers lost.
_REPEATS = 3


class Team:
    """Workers for one model."""

    def __init__(self, model: TransformerModel, executor: Executor) -> None:
        self.model = model
        self._executor = executor
        self._token = uuid.uuid4().hex
        worker.offer(self._token, model)

    @classmethod
    def of(cls, model: TransformerModel, executor: Executor | None = None) -> Team | None:
        """The team of an executor, or of the context's; None where there is none."""
        found = executors.executor(executor)
        return None if found is None else cls(model, found)

    def map(
        self, function: Callable[..., Any], work: Sequence[tuple[Any, ...]], *, name: str, unit: str, sizes: Sequence[int]
    ) -> list[Any]:
        """`function(model, *arguments)` for each arguments in `work`, in their order.

        function: of a module. sizes: units of progress of each. Work that a dead worker lost is done again; any other error ends the rest.
        Raises `WorkerLostError` where workers die on it again and again.
        """
        changes = tuple(self.model.weights(changed).snapshot() for changed in self.model.changed_weights)
        about = self.model.title, self.model.weights_hash, self.model.recipe, changes, self._token
        chunks = [worker.Chunk(function, arguments, *about) for arguments in work]
        found: list[Any] = [None] * len(chunks)
        left = list(range(len(chunks)))
        with events.progress(name, total=sum(sizes), unit=unit) as job:
            for _ in range(1 + _REPEATS):
                left = self._round(chunks, found, left, lambda index: job.advance(sizes[index]))
                if not left:
                    return found
        raise WorkerLostError(
            f"Workers died {1 + _REPEATS} times while {name}.",
            remedy="Each may lack memory: ask for fewer of them, or smaller models.",
        )

    def _round(self, chunks: list[worker.Chunk], found: list[Any], left: list[int], done: Callable[[int], None]) -> list[int]:
        """Submit what is left and collect it; the chunks that were lost."""
        futures: dict[int, Any] = {}
        lost: list[int] = []
        try:
            for index in left:
                try:
                    futures[index] = self._executor.submit(worker.run, chunks[index])
                except BrokenExecutor:
                    lost.append(index)
            for index, future in futures.items():
                try:
                    found[index] = future.result()
                except BrokenExecutor:
                    lost.append(index)
                else:
                    done(index)
        except BaseException:
            for future in futures.values():
                future.cancel()
            raise
        if lost:
            self._replace()
        return sorted(lost)

    def _replace(self) -> None:
        replace = getattr(self._executor, "replace", None)
        if replace is None:
            raise WorkerLostError(
                f"A worker of {type(self._executor).__name__} died, and it does not replace them.",
                remedy="Use neuroscope.parallel.executors.LocalWorkers, which does.",
            )
        replace()
