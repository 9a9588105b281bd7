"""Sharing chunks out, and putting their results back in order."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any

from numpy.typing import NDArray

from neuroscope import events
from neuroscope.errors import WorkerLostError
from neuroscope.models.model import TransformerModel
from neuroscope.parallel import executors, worker
from neuroscope.parallel.executors import Executor, LocalWorkers, RayWorkers

#: How often work is repeated that dead workers lost.
_REPEATS = 3
#: Models for which it was said that their work stays in this process.
_said: weakref.WeakSet[TransformerModel] = weakref.WeakSet()


class Team:
    """Workers for one model."""

    def __init__(self, model: TransformerModel, executor: Executor) -> None:
        self.model = model
        self._executor = executor
        self._token = uuid.uuid4().hex
        worker.offer(self._token, model)

    @classmethod
    def of(cls, model: TransformerModel, executor: Executor | None = None, *, hooked: bool = False) -> Team | None:
        """The team of an executor, or of the context's; None where there is none, so that this thread does the work.

        hooked: the model's hooks take part in the work. They do not travel, so with one that is enabled this thread does it, with a
        notice; so it does where the context's executor has processes and the model was made in memory.
        """
        found = executors.executor(executor)
        if found is None:
            return None
        reason = None
        if hooked and any(hook.enabled for hook in model.hook_manager):
            reason = "its hooks do not leave this process"
        elif executor is None and model.recipe is None and isinstance(found, LocalWorkers | RayWorkers):
            reason = "it was made in memory and other processes cannot load it"
        if reason is None:
            return cls(model, found)
        if model not in _said:
            _said.add(model)
            events.notice(f"Work on {model.title} is not shared among workers: {reason}.")
        return None

    def map(
        self,
        function: Callable[..., Any],
        work: Sequence[tuple[Any, ...]],
        *,
        name: str,
        unit: str,
        sizes: Sequence[int],
        each: Callable[[int, Any], None] | None = None,
    ) -> list[Any]:
        """`function(model, *arguments)` for each arguments in `work`, in their order.

        function: of a module. sizes: units of progress of each. each: called with the index and the value of each as it arrives. Work
        that a dead worker lost is done again; any other error ends the rest. Raises `WorkerLostError` where workers die on it again and
        again.
        """
        changes = tuple(self.model.weights(changed).snapshot() for changed in self.model.changed_weights)
        about = self.model.title, self.model.weights_hash, self.model.recipe, changes, self._token
        chunks = [worker.Chunk(function, arguments, *about) for arguments in work]
        found: list[Any] = [None] * len(chunks)
        left = list(range(len(chunks)))
        with events.progress(name, total=sum(sizes), unit=unit) as job:

            def done(index: int) -> None:
                if each is not None:
                    each(index, found[index])
                job.advance(sizes[index])

            for _ in range(1 + _REPEATS):
                left = self._round(chunks, found, left, done)
                if not left:
                    return found
        raise WorkerLostError(
            f"Workers died {1 + _REPEATS} times while {name}.",
            remedy="Each may lack memory: ask for fewer of them, or smaller models.",
        )

    def fill(
        self,
        found: NDArray[Any],
        function: Callable[..., Any],
        groups: Sequence[Sequence[int]],
        work: Sequence[tuple[Any, ...]],
        *,
        name: str,
        unit: str,
    ) -> None:
        """`map`, with the value of each work put into `found` at its group of indices."""

        def put(index: int, part: Any) -> None:
            found[groups[index]] = part

        self.map(function, work, name=name, unit=unit, sizes=[len(group) for group in groups], each=put)

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
