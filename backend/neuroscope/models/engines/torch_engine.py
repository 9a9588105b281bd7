"""The torch engine: Hugging Face decoders, run layer by layer.

The engine drives a model's own decoder layers itself, rather than through the model's `forward`. That is what lets a
run begin at any layer from a cached residual stream, end at any layer, and unembed only what is asked for. Masks are
boolean and built only where causality alone does not say enough: left padding, or a sliding window shorter than the
prompt. `bare_logits` runs the untouched Hugging Face model, and `model.verify()` holds the two against each other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from neuroscope.errors import ArgumentError, InertHookError, NonFiniteActivationError, SiteError
from neuroscope.models.engines import torch_attention
from neuroscope.models.engines.protocol import (
    ALL_LOGITS,
    ArrayOps,
    Edit,
    GenerationSettings,
    Gradients,
    LogitRequest,
    Metric,
    Phase,
    Port,
    Prefix,
    Run,
    Step,
    TokenBatch,
)
from neuroscope.models.engines.torch_families import CallState, anatomy_of, family_of, get_module, output_by_input
from neuroscope.models.engines.torch_norms import norm_gradient, rms_scale
from neuroscope.models.engines.torch_ops import TorchOps
from neuroscope.models.engines.torch_sampling import choose
from neuroscope.models.engines.torch_taps import Taps
from neuroscope.models.sites import Component, Site

#: Tokens per pass beyond which a CPU gains nothing from larger batches.
_CPU_TOKENS_PER_PASS = 4096


@dataclass(frozen=True)
class Span:
    """The columns of a batch that one run computes: `chunk`, which begins at column `first` of the `whole`."""

    whole: TokenBatch
    chunk: TokenBatch
    first: int
    cache: Any

    @classmethod
    def of(cls, batch: TokenBatch, prefix: Prefix | None) -> Span:
        if prefix is None:
            return cls(batch, batch, 0, None)
        first = prefix.columns
        return cls(batch, TokenBatch(batch.ids[:, first:], batch.real[:, first:]), first, prefix)

    @property
    def columns(self) -> int:
        return self.chunk.positions


class TorchPrefix:
    """`Prefix`: keys and values of each layer (rows, key-value heads, columns, d_head), joined on as each layer asks."""

    def __init__(self, layers: list[tuple[Tensor, Tensor]], columns: int, times: int = 1) -> None:
        self._layers = layers
        self.columns = columns
        self._times = times

    def repeat(self, times: int) -> TorchPrefix:
        """For a batch of all rows, `times` over; the memory is taken only while a layer runs."""
        return TorchPrefix(self._layers, self.columns, self._times * times)

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """What a decoder layer asks of its cache. Nothing is kept: the same prefix serves many runs."""
        old_key, old_value = (part.repeat(self._times, 1, 1, 1) for part in self._layers[layer])
        return torch.cat([old_key, key], dim=2), torch.cat([old_value, value], dim=2)


class TorchEngine:
    """`Engine` for a Hugging Face causal language model. Freezes its parameters and puts it in evaluation mode."""

    name = "torch"

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        self.family = family_of(model.config)
        self.anatomy = anatomy_of(model.config, self.family)
        self.slots = self.family.slots(self.anatomy)
        self.layers: list[nn.Module] = list(get_module(model, self.family.layers).children())
        self.final_norm = get_module(model, self.family.final_norm)
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.ops: ArrayOps = TorchOps(self.device, self.dtype)
        self.block_calls = 0
        self._softcap = getattr(model.config, "final_logit_softcapping", None)
        self._lock = threading.RLock()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the model for one thread, with attention that can be tapped."""
        with self._lock:
            config = self.model.config
            before = config._attn_implementation
            config._attn_implementation = torch_attention.NAME
            try:
                yield
            finally:
                config._attn_implementation = before

    # --- runs ---------------------------------------------------------------------------------------------------

    def forward(
        self,
        batch: TokenBatch,
        *,
        capture: Sequence[Site] = (),
        edits: Sequence[Edit] = (),
        start: int = 0,
        residual: Tensor | None = None,
        stop: int | None = None,
        logits: LogitRequest | None = ALL_LOGITS,
        prefix: Prefix | None = None,
    ) -> Run:
        """See `Engine.forward`."""
        with self.exclusive(), torch.no_grad():
            span = Span.of(batch, prefix)
            taps = Taps(self.anatomy, batch, capture, edits, first_column=span.first, columns=span.columns)
            return self._run(span, taps, start, residual, stop, logits)

    def prefix(self, batch: TokenBatch, columns: int) -> TorchPrefix | None:
        """See `Engine.prefix`."""
        if columns == 0:
            return None
        if not 0 < columns < int(batch.lengths.min()) or _left_padded(batch):
            raise ArgumentError(f"A prefix of {columns} columns is not shared by all rows of the batch.")
        with self.exclusive(), torch.no_grad():
            head = TokenBatch(batch.ids[:, :columns], batch.real[:, :columns])
            cache = DynamicCache()
            taps = Taps(self.anatomy, head, (), ())
            self._run(Span(head, head, 0, cache), taps, 0, None, None, None)
            return TorchPrefix([(layer.keys, layer.values) for layer in cache.layers], columns)

    def gradients(
        self,
        batch: TokenBatch,
        metric: Metric,
        sites: Sequence[Site],
        *,
        edits: Sequence[Edit] = (),
        start: int = 0,
        residual: Tensor | None = None,
        logits: LogitRequest = ALL_LOGITS,
        prefix: Prefix | None = None,
    ) -> Gradients:
        """See `Engine.gradients`."""
        span = Span.of(batch, prefix)
        with self.exclusive(), torch.enable_grad():
            entry = self._embed(span.chunk, self._positions(span)) if residual is None else residual
            entry = entry.detach().clone().requires_grad_(True)
            checked = [site.checked(self.anatomy) for site in sites]
            wholes = list({site.whole: None for site in checked})
            taps = Taps(self.anatomy, batch, wholes, edits, first_column=span.first, columns=span.columns)
            run = self._run(span, taps, start, entry, None, logits)
            values = metric(run.logits)
            if values.ndim != 1 or len(values) != batch.rows:
                raise ArgumentError(f"A metric answers one number a row, not an array of shape {tuple(values.shape)}.")
            if not torch.isfinite(values).all():
                raise NonFiniteActivationError("The metric is NaN or infinite.", remedy="Check the prompts and the weights.")
            leaves = [run.activations[site] for site in wholes]
            found = dict(zip(wholes, torch.autograd.grad(values.sum(), leaves, allow_unused=True), strict=True))
        for site, gradient in found.items():
            if gradient is None:
                raise InertHookError(f"The metric does not depend on {site}, so it has no gradient there.", site=site)
        pairs = list(zip(sites, checked, strict=True))
        return Gradients(
            values.detach(),
            {asked: taps.narrowed(site, run.activations[site.whole]).detach() for asked, site in pairs},
            {asked: taps.narrowed(site, found[site.whole]) for asked, site in pairs},
        )

    def generate(
        self,
        batch: TokenBatch,
        settings: GenerationSettings,
        *,
        capture: Sequence[Site] = (),
        edits: Sequence[Edit] = (),
    ) -> Iterator[Step]:
        """Tokens one by one with a key-value cache. Rows that met an end token go on as -1. Edits run at every step."""
        if batch.padded and not bool(batch.real[:, -1].all()):
            raise ArgumentError("Generation needs prompts padded on the left.", remedy="TokenBatch.of(rows, side='left')")
        if self.anatomy.context and batch.positions + settings.max_tokens > self.anatomy.context:
            raise ArgumentError(
                f"{batch.positions} prompt tokens and {settings.max_tokens} new ones exceed "
                f"the model's context of {self.anatomy.context}.",
                remedy=f"Ask for at most {max(self.anatomy.context - batch.positions, 0)} new tokens.",
            )
        random = torch.Generator(device="cpu").manual_seed(settings.seed)
        cache = DynamicCache()
        done = np.zeros(batch.rows, dtype=np.bool_)
        tokens = batch.ids
        for index in range(settings.max_tokens):
            first = 0 if index == 0 else batch.positions + index - 1
            phase = Phase.PREFILL if index == 0 else Phase.DECODE
            with self.exclusive(), torch.no_grad():
                taps = Taps(self.anatomy, batch, capture, edits, phase=phase, first_column=first, columns=tokens.shape[1])
                chunk = TokenBatch(tokens, batch.real if index == 0 else np.ones_like(tokens, dtype=np.bool_))
                request = LogitRequest(np.full(batch.rows, first + tokens.shape[1] - 1))
                run = self._run(Span(batch, chunk, first, cache), taps, 0, None, None, request)
            assert run.logits is not None
            chosen = choose(run.logits, settings, random)
            emitted = np.where(done, -1, chosen)
            yield Step(index, emitted, run.logits, run.activations)
            done |= np.isin(chosen, settings.end_tokens)
            if done.all():
                return
            tokens = chosen[:, None]

    def _run(
        self,
        span: Span,
        taps: Taps,
        start: int,
        residual: Tensor | None,
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
        self._check_tokens(span)
        positions = self._positions(span)
        x = self._embed(span.chunk, positions) if residual is None else residual
        if start == 0:
            x = taps.touch(None, Component.EMBEDDING, x)
        state = CallState(positions, self._masks(span), self._rotation(x, positions), span.cache)
        calls = 0
        with taps.installed(self.layers, self.family, self.slots) as attention_taps:
            extra = {"neuroscope_taps": attention_taps} if attention_taps else {}
            for index in range(start, stop):
                x = taps.touch(index, Component.RESIDUAL_PRE, x)
                out = self.family.call(self.layers[index], index, x, state, extra)
                x = out[0] if isinstance(out, tuple) else out
                x = taps.touch(index, Component.RESIDUAL, x)
                calls += 1
        self.block_calls += calls
        if stop < total or logits is None:
            return Run(taps.values, None, x, calls)
        found = self._unembed(x, logits, span.first)
        if logits.tokens is None:
            found = taps.touch(None, Component.LOGITS, found)
        return Run(taps.values, found, x, calls)

    def _check_tokens(self, span: Span) -> None:
        ids = span.chunk.ids
        if int(ids.max()) >= self.anatomy.vocabulary or int(ids.min()) < 0:
            worst = int(ids.max()) if int(ids.min()) >= 0 else int(ids.min())
            raise ArgumentError(f"Token id {worst} is outside the vocabulary of {self.anatomy.vocabulary}.")
        if self.anatomy.context and span.first + span.columns > self.anatomy.context:
            raise ArgumentError(
                f"{span.first + span.columns} tokens exceed the model's context of {self.anatomy.context}.",
                remedy="Shorten the prompt.",
            )

    def _embed(self, batch: TokenBatch, positions: Tensor) -> Tensor:
        ids = torch.as_tensor(batch.ids, device=self.device)
        x: Tensor = get_module(self.model, self.family.embedding)(ids)
        if self.family.position_embedding is not None:
            x = x + get_module(self.model, self.family.position_embedding)(positions)
        return x

    def _positions(self, span: Span) -> Tensor:
        first, columns = span.first, span.columns
        if not _left_padded(span.whole):
            return torch.arange(first, first + columns, device=self.device)[None]
        if first:
            return torch.as_tensor(first - span.whole.offsets[:, None] + np.arange(columns), device=self.device)
        return torch.as_tensor(np.maximum(span.whole.real.cumsum(1) - 1, 0), device=self.device)

    def _masks(self, span: Span) -> dict[int | None, Tensor | None]:
        """For each layer which keys each query may see (rows or 1, 1, queries, keys); None where causality says it all."""
        first, keys = span.first, span.first + span.columns
        query = torch.arange(first, keys, device=self.device)[:, None]
        key = torch.arange(keys, device=self.device)[None]
        visible: Tensor | None = None
        if _left_padded(span.whole):
            known = span.whole.positions
            real = torch.ones(span.whole.rows, keys, dtype=torch.bool, device=self.device)
            real[:, :known] = torch.as_tensor(span.whole.real, device=self.device)[:, :keys]
            # A padding query sees itself, so that its softmax is defined; nothing real ever reads it.
            visible = real[:, None, None, :] | (query == key)
        # Fused attention knows only the square causal mask and the single query that sees every key.
        plain = first == 0 or span.columns == 1
        by_window: dict[int | None, Tensor | None] = {}
        for window in set(self.anatomy.sliding_windows) or {None}:
            limited = window is not None and window < keys
            if visible is None and not limited and plain:
                by_window[window] = None
                continue
            mask = (key <= query)[None, None] if visible is None else visible & (key <= query)
            by_window[window] = mask & (key > query - window) if limited and window is not None else mask
        return {index: by_window[window] for index, window in enumerate(self.anatomy.sliding_windows)}

    def _rotation(self, x: Tensor, positions: Tensor) -> Any:
        if self.family.rotary is None:
            return None
        rotary = get_module(self.model, self.family.rotary)
        if not self.family.rotary_by_layer_type:
            return rotary(x, positions)
        types = self.model.config.layer_types
        by_type = {kind: rotary(x, positions, kind) for kind in set(types)}
        return {index: by_type[kind] for index, kind in enumerate(types)}

    def _unembed(self, x: Tensor, request: LogitRequest, first: int) -> Tensor:
        if request.columns is not None:
            columns = torch.as_tensor(request.columns - first, device=self.device)
            x = x[torch.arange(x.shape[0], device=self.device), columns]
        x = self.final_norm(x)
        head = self.model.get_output_embeddings()
        if request.tokens is None:
            logits: Tensor = head(x)
        else:
            rows = head.weight[torch.as_tensor(request.tokens, device=self.device)]
            logits = torch.einsum("r...d,rkd->r...k", x, rows)
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap

    def bare_logits(self, batch: TokenBatch) -> Tensor:
        """(rows, positions, vocabulary) from the Hugging Face model itself, with its own attention."""
        with self._lock, torch.no_grad():
            positions = self._positions(Span.of(batch, None)).expand(batch.rows, -1)
            out = self.model(
                input_ids=torch.as_tensor(batch.ids, device=self.device),
                attention_mask=torch.as_tensor(batch.real.astype(np.int64), device=self.device),
                position_ids=positions,
                use_cache=False,
            )
            logits: Tensor = out.logits
            return logits

    # --- the parts that circuit algorithms compose ----------------------------------------------------------------

    def _norm(self, layer: int, port: Port) -> nn.Module:
        if port is Port.FINAL:
            return self.final_norm
        path = self.family.attention_norm if port is Port.ATTENTION else self.family.mlp_norm
        return get_module(self.layers[layer], path)

    def normalise(self, layer: int, port: Port, residual: Tensor) -> Tensor:
        """See `Engine.normalise`."""
        with torch.no_grad():
            # forward, not a call: a run's own hooks on this module must not fire again from inside an edit.
            out: Tensor = self._norm(layer, port).forward(residual)
            return out

    def normalise_gradient(self, layer: int, port: Port, residual: Tensor, gradient: Tensor) -> Tensor:
        """See `Engine.normalise_gradient`."""
        with torch.no_grad():
            return norm_gradient(self._norm(layer, port), residual, gradient)

    def project(self, site: Site, normalised: Tensor) -> Tensor:
        """See `Engine.project`."""
        assert site.layer is not None
        slot = self.slots[site.component]
        module = get_module(self.layers[site.layer], slot.module)
        with torch.no_grad():
            out = torch.einsum("rphd,hed->rphe", normalised, slot.weight(module))
            bias = slot.bias(module)
            return out if bias is None else out + bias

    def project_head(self, site: Site, normalised: Tensor) -> Tensor:
        """See `Engine.project_head`."""
        assert site.layer is not None
        assert site.head is not None
        slot = self.slots[site.component]
        module = get_module(self.layers[site.layer], slot.module)
        with torch.no_grad():
            bias = slot.bias(module)
            return nn.functional.linear(normalised, slot.weight(module)[site.head], None if bias is None else bias[site.head])

    def project_gradient(self, site: Site, gradient: Tensor) -> Tensor:
        """See `Engine.project_gradient`."""
        assert site.layer is not None
        slot = self.slots[site.component]
        module = get_module(self.layers[site.layer], slot.module)
        with torch.no_grad():
            return torch.einsum("rphe,hed->rphd", gradient, slot.weight(module))

    def head_writes(self, layer: int, head_output: Tensor) -> Tensor:
        """See `Engine.head_writes`. Behind a norm (Gemma) each head gets its share under the run's own scale."""
        block = self.layers[layer]
        projection = get_module(block, self.family.output_projection)
        with torch.no_grad():
            matrix = output_by_input(projection).unflatten(1, (self.anatomy.heads, self.anatomy.d_head))
            writes = torch.einsum("rphe,dhe->rphd", head_output, matrix)
            if self.family.attention_write_norm is None:
                return writes
            norm = get_module(block, self.family.attention_write_norm)
            return writes * rms_scale(norm, writes.sum(2, keepdim=True))

    def rows_that_fit(self, positions: int) -> int:
        """How many rows of that length one pass should carry, from the memory that is free now."""
        a = self.anatomy
        active = a.d_mlp * max(a.experts_per_token, 1)
        floats = positions * (12 * a.d_model + 4 * active + 4 * a.heads * a.d_head + 2 * a.heads * positions)
        item = torch.finfo(self.dtype).bits // 8
        if self.device.type == "cuda":
            budget = torch.cuda.mem_get_info(self.device)[0] // 2
            return max(1, int(budget // (floats * item)))
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return max(1, min(int(free // 4 // (floats * item)), _CPU_TOKENS_PER_PASS // positions))


def _left_padded(batch: TokenBatch) -> bool:
    return not bool(batch.real[:, 0].all())
