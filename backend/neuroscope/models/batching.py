"""Continuous batching: generations of one model that run at the same time share its passes.

Each generation is a row that joins when it is first asked for a token and leaves when it ends, is closed, or is cancelled. Whoever asks while
nobody computes runs one pass for all that are asking, in its own thread; the others wait for their token. So there is no thread of the
batch's own, a generation alone costs what it costs without a batch, and every row gets one token of each pass.

Some generations run alone, and take turns with the batch at the engine:

- several prompts of one call, which are a batch already;
- hooks that are blocks of a script: they run in their script's thread, whose limits can stop them;
- a thread that holds the model (an edit on trial, a hook that generates): nobody else may see the model as it is there;
- engines that do not pack (MLX), and rotary embeddings that depend on the longest text of a pass.

A hook that writes weights changes them for everyone, from the layer on that the pass has reached, as it does without a batch from the
next token on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from neuroscope import events
from neuroscope.errors import CancelledError

if TYPE_CHECKING:
    from neuroscope.engines.decoding import Decoding
    from neuroscope.engines.protocol import Edit, Engine, GenerationSettings, Step, TokenBatch
    from neuroscope.engines.sites import Site

#: Most rows of one pass, and most tokens of the prompts that join in one (the first joins in any case). Others come in the next.
ROWS, PROMPTS = 32, 512

#: A pass waits for the rows of the last one that have not come back for more: so much of that pass's time, and no more than so many seconds.
_PART, _LONGEST = 0.25, 0.02

#: Seconds between two looks of a waiting row at whether it was cancelled.
_PATIENCE = 0.05

_alone: ContextVar[bool] = ContextVar("neuroscope_generates_alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within the block generations share no passes, so that their numbers do not depend on what else runs, to the last bit."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def steps(
    engine: Engine,
    batch: TokenBatch,
    settings: GenerationSettings,
    capture: Sequence[Site],
    edits: Sequence[Edit],
    *,
    alone: bool,
    ahead: bool,
) -> Generator[Step]:
    """The tokens of a generation, which joins the others of its engine now, and leaves when this is closed; or runs alone."""
    if alone or _alone.get() or not engine.packs or batch.rows > 1:
        return engine.generate(batch, settings, capture=capture, edits=edits)
    decoding = engine.decoding(batch, settings, capture=capture, edits=edits)
    return GenerationBatch.of(decoding.engine).join(decoding, ahead=ahead)


class Row:
    """One generation in a batch. ahead: whether a token may be computed before it is asked for, where others ask for theirs."""

    def __init__(self, batch: GenerationBatch, decoding: Decoding, ahead: bool) -> None:
        self._batch, self._ahead = batch, ahead
        self.decoding = decoding
        self.asking = ahead
        self.since = time.monotonic()  # when it began to ask
        self.came = threading.Condition(batch.lock)  # a token did, or its turn to lead
        self.context = copy_context()
        self._cancelled = events.asked_to_stop()

    @property
    def waits(self) -> bool:
        """Whether the next pass should run it."""
        begun = self.decoding
        return self.asking and not begun.found and not begun.ended and not self._cancelled()

    @property
    def is_back(self) -> bool:
        """Whether nothing is gained by waiting for it: it asks for its next token, or has no thread of its own that could."""
        return self._ahead or (self.asking and not self.decoding.found)

    def take(self) -> Step:
        """The next token, computed with those of the others if it is not there. Raises `CancelledError`, and its own error."""
        batch = self._batch
        try:
            while True:
                with batch.lock:
                    self._ask()
                    if self.decoding.found:
                        self.asking, self.since = self._ahead, time.monotonic()
                        return self.decoding.take()
                    events.check_cancelled()
                    if self._cancelled():  # by whoever began it
                        raise CancelledError("The generation was cancelled.", remedy="Start it again.")
                    if batch.leader is not None:
                        self.came.wait(_PATIENCE)
                        continue
                    batch.leader = self
                batch.run(self)
                batch.resign(self)
        finally:  # also where the thread is stopped in between
            batch.resign(self)

    def _ask(self) -> None:
        if not self.asking:
            self.asking, self.since = True, time.monotonic()
            self._batch.asked.notify()


class GenerationBatch:
    """The rows of one engine. `leader` runs a pass now, or is about to."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a row that is collected leaves from wherever its thread is
        self.asked = threading.Condition(self.lock)
        self.leader: Row | None = None
        self._rows: list[Row] = []
        self._last: list[Row] = []
        self._pause = 0.0

    @classmethod
    def of(cls, engine: Any) -> GenerationBatch:
        """The batch of an engine."""
        with _lock:
            return _batches.setdefault(engine, cls())

    def __len__(self) -> int:
        return len(self._rows)

    def join(self, decoding: Decoding, *, ahead: bool = False) -> Generator[Step]:
        """The tokens of a generation, which is a row from now on, until they end or this is closed."""
        row = Row(self, decoding, ahead)
        found: Any = self._taken(row)
        next(found)  # so that it can be closed before its first token
        return found

    def _taken(self, row: Row) -> Generator[Step | None]:
        begun = row.decoding
        with self.lock:
            self._rows.append(row)
        try:
            yield None
            while begun.found or not begun.ended:
                if begun.engine.held and not begun.found:
                    begun.context = None
                    begun.engine.advance([begun])
                    yield begun.take()
                else:
                    yield row.take()
        finally:
            with self.lock:
                row.asking = False
                self._rows = [one for one in self._rows if one is not row]
                self._last = [one for one in self._last if one is not row]
                self.asked.notify()
                self._wake()

    def resign(self, row: Row) -> None:
        """Another row may lead."""
        if self.leader is row:
            with self.lock:
                self.leader = None
                self._wake()

    def _wake(self) -> None:
        waiting = next((row for row in self._rows if row.asking and not row.decoding.found), None)
        if self.leader is None and waiting is not None:
            waiting.came.notify()

    def run(self, leader: Row) -> None:
        """Run one pass of the rows that ask, those first that have asked longest."""
        with self.lock:
            self.asked.wait_for(lambda: all(row.is_back for row in self._last), self._pause)
        engine = leader.decoding.engine
        with engine.exclusive():  # others may come while it is not free
            with self.lock:
                self._last = rows = self._chosen()
            for row in rows:
                row.decoding.context = None if row is leader else row.context
            start = time.monotonic()
            engine.advance([row.decoding for row in rows])
            self._pause = min(_PART * (time.monotonic() - start), _LONGEST)
        with self.lock:
            for row in rows:
                row.came.notify()

    def _chosen(self) -> list[Row]:
        rows: list[Row] = []
        tokens = 0
        for row in sorted((row for row in self._rows if row.waits), key=lambda row: row.since):
            columns = row.decoding.columns if row.decoding.index == 0 else 0
            if columns and tokens and tokens + columns > PROMPTS:
                continue
            tokens += columns
            rows.append(row)
            if len(rows) == ROWS:
                break
        return rows


_lock = threading.Lock()
_batches: WeakKeyDictionary[Any, GenerationBatch] = WeakKeyDictionary()
