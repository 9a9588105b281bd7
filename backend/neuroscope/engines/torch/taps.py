"""Sites as the inputs and outputs of torch modules, reached through their hooks.

The hooks are installed for the run and removed after it, so a run without taps is the bare model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from neuroscope.engines.architectures import Architecture
from neuroscope.engines.layout import get_module
from neuroscope.engines.protocol import IntArray
from neuroscope.engines.sites import Component
from neuroscope.engines.taps import Taps
from neuroscope.engines.torch.attention import AttentionTaps
from neuroscope.engines.torch.experts import dense_router, run_experts, sparse_router
from neuroscope.engines.torch.slots import HeadSlot


class TorchTaps(Taps):
    """`Taps` for torch modules. They are `paused` while an edit runs the modules for another run."""

    paused = False

    def touch(self, layer: int | None, component: Component, value: Tensor) -> Tensor:
        """See `Taps.touch`."""
        return value if self.paused else super().touch(layer, component, value)

    def _as_index(self, ids: IntArray, value: Tensor) -> Tensor:
        return torch.as_tensor(ids, device=value.device)

    def _replaced(self, value: Tensor, where: tuple[Any, ...], new: Tensor) -> Tensor:
        value = value.clone()
        value[where] = new
        return value

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
        for component, slot in slots.items():
            if self.wants(index, component):
                handle = get_module(layer, slot.module).register_forward_hook(self._slot_hook(index, component, slot))
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
            # A separate tensor, so that its gradient excludes the stream's other readers.
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
            # For gradients, the layer must continue with the captured tensor itself, not with its parent.
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
