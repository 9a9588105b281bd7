"""Weights of an engine, read and written in place, and a record of changes.

Weights pass between an engine and the rest as bits, so restoring is exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.layout import Stored
from neuroscope.engines.protocol import Array
from neuroscope.engines.weights import Bits, Numbers, Weight, WeightSite, WeightView, bits_digest
from neuroscope.errors import ArgumentError, SiteError, WeightError

# --- numbers as bits ---------------------------------------------------------------------------------------------------

_PLAIN = "a checkpoint that is not quantised; mlx_lm.convert --dequantize makes one"
_NUMPY = {"float16": np.float16, "float32": np.float32, "float64": np.float64}


def decoded(bits: Bits, dtype: str) -> Numbers:
    """The numbers that bits of a type represent, in float32, or float64 for float64."""
    if dtype == "bfloat16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.view(_NUMPY[dtype]).astype(np.float64 if dtype == "float64" else np.float32)


def encoded(values: Numbers, dtype: str) -> Bits:
    """The bits of numbers rounded to a type, ties to even."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            numbers = values.astype(_NUMPY[dtype])
        return numbers.view(f"u{numbers.dtype.itemsize}")
    with np.errstate(over="ignore"):
        wide = np.asarray(values, dtype=np.float32).view(np.uint32)
    return ((wide + np.uint32(0x7FFF) + ((wide >> 16) & np.uint32(1))) >> 16).astype(np.uint16)


# --- the record --------------------------------------------------------------------------------------------------------


class Parameters(ABC):
    """The weights of one engine: the `WeightStore` of its views.

    The first write to a weight records its digest; from then on it counts as changed while its digest differs. A digest covers
    the weight's bits and shape, so it is the same on both engines.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        places: Mapping[Weight, Stored],
        exclusive: Callable[[], AbstractContextManager[None]],
        *,
        tied: bool,
    ) -> None:
        self.anatomy: Anatomy = anatomy
        self.tied: bool = tied
        self._places = places
        self._exclusive = exclusive
        self._original: dict[WeightSite, str] = {}
        self._current: dict[WeightSite, str] = {}
        self._dirty: set[WeightSite] = set()
        #: Weights that were packed when the model was loaded.
        self.was_unpacked: list[str] = []

    @abstractmethod
    def _array(self, layer: int | None, path: str) -> Array | None:
        """The stored array at a path, dequantised; None if the model has none."""

    @abstractmethod
    def _quantised(self, layer: int | None, path: str) -> bool: ...

    def _there(self, layer: int | None, path: str) -> bool:
        """Whether the model has an array at a path."""
        return self._array(layer, path) is not None

    def _unpack(self, layer: int | None, path: str) -> None:
        """Replace a packed array by its numbers. Raises `WeightError` where an engine cannot."""
        raise WeightError(
            f"{path} is quantised, and this engine does not dequantise it in place.", remedy=f"Load {_PLAIN}, or use torch."
        )

    @abstractmethod
    def _type(self, array: Array) -> str:
        """The name of its type in numpy."""

    @abstractmethod
    def _bits(self, array: Array, stored: Stored, index: tuple[Any, ...]) -> Bits:
        """A copy of a part of a weight in a stored array."""

    @abstractmethod
    def _put(self, layer: int | None, stored: Stored, index: tuple[Any, ...], bits: Bits) -> None:
        """Replace a part of a weight."""

    def view(self, site: WeightSite | str) -> WeightView:
        """The view of a weight. Raises `SiteError` if the model does not have it."""
        checked = WeightSite.parse(site).checked(self.anatomy)
        stored = self._places.get(checked.weight)
        if stored is None or not self._there(checked.layer, stored.path):
            there = [str(w) for w, place in self._places.items() if self._has(w, place, beside=checked)]
            raise SiteError(
                f"{self.anatomy.architecture} has no {checked.weight}.",
                site=checked,
                remedy=f"{'Layer ' + str(checked.layer) if checked.weight.layered else 'The model'} has {', '.join(there)}.",
            )
        return WeightView(self, checked)

    def _has(self, weight: Weight, place: Stored, *, beside: WeightSite) -> bool:
        return weight.layered == beside.weight.layered and self._there(beside.layer, place.path)

    # --- for views ------ ----------------------------------------------------------------------------------------------

    def dtype(self, site: WeightSite) -> str:
        """See `WeightView.dtype`."""
        path = self._places[site.weight].path
        return "quantised" if self._quantised(site.layer, path) else self._type(self._array(site.layer, path))

    def read(self, site: WeightSite) -> Numbers:
        """See `WeightView.read`."""
        stored = self._places[site.weight]
        numbers = decoded(*self._taken(site))
        return numbers + np.asarray(stored.shift, numbers.dtype) if stored.shift else numbers

    def rounded(self, site: WeightSite, values: Numbers, *, tied: bool) -> Bits:
        """See `WeightView.rounded`; the values have the weight's shape and are finite."""
        self._check_plain(site)
        if self.tied and site.weight in (Weight.W_E, Weight.W_U) and not tied:
            raise WeightError(
                f"{Weight.W_E} and {Weight.W_U} are one matrix in this model: writing {site} would change both.",
                site=site,
                remedy="If you mean to change both, write it with tied=True.",
            )
        dtype, shift = self.dtype(site), self._places[site.weight].shift
        bits = encoded(values - shift if shift else values, dtype)
        if not np.isfinite(decoded(bits, dtype)).all():
            raise ArgumentError(
                f"The values for {site} reach {abs(values).max():.3g}, more than {dtype} can represent.",
                remedy="Scale them down, or load the model in float32.",
            )
        return bits

    def bits(self, site: WeightSite) -> Bits:
        """The weight's bits. Raises `WeightError` if it is quantised."""
        self._check_plain(site)
        return self._taken(site)[0]

    def put_bits(self, site: WeightSite, bits: Bits) -> None:
        """Replace the weight and record the change."""
        whole = WeightSite(None, Weight.W_E) if self.tied and site.weight is Weight.W_U else site.whole
        with self._exclusive():
            if whole not in self._original:
                self._original[whole] = bits_digest(self.bits(whole))
            self._dirty.add(whole)
            self._put(site.layer, self._places[site.weight], site.index(self.anatomy), bits)

    def dequantise(self, site: WeightSite) -> None:
        """See `WeightView.dequantise`."""
        path = self._places[site.weight].path
        with self._exclusive():
            if self._quantised(site.layer, path):
                self._unpack(site.layer, path)
                self.was_unpacked.append(str(site.whole))

    def _taken(self, site: WeightSite) -> tuple[Bits, str]:
        """The weight's bits, and their type."""
        stored = self._places[site.weight]
        with self._exclusive():
            array = self._array(site.layer, stored.path)
            return self._bits(array, stored, site.index(self.anatomy)), self._type(array)

    def _check_plain(self, site: WeightSite) -> None:
        if self._quantised(site.layer, self._places[site.weight].path):
            raise WeightError(
                f"{site} is quantised: its numbers share scales, so they cannot be written one by one.",
                site=site,
                remedy=f"Let it be dequantised, on torch: weights({str(site)!r}).dequantise() (more memory); or load {_PLAIN}.",
            )

    # --- changes -------------------------------------------------------------------------------------------------------

    def changed(self) -> dict[WeightSite, str]:
        """The weights that differ from the loaded ones, each with its digest."""
        if self._dirty:
            with self._exclusive():
                while self._dirty:
                    site = self._dirty.pop()
                    self._current[site] = bits_digest(self.bits(site))
        changed = {site: digest for site, digest in dict(self._current).items() if digest != self._original[site]}
        return dict(sorted(changed.items(), key=lambda item: str(item[0])))

    def adopt(self, other: Parameters) -> None:
        """Take over the record of a model that this one is a copy of."""
        self._original, self._current, self._dirty = dict(other._original), dict(other._current), set(other._dirty)
        self.was_unpacked = list(other.was_unpacked)

    def stored(self, site: WeightSite) -> Stored:
        """Where a weight is stored."""
        return self._places[site.weight]

    def path(self, site: WeightSite) -> str:
        """Path of the stored array that holds a weight."""
        return self._places[site.weight].path

    def stored_shapes(self, layer: int | None) -> Iterator[tuple[Weight, Stored, tuple[int, ...] | None]]:
        """The weights of a layer, or outside the layers, that are not packed, with their arrays' shapes; None for a missing
        one.
        """
        for weight, stored in self._places.items():
            if weight.layered == (layer is not None) and not self._quantised(layer, stored.path):
                array = self._array(layer, stored.path)
                yield weight, stored, None if array is None else tuple(array.shape)
