"""Generations under way: what an engine keeps of each between two tokens.

An engine advances several of them at once where it packs: one pass runs the prompts' tokens of those that begin and the newest token of
the others, and each has a cache, hooks, random numbers and settings of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from neuroscope.engines.protocol import (
    Array,
    ArrayOps,
    BoolArray,
    Edit,
    GenerationSettings,
    IntArray,
    LogitRequest,
    Phase,
    Step,
    TokenBatch,
)
from neuroscope.engines.sampling import choose
from neuroscope.engines.sites import Site
from neuroscope.engines.spans import Span

T = TypeVar("T")


@dataclass(eq=False)
class Decoding:
    """One generation: of a prompt, or of prompts of one batch that share settings and random numbers.

    engine: advances it. cache: keys and values of the tokens that ran. context: of whoever asked, for its edits; None: the caller's.
    found: the steps that nobody has taken yet, or the error that ended it.
    """

    engine: Any
    batch: TokenBatch
    settings: GenerationSettings
    capture: Sequence[Site]
    edits: Sequence[Edit]
    cache: Any
    context: Context | None = None
    found: deque[Step | Exception] = field(default_factory=deque)
    index: int = 0
    ended: bool = False

    def __post_init__(self) -> None:
        self.tokens: IntArray = self.batch.ids
        self._random = np.random.default_rng(self.settings.seed)
        self._done: BoolArray = np.zeros(self.batch.rows, dtype=np.bool_)

    @property
    def first(self) -> int:
        """The column at which the next pass begins."""
        return 0 if self.index == 0 else self.batch.positions + self.index - 1

    @property
    def columns(self) -> int:
        """Tokens of each row that the next pass runs: the prompt's, then one."""
        return int(self.tokens.shape[1])

    @property
    def where(self) -> dict[str, Any]:
        """What the taps of the next pass have to know."""
        phase = Phase.PREFILL if self.index == 0 else Phase.DECODE
        return {"phase": phase, "first_column": self.first, "columns": self.columns, "tokens": self.tokens}

    def span(self) -> Span:
        """The columns of the next pass."""
        real = self.batch.real if self.index == 0 else np.ones_like(self.tokens, dtype=np.bool_)
        return Span(self.batch, TokenBatch(self.tokens, real), self.first, self.cache)

    def request(self) -> LogitRequest:
        """The logits after the last token of the next pass."""
        return LogitRequest(np.full(self.batch.rows, self.first + self.columns - 1))

    def within(self, work: Callable[[], T]) -> T:
        """`work` in the context of whoever asked for this generation."""
        return work() if self.context is None else self.context.run(work)

    def choose(self, logits: Array, activations: dict[Site, Array], ops: ArrayOps) -> None:
        """The pass has run: choose from its logits (rows, vocabulary), and go on to the next. Rows that have ended continue as -1."""
        chosen = choose(ops.to_numpy(logits), self.settings, self._random)
        step = Step(self.index, np.where(self._done, -1, chosen), logits, activations)
        self._done |= np.isin(chosen, self.settings.end_tokens)
        self.tokens = chosen[:, None]
        self.index += 1
        self.ended = bool(self._done.all()) or self.index == self.settings.max_tokens
        self.found.append(step)

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self.ended = True
        self.found.append(error)

    def take(self) -> Step:
        """The next step that was found. Raises the error that ended the generation."""
        found = self.found.popleft()
        if isinstance(found, Exception):
            raise found
        return found
