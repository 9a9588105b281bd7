"""The models of HTTP requests, each with one compute worker.

A request's generation is an iterator that the event loop pulls, a step or a short time at a time, on its model's worker. Those of one model
are rows of one batch (`neuroscope.models.batching`): a step that the worker computes brings every other reader its next token too, if it has
taken its last one. So requests take turns fairly, a stalled reader stalls only its own generation, and no thread waits. Requests are
checked, and join the batch, in a thread of their own, so that they come in at the next step. Work of a request that was cancelled leaves the
queue and the batch, or ends at its next step.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from neuroscope import events
from neuroscope.engines import precision
from neuroscope.errors import ModelLimitError, ModelNotFoundError, NeuroScopeError, did_you_mean
from neuroscope.models import aliases, resolve, saving
from neuroscope_bridge.host import Host
from neuroscope_bridge.rest.errors import BusyError, ForbiddenError

if TYPE_CHECKING:
    from neuroscope.engines.protocol import Engine
    from neuroscope.models.model import TransformerModel

log = logging.getLogger("neuroscope.bridge")

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

#: Longest time in seconds that an unstreamed generation holds the worker.
SLICE = 0.03

#: Names that are kept for loaded models, in addition to those under which they were first loaded.
_SPELLINGS = 256


class Worker:
    """One thread in which a model computes, with the host's context."""

    def __init__(self, name: str, context: contextvars.Context) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=f"neuroscope http {name}")
        self._context = context

    async def run(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Compute in the worker's thread, in turn. Cancelling it takes it out of the queue, or stops it at its next step."""
        context = self._context.copy()
        gone = threading.Event()

        def work() -> T:
            with events.cancellable(gone.is_set):
                return function(*arguments, **named)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(work))
        except asyncio.CancelledError:
            gone.set()
            raise

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
        """The same weights with separate hooks, for one request; those that were saved with the model act in every request."""
        from neuroscope.models.model import TransformerModel

        model = self.model
        made = TransformerModel(model.engine, model.tokenizer, model.name, model.loaded_hash, model.ran)
        made.task_type = model.task_type
        for hook in model.hook_manager:
            made.hook_manager.add_persistent_hook(hook)
        return made


class ModelPool:
    """Loaded models by name. Requests that name none get the server's own (`--model`), or else the first that was loaded."""

    def __init__(self, host: Host, most: int, *, on_demand: bool = True) -> None:
        """most: concurrent generations. on_demand: whether a request for a model that is not loaded loads it, if that takes no download."""
        self._host = host
        self._context = host.context(None)
        self._lock = threading.Lock()
        self._models: dict[str, PooledModel] = {}
        self._workers: dict[int, Worker] = {}
        self._default: PooledModel | None = None
        self._loader = Worker("loader", self._context)
        self.usher = Worker("usher", self._context)  # checks requests and lets generations begin, while workers compute
        self.analyst = Worker("analyst", self._context)  # long work, which takes turns with generations at the engine
        self._most = most
        self._on_demand = on_demand
        self._running = 0
        self._own: asyncio.Task[PooledModel] | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._awaited: list[str] = []  # the names that are being loaded

    async def start(self) -> None:
        """Add the server's own model; if it is still being loaded, when it is there. Raises the errors of loading."""
        if self._host.options.model is not None:
            self._own = asyncio.create_task(self._load_own(self._host.options.model))
            self._own.add_done_callback(self._note)
            if self._host.is_loaded:
                await self._own

    async def _load_own(self, name: str) -> PooledModel:
        self._awaited.append(name)
        try:
            await self._loader.run(self._host.wait)
            return await self.load(name)
        finally:
            self._awaited.remove(name)

    def _note(self, own: asyncio.Task[PooledModel]) -> None:
        if not own.cancelled():
            self._failure = own.exception()
        self._started.set()

    def wait(self) -> None:
        """Wait in another thread for the server's own model. Raises the error of loading it."""
        if self._host.options.model is not None:
            self._started.wait()
        if self._failure is not None:
            raise self._failure

    async def load(self, name: str, dtype: str | None = None) -> PooledModel:
        """The model of a name, loaded if needed. Replaces one of another `dtype` under that name.

        Raises `ArgumentError` for an unknown `dtype`, `ModelLimitError`, and `ModelNotFoundError` without further reasons: those are in
        the log. Only for models of the server's own names (`--alias`, `--model`, `bundled:`) it raises the errors of loading.
        """
        if dtype is not None:
            precision.checked(dtype)
        pooled = self._models.get(name)
        if pooled is None or dtype not in (None, pooled.model.precision):
            self._awaited.append(name)
            try:
                pooled = await self._loader.run(self._load, name, dtype)
            finally:
                self._awaited.remove(name)
        if self._default is None and self._host.options.model in (None, name):
            self._default = pooled
        return pooled

    def _load(self, name: str, dtype: str | None = None) -> PooledModel:
        try:
            model = self._loaded(name, dtype)
        except ModelLimitError:
            raise
        except Exception as error:
            if self._is_our_own(name):
                raise
            log.warning("a model could not be loaded over HTTP: %s", " ".join(str(error).split()))
            raise ModelNotFoundError(
                f"No model {name[:200]!r} can be loaded here.",
                remedy="The server's log says why; `neuroscope models` on its machine lists what can be loaded, and --alias gives it a name.",
            ) from None
        with self._lock:
            worker = self._workers.get(id(model.engine))
            if worker is None:
                worker = self._workers[id(model.engine)] = Worker(name, self._context)
            before = self._models.pop(name, None)
            pooled = before
            if pooled is None or pooled.model.engine is not model.engine:
                pooled = PooledModel(model, int(time.time()), worker)
            self._models[name] = pooled
            self._trim()
        if before is not None and before.model.engine is not model.engine:
            self._drop_unused(before.model.engine)
        return pooled

    def _loaded(self, name: str, dtype: str | None) -> TransformerModel:
        """The model, with the hooks and the vectors that were saved in its folder."""
        from neuroscope.models.model import TransformerModel

        revision = self._host.options.revision if name == self._host.options.model else None
        model = TransformerModel.from_hugging_face(name, dtype=dtype, revision=revision)
        source = resolve.resolve(name, allow_download=False)
        if source.kind == "folder" and source.path is not None:
            saving.restore(model, source.path)
        return model

    def _is_our_own(self, name: str) -> bool:
        return self.stand_in(name) is not None or name == self._host.options.model or name.startswith(aliases.BUNDLED)

    def _trim(self) -> None:
        """Forget the oldest additional spellings."""
        firsts = set(self._host.models.names())
        others = [name for name in self._models if name not in firsts]
        for name in others[: max(0, len(others) - _SPELLINGS)]:
            del self._models[name]

    def _drop_unused(self, engine: Engine) -> None:
        """Free an engine that no name has any more."""
        with self._lock:
            kept = [*self._models.values(), *([] if self._default is None else [self._default])]
            if any(pooled.model.engine is engine for pooled in kept):
                return
            self._workers.pop(id(engine), None)  # its thread ends with the last request that uses it
        self._host.models.forget(engine)
        gc.collect()

    async def unload(self, name: str) -> str:
        """Forget the model of a name under all its names; answers the one it was first loaded by.

        Running requests keep it until they end, and so do ZeroMQ sessions that hold it. Raises `ModelNotFoundError`, and `ForbiddenError`
        for the server's own model.
        """
        engine = (await self.loaded(name)).model.engine
        own = self._host.options.model
        if own is not None and self._default is not None and engine is self._default.model.engine:
            raise ForbiddenError(f"{own} is the server's own model (--model).", remedy="Stop the server to free its memory.")
        first = self._first_name(engine)
        with self._lock:
            self._models = {key: pooled for key, pooled in self._models.items() if pooled.model.engine is not engine}
            if self._default is not None and self._default.model.engine is engine:
                self._default = None
        await self._loader.run(self._drop_unused, engine)
        return first

    def _first_name(self, engine: Engine) -> str:
        return next((model.name for model in self._host.models.loaded() if model.engine is engine), "")

    async def find(self, name: str | None) -> PooledModel:
        """`loaded`, or the model that a name stands for here, loaded on demand."""
        unknown = self._on_demand and name is not None and not self._is_loaded(name)
        if name is not None and unknown and await self._loader.run(self._is_here, name):
            with contextlib.suppress(ModelNotFoundError):  # one answer, whatever is the matter with a stranger's name
                return await self.load(name)
        return await self.loaded(name)

    @staticmethod
    def _is_here(name: str) -> bool:
        """Whether a name is that of a model which loads without a download."""
        try:
            return resolve.resolve(name, allow_download=False).path is not None
        except NeuroScopeError:
            return False

    def _is_loaded(self, name: str) -> bool:
        return name in self._models or name in self._host.models.names()

    @property
    def is_starting(self) -> bool:
        """Whether the server's own model is being loaded."""
        return self._own is not None and not self._own.done()

    @property
    def loading(self) -> list[str]:
        """The names of models that are being loaded."""
        return sorted(set(self._awaited))

    async def loaded(self, name: str | None) -> PooledModel:
        """The loaded model of a name, or the default for None; one that is being loaded as the server's own is waited for.

        Raises `ModelNotFoundError`.
        """
        if self.is_starting and name in (None, self._host.options.model):
            assert self._own is not None
            return await asyncio.shield(self._own)
        if name is None:
            if self._default is None:
                raise ModelNotFoundError("No model is loaded.", remedy='POST /v1/models/load {"model": "…"}.')
            return self._default
        found = self._models.get(name)
        if found is not None:
            return found
        if name in self._host.models.names():  # a session loaded it over ZeroMQ
            return await self._loader.run(self._load, name)
        remedy = f'POST /v1/models/load {{"model": …}} loads it. {did_you_mean(name, self.names(), listing="Loaded")}'
        raise ModelNotFoundError(f"No model {name!r} is loaded.", remedy=remedy)

    def names(self) -> list[str]:
        """The names under which the loaded models were first asked for, by HTTP or by a session."""
        return self._host.models.names()

    def stand_in(self, name: str) -> str | None:
        """The stand-in for the model of a name, or None."""
        return self._context.copy().run(aliases.stand_in, name)

    def created(self, name: str) -> int:
        found = self._models.get(name)
        return 0 if found is None else found.created

    @property
    def default(self) -> str | None:
        return None if self._default is None else self._default.model.name

    @property
    def running(self) -> int:
        """Number of running generations."""
        return self._running

    async def pull(self, worker: Worker, begin: Callable[[], Iterator[T]]) -> Pull[T]:
        """Run a generation in the worker's turns. Raises `BusyError` at the limit of generations."""
        if self._running >= self._most:
            raise BusyError(f"{self._running} generations are running, which is the limit.", remedy="Try again in a moment.")
        self._running += 1
        pull = Pull[T](self, worker)
        try:
            await pull.begin(begin)
        except BaseException:
            pull.close()
            raise
        return pull

    def ended(self) -> None:
        self._running -= 1

    def close(self) -> None:
        if self._own is not None:
            self._own.cancel()
        for worker in (self._loader, self.usher, self.analyst, *self._workers.values()):
            worker.close()


class Pull(Generic[T]):
    """An iterator whose steps a worker computes on demand. It must be closed."""

    def __init__(self, pool: ModelPool, worker: Worker) -> None:
        self._pool, self._worker = pool, worker
        self._pieces: Iterator[T] = iter(())
        self._gone = threading.Event()

    async def begin(self, begin: Callable[[], Iterator[T]]) -> None:
        """Make the iterator, whose generation joins those that run."""

        def work() -> Iterator[T]:
            with events.cancellable(self._gone.is_set):
                return begin()

        self._pieces = await self._pool.usher.run(work)

    async def one(self, make: Callable[[T], R]) -> R | None:
        """`make` of the next piece, in the worker's thread; None at the end."""
        return await self._worker.run(_one, self._pieces, make)

    async def some(self, take: Callable[[T], None]) -> bool:
        """Pass the pieces of a short time to `take`, in the worker's thread, or one if others take turns; false at the end."""
        return await self._worker.run(_some, self._pieces, take, lambda: self._pool.running == 1)

    def close(self) -> None:
        """End the generation, even while it runs: it stops before its next step."""
        if not self._gone.is_set():
            self._gone.set()
            self._pool.ended()
            close: Any = getattr(self._pieces, "close", None)
            if close is not None:
                self._worker.later(close)


def _one(pieces: Iterator[T], make: Callable[[T], R]) -> R | None:
    for piece in pieces:
        return make(piece)
    return None


def _some(pieces: Iterator[T], take: Callable[[T], None], alone: Callable[[], bool]) -> bool:
    end = time.monotonic() + SLICE
    for piece in pieces:
        take(piece)
        if not alone() or time.monotonic() > end:
            return True
    return False
