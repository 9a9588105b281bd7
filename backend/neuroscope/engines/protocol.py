"""The seam between experiments and tensor frameworks.

Everything above this file speaks of sites, token batches and arrays it cannot look into; everything below it knows
torch or MLX. An engine runs layers `start` … `stop` of a decoder on a batch, reads (`capture`) and rewrites
(`edits`) sites while it does so, differentiates a metric with respect to sites, and generates. A run that captures
and edits nothing costs what the bare model costs.

Arrays are the engine's own (`torch.Tensor`, `mlx.core.array`); `Engine.ops` is the small set of operations that
experiments need on them, and numpy is the common ground for results.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.sites import Site
from neuroscope.engines.weights import WeightSite, WeightView
from neuroscope.errors import ArgumentError, SiteError

Array = Any
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class TokenBatch:
    """Token ids (rows × positions) and which of them are real. Rows may be padded left or right, not in between."""

    ids: IntArray
    real: BoolArray

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.shape != self.real.shape or 0 in self.ids.shape:
            raise ArgumentError(f"A token batch is rows × positions with at least one token, not {self.ids.shape}.")
        lengths = self.real.sum(1)
        if (lengths == 0).any():
            raise ArgumentError(f"Row {int(np.argmin(lengths))} of the batch holds no token.")
        runs = (np.diff(self.real.astype(np.int8), axis=1) != 0).sum(1)
        if (runs > 1).any():
            raise ArgumentError("Padding stands at one end of a row only.")

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], *, pad: int = 0, side: str = "right") -> TokenBatch:
        """A batch from lists of ids, padded with `pad` on `side` ("left" or "right")."""
        if side not in ("left", "right"):
            raise ArgumentError(f"Padding side is 'left' or 'right', not {side!r}.")
        if not rows:
            raise ArgumentError("A token batch needs at least one row.")
        width = max(len(row) for row in rows)
        ids = np.full((len(rows), width), pad, dtype=np.int64)
        real = np.zeros((len(rows), width), dtype=np.bool_)
        for index, row in enumerate(rows):
            where = slice(width - len(row), width) if side == "left" else slice(0, len(row))
            ids[index, where] = row
            real[index, where] = True
        return cls(ids, real)

    @property
    def rows(self) -> int:
        return int(self.ids.shape[0])

    @property
    def positions(self) -> int:
        return int(self.ids.shape[1])

    @property
    def padded(self) -> bool:
        return not bool(self.real.all())

    @property
    def offsets(self) -> IntArray:
        """Index of each row's first real token."""
        return self.real.argmax(1).astype(np.int64)

    @property
    def lengths(self) -> IntArray:
        """Number of real tokens of each row."""
        return self.real.sum(1).astype(np.int64)

    def column(self, position: int) -> IntArray:
        """For each row the column at which its real token number `position` stands (negative: from its end)."""
        lengths = self.lengths
        if not (-lengths.min() <= position < lengths.min()):
            shortest = int(lengths.min())
            raise SiteError(
                f"There is no token {position}: the shortest prompt has {shortest} tokens.",
                remedy=f"Positions run from 0 to {shortest - 1}.",
            )
        return self.offsets + (position if position >= 0 else lengths + position)

    def take(self, rows: Sequence[int] | IntArray | slice) -> TokenBatch:
        return TokenBatch(self.ids[rows], self.real[rows])

    def repeat(self, times: int) -> TokenBatch:
        """All rows, `times` over: a, b, a, b …"""
        return TokenBatch(np.tile(self.ids, (times, 1)), np.tile(self.real, (times, 1)))


class Phase(Enum):
    """Which part of a generation a run belongs to."""

    FORWARD = "forward"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True)
class EditScope:
    """What an edit's function may know: where and when it is called.

    `columns` are the array's position-axis indices as token numbers of row 0 (in decoding they go on counting).
    """

    site: Site
    batch: TokenBatch
    first_position: int
    phase: Phase


Apply = Callable[[Array, EditScope], Array]


@dataclass(frozen=True)
class Edit:
    """Rewrite a site: `apply` gets the site's array, narrowed to its head, neuron and position, and answers the new one.

    `rows` limits the edit to some rows of the batch. An edit with head, neuron and position unset gets the whole
    component, and so can write different cells in different rows.

    unread: for each of so many equal groups of consecutive rows (groups,), whether neither `apply` nor anything behind it reads the
    value it gets there. An engine need not compute that and may give `apply` any numbers in its place; None: all of it is read.
    """

    site: Site
    apply: Apply
    rows: slice | IntArray | None = None
    unread: BoolArray | None = None


@dataclass(frozen=True)
class LogitRequest:
    """Which logits a run computes.

    columns: for each row the position-axis index to unembed (rows,), or None for every position.
    tokens:  for each row the token ids wanted (rows, k), or None for the whole vocabulary.
    """

    columns: IntArray | None = None
    tokens: IntArray | None = None

    @classmethod
    def last(cls, batch: TokenBatch, tokens: IntArray | None = None) -> LogitRequest:
        """At each row's last real token."""
        return cls(batch.column(-1), tokens)


ALL_LOGITS = LogitRequest()


@dataclass
class Run:
    """What one run answered.

    logits: (rows, positions or nothing, vocabulary or k), or None when none were asked for.
    residual: the residual stream after the last layer that ran, when the run stopped early.
    """

    activations: dict[Site, Array]
    logits: Array | None
    residual: Array | None
    block_calls: int

    def __getitem__(self, site: Site | str) -> Array:
        return self.activations[Site.parse(site)]


Metric = Callable[[Array], Array]


@dataclass
class Gradients:
    """Values and gradients of a metric at sites. `metric` is (rows,): the metric of each row, before summing."""

    metric: Array
    values: dict[Site, Array]
    gradients: dict[Site, Array]


@dataclass(frozen=True)
class GenerationSettings:
    """How to generate. Temperature 0 is greedy. `stop` texts end the generation and are not part of it."""

    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    end_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_tokens", "seed"):
            if not isinstance(getattr(self, name), numbers.Integral):
                raise ArgumentError(f"{name} must be a whole number, not {getattr(self, name)!r}.")
        for name in ("temperature", "top_p"):
            if not isinstance(getattr(self, name), numbers.Real):
                raise ArgumentError(f"{name} must be a number, not {getattr(self, name)!r}.")
            object.__setattr__(self, name, float(getattr(self, name)))  # scripts have fractions
        if self.max_tokens < 1:
            raise ArgumentError(f"max_tokens must be at least 1, not {self.max_tokens}.")
        if not 0 <= self.temperature < float("inf"):
            raise ArgumentError(f"temperature must be zero or more, not {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ArgumentError(f"top_p must be above 0 and at most 1, not {self.top_p}.")
        if self.seed < 0:
            raise ArgumentError(f"seed must be zero or more, not {self.seed}.")


@dataclass
class Step:
    """One generated token per row. `logits` (rows, vocabulary) are what it was chosen from."""

    index: int
    tokens: IntArray
    logits: Array
    activations: dict[Site, Array] = field(default_factory=dict)


class Prefix(Protocol):
    """Keys and values of the first `columns` tokens of a batch, kept so that runs can begin behind them.

    By causality those tokens' activations do not depend on what follows; runs that share them need not repeat them.
    """

    columns: int
    weights: dict[str, str]  # what `Engine.changed_weights` was when it was computed

    def repeat(self, times: int) -> Prefix: ...

    def take(self, rows: slice) -> Prefix:
        """That of some of the rows it was computed for; it must not be repeated yet."""


class Port(Enum):
    """Where the residual stream is read: each port has a normalisation of its own."""

    ATTENTION = "attention"
    MLP = "mlp"
    FINAL = "final"


class ArrayOps(Protocol):
    """The operations experiments need on an engine's arrays. Semantics are numpy's."""

    def asarray(self, value: Any) -> Array: ...
    def to_numpy(self, array: Array) -> NDArray[Any]:
        """A copy in at least single precision: numpy would sum half precision in half precision."""
        ...

    def wide(self, array: Array) -> Array:
        """The array in at least single precision, for sums and differences; `asarray` gives back the engine's type."""
        ...

    def einsum(self, pattern: str, *arrays: Array) -> Array: ...
    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array: ...
    def stack(self, arrays: Sequence[Array], axis: int) -> Array: ...
    def zeros(self, shape: Sequence[int]) -> Array: ...
    def repeat(self, array: Array, times: int) -> Array: ...
    def transpose(self, array: Array, axes: Sequence[int]) -> Array: ...
    def where(self, condition: Array, a: Array, b: Array) -> Array: ...
    def log_softmax(self, array: Array) -> Array: ...
    def exp(self, array: Array) -> Array: ...
    def one_hot(self, ids: Any, width: int) -> Array: ...
    def copy(self, array: Array) -> Array: ...

    def settled(self, array: Array) -> Array:
        """The array, computed: an engine that computes lazily may hand it to another thread now."""
        ...

    def is_finite(self, array: Array) -> bool: ...
    def equal(self, a: Array, b: Array) -> bool: ...


class Engine(Protocol):
    """A loaded model on a tensor framework."""

    name: str
    anatomy: Anatomy
    ops: ArrayOps
    block_calls: int  # decoder layers called since loading; tests count it
    end_tokens: tuple[int, ...]  # what the model's files say ends a text, besides the tokenizer's own end token
    stop_texts: tuple[str, ...]  # texts of which they say the same

    @property
    def precision(self) -> str:
        """The type that the layers compute in: "float32", "bfloat16" …"""
        ...

    @property
    def device_name(self) -> str:
        """Where they compute: "cpu", "cuda:0", "gpu" …"""
        ...

    def forward(
        self,
        batch: TokenBatch,
        *,
        capture: Sequence[Site] = (),
        edits: Sequence[Edit] = (),
        start: int = 0,
        residual: Array | None = None,
        stop: int | None = None,
        logits: LogitRequest | None = ALL_LOGITS,
        prefix: Prefix | None = None,
    ) -> Run:
        """Run layers `start` up to (not including) `stop` on the batch.

        With `residual` (rows, positions, d_model) the run begins with that residual stream, rounded to the engine's type,
        at the input of layer `start` instead of embedding the tokens. Logits are computed only when the last layer ran and they are wanted.
        With `prefix` only the columns behind it run: every array has that many positions fewer, while sites and
        logit requests go on counting columns of the whole batch.
        """
        ...

    def prefix(self, batch: TokenBatch, columns: int) -> Prefix | None:
        """Run the first `columns` tokens once and keep them; None for no columns. Rows must not be padded on the left."""
        ...

    def gradients(
        self,
        batch: TokenBatch,
        metric: Metric,
        sites: Sequence[Site],
        *,
        edits: Sequence[Edit] = (),
        start: int = 0,
        residual: Array | None = None,
        logits: LogitRequest = ALL_LOGITS,
        prefix: Prefix | None = None,
    ) -> Gradients:
        """Values at `sites` and gradients there of the sum over rows of `metric(logits)`; parameters stay frozen."""
        ...

    def generate(
        self,
        batch: TokenBatch,
        settings: GenerationSettings,
        *,
        capture: Sequence[Site] = (),
        edits: Sequence[Edit] = (),
    ) -> Generator[Step]: ...

    def normalise(self, layer: int, port: Port, residual: Array) -> Array:
        """What `port` of `layer` makes of a residual stream (…, d_model) before it projects it."""
        ...

    def normalise_gradient(self, layer: int, port: Port, residual: Array, gradient: Array) -> Array:
        """Gradients (rows, positions, k, d_model) behind the norm → gradients at the stream, of the same shape, wide."""
        ...

    def project(self, site: Site, normalised: Array, heads: IntArray | None = None) -> Array:
        """Queries, keys or values of each head from its own input.

        normalised: (heads, rows, positions, d_model). Answers (rows, positions, heads, d_head). `heads`: which ones the inputs
        are for, when not for all.
        """
        ...

    def project_head(self, site: Site, normalised: Array) -> Array:
        """The query, key or value of the site's head: (rows, positions, d_model) → (rows, positions, d_head)."""
        ...

    def project_gradient(self, site: Site, gradient: Array) -> Array:
        """The transpose of `project`, wide: (rows, positions, heads, d_head) → (rows, positions, heads, d_model)."""
        ...

    def head_writes(self, layer: int, head_output: Array, heads: IntArray | None = None) -> Array:
        """What each head, or each of `heads`, adds to the stream, wide.

        head_output: (rows, positions, heads, d_head) of all heads. Answers (rows, positions, heads, d_model).
        """
        ...

    def weights(self, site: WeightSite | str) -> WeightView:
        """A weight, to read and to write. Raises `SiteError` where the model does not have it."""
        ...

    def changed_weights(self) -> dict[str, str]:
        """The weights that are not as they were loaded: name → SHA-256 of their bits."""
        ...

    def save(self, folder: Path) -> None:
        """Write configuration and weights as a folder that loads again."""
        ...

    def rows_that_fit(self, positions: int) -> int: ...
    def bare_logits(self, batch: TokenBatch) -> Array: ...
    def exclusive(self) -> AbstractContextManager[None]: ...
