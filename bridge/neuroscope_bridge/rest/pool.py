"""The models of HTTP requests, each with one compute worker.

A request's generation is an iterator that the event loop pulls, a step or a short time at a time, on its model's worker. So
requests take turns fairly, a stalled reader stalls only its own generation, and no thread waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from neuroscope.errors import ModelNotFoundError, did_you_mean
from neuroscope.models import aliases
from neuroscope_bridge.host import Host
from neuroscope_bridge.rest.errors import BusyError

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

#: Longest time in seconds that an unstreamed generation holds the worker.
SLICE = 0.03


class Worker:
    """One thread in which a model computes, with the host's context."""

    def __init__(self, name: str, context: contextvars.Context) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=f"neuroscope http {name}")
        self._context = context

    async def run(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Compute in the worker's thread, in turn."""
        context = self._context.copy()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: context.run(function, *arguments, **named))

    def later(self, function: Callable[[], object]) -> None:
        """Run a function in the worker's thread, after its current work."""
        self._threads.submit(self._context.copy().run, function)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class PooledModel:
    """A loaded model, when it was loaded (seconds since 1970), and its worker."""

    model: TransformerModel
    created: int
    worker: Worker

    def fresh(self) -> TransformerModel:
        """The same weights with separate hooks, for one request."""
        from neuroscope.models.model import TransformerModel

        model = self.model
        return TransformerModel(model.engine, model.tokenizer, model.name, model.loaded_hash, model.ran)


class ModelPool:
    """Loaded models by name; the one loaded last serves requests that name none."""

    def __init__(self, host: Host, most: int) -> None:
        self._host = host
        self._context = host.context(None)
        self._lock = threading.Lock()
        self._models: dict[str, PooledModel] = {}
        self._workers: dict[int, Worker] = {}
        self._default: str | None = None
        self._loader = Worker("loader", self._context)
        self.analyst = Worker("analyst", self._context)  # long work, which takes turns with generations at the engine
        self._most = most
        self._running = 0

    async def start(self) -> None:
        """Add the models that the host has loaded."""
        if self._host.options.model is not None:
            await self.load(self._host.options.model)

    async def load(self, name: str, dtype: str | None = None) -> PooledModel:
        """Load the model of a name if needed, and make it the default. Raises the errors of loading.

        Replaces one of another `dtype`.
        """
        pooled = self._models.get(name)
        if pooled is None or dtype not in (None, pooled.model.precision):
            pooled = await self._loader.run(self._load, name, dtype)
        self._default = name
        return pooled

    def _load(self, name: str, dtype: str | None = None) -> PooledModel:
        from neuroscope.models.model import TransformerModel

        model = TransformerModel.from_hugging_face(name, dtype=dtype)
        with self._lock:
            worker = self._workers.get(id(model.engine))
            if worker is None:
                worker = self._workers[id(model.engine)] = Worker(name, self._context)
            pooled = self._models.get(name)
            if pooled is None or pooled.model.engine is not model.engine:
                pooled = self._models[name] = PooledModel(model, int(time.time()), worker)
            return pooled

    async def find(self, name: str | None) -> PooledModel:
        """The loaded model of a name, or the default for None. Raises `ModelNotFoundError`."""
        if name is None:
            if self._default is None:
                raise ModelNotFoundError("No model is loaded.", remedy='POST /v1/models/load {"model": "…"}.')
            return self._models[self._default]
        found = self._models.get(name)
        if found is not None:
            return found
        if name in self._host.models.names():  # a session loaded it over ZeroMQ
            return await self._loader.run(self._load, name)
        remedy = f'POST /v1/models/load {{"model": …}} loads it. {did_you_mean(name, self.names(), listing="Loaded")}'
        raise ModelNotFoundError(f"No model {name!r} is loaded.", remedy=remedy)

    def names(self) -> list[str]:
        return sorted({*self._models, *self._host.models.names()})

    def stand_in(self, name: str) -> str | None:
        """The stand-in for the model of a name, or None."""
        return self._context.copy().run(aliases.stand_in, name)

    def created(self, name: str) -> int:
        found = self._models.get(name)
        return 0 if found is None else found.created

    @property
    def default(self) -> str | None:
        return self._default

    @property
    def running(self) -> int:
        """Number of running generations."""
        return self._running

    def pull(self, worker: Worker, pieces: Iterator[T]) -> Pull[T]:
        """Run a generation in the worker's turns. Raises `BusyError` at the limit of generations."""
        if self._running >= self._most:
            raise BusyError(f"{self._running} generations are running, which is the limit.", remedy="Try again in a moment.")
        self._running += 1
        return Pull(self, worker, pieces)

    def ended(self) -> None:
        self._running -= 1

    def close(self) -> None:
        for worker in (self._loader, self.analyst, *self._workers.values()):
            worker.close()


class Pull(Generic[T]):
    """An iterator whose steps a worker computes on demand. It must be closed."""

    def __init__(self, pool: ModelPool, worker: Worker, pieces: Iterator[T]) -> None:
        self._pool, self._worker, self._pieces = pool, worker, pieces
        self._closed = False

    async def one(self, make: Callable[[T], R]) -> R | None:
        """`make` of the next piece, in the worker's thread; None at the end."""
        return await self._worker.run(_one, self._pieces, make)

    async def some(self, take: Callable[[T], None]) -> bool:
        """Pass the pieces of a short time to `take`, in the worker's thread; false at the end."""
        return await self._worker.run(_some, self._pieces, take)

    def close(self) -> None:
        """End the generation, even while it runs: it stops before its next step."""
        if not self._closed:
            self._closed = True
            self._pool.ended()
            close: Any = getattr(self._pieces, "close", None)
            if close is not None:
                self._worker.later(close)


def _one(pieces: Iterator[T], make: Callable[[T], R]) -> R | None:
    for piece in pieces:
        return make(piece)
    return None


def _some(pieces: Iterator[T], take: Callable[[T], None]) -> bool:
    end = time.monotonic() + SLICE
    for piece in pieces:
        take(piece)
        if time.monotonic() > end:
            return True
    return False
