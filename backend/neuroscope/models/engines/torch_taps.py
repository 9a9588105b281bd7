"""Reading and rewriting sites while torch modules run.

A `Taps` object holds what one run captures and edits. Sites that are a module's input or output are reached through
that module's forward hooks, installed for the run and removed after it, so a run without taps is the bare model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuroscope.errors import SiteError
from neuroscope.models.anatomy import Anatomy
from neuroscope.models.engines.protocol import Edit, EditScope, Phase, TokenBatch
from neuroscope.models.engines.torch_attention import AttentionTaps
from neuroscope.models.engines.torch_experts import dense_router, run_experts, sparse_router
from neuroscope.models.engines.torch_families import Family, HeadSlot, get_module
from neuroscope.models.sites import ATTENTION_MATRICES, Component, Site

Key = tuple[int | None, Component]


class Taps:
    """The captures and edits of one run, by layer and component."""

    def __init__(
        self,
        anatomy: Anatomy,
        batch: TokenBatch,
        capture: Sequence[Site],
        edits: Sequence[Edit],
        *,
        phase: Phase = Phase.FORWARD,
        first_column: int = 0,
        columns: int | None = None,
    ) -> None:
        self.batch = batch
        self.phase = phase
        self.first_column = first_column
        self.columns = batch.positions if columns is None else columns
        self.values: dict[Site, Tensor] = {}
        self._captures: dict[Key, list[tuple[Site, Site]]] = defaultdict(list)
        self._edits: dict[Key, list[tuple[Site, Edit]]] = defaultdict(list)
        for asked in capture:
            site = asked.checked(anatomy)
            self._captures[site.layer, site.component].append((asked, site))
        for edit in edits:
            site = edit.site.checked(anatomy)
            self._edits[site.layer, site.component].append((site, edit))

    def wants(self, layer: int | None, component: Component) -> bool:
        return (layer, component) in self._captures or (layer, component) in self._edits

    def layers(self) -> set[int]:
        """Layers with a capture or an edit."""
        return {layer for layer, _ in (*self._captures, *self._edits) if layer is not None}

    def touch(self, layer: int | None, component: Component, value: Tensor) -> Tensor:
        """Pass a component's array through its edits, then hand it to its captures."""
        for site, edit in self._edits.get((layer, component), ()):
            value = self._edited(site, edit, value)
        for asked, site in self._captures.get((layer, component), ()):
            where = self._index(site, value)
            if where is not None:
                self.values[asked] = value if where == () else value[where]
        return value

    def narrowed(self, site: Site, value: Tensor) -> Tensor:
        """The cells of a (checked) site in its component's array."""
        where = self._index(site, value)
        assert where is not None
        return value if where == () else value[where]

    def _edited(self, site: Site, edit: Edit, value: Tensor) -> Tensor:
        where = self._index(site, value, edit.rows)
        if where is None:
            return value
        scope = EditScope(site, self.batch, self.first_column, self.phase)
        if where == ():
            return _like(edit.apply(value, scope), value)
        new = _like(edit.apply(value[where], scope), value)
        value = value.clone()
        value[where] = new
        return value

    def _index(self, site: Site, value: Tensor, rows: Any = None) -> tuple[Any, ...] | None:
        """Index of the site's cells in its component's array; () for all, None when this run has no such position."""
        component = site.component
        matrix = component in ATTENTION_MATRICES
        index: list[Any] = [slice(None)] * value.ndim
        if rows is not None:
            index[0] = rows if isinstance(rows, slice) else torch.as_tensor(np.asarray(rows), device=value.device)
        if site.head is not None:
            index[1 if matrix else 2] = site.head
        if site.neuron is not None:
            index[-1] = site.neuron
        if site.position is not None:
            columns = self._columns(site.position)
            if columns is None:
                return None
            row_ids = np.arange(self.batch.rows)
            if rows is not None:
                row_ids, columns = row_ids[rows], columns[rows]
            index[0] = torch.as_tensor(row_ids, device=value.device)
            index[2 if matrix else 1] = torch.as_tensor(columns, device=value.device)
        return () if all(isinstance(i, slice) and i == slice(None) for i in index) else tuple(index)

    def _columns(self, position: int) -> np.ndarray[Any, Any] | None:
        """Column of the token number `position` of each row within this run's array."""
        if self.phase is Phase.PREFILL and position >= int(self.batch.lengths.min()):
            return None  # a later step of the generation may come to it
        if self.phase is not Phase.DECODE:
            columns = self.batch.column(position) - self.first_column
            if bool((columns < 0).any()):
                raise SiteError(f"Token {position} lies in the prefix, which does not run again.")
            return columns
        # One column per decoding step: it holds token number first_column - offset of each row.
        current = self.first_column - self.batch.offsets
        hit = current == position if position >= 0 else np.full(self.batch.rows, position == -1)
        return np.zeros(self.batch.rows, dtype=np.int64) if bool(hit.all()) else None

    @contextmanager
    def installed(
        self, layers: Sequence[nn.Module], family: Family, slots: dict[Component, HeadSlot]
    ) -> Iterator[AttentionTaps]:
        """Hook the modules of the layers concerned for the duration of the block."""
        attention_taps = AttentionTaps()
        with ExitStack() as stack:
            for index in sorted(self.layers()):
                self._install_layer(stack, index, layers[index], family, slots, attention_taps)
            yield attention_taps

    def _install_layer(
        self,
        stack: ExitStack,
        index: int,
        layer: nn.Module,
        family: Family,
        slots: dict[Component, HeadSlot],
        attention_taps: AttentionTaps,
    ) -> None:
        def on_output(component: Component, path: str) -> None:
            if self.wants(index, component):
                handle = get_module(layer, path).register_forward_hook(self._output_hook(index, component))
                stack.callback(handle.remove)

        on_output(Component.LAYER_NORM, family.attention_norm)
        on_output(Component.MLP_INPUT, family.mlp_norm)
        on_output(Component.ATTENTION, family.attention_write_norm or family.attention)
        on_output(Component.MLP_OUTPUT, family.mlp_write_norm or family.mlp)
        if self.wants(index, Component.MLP_READ):
            hook = self._input_hook(index, Component.MLP_READ)
            stack.callback(get_module(layer, family.mlp_norm).register_forward_pre_hook(hook).remove)
        for component, slot in slots.items():
            if self.wants(index, component):
                handle = get_module(layer, slot.module).register_forward_hook(self._slot_hook(index, component, slot))
                stack.callback(handle.remove)
        if self.wants(index, Component.HEAD_OUTPUT):
            heads = slots[Component.QUERY].heads
            projection = get_module(layer, family.output_projection)
            stack.callback(projection.register_forward_pre_hook(self._heads_hook(index, heads)).remove)
        if self.wants(index, Component.ATTENTION_SCORES):
            attention_taps.scores[index] = lambda value: self.touch(index, Component.ATTENTION_SCORES, value)
        if self.wants(index, Component.ATTENTION_PATTERN):
            attention_taps.pattern[index] = lambda value: self.touch(index, Component.ATTENTION_PATTERN, value)
        if family.moe:
            self._install_experts(stack, index, layer)
        elif self.wants(index, Component.MLP):
            handle = get_module(layer, family.neurons).register_forward_pre_hook(self._input_hook(index, Component.MLP))
            stack.callback(handle.remove)

    def _install_experts(self, stack: ExitStack, index: int, layer: nn.Module) -> None:
        if self.wants(index, Component.ROUTER):
            stack.callback(layer.mlp.router.register_forward_hook(self._router_hook(index)).remove)  # type: ignore[union-attr]
        if not self.wants(index, Component.MLP):
            return
        experts = layer.mlp.experts  # type: ignore[union-attr]
        assert isinstance(experts, nn.Module)

        def tap(neurons: Tensor) -> Tensor:
            shaped = neurons.unflatten(0, (self.batch.rows, self.columns))
            return self.touch(index, Component.MLP, shaped).flatten(0, 1)

        def forward(x: Tensor, router_indices: Tensor, routing_weights: Tensor) -> Tensor:
            return run_experts(experts, x, router_indices, routing_weights, tap)

        experts.forward = forward
        stack.callback(lambda: experts.__dict__.pop("forward", None))

    def _output_hook(self, index: int, component: Component) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (self.touch(index, component, output[0]), *output[1:])
            return self.touch(index, component, output)

        return hook

    def _input_hook(self, index: int, component: Component) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            # A tensor of its own, so that its gradient is that of this read alone and not of the stream's other readers.
            value = inputs[0].view_as(inputs[0]) if torch.is_grad_enabled() else inputs[0]
            return (self.touch(index, component, value), *inputs[1:])

        return hook

    def _heads_hook(self, index: int, heads: int) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            value = inputs[0].unflatten(-1, (heads, -1))
            return (self.touch(index, Component.HEAD_OUTPUT, value).flatten(-2), *inputs[1:])

        return hook

    def _slot_hook(self, index: int, component: Component, slot: HeadSlot) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            value = slot.read(output)
            new = self.touch(index, component, value)
            # While gradients flow the layer must go on with the very tensor that was captured, not with its parent.
            return output if new is value and not torch.is_grad_enabled() else slot.write(output, new)

        return hook

    def _router_hook(self, index: int) -> Any:
        def hook(module: nn.Module, _: Any, output: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            logits, scores, indices = output
            dense = dense_router(indices, scores, logits.shape[-1])
            value = dense.unflatten(0, (self.batch.rows, self.columns))
            new = self.touch(index, Component.ROUTER, value)
            if new is value and not torch.is_grad_enabled():
                return output
            return (logits, *sparse_router(new.flatten(0, 1), scores.shape[-1]))

        return hook


def _like(new: Any, old: Tensor) -> Tensor:
    tensor = new if isinstance(new, Tensor) else torch.as_tensor(new)
    return tensor.to(old.device, old.dtype)
