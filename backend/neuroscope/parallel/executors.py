"""Who works: local processes, or a Ray cluster. Both have the `submit` of `concurrent.futures.Executor`."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, Self

from neuroscope.errors import ArgumentError, MissingExtraError, first_line
from neuroscope.remedies import install


class Executor(Protocol):
    """What sharing work out needs of an executor: `submit`, which answers a future with `result` and `cancel`."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Any: ...


class LocalWorkers:
    """Processes of this machine, each with the model. A process that dies is replaced.

    threads: of each process. It is 1 unless said otherwise, so that a result does not depend on the machine's cores.
    """

    def __init__(self, count: int, *, threads: int = 1) -> None:
        if count < 1 or threads < 1:
            raise ArgumentError(f"{count} workers of {threads} threads cannot work.", remedy="Ask for at least 1 of each.")
        self.count, self.threads = int(count), int(threads)
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        if self._pool is None:
            # A fork would copy a framework's threads in the midst of their work.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_begin, initargs=(self.threads,))
        return self._pool.submit(function, *arguments)

    def replace(self) -> None:
        """Leave a pool in which a process died; the next work gets new ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def shutdown(self, wait: bool = True) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=wait, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


def _begin(threads: int) -> None:
    """Before a framework is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


class RayWorkers:
    """Tasks of a Ray cluster. Ray itself repeats those whose worker or machine dies.

    address: of a cluster ("auto", "ray://host:10001"); None starts one on this machine with `count` cores. cpus, gpus: that a task takes.
    Raises `MissingExtraError` without Ray, `ArgumentError` for a cluster that does not answer.
    """

    def __init__(self, address: str | None = None, *, count: int | None = None, cpus: float = 1, gpus: float = 0) -> None:
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError("Work on a cluster needs Ray.", remedy=install("ray"))
        import ray

        self._ray: Any = ray
        try:
            ray.init(address, num_cpus=count, log_to_driver=False, ignore_reinit_error=True, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ArgumentError(
                f"The Ray cluster at {address!r} does not answer: {first_line(error)}",
                remedy="`ray start --head` starts one on a machine.",
            ) from error
        self._call = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=3)(_called)

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        return self._call.remote(function, *arguments).future()

    def shutdown(self, wait: bool = True) -> None:
        self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


_executor: ContextVar[Executor | None] = ContextVar("neuroscope_executor", default=None)


def executor(given: Executor | None = None) -> Executor | None:
    """`given`, or the context's executor, or None: this thread does the work. Raises `ArgumentError` for what cannot take work."""
    found = _executor.get() if given is None else given
    if found is not None and not callable(getattr(found, "submit", None)):
        raise ArgumentError(
            f"{found!r} is no executor: it has no `submit`.",
            remedy="Give a concurrent.futures.Executor, LocalWorkers or RayWorkers.",
        )
    return found


@contextmanager
def working(executor: Executor | None) -> Iterator[None]:
    """Let instruments of this context share their work out; None changes nothing."""
    if executor is None:
        yield
        return
    token = _executor.set(executor)
    try:
        yield
    finally:
        _executor.reset(token)
