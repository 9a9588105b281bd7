"""The interface between experiments and tensor frameworks.

Rooms above use sites, token batches and opaque arrays; only what lies below imports torch or MLX. An engine runs layers `start`
… `stop` of a decoder on a batch, reads (`capture`) and rewrites (`edits`) sites during the run, differentiates a metric with
respect to sites, and generates. A run without captures and edits costs as much as the bare model.

Arrays are the engine's (`torch.Tensor`, `mlx.core.array`); `Engine.ops` has the operations that experiments need on them, and
results are numpy arrays.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.sites import Site
from neuroscope.engines.tuning import StepSettings, Tuner
from neuroscope.engines.weights import WeightSite, WeightView
from neuroscope.errors import ArgumentError, SiteError

if TYPE_CHECKING:
    from neuroscope.engines.decoding import Decoding

Array = Any
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class TokenBatch:
    """Token ids (rows × positions) and a mask of the real ones. Rows may be padded on the left or right."""

    ids: IntArray
    real: BoolArray

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.shape != self.real.shape or 0 in self.ids.shape:
            raise ArgumentError(f"A token batch must be rows × positions with at least one token, not {self.ids.shape}.")
        lengths = self.real.sum(1)
        if (lengths == 0).any():
            raise ArgumentError(f"Row {int(np.argmin(lengths))} of the batch holds no token.")
        runs = (np.diff(self.real.astype(np.int8), axis=1) != 0).sum(1)
        if (runs > 1).any():
            raise ArgumentError("A row may be padded at one end only.")

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], *, pad: int = 0, side: str = "right") -> TokenBatch:
        """A batch from lists of ids, padded with `pad` on `side` ("left" or "right")."""
        if side not in ("left", "right"):
            raise ArgumentError(f"Padding side must be 'left' or 'right', not {side!r}.")
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
        """For each row, the column of its real token number `position` (negative: from its end)."""
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
        """All rows repeated `times` times: a, b, a, b …"""
        return TokenBatch(np.tile(self.ids, (times, 1)), np.tile(self.real, (times, 1)))


class Phase(Enum):
    """The part of a generation that a run belongs to."""

    FORWARD = "forward"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True)
class EditScope:
    """Where and when an edit's function is called.

    `columns` are the array's position-axis indices as token numbers of row 0 (in decoding they continue to count).
    tokens: the ids (rows, columns) that this pass reads; in decoding those of the step, which the batch does not hold.
    """

    site: Site
    batch: TokenBatch
    first_position: int
    phase: Phase
    tokens: IntArray | None = None


Apply = Callable[[Array, EditScope], Array]


@dataclass(frozen=True)
class Edit:
    """Rewrite a site: `apply` takes the site's array, narrowed to its head, neuron and position, and returns the new one.

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
    """The logits that a run computes.

    columns: for each row the position-axis index to unembed (rows,), or None for every position.
    tokens:  for each row the token ids (rows, k), or None for the whole vocabulary.
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
    """The outputs of one run.

    logits: (rows, [positions,] vocabulary or k), or None if not requested. residual: the residual stream after the last layer
    that ran, if the run stopped early.
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
    """Settings of a generation. Temperature 0 is greedy. `stop` texts end the generation and are not part of it."""

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
    """One generated token per row, chosen from `logits` (rows, vocabulary)."""

    index: int
    tokens: IntArray
    logits: Array
    activations: dict[Site, Array] = field(default_factory=dict)


class Prefix(Protocol):
    """Cached keys and values of the first `columns` columns of a batch, so that runs can start after them.

    By causality, those tokens' activations do not depend on later tokens.
    """

    columns: int
    weights: dict[str, str]  # `Engine.changed_weights` when it was computed

    def repeat(self, times: int) -> Prefix: ...

    def take(self, rows: slice) -> Prefix:
        """That of some of the rows it was computed for; it must not be repeated yet."""


class Port(Enum):
    """A reader of the residual stream, with its own normalisation."""

    ATTENTION = "attention"
    MLP = "mlp"
    FINAL = "final"


class ArrayOps(Protocol):
    """The operations that experiments need on an engine's arrays, with numpy's semantics."""

    def asarray(self, value: Any) -> Array: ...
    def precise(self, value: Any) -> Array:
        """An array in at least single precision, whatever the engine's type, for what an edit or a metric computes with."""
        ...

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """A copy in at least single precision, since numpy sums half precision in half precision."""
        ...

    def wide(self, array: Array) -> Array:
        """The array in at least single precision, for sums and differences; `asarray` converts back to the engine's type."""
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
        """The array, evaluated, so that another thread may use it."""
        ...

    def is_finite(self, array: Array) -> bool: ...
    def equal(self, a: Array, b: Array) -> bool: ...


class Engine(Protocol):
    """A loaded model on a tensor framework."""

    name: str
    anatomy: Anatomy
    ops: ArrayOps
    block_calls: int  # decoder layers called since loading; tests count it
    end_tokens: tuple[int, ...]  # end tokens in the model's files, in addition to the tokenizer's
    stop_texts: tuple[str, ...]  # stop strings in the model's files
    packs: bool  # whether `advance` runs several generations in one pass

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, as they are held."""
        ...

    @property
    def precision(self) -> str:
        """The floating type of the layers: "float32", "bfloat16" …"""
        ...

    @property
    def device_name(self) -> str:
        """The device: "cpu", "cuda:0", "gpu" …"""
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

        With `residual` (rows, positions, d_model) the run starts from that residual stream, rounded to the engine's type, at
        the input of layer `start`, instead of embedding the tokens. Logits are computed only if requested and if the last layer
        runs. With `prefix` only the columns after it run: arrays have that many positions fewer, but sites and logit requests
        still count columns of the whole batch.
        """
        ...

    def prefix(self, batch: TokenBatch, columns: int) -> Prefix | None:
        """Run the first `columns` columns and cache their keys and values; None for no columns. Every row needs a token after them."""
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
        """Values at `sites`, and gradients there of `metric(logits)` summed over rows; parameters are frozen."""
        ...

    def generate(
        self,
        batch: TokenBatch,
        settings: GenerationSettings,
        *,
        capture: Sequence[Site] = (),
        edits: Sequence[Edit] = (),
    ) -> Generator[Step]: ...

    def decoding(
        self, batch: TokenBatch, settings: GenerationSettings, *, capture: Sequence[Site] = (), edits: Sequence[Edit] = ()
    ) -> Decoding:
        """A generation at its beginning, for `advance`."""
        ...

    def advance(self, decodings: Sequence[Decoding]) -> None:
        """Add a step to what each of them has `found`, or the error that ended it: what one does leaves the others as they are.
        Where it `packs`, those of one prompt run in one pass; the last bits are not those of a run alone, as products round otherwise.
        """
        ...

    @property
    def held(self) -> bool:
        """Whether this thread holds the model (`exclusive`), or runs it now."""
        ...

    def normalise(self, layer: int, port: Port, residual: Array) -> Array:
        """A residual stream (…, d_model), normalised as `port` of `layer` reads it."""
        ...

    def normalise_gradient(self, layer: int, port: Port, residual: Array, gradient: Array) -> Array:
        """Gradients (rows, positions, k, d_model) after the norm → gradients at the stream, of the same shape, wide."""
        ...

    def project(self, site: Site, normalised: Array, heads: IntArray | None = None) -> Array:
        """Queries, keys or values of each head from its own input.

        normalised: (heads, rows, positions, d_model). Returns (rows, positions, heads, d_head). `heads`: the heads of the
        inputs, if not all.
        """
        ...

    def project_head(self, site: Site, normalised: Array) -> Array:
        """The query, key or value of the site's head: (rows, positions, d_model) → (rows, positions, d_head)."""
        ...

    def project_gradient(self, site: Site, gradient: Array) -> Array:
        """The transpose of `project`, wide: (rows, positions, heads, d_head) → (rows, positions, heads, d_model)."""
        ...

    def head_writes(self, layer: int, head_output: Array, heads: IntArray | None = None) -> Array:
        """What each head (of `heads`, if given) adds to the stream, wide.

        head_output: (rows, positions, heads, d_head) of all heads. Returns (rows, positions, heads, d_model).
        """
        ...

    def weights(self, site: WeightSite | str) -> WeightView:
        """A weight, to read and write. Raises `SiteError` if the model does not have it."""
        ...

    def changed_weights(self) -> dict[str, str]:
        """Weights changed since loading: name → SHA-256 of their bits."""
        ...

    def copy(self) -> Engine:
        """A copy with weights of its own, and the same record of changes."""
        ...

    def tuner(self, sites: Sequence[WeightSite] | None, settings: StepSettings) -> Tuner:
        """What takes optimiser steps on those weights, or on all, and on no other number. Raises `WeightError` for quantised ones."""
        ...

    def adapters(self, numbers: int, settings: StepSettings, *, seed: int = 0) -> Tuner:
        """What trains low-rank adapters on the matrices of all layers, of as nearly so many numbers as a rank gives, and no number of the
        model. The adapters stay in the engine. Raises `MissingExtraError` without peft, `ArgumentError` on MLX.
        """
        ...

    def differentiable(self, on: bool = True) -> AbstractContextManager[None]:
        """Within the block `forward`, `normalise`, `project` and `head_writes` keep what gradients with respect to tuned weights need, or
        where `on` is false do not.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write configuration and weights to a folder that can be loaded."""
        ...

    def rows_that_fit(self, positions: int) -> int: ...
    def bare_logits(self, batch: TokenBatch) -> Array: ...
    def exclusive(self) -> AbstractContextManager[None]: ...
