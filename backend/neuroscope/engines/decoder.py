"""What the engines share: run a decoder's layers one by one, from any layer to any layer.

An engine calls a model's layers itself, not through the model's forward. So a run can begin at any layer from a cached residual
stream, end at any layer, and unembed only the requested logits. Masks are boolean and built only if the causal mask is not
enough: for left padding, or a sliding window shorter than the prompt. `bare_logits` runs the untouched model, and
`model.verify()` compares the two.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, TypeVar

import numpy as np

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.architectures import Architecture
from neuroscope.engines.checks import check_layer, check_norms, check_shapes
from neuroscope.engines.decoding import Decoding
from neuroscope.engines.lengths import new_tokens
from neuroscope.engines.parameters import Parameters
from neuroscope.engines.protocol import (
    ALL_LOGITS,
    Array,
    ArrayOps,
    Edit,
    GenerationSettings,
    LogitRequest,
    Port,
    Prefix,
    Run,
    Step,
    TokenBatch,
)
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.spans import Span, left_padded
from neuroscope.engines.taps import Taps
from neuroscope.engines.weights import WeightSite, WeightView
from neuroscope.errors import ArgumentError, SiteError

SomeTaps = TypeVar("SomeTaps", bound=Taps)

#: Seconds that a thread lets others take the model first, if they wait for it.
_COURTESY = 0.0005

#: Tokens per pass; larger batches are no faster on a CPU.
_CPU_TOKENS_PER_PASS = 4096


class Decoder(ABC, Generic[SomeTaps]):
    """The part of `Engine` that does not depend on a framework. A subclass sets these attributes and runs a layer."""

    architecture: Architecture
    anatomy: Anatomy
    ops: ArrayOps
    parameters: Parameters

    end_tokens: tuple[int, ...] = ()
    stop_texts: tuple[str, ...] = ()
    packs = False

    def __init__(self) -> None:
        self.block_calls = 0
        self._lock = threading.RLock()
        self._waiting: set[object] = set()  # who waits for the lock

    # --- what a subclass defines -----------------------------------------------------------------------------------

    @abstractmethod
    def _taps(self, batch: TokenBatch, capture: Sequence[Site], edits: Sequence[Edit], **where: Any) -> SomeTaps: ...

    @abstractmethod
    def _layers(self, span: Span, taps: SomeTaps, x: Array, masks: Sequence[Array | None]) -> AbstractContextManager[Any]:
        """A context whose value `layer(index, x)` runs a decoder layer with its taps."""

    @abstractmethod
    def _embed(self, span: Span) -> Array:
        """The residual stream that enters layer 0: (rows, columns, d_model)."""

    @abstractmethod
    def _unembed(self, x: Array, tokens: Array | None) -> Array:
        """Logits (…, vocabulary) of the final stream (…, d_model), or those of `tokens` (rows, k) in each row."""

    @abstractmethod
    def _new_cache(self) -> Any:
        """An empty cache of keys and values, which a run fills."""

    @abstractmethod
    def _as_prefix(self, cache: Any, columns: int) -> Prefix: ...

    @abstractmethod
    def _without_gradients(self) -> AbstractContextManager[Any]: ...

    @abstractmethod
    def normalise(self, layer: int, port: Port, residual: Array) -> Array:
        """See `Engine.normalise`."""

    def _settle(self, run: Run) -> Run:
        """The run, computed; for engines that compute lazily."""
        return run

    @property
    def held(self) -> bool:
        """See `Engine.held`."""
        owned: bool = self._lock._is_owned()  # type: ignore[attr-defined]
        return owned

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the model for one thread. Whoever waits goes before a thread that comes back: a lock alone is not fair."""
        me = object()
        if not self.held:
            if self._waiting:
                time.sleep(_COURTESY)
            self._waiting.add(me)
        try:
            with self._lock:
                self._waiting.discard(me)
                yield
        finally:
            self._waiting.discard(me)

    def _check(self, layers: Sequence[Any]) -> None:
        """Check the model against its description. Raises `UnsupportedArchitectureError`."""
        check_shapes(self.architecture, self.parameters, layers)
        check_norms(self)
        check_layer(self)

    # --- runs ------------------------------------------------------------------------------------------------------

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
        """See `Engine.forward`."""
        with self.exclusive(), self._without_gradients():
            span = self._span(batch, prefix)
            taps = self._taps(batch, capture, edits, first_column=span.first, columns=span.columns)
            return self._settle(self._run(span, taps, start, residual, stop, logits))

    def prefix(self, batch: TokenBatch, columns: int) -> Prefix | None:
        """See `Engine.prefix`."""
        if columns == 0:
            return None
        # Padded on the left, every row has a token in the last column; padding in the columns before it is masked.
        least = batch.positions if left_padded(batch) else int(batch.lengths.min())
        if not 0 < columns < least:
            raise ArgumentError(f"A prefix of {columns} columns leaves no token of some row of the batch.")
        with self.exclusive(), self._without_gradients():
            ids = batch.ids[:, :columns]
            cache = self._new_cache()
            span = Span(batch, TokenBatch(ids, np.ones_like(ids, dtype=np.bool_)), 0, cache)
            self._run(span, self._taps(batch, (), (), columns=columns), 0, None, None, None)
            return self._as_prefix(cache, columns)

    def _span(self, batch: TokenBatch, prefix: Prefix | None) -> Span:
        if prefix is not None and prefix.weights != self.changed_weights():
            raise ArgumentError("The model's weights have changed since the prefix ran.", remedy="Compute the prefix again.")
        return Span.of(batch, prefix)

    def generate(
        self,
        batch: TokenBatch,
        settings: GenerationSettings,
        *,
        capture: Sequence[Site] = (),
        edits: Sequence[Edit] = (),
    ) -> Generator[Step]:
        """Yield tokens one by one with a key-value cache. Rows that have ended continue as -1. Edits run at every step."""
        decoding = self.decoding(batch, settings, capture=capture, edits=edits)
        while not decoding.ended:
            self._advance(decoding)
            yield decoding.take()

    def decoding(
        self,
        batch: TokenBatch,
        settings: GenerationSettings,
        *,
        capture: Sequence[Site] = (),
        edits: Sequence[Edit] = (),
    ) -> Decoding:
        """See `Engine.decoding`."""
        if batch.padded and not bool(batch.real[:, -1].all()):
            raise ArgumentError("Generation needs prompts padded on the left.", remedy="TokenBatch.of(rows, side='left')")
        new_tokens(self.anatomy.context, batch.positions, settings.max_tokens, settings.max_tokens)
        return Decoding(self, batch, settings, capture, edits, self._new_cache())

    def advance(self, decodings: Sequence[Decoding]) -> None:
        """See `Engine.advance`. One after another."""
        for decoding in decodings:
            try:
                decoding.within(lambda decoding=decoding: self._advance(decoding))  # type: ignore[misc]
            except Exception as error:
                decoding.fail(error)

    def _advance(self, decoding: Decoding) -> None:
        with self.exclusive(), self._without_gradients():
            taps = self._taps(decoding.batch, decoding.capture, decoding.edits, **decoding.where)
            run = self._settle(self._run(decoding.span(), taps, 0, None, None, decoding.request()))
        assert run.logits is not None
        decoding.choose(run.logits, run.activations, self.ops)

    def _run(
        self,
        span: Span,
        taps: SomeTaps,
        start: int,
        residual: Array | None,
        stop: int | None,
        logits: LogitRequest | None,
    ) -> Run:
        total = self.anatomy.layers
        stop = total if stop is None else stop
        if not 0 <= start <= stop <= total:
            raise SiteError(f"Layers {start} … {stop} are not within 0 … {total}.")
        if start and residual is None:
            raise ArgumentError(f"A run that starts at layer {start} needs the residual stream there.")
        outside = sorted(layer for layer in taps.layers() if not start <= layer < stop)
        if outside:
            raise SiteError(f"Layer {outside[0]} is captured or edited, but only layers {start} … {stop - 1} run.")
        span.check_tokens(self.anatomy)
        x = self._embed(span) if residual is None else self.ops.asarray(residual)
        if start == 0:
            x = taps.touch(None, Component.EMBEDDING, x)
        with self._layers(span, taps, x, self._masks(span)) as layer:
            for index in range(start, stop):
                x = taps.touch(index, Component.RESIDUAL_PRE, x)
                x = layer(index, x)
                x = taps.touch(index, Component.RESIDUAL, x)
        self.block_calls += stop - start
        if logits is None and stop == total and taps.wants(None, Component.LOGITS):
            logits = ALL_LOGITS  # only a capture or an edit reads them
        if stop < total or logits is None:
            return Run(taps.values, None, x, stop - start)
        found = self._logits(x, logits, span.first)
        if logits.tokens is None:
            found = taps.touch(None, Component.LOGITS, found)
        return Run(taps.values, found, x, stop - start)

    def _masks(self, span: Span) -> list[Array | None]:
        """Each layer's mask, as the engine's array."""
        windows = self.anatomy.sliding_windows
        found = {window: None if mask is None else self.ops.asarray(mask) for window, mask in span.masks(windows).items()}
        return [found[window] for window in windows]

    def _logits(self, x: Array, request: LogitRequest, first: int) -> Array:
        if request.columns is not None:
            rows = self.ops.asarray(np.arange(len(request.columns)))
            x = x[rows, self.ops.asarray(np.asarray(request.columns) - first)]
        return self._unembed(x, None if request.tokens is None else self.ops.asarray(np.asarray(request.tokens)))

    # --- weights ---------------------------------------------------------------------------------------------------

    def weights(self, site: WeightSite | str) -> WeightView:
        """See `Engine.weights`. A running generation uses new values from its next token on."""
        return self.parameters.view(site)

    def changed_weights(self) -> dict[str, str]:
        """See `Engine.changed_weights`."""
        return {str(site): digest for site, digest in self.parameters.changed().items()}

    # --- memory ----------------------------------------------------------------------------------------------------

    def _rows_within(self, positions: int, item_bytes: int, device_bytes: int | None) -> int:
        """How many rows of that length to run at once: as fit half of a device's free bytes, or as are useful on a CPU."""
        a = self.anatomy
        active = a.d_mlp * max(a.experts_per_token, 1)
        floats = positions * (12 * a.d_model + 4 * active + 4 * a.heads * a.d_head + 2 * a.heads * positions)
        if device_bytes is not None:
            return max(1, int(device_bytes // 2 // (floats * item_bytes)))
        free = _free_host_bytes()
        return max(1, min(int(free // 4 // (floats * item_bytes)), _CPU_TOKENS_PER_PASS // positions))


def _free_host_bytes() -> int:
    page = os.sysconf("SC_PAGE_SIZE")
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * page
    return os.sysconf("SC_PHYS_PAGES") * page // 2  # macOS does not say how much is free
