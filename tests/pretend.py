"""Devices that do not exist, for tests of a model on several of them.

A `Pretended` tensor holds a CPU tensor and says that it lies elsewhere ("lazy:1"). Every operation on tensors of different devices raises,
as on GPUs, and every copy from one to another is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from neuroscope.engines import architectures
from neuroscope.engines.layout import get_module
from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.engines.torch.placement import Placement

#: Devices of a type that torch knows, has no kernels for, and differentiates in the calling thread.
FIRST, SECOND = "lazy:0", "lazy:1"
#: Positions may lie on the CPU, as with GPUs.
_INDEXING = frozenset({"index", "index_put", "index_put_", "_unsafe_index"})


class Pretended(Tensor):
    """A CPU tensor that says it lies on another device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device) -> Pretended:
        found = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=device
        )
        found.held = held
        return found

    __torch_function__ = torch._C._disabled_torch_function_impl

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(function, args, kwargs or {}, Counter())


class _Mode(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.copied: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(function, args, kwargs or {}, self.copied)


def _call(function: Any, args: Any, kwargs: dict[str, Any], copied: Counter[tuple[str, str]]) -> Any:
    name = function.overloadpacket.__name__
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    asked = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    places = {tensor.device for tensor in tensors if tensor.ndim or tensor.device.type != "cpu"}
    if name in ("_to_copy", "copy_"):
        source, target = (args[1], args[0].device) if name == "copy_" else (args[0], asked or args[0].device)
        if target != source.device:
            copied[str(source.device), str(target)] += 1
        places = {target}
    elif name in _INDEXING:
        places = {args[0].device}
    if len(places) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {sorted(map(str, places))} in {name}")
    place = asked or next(iter(places), torch.device("cpu"))
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map(lambda leaf: leaf.held if isinstance(leaf, Pretended) else leaf, (args, kwargs))
    if name == "histc":  # which GPUs have for integers too
        args = (args[0].float(), *args[1:])
    known = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, Pretended)}  # in place: the same tensor

    def wrapped(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or place.type == "cpu":
            return leaf
        return known.get(id(leaf)) if id(leaf) in known else Pretended(leaf, place)

    return tree_map(wrapped, function(*args, **kwargs))


@contextmanager
def devices() -> Iterator[Counter[tuple[str, str]]]:
    """Let devices "lazy:0", "lazy:1" … exist; the value counts the tensors copied from one device to another."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    made = torch.tensor

    def tensor(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
        """`torch.tensor` makes its tensor below any mode: here it is made on the CPU and copied, as it is for a GPU."""
        return made(data, **kwargs) if device is None else made(data, **kwargs).to(device)

    try:
        with _Mode() as mode, mock.patch.object(torch, "tensor", tensor):
            yield mode.copied
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def engine(model: Any, resting: tuple[int, ...] = ()) -> TorchEngine:
    """A Hugging Face model with its first layer on the first device, the others on the second, and those of `resting` in main memory."""
    layers = list(get_module(model, architectures.find(model.config.model_type).path("layers")).children())
    where = [torch.device(FIRST), *[torch.device(SECOND)] * (len(layers) - 1)]
    placed = Placement(where[0], where, frozenset(resting))
    placed.put(model, layers)
    return TorchEngine(model, placed=placed)
