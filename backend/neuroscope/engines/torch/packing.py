"""One pass for several generations: their tokens side by side, in one row.

Norms, projections and MLPs compute with all tokens at once, which costs little more than one token's pass, since the weights are read
once. What makes a generation itself stays apart: attention runs generation by generation over its own cache, with its own mask, and
taps get its own tokens alone, as if nothing else ran. So there is no padding between prompts of different lengths, and positions,
sliding windows and attention patterns are those of a run alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuroscope.engines.decoder import Decoder
from neuroscope.engines.decoding import Decoding
from neuroscope.engines.protocol import IntArray, Phase, Run, TokenBatch
from neuroscope.engines.sites import ATTENTION_MATRICES, Component, Site
from neuroscope.engines.spans import Span
from neuroscope.engines.torch.attention import MatrixTap, attend
from neuroscope.engines.torch.taps import TorchTaps
from neuroscope.errors import SiteError


class Part:
    """One generation's share of a pass: its columns, taps and masks by layer. `failure`: the error of its taps, if any."""

    def __init__(self, decoding: Decoding, span: Span, start: int, taps: TorchTaps, masks: Sequence[Tensor | None]) -> None:
        self.decoding, self.span, self.taps, self.masks = decoding, span, taps, masks
        self.columns = slice(start, start + span.columns)
        self.failure: Exception | None = None
        self._matrices = {(layer, kind) for layer in taps.layers() for kind in ATTENTION_MATRICES if taps.wants(layer, kind)}

    def touch(self, layer: int | None, component: Component, value: Tensor) -> Tensor:
        """The generation's own array through its taps, in its own context; unchanged after a failure."""
        if self.failure is not None:
            return value
        try:
            new = self.decoding.within(lambda: self.taps.touch(layer, component, value))
            if new.shape != value.shape:
                raise SiteError(
                    f"An edit of {Site(layer, component)} returned shape {tuple(new.shape)} for {tuple(value.shape)}."
                )
            return new
        except Exception as error:
            self.failure = error
            return value

    def tap(self, layer: int, component: Component) -> MatrixTap | None:
        """Its tap on an attention matrix."""
        return (lambda value: self.touch(layer, component, value)) if (layer, component) in self._matrices else None


class Parts:
    """All shares of a pass. In the model it takes the place of the cache, and attention finds it in its arguments."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._columns = [part.span.columns for part in parts]

    def update(self, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """A layer's call to its cache: the new keys and values, which `attention` hands to each generation's own."""
        return key, value

    def attention(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **how: Any) -> Tensor:
        """(1, heads, tokens, d_head) each → (1, tokens, heads, d_head): every generation among its own tokens."""
        layer = module.layer_idx
        assert isinstance(layer, int)
        found = []
        split = (array.split(self._columns, dim=2) for array in (query, key, value))
        for part, own, *new in zip(self._parts, *split, strict=True):
            keys, values = part.span.cache.update(*new, layer)
            mask = part.masks[layer]
            found.append(
                attend(
                    own,
                    keys,
                    values,
                    None if mask is None else mask.to(query.device),
                    tap_scores=part.tap(layer, Component.ATTENTION_SCORES),
                    tap_pattern=part.tap(layer, Component.ATTENTION_PATTERN),
                    **how,
                )
            )
        return torch.cat(found, dim=1)


class PackedTaps(TorchTaps):
    """Taps that pass each generation's share of a component to its own taps."""

    def __init__(self, anatomy: Any, batch: TokenBatch, parts: Sequence[Part]) -> None:
        super().__init__(anatomy, batch, (), (), phase=Phase.DECODE, columns=batch.positions)
        self._parts = parts

    def wants(self, layer: int | None, component: Component) -> bool:
        """Whether any of them does. The logits are not the run's: they are computed at each one's last token."""
        return component is not Component.LOGITS and any(part.taps.wants(layer, component) for part in self._parts)

    def layers(self) -> set[int]:
        """Those of all of them."""
        return set().union(*(part.taps.layers() for part in self._parts))

    def touch(self, layer: int | None, component: Component, value: Tensor) -> Tensor:
        """See `Taps.touch`. Logits (generations, vocabulary) have a row for each, everything else its columns."""
        if self.paused:
            return value
        whole = value
        for at, part in enumerate(self._parts):
            if not part.taps.wants(layer, component):
                continue
            where = (slice(at, at + 1),) if component is Component.LOGITS else (slice(None), part.columns)
            own = value[where]
            new = part.touch(layer, component, own)
            if new is not own:
                whole = whole.clone() if whole is value else whole
                whole[where] = new
        return whole


@dataclass(frozen=True)
class PackedSpan(Span):
    """The tokens of all shares, with the token numbers that each has in its own text."""

    numbers: IntArray

    @classmethod
    def over(cls, parts: Sequence[Part]) -> PackedSpan:
        ids = np.concatenate([part.span.chunk.ids for part in parts], axis=1)
        batch = TokenBatch(ids, np.ones_like(ids, dtype=np.bool_))
        return cls(batch, batch, 0, Parts(parts), np.concatenate([part.span.positions() for part in parts], axis=1))

    def positions(self) -> IntArray:
        return self.numbers


class PackingDecoder(Decoder[TorchTaps]):
    """A decoder that advances several generations in one pass."""

    def advance(self, decodings: Sequence[Decoding]) -> None:
        """See `Engine.advance`."""
        if len(decodings) == 1 or not self.packs or any(one.batch.rows > 1 for one in decodings):
            super().advance(decodings)
            return
        with self.exclusive(), self._without_gradients():
            parts = self._parts(decodings)
            if not parts:
                return
            try:
                logits = self._run_together(parts)
            except BaseException as error:
                for part in parts:
                    self._rewind(part.decoding)
                    if isinstance(error, Exception):
                        part.decoding.fail(error)
                if not isinstance(error, Exception):  # the thread's own script was stopped: the others' pass can run again
                    raise
                return
            for at, part in enumerate(parts):
                self._end(part, logits[at : at + 1])

    def _parts(self, decodings: Sequence[Decoding]) -> list[Part]:
        """The shares of a pass, without those that cannot begin, which fail."""
        parts: list[Part] = []
        column = 0
        for one in decodings:
            try:
                span = one.span()
                span.check_tokens(self.anatomy)
                taps = self._taps(one.batch, one.capture, one.edits, **one.where)
                parts.append(Part(one, span, column, taps, self._masks(span)))
                column += span.columns
            except Exception as error:
                one.fail(error)
        return parts

    def _run_together(self, parts: Sequence[Part]) -> Tensor:
        """The logits (generations, vocabulary) after each one's last token."""
        span = PackedSpan.over(parts)
        taps = PackedTaps(self.anatomy, span.whole, parts)
        x = self._run(span, taps, 0, None, None, None).residual
        assert x is not None
        last = self.ops.asarray(np.array([part.columns.stop - 1 for part in parts]))
        return taps.touch(None, Component.LOGITS, self._unembed(self.ops.asarray(x)[0, last], None))

    def _end(self, part: Part, logits: Tensor) -> None:
        """Give a generation its step, with arrays that hold nothing of the others'."""
        try:
            if part.failure is not None:
                raise part.failure
            own = {site: array.clone() for site, array in part.taps.values.items()}
            run = self._settle(Run(own, logits.clone(), None, self.anatomy.layers))
            part.decoding.choose(run.logits, run.activations, self.ops)
        except Exception as error:
            part.decoding.fail(error)

    def _rewind(self, decoding: Decoding) -> None:
        """Forget the keys and values of a pass that did not end."""
        if decoding.index == 0:
            decoding.cache = self._new_cache()
            return
        for layer in decoding.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, : decoding.first], layer.values[:, :, : decoding.first]


def mixes_positions(rotary: Any) -> bool:
    """Whether a rotary embedding depends on the longest text of a pass (dynamic, longrope), so that generations cannot share one."""
    kinds = getattr(rotary, "rope_type", "")
    return any("dynamic" in kind or kind == "longrope" for kind in (kinds.values() if isinstance(kinds, dict) else [kinds]))
