"""The processes of a tensor-parallel group. What the first process calls, all of them do.

The first process (rank 0) runs the program. Every other process listens: it gets each call by a broadcast, does the same on its own
shard of the model, and listens again. So the collective operations inside line up, whatever the program does between calls. An edit or a
metric, which is code of rank 0 alone, may call the engine again: the others listen while it runs.

Two groups of the same processes: calls go over gloo, and wait for the next call as long as it takes; arrays go over the device's own
backend, where a process that does not come within `PATIENCE` seconds is lost. A process that is lost ends the group: rank 0 raises
`WorkerLostError` then and for every later call, and the others exit.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from neuroscope.engines.torch.apart import apart, ready
from neuroscope.errors import ArgumentError, WorkerLostError, first_line

#: Seconds that a process waits for another in the middle of a call.
PATIENCE = float(os.environ.get("NEUROSCOPE_TP_PATIENCE", "120"))
_FOREVER = timedelta(days=365)
T = TypeVar("T")

#: Performs a call: its name and arguments.
Handler = Callable[..., None]


class _Abandoned(Exception):
    """Rank 0 gave up the call with this number, which this process is still in."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Ranks:
    """This process's part in the group. `lock`: held by rank 0 during a call, since all calls of a process go one after another."""

    def __init__(self, size: int) -> None:
        self.rank, self.size = int(os.environ["RANK"]), size
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        dist.init_process_group(
            "nccl" if cuda else "gloo", timeout=timedelta(seconds=PATIENCE), device_id=self.device if cuda else None
        )
        ready()
        self._calls: Any = dist.new_group(backend="gloo", timeout=_FOREVER)
        self.lock = threading.RLock()
        self.lost: str | None = None
        #: What rank 0 no longer needs, told to the others with the next call.
        self.dropped: deque[Any] = deque()
        self._number = 0
        self._doing: list[int] = []
        self.handler: Handler | None = None

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def number(self) -> int:
        """Of the innermost call that this process is in."""
        return self._doing[-1]

    # --- rank 0 ----------------------------------------------------------------------------------------------------

    def call(self, name: str, *arguments: Any, here: Callable[[], T]) -> T:
        """Let the other processes perform a call while rank 0 does `here`, whose value it answers.

        If `here` raises, the others give the call up. Raises `WorkerLostError` if they cannot. What is thrown into this thread meanwhile
        (Ctrl-C, a script's limit) is raised when all are out of the call.
        """
        with self.lock:
            return apart(lambda: self._called(name, arguments, here))

    def _called(self, name: str, arguments: tuple[Any, ...], here: Callable[[], T]) -> T:
        self._number += 1
        number, dropped = self._number, []
        while self.dropped:
            dropped.append(self.dropped.popleft())
        self._send("call", number, name, arguments, dropped)
        self._doing.append(number)
        try:
            return here()
        except BaseException as error:
            if self.lost is None and _of_the_group(error):  # what the operation left on its way could reach the next one
                self.lost = first_line(error)  # type: ignore[arg-type]
                raise _lost(self.lost) from error
            self._give_up(number, error)
            raise
        finally:
            self._doing.pop()

    def answer(self, *answer: Any) -> None:
        """Tell the others, who `listen`, that code of rank 0 alone has come to an end."""
        self._send("answer", *answer)

    def _send(self, *message: Any) -> None:
        if self.lost is not None:
            raise _lost(self.lost)
        try:
            dist.broadcast_object_list([message], src=0, group=self._calls, device=torch.device("cpu"))
        except RuntimeError as error:
            self.lost = first_line(error)
            raise _lost(self.lost) from error

    def _give_up(self, number: int, error: BaseException) -> None:
        if self.lost is not None:
            return
        self._send("failed", number)
        try:
            dist.monitored_barrier(self._calls, timeout=timedelta(seconds=PATIENCE))
        except RuntimeError as lost:
            self.lost = f"{type(error).__name__}: {first_line(error) if isinstance(error, Exception) else 'stopped'}"
            raise _lost(self.lost) from lost

    def _end(self) -> None:
        if self.lost is None:
            try:
                with self.lock:
                    self._send("end")
            except WorkerLostError:
                return
            dist.destroy_process_group()

    # --- the others ------------------------------------------------------------------------------------------------

    def follow(self, handler: Handler) -> NoReturn:
        """Perform what rank 0 calls, until its program ends; then exit."""
        self.handler = handler
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; rank 0 says what it means
        try:
            self.listen()
        except SystemExit:
            raise
        except BaseException as error:  # the group is lost, and torchrun ends the other processes
            self._leave(error)
        sys.exit("NeuroScope: an answer came out of turn.")

    def listen(self) -> Any:
        """Perform calls until rank 0 answers, and return the answer."""
        while True:
            kind, *message = self._receive()
            if kind == "answer":
                return message
            if kind == "end":
                dist.destroy_process_group()
                raise SystemExit(0)
            if kind == "failed":
                self._agree()
                if message[0] in self._doing:
                    raise _Abandoned(message[0])
            else:
                self._perform(*message)

    def _perform(self, number: int, name: str, arguments: tuple[Any, ...], dropped: Sequence[Any]) -> None:
        assert self.handler is not None
        self._doing.append(number)
        try:
            self.handler("drop", dropped)
            self.handler(name, *arguments)
        except _Abandoned as abandoned:
            if abandoned.number != number:
                raise
        except Exception as error:
            if _of_the_group(error):
                self._leave(error)
            self._expect_failure(number, error)
        finally:
            self._doing.pop()

    def _expect_failure(self, number: int, error: Exception) -> None:
        """Go on only if rank 0 failed in the same call."""
        watch = threading.Timer(PATIENCE, self._leave, (error,))
        watch.daemon = True
        watch.start()
        try:
            message = self._receive()
        finally:
            watch.cancel()
        if tuple(message) != ("failed", number):
            self._leave(error)
        self._agree()

    def _receive(self) -> Any:
        holder: list[Any] = [None]
        dist.broadcast_object_list(holder, src=0, group=self._calls, device=torch.device("cpu"))
        return holder[0]

    def _agree(self) -> None:
        dist.monitored_barrier(self._calls, timeout=timedelta(seconds=PATIENCE))

    def _leave(self, error: BaseException) -> NoReturn:
        text = "".join(traceback.format_exception(error))
        sys.stderr.write(f"NeuroScope: process {self.rank} of {self.size} leaves the group.\n{text}")
        sys.stderr.flush()
        os._exit(1)

    # --- arrays ----------------------------------------------------------------------------------------------------

    def share(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor, on every rank; the others give one of its shape and type to fill."""
        tensor = tensor.detach().contiguous()
        dist.broadcast(tensor, src=0)
        return tensor

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(tuple(shape), dtype=dtype, device=self.device)

    def gathered(self, part: Tensor, axis: int) -> Tensor:
        """The parts of all ranks, joined along an axis."""
        part = part.detach().contiguous()
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part)
        return torch.cat(parts, dim=axis)

    def part(self, whole: Tensor, axis: int) -> Tensor:
        """This rank's part of an array, along an axis, as a view."""
        width = whole.shape[axis] // self.size
        return whole.narrow(axis, self.rank * width, width)

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in the tensor itself."""
        dist.all_reduce(tensor)
        return tensor

    def limit(self, group: Any) -> None:
        """Let operations of another group of the same processes, which transformers made, wait no longer than this one's."""
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=PATIENCE), group)

    def together(self) -> None:
        """Wait until all ranks are here, as long as it takes."""
        dist.barrier(self._calls)


_group: list[Ranks] = []
_starting = threading.Lock()


def join(size: int) -> Ranks:
    """The group that torchrun started this process in, made at the first call. Raises `ArgumentError` if there is no such group."""
    with _starting:
        if _group:
            if _group[0].size != size:
                raise ArgumentError(f"This program runs in {_group[0].size} processes, not {size}.", remedy=_remedy(size))
            return _group[0]
        started = os.environ.get("WORLD_SIZE")
        if started is None or "RANK" not in os.environ:
            raise ArgumentError(f"tp={size} needs {size} processes, and this is one alone.", remedy=_remedy(size))
        if int(started) != size:
            raise ArgumentError(f"tp={size} needs {size} processes; torchrun started {started}.", remedy=_remedy(size))
        if multiprocessing.parent_process() is not None:
            raise ArgumentError(
                "A worker of an executor cannot share a model with the program's processes.",
                remedy="Load the model without tp, or work without an executor.",
            )
        if not dist.is_available():
            raise ArgumentError("This build of torch has no torch.distributed.", remedy="Install one that has.")
        ranks = Ranks(size)
        _group.append(ranks)
        if ranks.leads:
            atexit.register(ranks._end)
        return ranks


def _of_the_group(error: BaseException) -> bool:
    """Whether a collective operation failed, rather than a computation."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "ProcessGroup"))
    )


def _remedy(size: int) -> str:
    return f"torchrun --nproc-per-node {size} -m neuroscope …, or torchrun --nproc-per-node {size} program.py"


def _lost(reason: str) -> WorkerLostError:
    return WorkerLostError(
        f"A process of the tensor-parallel group is lost ({reason}), and the model with it.",
        remedy="Start the program again; what the process wrote to stderr says why it ended.",
    )
