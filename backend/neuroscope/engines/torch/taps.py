"""Sites as the inputs and outputs of torch modules, reached through their hooks.

The hooks are installed for the run and removed after it, so a run without taps is the bare model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuroscope.engines.architectures import Architecture
from neuroscope.engines.layout import get_module
from neuroscope.engines.protocol import BoolArray, Edit, EditScope, IntArray, Phase
from neuroscope.engines.sites import Component
from neuroscope.engines.taps import Taps
from neuroscope.engines.torch.attention import AttentionTaps
from neuroscope.engines.torch.experts import NeuronTap, dense_router, run_experts, sparse_router
from neuroscope.engines.torch.slots import HeadSlot

_PROJECTED = (Component.QUERY, Component.KEY, Component.VALUE)


class TorchTaps(Taps):
    """`Taps` for torch modules. They are `paused` while an edit runs the modules for another run.

    home: the device of the arrays that edits get, wherever the layer is; None: the layer's own.
    """

    paused = False

    def __init__(self, *what: Any, home: torch.device | None = None, **where: Any) -> None:
        super().__init__(*what, **where)
        self._home = home

    def touch(self, layer: int | None, component: Component, value: Tensor) -> Tensor:
        """See `Taps.touch`."""
        return value if self.paused else super().touch(layer, component, value)

    def _as_index(self, ids: IntArray, value: Tensor) -> Tensor:
        return torch.as_tensor(ids).to(value.device)

    def _replaced(self, value: Tensor, where: tuple[Any, ...], new: Tensor) -> Tensor:
        value = value.clone()
        value[where] = new
        return value

    def _applied(self, edit: Edit, value: Tensor, scope: EditScope) -> Tensor:
        return self._like(edit.apply(value if self._home is None else value.to(self._home), scope), value)

    def _like(self, new: Any, old: Tensor) -> Tensor:
        tensor = new if isinstance(new, Tensor) else torch.as_tensor(new)
        return tensor.to(old.device, old.dtype)

    @contextmanager
    def installed(
        self, layers: Sequence[nn.Module], where: Architecture, slots: dict[Component, HeadSlot]
    ) -> Iterator[AttentionTaps]:
        """Hook the modules of the tapped layers for the duration of the block."""
        attention_taps = AttentionTaps()
        with ExitStack() as stack:
            for index in sorted(self.layers()):
                self._install_layer(stack, index, layers[index], where, slots, attention_taps)
            yield attention_taps

    def _install_layer(
        self,
        stack: ExitStack,
        index: int,
        layer: nn.Module,
        where: Architecture,
        slots: dict[Component, HeadSlot],
        attention_taps: AttentionTaps,
    ) -> None:
        def on_output(component: Component, path: str) -> None:
            if self.wants(index, component):
                handle = get_module(layer, path).register_forward_hook(self._output_hook(index, component))
                stack.callback(handle.remove)

        on_output(Component.LAYER_NORM, where.attention_norm)
        on_output(Component.MLP_INPUT, where.mlp_norm)
        on_output(Component.ATTENTION, where.attention_write_norm or where.attention)
        on_output(Component.MLP_OUTPUT, where.mlp_write_norm or where.mlp)
        if self.wants(index, Component.MLP_READ):
            hook = self._input_hook(index, Component.MLP_READ)
            stack.callback(get_module(layer, where.mlp_norm).register_forward_pre_hook(hook).remove)
        spared = self._spare(stack, index, layer, where, slots)
        for component, slot in slots.items():
            if self.wants(index, component):
                hook = self._slot_hook(index, component, slot, slot.module in spared)
                handle = get_module(layer, slot.module).register_forward_hook(hook)
                stack.callback(handle.remove)
        if self.wants(index, Component.HEAD_OUTPUT):
            heads = slots[Component.QUERY].heads
            projection = get_module(layer, where.output_projection)
            stack.callback(projection.register_forward_pre_hook(self._heads_hook(index, heads)).remove)
        if self.wants(index, Component.ATTENTION_SCORES):
            attention_taps.scores[index] = lambda value: self.touch(index, Component.ATTENTION_SCORES, value)
        if self.wants(index, Component.ATTENTION_PATTERN):
            attention_taps.pattern[index] = lambda value: self.touch(index, Component.ATTENTION_PATTERN, value)
        if where.moe:
            self._install_experts(stack, index, layer)
        elif self.wants(index, Component.MLP):
            handle = get_module(layer, where.down_projection).register_forward_pre_hook(self._input_hook(index, Component.MLP))
            stack.callback(handle.remove)

    def _spare(
        self, stack: ExitStack, index: int, layer: nn.Module, where: Architecture, slots: dict[Component, HeadSlot]
    ) -> set[str]:
        """Let modules whose output nobody reads answer zeros; the paths of the projections among them."""
        spared = set()
        for path in {slot.module for slot in slots.values()}:
            mine = [(component, slot) for component, slot in slots.items() if slot.module == path]
            if all(self._whole_unread(index, component) for component, _ in mine):
                spared.add(path)
                features = math.prod(mine[0][1].split)
                _replace(stack, get_module(layer, path), lambda x, features=features: x.new_zeros(*x.shape[:-1], features))
        inside = (*_PROJECTED, Component.HEAD_OUTPUT, Component.ATTENTION_SCORES, Component.ATTENTION_PATTERN)
        if self._whole_unread(index, Component.ATTENTION) and not any(self.wants(index, kind) for kind in inside):
            _replace(stack, get_module(layer, where.attention), _no_attention)
        unread = self._unread(index, Component.MLP_OUTPUT)
        if (
            unread is not None
            and unread.any()
            and not any(self.wants(index, kind) for kind in (Component.MLP, Component.ROUTER))
        ):
            mlp = get_module(layer, where.mlp)
            _replace(stack, mlp, _only_groups(mlp.forward, ~unread))
        return spared

    def _unread(self, index: int, component: Component) -> BoolArray | None:
        """Which rows' values of a component nobody reads, by groups of rows; None where somebody reads all of them."""
        edits = self._edits.get((index, component), [])
        if (
            torch.is_grad_enabled()
            or self.phase is not Phase.FORWARD
            or self._captures.get((index, component))
            or len(edits) != 1
        ):
            return None
        site, edit = edits[0]
        narrowed = edit.rows is not None or site != site.whole
        return None if narrowed else edit.unread

    def _whole_unread(self, index: int, component: Component) -> bool:
        unread = self._unread(index, component)
        return unread is not None and bool(unread.all())

    def _install_experts(self, stack: ExitStack, index: int, layer: nn.Module) -> None:
        if self.wants(index, Component.ROUTER):
            stack.callback(layer.mlp.router.register_forward_hook(self._router_hook(index)).remove)  # type: ignore[union-attr]
        if not self.wants(index, Component.MLP):
            return
        experts = layer.mlp.experts  # type: ignore[union-attr]
        assert isinstance(experts, nn.Module)

        def tap(neurons: Tensor) -> Tensor:
            if self.paused:
                return neurons
            shaped = neurons.unflatten(0, (self.batch.rows, self.columns))
            return self.touch(index, Component.MLP, shaped).flatten(0, 1)

        def forward(x: Tensor, router_indices: Tensor, routing_weights: Tensor) -> Tensor:
            return self._run_experts(experts, x, router_indices, routing_weights, tap)

        _replace(stack, experts, forward)

    def _run_experts(self, experts: nn.Module, x: Tensor, indices: Tensor, weights: Tensor, tap: NeuronTap) -> Tensor:
        return run_experts(experts, x, indices, weights, tap)

    def _output_hook(self, index: int, component: Component) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (self.touch(index, component, output[0]), *output[1:])
            return self.touch(index, component, output)

        return hook

    def _input_hook(self, index: int, component: Component) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            # A separate tensor, so that its gradient excludes the stream's other readers.
            value = inputs[0].view_as(inputs[0]) if torch.is_grad_enabled() else inputs[0]
            return (self.touch(index, component, value), *inputs[1:])

        return hook

    def _heads_hook(self, index: int, heads: int) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            value = inputs[0].unflatten(-1, (heads, -1))
            return (self.touch(index, Component.HEAD_OUTPUT, value).flatten(-2), *inputs[1:])

        return hook

    def _slot_hook(self, index: int, component: Component, slot: HeadSlot, spared: bool) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            value = slot.read(output)
            new = self.touch(index, component, value)
            if spared and not self.paused:  # the output is a new tensor that is nobody's
                value.copy_(new)
                return output
            # While gradients flow the layer must go on with the very tensor that was captured, not with its parent.
            return output if new is value and not torch.is_grad_enabled() else slot.write(output, new)

        return hook

    def _router_hook(self, index: int) -> Any:
        def hook(module: nn.Module, _: Any, output: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            if self.paused:
                return output
            logits, scores, indices = output
            dense = dense_router(indices, scores, logits.shape[-1])
            value = dense.unflatten(0, (self.batch.rows, self.columns))
            new = self.touch(index, Component.ROUTER, value)
            if new is value and not torch.is_grad_enabled():
                return output
            return (logits, *sparse_router(new.flatten(0, 1), scores.shape[-1]))

        return hook


def _replace(stack: ExitStack, module: nn.Module, forward: Callable[..., Any]) -> None:
    """Let a module compute something else until the stack is left; its hooks stay."""
    before = module.__dict__.get("forward")  # one module's own, such as transformers' for a share of a projection

    def put_back() -> None:
        if before is None:
            module.__dict__.pop("forward", None)
        else:
            module.forward = before

    module.forward = forward
    stack.callback(put_back)


def _no_attention(*inputs: Tensor, hidden_states: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
    """What attention answers in transformers: what it writes, and its pattern, which is not asked for."""
    x = inputs[0] if hidden_states is None else hidden_states
    return torch.zeros_like(x), None


def _only_groups(forward: Callable[..., Any], read: BoolArray) -> Callable[..., Any]:
    """A block of neurons that runs the groups of rows which are read, and answers zeros for the others."""

    def some(x: Tensor) -> Any:
        out = torch.zeros_like(x)
        if read.any():
            rows = torch.as_tensor(np.repeat(read, len(x) // len(read))).to(x.device)
            found = forward(x[rows])
            out[rows] = found[0] if isinstance(found, tuple) else found
        else:
            found = forward(x[:1, :1])  # for what it answers besides
        return (out, *found[1:]) if isinstance(found, tuple) else out

    return some
