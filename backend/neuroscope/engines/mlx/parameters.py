"""Weights of an MLX model: writing replaces the array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from neuroscope.engines.layout import Stored, find_module, get_module
from neuroscope.engines.mlx.slots import matrix
from neuroscope.engines.parameters import Parameters
from neuroscope.engines.weights import Bits

#: Unsigned integer types, by their size in bytes.
_WHOLE = {2: mx.uint16, 4: mx.uint32}


class MlxParameters(Parameters):
    """`Parameters` of a model of mlx-lm with its layers at a path. `copies` maps an array's path to those of its copies."""

    def __init__(self, model: Any, layers: str, copies: dict[str, str], *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._model = model
        self._layers_path = layers
        self._layers: Sequence[Any] = get_module(model, layers)
        self._copies = copies

    def changed_arrays(self) -> dict[str, mx.array]:
        """The arrays with changed weights, by their path from the model."""
        found = {}
        for site in self.changed():
            path = self.path(site)
            array = self._array(site.layer, path)
            assert array is not None
            found[path if site.layer is None else f"{self._layers_path}.{site.layer}.{path}"] = array
        return found

    def _owner(self, layer: int | None, path: str) -> tuple[Any, str]:
        """The module that holds an array, or None if the model lacks it, and the array's name there."""
        module, _, name = path.rpartition(".")
        return find_module(self._model if layer is None else self._layers[layer], module), name

    def _array(self, layer: int | None, path: str) -> mx.array | None:
        module, name = self._owner(layer, path)
        if module is None or name not in module:
            return None
        return matrix(module) if self._quantised(layer, path) else module[name]

    def _quantised(self, layer: int | None, path: str) -> bool:
        module, name = self._owner(layer, path)
        return module is not None and name == "weight" and "scales" in module

    def _type(self, array: mx.array) -> str:
        return str(array.dtype).removeprefix("mlx.core.")

    def _bits(self, array: mx.array, stored: Stored, index: tuple[Any, ...]) -> Bits:
        whole = array.view(_WHOLE[array.dtype.size])
        return np.array(mx.contiguous(stored.view(whole, mx.transpose)[index]))

    def _put(self, layer: int | None, stored: Stored, index: tuple[Any, ...], bits: Bits) -> None:
        array = self._array(layer, stored.path)
        assert array is not None
        whole = np.array(array.view(_WHOLE[array.dtype.size]))
        stored.view(whole, np.transpose)[index] = bits
        new = mx.array(whole).view(array.dtype)
        mx.eval(new)
        for path in (stored.path, *(copy for copy, of in self._copies.items() if of == stored.path)):
            module, name = self._owner(layer, path)
            setattr(module, name, new)
