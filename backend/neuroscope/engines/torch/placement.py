"""The devices of a torch model's layers.

Each layer lies on one device, or rests in main memory (pinned, where there is CUDA) and visits a device whenever it runs. Only the
residual stream and what goes with it (masks, rotations) cross from one device to the next. Arrays outside a run lie on the `home` device,
with embedding, final norm and unembedding.

While gradients flow, a visiting layer's weights must not stay for the backward pass, or all would be there at once: autograd keeps a note
where each saved weight rests, and fetches it again (`torch.autograd.graph.saved_tensors_hooks`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from neuroscope.engines.devices import AUTO, Devices, shares
from neuroscope.errors import ArgumentError, first_line

#: Of a GPU's free bytes, the part that weights may take when nothing else is said; the rest is for activations.
_FOR_WEIGHTS = 0.8
#: Name of the attribute of a visiting weight that holds the one at rest.
AT_REST = "neuroscope_at_rest"


@dataclass
class Placement:
    """Where each layer runs, and which layers only visit. layers: (layers,) devices; resting: indices of visiting layers."""

    home: torch.device
    layers: list[torch.device]
    resting: frozenset[int] = frozenset()
    lock: Any = field(default_factory=threading.RLock, repr=False)
    _visiting: set[int] = field(default_factory=set, repr=False)

    @property
    def devices(self) -> list[torch.device]:
        """All devices in use, in the order of the layers; home first."""
        return list(dict.fromkeys([self.home, *self.layers]))

    @property
    def name(self) -> str:
        names = ", ".join(map(str, self.devices))
        return f"{names} ({len(self.resting)} layers visiting from main memory)" if self.resting else names

    @property
    def several(self) -> bool:
        return len(self.devices) > 1

    def copy(self) -> Placement:
        """The same places for another model."""
        return Placement(self.home, list(self.layers), self.resting)

    @contextmanager
    def present(self, index: int, layer: nn.Module) -> Iterator[torch.device]:
        """Have a layer's weights on its device for the duration of the block; the value is the device."""
        device = self.layers[index]
        if index not in self.resting:
            yield device
            return
        with self.lock, ExitStack() as stack:
            if index not in self._visiting:
                self._visiting.add(index)
                stack.callback(self._visiting.discard, index)
                stack.enter_context(_visit(layer, device))
            yield device

    def put(self, model: nn.Module, layers: Sequence[nn.Module]) -> None:
        """Move a model, which lies in main memory, to its devices."""
        inside = {id(module) for layer in layers for module in layer.modules()}
        for index, layer in enumerate(layers):
            if index not in self.resting:
                layer.to(self.layers[index])
            elif torch.cuda.is_available():
                layer._apply(lambda tensor: tensor.pin_memory())
        for module in model.modules():
            if id(module) not in inside:
                module._apply(lambda tensor: tensor.to(self.home), recurse=False)

    @contextmanager
    def bridged(self, layers: Sequence[nn.Module], behind: nn.Module) -> Iterator[None]:
        """Let the model's own forward cross devices: each layer's inputs move to it, and the stream home to the module `behind` them."""
        with ExitStack() as stack:
            for index, layer in enumerate(layers):
                if self.several or self.resting:
                    stack.callback(layer.register_forward_pre_hook(_mover(self.layers[index]), with_kwargs=True).remove)
                if index in self.resting:
                    stack.enter_context(self._called(index, layer))
            if self.several:
                stack.callback(behind.register_forward_pre_hook(_mover(self.home), with_kwargs=True).remove)
            yield

    @contextmanager
    def _called(self, index: int, layer: nn.Module) -> Iterator[None]:
        forward = layer.forward

        def visiting(*args: Any, **kwargs: Any) -> Any:
            with self.present(index, layer):
                return forward(*args, **kwargs)

        layer.forward = visiting
        try:
            yield
        finally:
            layer.__dict__.pop("forward", None)


class Carrier:
    """What every layer of a run reads besides the stream, on each device once."""

    def __init__(self) -> None:
        self._there: dict[tuple[int, torch.device], tuple[Any, Any]] = {}

    def __call__(self, value: Any, device: torch.device) -> Any:
        """The tensors of a value on a device."""
        key = id(value), device
        if key not in self._there:
            self._there[key] = value, moved(value, device)  # the value is kept, so that its id stays its own
        return self._there[key][1]


def moved(value: Any, device: torch.device) -> Any:
    """The tensors of a value (a tuple, say) on a device."""
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, value)


def _mover(device: torch.device) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return moved(args, device), moved(kwargs, device)

    return hook


@contextmanager
def _visit(layer: nn.Module, device: torch.device) -> Iterator[None]:
    rested: list[tuple[dict[str, Any], str, Tensor]] = []
    lent: dict[int, Tensor] = {}
    for module in layer.modules():
        places: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for held in places:
            for name, tensor in held.items():
                if tensor is not None:
                    visitor = tensor.to(device, non_blocking=True)
                    if visitor is tensor:  # nothing to move
                        continue
                    setattr(visitor, AT_REST, tensor)
                    rested.append((held, name, tensor))
                    lent[visitor.untyped_storage().data_ptr()] = tensor
                    held[name] = visitor

    def pack(tensor: Tensor) -> Any:
        source = lent.get(tensor.untyped_storage().data_ptr())
        if source is None:
            return tensor
        return source, tensor.size(), tensor.stride(), tensor.storage_offset()

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        source, size, stride, offset = packed
        return source.detach().to(device).as_strided(size, stride, offset)

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield
    finally:
        for held, name, tensor in rested:
            held[name] = tensor


def placement(asked: Devices, layers: Sequence[nn.Module], model: nn.Module) -> Placement:
    """Where the layers of a model in main memory go. Raises `ArgumentError` for a missing device, and what `shares` raises."""
    sizes = [_size(layer) for layer in layers]
    outside = _size(model) - sum(sizes)
    if asked.device == AUTO:
        names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if not names:
            return Placement(torch.device("cpu"), [torch.device("cpu")] * len(sizes))
        free = {name: int(_FOR_WEIGHTS * torch.cuda.mem_get_info(name)[0]) for name in names}
        given = dict(asked.limits)
        limits: list[int | None] = [given.get(name, free[name]) for name in names[: len(sizes)]]
    else:
        names = list(asked.several)
        given = dict(asked.limits)
        limits = [given.get(name) for name in names]
    found = [device_of(name) for name in names]
    numbers = shares(sizes, outside, limits)
    last = len(limits) - 1
    where = [found[last if number is None else number] for number in numbers]
    return Placement(found[0], where, frozenset(index for index, number in enumerate(numbers) if number is None))


def device_of(name: str) -> torch.device:
    """torch's device of a name. Raises `ArgumentError` if there is none."""
    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    there += ["mps"] if torch.backends.mps.is_available() else []
    try:
        device = torch.device(name)
        torch.empty(0).to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ArgumentError(
            f"The device {name!r} cannot be used: {first_line(error)}", remedy=f"Devices here: {', '.join(there)}."
        ) from error
    return device


def _size(module: nn.Module) -> int:
    held = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in held.values())
