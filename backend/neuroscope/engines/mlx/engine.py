"""The MLX engine: mlx-lm decoders, run layer by layer.

A run evaluates its arrays before it returns them: MLX can evaluate a lazy array only in the thread that created it, but a model
may be loaded in one thread, run in a second and read in a third.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.architectures import Architecture
from neuroscope.engines.decoder import Decoder
from neuroscope.engines.layout import find_module, get_module, places
from neuroscope.engines.mlx.blocks import Block, KeyValues, LayerCall, Pass
from neuroscope.engines.mlx.config import activation_of, of_mlx
from neuroscope.engines.mlx.library import models_module
from neuroscope.engines.mlx.norms import norm_gradient, rms_scale
from neuroscope.engines.mlx.ops import MlxOps, wide
from neuroscope.engines.mlx.parameters import MlxParameters
from neuroscope.engines.mlx.saving import Origin
from neuroscope.engines.mlx.slots import HeadSlot, matrix, matrix_rows
from neuroscope.engines.mlx.taps import MlxTaps, shape_of
from neuroscope.engines.protocol import (
    ALL_LOGITS,
    ArrayOps,
    Edit,
    Gradients,
    IntArray,
    LogitRequest,
    Metric,
    Port,
    Prefix,
    Run,
    TokenBatch,
)
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.spans import Span, left_padded
from neuroscope.engines.tuning import StepSettings, no_adapters
from neuroscope.engines.weights import WeightSite
from neuroscope.errors import ArgumentError, InertHookError, NonFiniteActivationError, SiteError

if TYPE_CHECKING:
    from neuroscope.engines.mlx.tuning import MlxTuner

Array = mx.array


class MlxPrefix:
    """`Prefix`: keys and values of each layer (rows, key-value heads, columns, d_head), prepended to each layer's own."""

    def __init__(self, layers: list[tuple[Array, Array]], columns: int, weights: dict[str, str], times: int = 1) -> None:
        self._layers = layers
        self.columns = columns
        self.weights = weights
        self._times = times

    def repeat(self, times: int) -> MlxPrefix:
        """The prefix for all rows, repeated `times` times; the copy exists only while a layer runs."""
        return MlxPrefix(self._layers, self.columns, self.weights, self._times * times)

    def take(self, rows: slice) -> MlxPrefix:
        """That of some rows, as views."""
        assert self._times == 1
        return MlxPrefix([(key[rows], value[rows]) for key, value in self._layers], self.columns, self.weights)

    def update(self, layer: int, key: Array, value: Array) -> tuple[Array, Array]:
        """A layer's call to its cache. Nothing is stored: many runs share the prefix."""
        old_key, old_value = (mx.tile(part, (self._times, 1, 1, 1)) for part in self._layers[layer])
        return mx.concatenate([old_key, key], axis=2), mx.concatenate([old_value, value], axis=2)


class GrowingCache:
    """Keys and values of a generation, in mlx-lm's cache of each layer. Sliding windows are in the masks."""

    def __init__(self, layers: int) -> None:
        self.layers = [models_module("cache").KVCache() for _ in range(layers)]

    def update(self, layer: int, key: Array, value: Array) -> tuple[Array, Array]:
        return self.layers[layer].update_and_fetch(key, value)


class MlxEngine(Decoder[MlxTaps]):
    """`Engine` for a model of mlx-lm, with its translated configuration and its origin."""

    name = "mlx"

    def __init__(
        self, model: nn.Module, config: dict[str, Any], architecture: Architecture, device: mx.Device, origin: Origin
    ) -> None:
        super().__init__()
        self.model = model
        self.architecture, self._mlx = architecture.in_mlx(), of_mlx(architecture)
        self.device = device
        self._config, self._described, self._origin = config, architecture, origin
        self._trains = False
        #: While a tuner differentiates: puts weights that gradients flow through into the model, or those that they do not.
        self.place: Callable[[bool], None] = lambda _: None
        self.anatomy: Anatomy = architecture.anatomy(config.get)
        self.slots = self.architecture.slots(self.anatomy, HeadSlot)
        activation = activation_of(config, self._mlx)
        layers, embedding = self.architecture.path("layers"), self.architecture.path("embedding")
        self.layers = [
            Block(layer, index, self.architecture, self.slots, self.anatomy, activation)
            for index, layer in enumerate(get_module(model, layers))
        ]
        self.embedding = get_module(model, embedding)
        self.final_norm = get_module(model, self.architecture.path("final_norm"))
        unembedding = self._unembedding()
        self.head = get_module(model, unembedding)
        norm: Any = self.final_norm
        self.dtype: mx.Dtype = norm.weight.dtype
        self.ops: ArrayOps = MlxOps(self.dtype)
        self._softcap = config.get("final_logit_softcapping")
        tied = self.head is self.embedding or bool(config["tie_word_embeddings"])
        where = places(self.architecture, self.anatomy, embedding if tied else unembedding)
        copies = {f"{unembedding}.weight": f"{embedding}.weight"} if tied and self.head is not self.embedding else {}
        self.parameters: MlxParameters = MlxParameters(model, layers, copies, self.anatomy, where, self.exclusive, tied=tied)
        self._check([block.layer for block in self.layers])

    @property
    def weight_bytes(self) -> int:
        return sum(array.nbytes for _, array in tree_flatten(self.model.parameters()))

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("mlx.core.")

    @property
    def device_name(self) -> str:
        return "cpu" if self.device.type == mx.DeviceType.cpu else "gpu"

    def _unembedding(self) -> str:
        """Path of the unembedding; that of the embedding if the two are tied."""
        path = self.architecture.unembedding
        tied = find_module(self.model, path) is None or getattr(self.model, "tie_word_embeddings", False)
        return self.architecture.path("embedding") if tied else path

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock the model for one thread, on its device."""
        with super().exclusive(), mx.stream(self.device):
            yield

    # --- runs ------------------------------------------------------------------------------------------------------

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
        """See `Engine.gradients`."""
        span = self._span(batch, prefix)
        checked = [site.checked(self.anatomy) for site in sites]
        wholes = list({site.whole: None for site in checked})
        if logits.tokens is not None and any(site.component is Component.LOGITS for site in wholes):
            raise SiteError("The run computes only some tokens' logits, so the site logits has no gradient.", site=wholes[0])
        narrowing = self._taps(batch, (), (), first_column=span.first, columns=span.columns)

        def run(shifts: list[Array]) -> tuple[Array, Array, list[Array]]:
            taps = self._taps(batch, wholes, edits, first_column=span.first, columns=span.columns)
            taps.shifts = dict(zip(wholes, shifts, strict=True))
            taps.differentiated = True
            found = self._run(span, taps, start, residual, None, logits)
            values = metric(found.logits)
            if values.ndim != 1 or len(values) != batch.rows:
                raise ArgumentError(f"A metric must return one number per row, not an array of shape {tuple(values.shape)}.")
            return values.sum(), values, [found.activations[site] for site in wholes]

        with self.exclusive():
            shifts = [mx.zeros(self._shape(site, span, logits), dtype=self.dtype) for site in wholes]
            (_, metrics, values), found = mx.value_and_grad(run)(shifts)
            mx.eval(metrics, values, found)
            if not self.ops.is_finite(metrics):
                raise NonFiniteActivationError("The metric is NaN or infinite.", remedy="Check the prompts and the weights.")
            for index, site in enumerate(wholes):
                if not bool(mx.any(found[index] != 0)) and not self._reaches(run, shifts, index):
                    raise InertHookError(f"The metric does not depend on {site}, so it has no gradient there.", site=site)
            by_site = dict(zip(wholes, zip(values, found, strict=True), strict=True))
            pairs = [(asked, site, *by_site[site.whole]) for asked, site in zip(sites, checked, strict=True)]
            answer = Gradients(
                metrics,
                {asked: narrowing.narrowed(site, value) for asked, site, value, _ in pairs},
                {asked: narrowing.narrowed(site, gradient) for asked, site, _, gradient in pairs},
            )
            mx.eval(list(answer.values.values()), list(answer.gradients.values()))
            return answer

    def _reaches(self, run: Any, shifts: list[Array], index: int) -> bool:
        """Whether the metric depends on a site whose gradient is zero: then a NaN at the site makes the metric NaN."""
        poisoned = [mx.full(shift.shape, float("nan")) if at == index else shift for at, shift in enumerate(shifts)]
        try:
            return not self.ops.is_finite(run(poisoned)[1])
        except NonFiniteActivationError:
            return True

    def _shape(self, site: Site, span: Span, logits: LogitRequest) -> tuple[int, ...]:
        rows, keys = span.whole.rows, span.first + span.columns
        if site.component is Component.LOGITS and logits.columns is not None:
            return rows, self.anatomy.vocabulary
        return shape_of(site.component, self.anatomy, rows, span.columns, keys)

    def _without_gradients(self) -> AbstractContextManager[Any]:
        return nullcontext()

    # --- training --------------------------------------------------------------------------------------------------

    def copy(self) -> MlxEngine:
        """See `Engine.copy`. Arrays are never changed in place, so the copy shares them until it is written to."""
        with self._lock:
            found = MlxEngine(_copied(self.model, {}), self._config, self._described, self.device, self._origin)
            found.end_tokens, found.stop_texts = self.end_tokens, self.stop_texts
            found.parameters.adopt(self.parameters)
        return found

    def tuner(self, sites: Sequence[WeightSite] | None, settings: StepSettings) -> MlxTuner:
        """See `Engine.tuner`."""
        from neuroscope.engines.mlx.tuning import MlxTuner

        return MlxTuner(self, sites, settings)

    def adapters(self, numbers: int, settings: StepSettings, *, seed: int = 0) -> MlxTuner:
        """Raises `ArgumentError`: LoRA is trained by peft, on torch."""
        missing = no_adapters(self.name)
        assert missing is not None
        raise missing

    @contextmanager
    def differentiable(self, on: bool = True) -> Iterator[None]:
        """See `Engine.differentiable`."""
        before, self._trains = self._trains, on
        self.place(on)
        try:
            yield
        finally:
            self._trains = before
            self.place(before)

    def _settle(self, run: Run) -> Run:
        if self._trains:
            return run
        mx.eval([array for array in (*run.activations.values(), run.logits, run.residual) if array is not None])
        return run

    def _taps(self, batch: TokenBatch, capture: Sequence[Site], edits: Sequence[Edit], **where: Any) -> MlxTaps:
        taps = MlxTaps(self.anatomy, batch, capture, edits, **where)
        taps.differentiated = self._trains
        return taps

    def _new_cache(self) -> GrowingCache:
        return GrowingCache(self.anatomy.layers)

    def _as_prefix(self, cache: GrowingCache, columns: int) -> MlxPrefix:
        layers = [(layer.keys[..., :columns, :], layer.values[..., :columns, :]) for layer in cache.layers]
        mx.eval(layers)
        return MlxPrefix(layers, columns, self.changed_weights())

    @contextmanager
    def _layers(self, span: Span, taps: MlxTaps, x: Array, masks: Sequence[Array | None]) -> Iterator[LayerCall]:
        offset: int | Array = span.first
        if left_padded(span.whole):
            offset = mx.array(span.first - span.whole.offsets)
        cache: KeyValues | None = span.cache
        state = Pass(taps, masks, offset, cache, taps.differentiated)
        yield lambda index, x: self.layers[index](x, state)

    def _embed(self, span: Span) -> Array:
        x: Array = self.embedding(mx.array(span.chunk.ids))
        if self.architecture.position_embedding is not None:
            x = x + get_module(self.model, self.architecture.path("position_embedding"))(mx.array(span.positions()))
        return x * mx.array(self.anatomy.d_model**0.5, x.dtype) if self._mlx.scales_embedding else x

    def _unembed(self, x: Array, tokens: Array | None) -> Array:
        x = self.final_norm(x)
        if tokens is not None:
            x, rows = wide(x), wide(matrix_rows(self.head, tokens)).swapaxes(-1, -2)
            logits = x @ rows if x.ndim == 3 else (x[:, None] @ rows)[:, 0]
        else:
            logits = self.head.as_linear(x) if self.head is self.embedding else self.head(x)
        return logits if self._softcap is None else mx.tanh(logits / self._softcap) * self._softcap

    def bare_logits(self, batch: TokenBatch) -> Array:
        """(rows, positions, vocabulary) from mlx-lm's own model, row by row, since it does not support padding.

        If its code lacks the model's sliding windows and a prompt is longer, its layers run one by one with the windows' masks.
        Logits at padding are zero.
        """
        with self.exclusive():
            out = np.zeros((batch.rows, batch.positions, self.anatomy.vocabulary), dtype=np.float32)
            for row in range(batch.rows):
                real = batch.real[row]
                out[row, real] = self.ops.to_numpy(self._bare(TokenBatch.of([batch.ids[row, real].tolist()])))[0]
            return self.ops.asarray(out)

    def _bare(self, batch: TokenBatch) -> Array:
        ids = mx.array(batch.ids)
        shortest = min((window for window in self.anatomy.sliding_windows if window), default=batch.positions)
        if self._mlx.windows or shortest >= batch.positions:
            if self._mlx.module != "gemma3_text":
                return self.model(ids)
            # mlx-lm always rounds √d_model to bfloat16; the embeddings compensate for it.
            exact = self.anatomy.d_model**0.5
            rounded = float(mx.array(exact, mx.bfloat16))
            return self.model(ids, input_embeddings=self.embedding(ids) * (exact / rounded))
        span = Span.of(batch, None)
        x = self._embed(span)
        for block, mask in zip(self.layers, self._masks(span), strict=True):
            x = block.layer(x, mx.tri(batch.positions, dtype=mx.bool_) if mask is None else mask, None)
        return self._unembed(x, None)

    # --- the parts that circuit algorithms compose -------------------------------------------------------------------

    def _norm(self, layer: int, port: Port) -> Any:
        if port is Port.FINAL:
            return self.final_norm
        block = self.layers[layer]
        return block.attention_norm if port is Port.ATTENTION else block.mlp_norm

    def normalise(self, layer: int, port: Port, residual: Array) -> Array:
        """See `Engine.normalise`."""
        return self._norm(layer, port)(self.ops.asarray(residual))

    def normalise_gradient(self, layer: int, port: Port, residual: Array, gradient: Array) -> Array:
        """See `Engine.normalise_gradient`."""
        return norm_gradient(self._norm(layer, port), residual, gradient, self.architecture)

    def _projection(self, site: Site) -> tuple[Array, Array | None]:
        """The site's weight (heads, d_head, d_model) and bias (heads, d_head)."""
        assert site.layer is not None
        slot = self.slots[site.component]
        module = self.layers[site.layer].projections[slot.module]
        return slot.weight(module), slot.bias(module)

    def project(self, site: Site, normalised: Array, heads: IntArray | None = None) -> Array:
        """See `Engine.project`."""
        weight, bias = self._projection(site)
        if heads is not None:
            which = mx.array(heads)
            weight, bias = weight[which], None if bias is None else bias[which]
        out = mx.einsum("hrpd,hed->rphe", normalised, weight)
        return out if bias is None else out + bias

    def project_head(self, site: Site, normalised: Array) -> Array:
        """See `Engine.project_head`."""
        assert site.head is not None
        weight, bias = self._projection(site)
        out = normalised @ weight[site.head].T
        return out if bias is None else out + bias[site.head]

    def project_gradient(self, site: Site, gradient: Array) -> Array:
        """See `Engine.project_gradient`."""
        return mx.einsum("rphe,hed->rphd", wide(gradient), wide(self._projection(site)[0]))

    def head_writes(self, layer: int, head_output: Array, heads: IntArray | None = None) -> Array:
        """See `Engine.head_writes`. If a norm follows (Gemma), each head's share uses the run's own scale."""
        block = self.layers[layer]
        weight = mx.unflatten(matrix(block.output_projection), 1, (self.anatomy.heads, self.anatomy.d_head))
        which = None if heads is None else mx.array(heads)
        if which is not None and block.attention_write_norm is None:
            weight, head_output = weight[:, which], head_output[:, :, which]
        writes = mx.einsum("rphe,dhe->rphd", wide(head_output), wide(weight))
        if block.attention_write_norm is None:
            return writes
        writes = writes * rms_scale(block.attention_write_norm, writes.sum(2, keepdims=True), self.architecture)
        return writes if which is None else writes[:, :, which]

    def save(self, folder: Path) -> None:
        """See `Engine.save`. Writes the model's original files with the changed weights."""
        with self.exclusive():
            self._origin.save(folder, self.parameters.changed_arrays())

    def rows_that_fit(self, positions: int) -> int:
        """How many rows of that length one pass should run, given the memory that is free now."""
        free = None
        if self.device.type == mx.DeviceType.gpu:
            limit = mx.device_info().get("max_recommended_working_set_size", mx.device_info()["memory_size"])
            free = max(int(limit) - mx.get_active_memory(), 0)
        return self._rows_within(positions, self.dtype.size, free)


def _copied(part: Any, known: dict[int, Any]) -> Any:
    """A module's structure anew, with the same arrays; `deepcopy` fails at functions of MLX that modules refer to."""
    if not isinstance(part, (nn.Module, dict, list)):
        return part
    if id(part) not in known:
        found = known[id(part)] = copy.copy(part)
        for key, value in enumerate(part) if isinstance(part, list) else part.items():
            found[key] = _copied(value, known)
    return known[id(part)]
