"""Weights of a torch model, written in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuroscope.engines.layout import Stored, find_module
from neuroscope.engines.parameters import Parameters
from neuroscope.engines.torch.packed import is_packed, plain, unpack
from neuroscope.engines.torch.placement import AT_REST
from neuroscope.engines.weights import Bits
from neuroscope.errors import WeightError

#: Integer types, by their size in bytes.
_WHOLE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class TorchParameters(Parameters):
    """`Parameters` of a Hugging Face model with these layers."""

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module], *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._model = model
        self._layers = layers

    def _owner(self, layer: int | None, path: str) -> tuple[Any, str]:
        """The module that holds an array, or None, and the array's name there."""
        module, _, name = path.rpartition(".")
        return find_module(self._root(layer), module), name

    def _root(self, layer: int | None) -> nn.Module:
        return self._model if layer is None else self._layers[layer]

    def _array(self, layer: int | None, path: str) -> Tensor | None:
        owner, name = self._owner(layer, path)
        if is_packed(owner, name):
            try:
                return plain(owner, name, next(self._model.parameters()).dtype)
            except TypeError as error:
                raise WeightError(
                    f"{path} is quantised as {error}, which is not read here.",
                    remedy="Load a checkpoint that is not quantised, or one of MXFP4, bitsandbytes or torchao.",
                ) from error
        found = getattr(owner, name, None)
        # A visiting layer's weights are read and written where they rest.
        return getattr(found, AT_REST, found).detach() if isinstance(found, Tensor) else None

    def _there(self, layer: int | None, path: str) -> bool:
        owner, name = self._owner(layer, path)
        return is_packed(owner, name) or isinstance(getattr(owner, name, None), Tensor)

    def _quantised(self, layer: int | None, path: str) -> bool:
        return is_packed(*self._owner(layer, path))

    def _unpack(self, layer: int | None, path: str) -> None:
        unpack(self._root(layer), path, next(self._model.parameters()).dtype)

    def _type(self, array: Tensor) -> str:
        return str(array.dtype).removeprefix("torch.")

    def _bits(self, array: Tensor, stored: Stored, index: tuple[Any, ...]) -> Bits:
        part = self._part(array, stored, index).cpu().contiguous().numpy()
        return part.view(f"u{part.dtype.itemsize}").copy()

    def _put(self, layer: int | None, stored: Stored, index: tuple[Any, ...], bits: Bits) -> None:
        array = self._array(layer, stored.path)
        assert array is not None
        self._write(array, stored, index, bits)

    def _write(self, array: Tensor, stored: Stored, index: tuple[Any, ...], bits: Bits) -> None:
        assert array.is_contiguous()
        signed = np.array(bits, order="C").view(f"i{bits.dtype.itemsize}")
        self._part(array, stored, index).copy_(torch.from_numpy(signed))

    def _part(self, array: Tensor, stored: Stored, index: tuple[Any, ...]) -> Tensor:
        """The part as integers, a view."""
        return stored.view(array.view(_WHOLE[array.element_size()]), torch.permute)[index]
