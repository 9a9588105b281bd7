"""Weights of an MLX model: writing replaces the array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from neuroscope.engines.layout import Stored, find_module, get_module
from neuroscope.engines.mlx.slots import matrix
from neuroscope.engines.parameters import Parameters
from neuroscope.engines.weights import Bits, WeightSite

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
            array = self._array(site.layer, self.path(site))
            assert array is not None
            found[self.name(site)] = array
        return found

    def name(self, site: WeightSite) -> str:
        """Path from the model of the array that holds a weight."""
        path = self.path(site)
        return path if site.layer is None else f"{self._layers_path}.{site.layer}.{path}"

    def arrays(self) -> dict[str, mx.array]:
        """Every array by its path from the model, but for copies."""
        found: Any = tree_flatten(self._model.parameters())
        return {name: array for name, array in found if name not in self._copies}

    def replace(self, arrays: Mapping[str, mx.array]) -> None:
        """Put other arrays at some of those paths, and into their copies, without a record."""
        modules = dict(self._model.named_modules())
        for name, array in arrays.items():
            for path in (name, *self._copied(name)):
                owner, _, attribute = path.rpartition(".")
                modules[owner][attribute] = array

    def _copied(self, path: str) -> list[str]:
        return [copy for copy, of in self._copies.items() if of == path]

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
        for path in (stored.path, *self._copied(stored.path)):
            module, name = self._owner(layer, path)
            setattr(module, name, new)
