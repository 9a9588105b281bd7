"""The torch engine: Hugging Face decoders, run layer by layer."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DynamicCache

from neuroscope.engines import architectures
from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.architectures import Architecture
from neuroscope.engines.folder import end_ids
from neuroscope.engines.layout import get_module, places
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
from neuroscope.engines.spans import Span
from neuroscope.engines.torch import attention as torch_attention
from neuroscope.engines.torch.gelu import fuse
from neuroscope.engines.torch.norms import norm_gradient, rms_scale
from neuroscope.engines.torch.ops import TorchOps, wide
from neuroscope.engines.torch.packed import plain
from neuroscope.engines.torch.packing import PackedSpan, PackingDecoder, mixes_positions
from neuroscope.engines.torch.parameters import TorchParameters
from neuroscope.engines.torch.placement import Carrier, Placement, moved
from neuroscope.engines.torch.slots import HeadSlot, output_by_input
from neuroscope.engines.torch.taps import TorchTaps
from neuroscope.engines.tuning import StepSettings
from neuroscope.engines.weights import WeightSite
from neuroscope.errors import ArgumentError, InertHookError, NonFiniteActivationError, UnsupportedArchitectureError, WeightError

if TYPE_CHECKING:
    from neuroscope.engines.torch.tuning import TorchTuner


class TorchPrefix:
    """`Prefix`: keys and values of each layer (rows, key-value heads, columns, d_head), prepended to each layer's own."""

    def __init__(self, layers: list[tuple[Tensor, Tensor]], columns: int, weights: dict[str, str], times: int = 1) -> None:
        self._layers = layers
        self.columns = columns
        self.weights = weights
        self._times = times

    def repeat(self, times: int) -> TorchPrefix:
        """The prefix for all rows, repeated `times` times; the copy exists only while a layer runs."""
        return TorchPrefix(self._layers, self.columns, self.weights, self._times * times)

    def take(self, rows: slice) -> TorchPrefix:
        """That of some rows, as views."""
        assert self._times == 1
        return TorchPrefix([(key[rows], value[rows]) for key, value in self._layers], self.columns, self.weights)

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """A decoder layer's call to its cache. Nothing is stored: many runs share the prefix."""
        old_key, old_value = (part.repeat(self._times, 1, 1, 1) for part in self._layers[layer])
        return torch.cat([old_key, key], dim=2), torch.cat([old_value, value], dim=2)


class TorchEngine(PackingDecoder):
    """`Engine` for a Hugging Face causal language model. Freezes its parameters and puts it in evaluation mode.

    part: whether it was read from a multimodal model; it is saved as a language model alone. placed: devices of its layers, for a model
    that was put there; None: all on one.
    """

    name = "torch"
    _parameters_class: type[TorchParameters] = TorchParameters

    def __init__(self, model: Any, *, part: bool = False, placed: Placement | None = None) -> None:
        super().__init__()
        self._part = part
        self._trains = False
        self.model = model.eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        self.architecture: Architecture = architectures.find(model.config.model_type)
        self.anatomy: Anatomy = self.architecture.anatomy(lambda name: getattr(model.config, name, None))
        self.slots = self.architecture.slots(self.anatomy, HeadSlot)
        self.layers: list[nn.Module] = list(get_module(model, self.architecture.path("layers")).children())
        self.final_norm = get_module(model, self.architecture.path("final_norm"))
        self._embedding = get_module(model, self.architecture.path("embedding"))
        self._head = model.get_output_embeddings() or get_module(model, self.architecture.unembedding)
        self._position_embedding = self._optional("position_embedding")
        self._rotary = self._optional("rotary")
        self.packs = not mixes_positions(self._rotary)
        parameter = next(model.parameters())
        self.placement = placed or Placement(parameter.device, [parameter.device] * len(self.layers))
        self.placement.lock = self._lock
        self.device, self.dtype = self.placement.home, parameter.dtype
        if self.dtype in (torch.float32, torch.float64):
            fuse(model)
        self.ops: ArrayOps = TorchOps(self.device, self.dtype)
        self._softcap = getattr(model.config, "final_logit_softcapping", None)
        generation = getattr(model, "generation_config", None)
        self.end_tokens: tuple[int, ...] = end_ids({} if generation is None else generation.to_dict(), model.config.to_dict())
        self._running: TorchTaps | None = None
        self.parameters: TorchParameters = self._parameters()
        self._check(self.layers)
        arguments = inspect.signature(self.layers[0].forward).parameters
        if self.architecture.cache_argument not in arguments:
            raise UnsupportedArchitectureError(
                f"A layer of {self.architecture.name} has no argument {self.architecture.cache_argument!r} for its cache of keys and values.",
                remedy=f"Its arguments are {', '.join(arguments)}: name the right one as cache_argument.",
            )

    @property
    def _slots_here(self) -> dict[Component, HeadSlot]:
        """Queries, keys and values in what this process's projections answer."""
        return self.slots

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def device_name(self) -> str:
        return self.placement.name

    @property
    def weight_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.model.parameters())

    def _optional(self, part: str) -> Any:
        return None if getattr(self.architecture, part) is None else get_module(self.model, self.architecture.path(part))

    def _parameters(self) -> TorchParameters:
        tied, path = self._head.weight is self._embedding.weight, self.architecture.path("embedding")
        unembedding = path if tied else next(path for path, module in self.model.named_modules() if module is self._head)
        where = places(self.architecture, self.anatomy, unembedding)
        return self._parameters_class(self.model, self.layers, self.anatomy, where, self.exclusive, tied=tied)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock the model for one thread, with attention that has taps."""
        with super().exclusive():
            config = self.model.config
            before = config._attn_implementation
            config._attn_implementation = torch_attention.NAME
            try:
                yield
            finally:
                config._attn_implementation = before

    # --- runs ---------------------------------------------------------------------------------------------------

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
        span = self._span(batch, prefix)
        with self.exclusive(), torch.enable_grad():
            entry = self._entry(span) if residual is None else self.ops.asarray(residual)
            entry = entry.detach().clone().requires_grad_(True)
            checked = [site.checked(self.anatomy) for site in sites]
            wholes = list({site.whole: None for site in checked})
            taps = self._taps(batch, wholes, edits, first_column=span.first, columns=span.columns)
            run = self._run(span, taps, start, entry, None, logits)
            values = metric(run.logits)
            if values.ndim != 1 or len(values) != batch.rows:
                raise ArgumentError(f"A metric must return one number per row, not an array of shape {tuple(values.shape)}.")
            if not torch.isfinite(values).all():
                raise NonFiniteActivationError("The metric is NaN or infinite.", remedy="Check the prompts and the weights.")
            leaves = [run.activations[site] for site in wholes]
            found: dict[Site, Any] = dict.fromkeys(wholes)
            if values.requires_grad:  # else edits cut the metric off from every site
                found = dict(zip(wholes, self._differentiated(run, values, leaves), strict=True))
        for site, gradient in found.items():
            if gradient is None:
                raise InertHookError(f"The metric does not depend on {site}, so it has no gradient there.", site=site)
        pairs = list(zip(sites, checked, strict=True))
        return Gradients(
            values.detach(),
            {asked: taps.narrowed(site, run.activations[site.whole]).detach().to(self.device) for asked, site in pairs},
            {asked: taps.narrowed(site, found[site.whole]).to(self.device) for asked, site in pairs},
        )

    def _differentiated(self, run: Run, values: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Gradients of the sum of a run's metric, `values`, at each leaf."""
        return torch.autograd.grad(values.sum(), leaves, allow_unused=True)

    def _settle(self, run: Run) -> Run:
        """What leaves the engine lies on its home device."""
        if self.placement.several:
            run.activations = moved(run.activations, self.device)
            run.residual = moved(run.residual, self.device)
        return run

    def _without_gradients(self) -> AbstractContextManager[Any]:
        return torch.set_grad_enabled(self._trains)

    # --- training -----------------------------------------------------------------------------------------------

    def copy(self) -> TorchEngine:
        """See `Engine.copy`."""
        with self._lock:
            found = TorchEngine(copy.deepcopy(self.model), part=self._part, placed=self.placement.copy())
            found.end_tokens, found.stop_texts = self.end_tokens, self.stop_texts
            found.parameters.adopt(self.parameters)
        return found

    def tuner(self, sites: Sequence[WeightSite] | None, settings: StepSettings) -> TorchTuner:
        """See `Engine.tuner`."""
        from neuroscope.engines.torch.tuning import TorchTuner

        return TorchTuner(self, sites, settings)

    def adapters(self, numbers: int, settings: StepSettings, *, seed: int = 0) -> TorchTuner:
        """See `Engine.adapters`."""
        from neuroscope.engines.torch.adapters import adapters

        return adapters(self, numbers, settings, seed)

    @contextmanager
    def differentiable(self, on: bool = True) -> Iterator[None]:
        """See `Engine.differentiable`."""
        before, self._trains = self._trains, on
        try:
            yield
        finally:
            self._trains = before

    def _taps(self, batch: TokenBatch, capture: Sequence[Site], edits: Sequence[Edit], **where: Any) -> TorchTaps:
        home = self.device if self.placement.several else None
        return TorchTaps(self.anatomy, batch, capture, edits, home=home, **where)

    def _new_cache(self) -> DynamicCache:
        return DynamicCache()

    def _as_prefix(self, cache: DynamicCache, columns: int) -> TorchPrefix:
        return TorchPrefix([(layer.keys, layer.values) for layer in cache.layers], columns, self.changed_weights())

    @contextmanager
    def _layers(
        self, span: Span, taps: TorchTaps, x: Tensor, masks: Sequence[Tensor | None]
    ) -> Iterator[Callable[[int, Tensor], Tensor]]:
        positions = self._ids(span.positions())
        rotations = self._rotations(x, positions)
        shared: dict[str, Any] = {self.architecture.cache_argument: span.cache, "use_cache": span.cache is not None}
        if isinstance(span, PackedSpan):
            shared["neuroscope_parts"] = span.cache
        carried = Carrier()
        with self._current(taps), taps.installed(self.layers, self.architecture, self._slots_here) as attention_taps:
            if attention_taps:
                shared["neuroscope_taps"] = attention_taps

            def layer(index: int, x: Tensor) -> Tensor:
                with self.placement.present(index, self.layers[index]) as device:
                    there = {"position_ids": carried(positions, device), "attention_mask": carried(masks[index], device)}
                    if rotations is not None:
                        there["position_embeddings"] = carried(rotations[index], device)
                    out = self.layers[index](x.to(device), **there, **shared)
                return out[0] if isinstance(out, tuple) else out

            yield layer

    @contextmanager
    def _current(self, taps: TorchTaps) -> Iterator[None]:
        """Pause the taps of the run that started this one, if any."""
        outer, self._running = self._running, taps
        if outer is not None:
            outer.paused = True
        try:
            yield
        finally:
            self._running = outer
            if outer is not None:
                outer.paused = False

    def _entry(self, span: Span) -> Tensor:
        """`_embed`, outside a run."""
        return self._embed(span)

    def _embed(self, span: Span) -> Tensor:
        x: Tensor = self._embedding(self._ids(span.chunk.ids))
        if self._position_embedding is not None:
            x = x + self._position_embedding(self._ids(span.positions()))
        return x

    def _ids(self, ids: NDArray[Any]) -> Tensor:
        return torch.as_tensor(ids).to(self.device)

    def _rotations(self, x: Tensor, positions: Tensor) -> Sequence[Any] | None:
        """Each layer's rotary embedding of positions."""
        rotary = self._rotary
        if rotary is None:
            return None
        if not self.architecture.rotary_by_layer_type:
            return [rotary(x, positions)] * self.anatomy.layers
        types = self.model.config.layer_types
        by_type = {kind: rotary(x, positions, kind) for kind in set(types)}
        return [by_type[kind] for kind in types]

    def _logits(self, x: Tensor, request: LogitRequest, first: int) -> Tensor:
        return super()._logits(x.to(self.device), request, first)

    def _unembed(self, x: Tensor, tokens: Tensor | None) -> Tensor:
        x = self.final_norm(x)
        head = self._head
        logits: Tensor = (
            head(x) if tokens is None else torch.einsum("r...d,rkd->r...k", wide(x), wide(self._unembeddings(tokens)))
        )
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap

    def _unembeddings(self, tokens: Tensor) -> Tensor:
        """What reads the logits of tokens: (…) → (…, d_model)."""
        found: Tensor = plain(self._head, dtype=self.dtype)[tokens]
        return found

    def bare_logits(self, batch: TokenBatch) -> Tensor:
        """(rows, positions, vocabulary) from the unmodified Hugging Face model, with its own attention."""
        with self._lock, self.placement.bridged(self.layers, self.final_norm):
            return self._bare_logits(batch)

    def _bare_logits(self, batch: TokenBatch) -> Tensor:
        with torch.no_grad():
            out = self.model(
                input_ids=self._ids(batch.ids),
                attention_mask=self._ids(batch.real.astype(np.int64)),
                position_ids=self._ids(Span.of(batch, None).positions()).expand(batch.rows, -1),
                use_cache=False,
            )
        logits: Tensor = out.logits
        return logits

    # --- the parts that circuit algorithms compose ----------------------------------------------------------------

    @contextmanager
    def _norm(self, layer: int, port: Port) -> Iterator[tuple[nn.Module, torch.device]]:
        """The norm of a port, with its device."""
        if port is Port.FINAL:
            yield self.final_norm, self.device
            return
        path = self.architecture.attention_norm if port is Port.ATTENTION else self.architecture.mlp_norm
        with self.placement.present(layer, self.layers[layer]) as device:
            yield get_module(self.layers[layer], path), device

    def normalise(self, layer: int, port: Port, residual: Tensor) -> Tensor:
        """See `Engine.normalise`."""
        with self._without_gradients(), self._norm(layer, port) as (norm, device):
            # forward, not a call: a run's own hooks on this module must not fire again from inside an edit.
            out: Tensor = norm.forward(self.ops.asarray(residual).to(device))
            return out.to(self.device)

    def normalise_gradient(self, layer: int, port: Port, residual: Tensor, gradient: Tensor) -> Tensor:
        """See `Engine.normalise_gradient`."""
        with torch.no_grad(), self._norm(layer, port) as (norm, device):
            return norm_gradient(norm, residual.to(device), gradient.to(device), self.architecture).to(self.device)

    def _module(self, layer: int, path: str) -> nn.Module:
        """A part of a layer, with its weights."""
        found: nn.Module = get_module(self.layers[layer], path)
        return found

    @contextmanager
    def _projection(self, site: Site) -> Iterator[tuple[HeadSlot, nn.Module, torch.device]]:
        """What a layer's queries, keys or values come from, with its device."""
        assert site.layer is not None
        slot = self.slots[site.component]
        with self.placement.present(site.layer, self.layers[site.layer]) as device:
            yield slot, self._module(site.layer, slot.module), device

    def project(self, site: Site, normalised: Tensor, heads: IntArray | None = None) -> Tensor:
        """See `Engine.project`."""
        with self._without_gradients(), self._projection(site) as (slot, module, device):
            weight, bias = slot.weight(module, self.dtype), slot.bias(module)
            if heads is not None:
                which = torch.as_tensor(heads).to(device)
                weight, bias = weight[which], None if bias is None else bias[which]
            out = torch.einsum("hrpd,hed->rphe", normalised.to(device), weight)
            return (out if bias is None else out + bias).to(self.device)

    def project_head(self, site: Site, normalised: Tensor) -> Tensor:
        """See `Engine.project_head`."""
        assert site.head is not None
        with torch.no_grad(), self._projection(site) as (slot, module, device):
            weight, bias = slot.weight(module, self.dtype)[site.head], slot.bias(module)
            out = nn.functional.linear(normalised.to(device), weight, None if bias is None else bias[site.head])
            return out.to(self.device)

    def project_gradient(self, site: Site, gradient: Tensor) -> Tensor:
        """See `Engine.project_gradient`."""
        with torch.no_grad(), self._projection(site) as (slot, module, device):
            return torch.einsum("rphe,hed->rphd", wide(gradient).to(device), wide(slot.weight(module, self.dtype))).to(
                self.device
            )

    def head_writes(self, layer: int, head_output: Tensor, heads: IntArray | None = None) -> Tensor:
        """See `Engine.head_writes`. If a norm follows (Gemma), each head's share uses the run's own scale."""
        block = self.layers[layer]
        with self._without_gradients(), self.placement.present(layer, block) as device:
            projection = self._module(layer, self.architecture.output_projection)
            head_output = head_output.to(device)
            matrix = output_by_input(projection, self.dtype).unflatten(1, (self.anatomy.heads, self.anatomy.d_head))
            which = None if heads is None else torch.as_tensor(heads).to(device)
            normed = self.architecture.attention_write_norm
            if which is not None and normed is None:
                matrix, head_output = matrix[:, which], head_output[:, :, which]
            writes = torch.einsum("rphe,dhe->rphd", wide(head_output), wide(matrix))
            if normed is not None:
                writes = writes * rms_scale(get_module(block, normed), writes.sum(2, keepdim=True), self.architecture)
                writes = writes if which is None else writes[:, :, which]
            return writes.to(self.device)

    def save(self, folder: Path) -> None:
        """See `Engine.save`."""
        with self._lock:
            if self.parameters.was_unpacked:
                raise WeightError(
                    f"A model some of whose packed weights were dequantised cannot be saved: {self.parameters.was_unpacked[0]}.",
                    remedy="Load it without packed weights, make the change there, and save that.",
                )
            self._save(folder)

    def _save(self, folder: Path) -> None:
        self.model.save_pretrained(folder, save_original_format=not self._part)

    def rows_that_fit(self, positions: int) -> int:
        """How many rows of that length one pass should run, given the memory that is free now."""
        free = [torch.cuda.mem_get_info(device)[0] for device in self.placement.devices if device.type == "cuda"]
        return self._rows_within(positions, torch.finfo(self.dtype).bits // 8, min(free, default=None))
