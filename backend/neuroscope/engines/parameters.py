"""Weights of an engine: where each one is stored, and an account of what was changed.

Checkpoints fuse matrices, transpose them and interleave them. A `Stored` says how to see one weight in a stored array
without copying it, in plain shapes and indices, so that torch, MLX and numpy all understand it. Weights travel between
an engine and the rest as their bits: what is restored is what was there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.protocol import Array
from neuroscope.engines.sites import Component
from neuroscope.engines.weights import Bits, Numbers, Weight, WeightSite, WeightView, bits_digest
from neuroscope.errors import ArgumentError, SiteError, WeightError


@dataclass(frozen=True)
class Stored:
    """How a weight lies in a stored array.

    path:   the array's name, from its layer, or from the model for what belongs to no layer.
    split:  the array's shape with its fused axes taken apart; None as it is.
    part:   index into that, which picks the weight.
    order:  the axes of what is left, in the order in which the weight has them; None as they are.
    shift:  the weight less this is what is stored.
    """

    path: str
    split: tuple[int, ...] | None = None
    part: tuple[Any, ...] = ()
    order: tuple[int, ...] | None = None
    shift: float = 0.0

    def view(self, array: Array, permute: Callable[[Array, tuple[int, ...]], Array]) -> Array:
        """The weight within a contiguous stored array: of numpy and torch a view, which writes through."""
        array = array if self.split is None else array.reshape(self.split)
        array = array[self.part] if self.part else array
        return array if self.order is None else permute(array, self.order)


@dataclass(frozen=True)
class HeadRows:
    """Queries, keys or values of all heads among the output features of a projection, whose path in its layer is `module`.

    The projection makes `parts` such arrays, of which this is number `part`: one whole array after another, or, when they
    are `interleaved`, one after another within each head.
    """

    module: str
    heads: int
    d_head: int
    parts: int = 1
    part: int = 0
    interleaved: bool = False

    @property
    def split(self) -> tuple[int, int, int]:
        """The features, taken apart."""
        return (self.heads, self.parts, self.d_head) if self.interleaved else (self.parts, self.heads, self.d_head)

    @property
    def pick(self) -> tuple[Any, ...]:
        """Index of this part among the features taken apart; what it leaves is (heads, d_head)."""
        return (slice(None), self.part) if self.interleaved else (self.part,)


@dataclass(frozen=True, kw_only=True)
class FamilyPaths:
    """Where an architecture keeps its parts, as paths from a layer, or from the model: embedding, layers, final norm.

    input_first: whether its matrices are stored (in, out).  gain_shift: the norms' gains less this are what is stored.
    experts:     where the weights of a mixture of experts are.
    """

    embedding: str
    layers: str
    final_norm: str
    attention: str
    attention_norm: str
    output_projection: str
    mlp_norm: str
    down_projection: str
    slots: Callable[[Anatomy], Mapping[Component, Any]]
    up_projection: str | None = None
    gate_projection: str | None = None
    position_embedding: str | None = None
    attention_write_norm: str | None = None
    mlp_write_norm: str | None = None
    input_first: bool = False
    gain_shift: float = 0.0
    experts: Callable[[Anatomy], Mapping[Weight, Stored]] | None = None

    @property
    def moe(self) -> bool:
        return self.experts is not None


def places(family: FamilyPaths, anatomy: Anatomy, unembedding: str) -> dict[Weight, Stored]:
    """Where each weight is stored, if the model has it at all. `unembedding` is the path of the module that makes logits."""
    flip = None if family.input_first else (1, 0)
    found = {
        Weight.W_E: Stored(f"{family.embedding}.weight"),
        Weight.W_U: Stored(f"{unembedding}.weight", order=(1, 0)),
        Weight.Q_NORM: Stored(f"{family.attention}.q_norm.weight", shift=family.gain_shift),
        Weight.K_NORM: Stored(f"{family.attention}.k_norm.weight", shift=family.gain_shift),
        Weight.SINKS: Stored(f"{family.attention}.sinks"),
        Weight.B_O: Stored(f"{family.output_projection}.bias"),
    }
    if family.position_embedding is not None:
        found[Weight.W_POS] = Stored(f"{family.position_embedding}.weight")
    norms = {
        Weight.LN_FINAL: family.final_norm,
        Weight.LN1: family.attention_norm,
        Weight.LN1_POST: family.attention_write_norm,
        Weight.LN2: family.mlp_norm,
        Weight.LN2_POST: family.mlp_write_norm,
    }
    found |= {weight: Stored(f"{path}.weight", shift=family.gain_shift) for weight, path in norms.items() if path is not None}
    biases = {Weight.LN_FINAL_BIAS: Weight.LN_FINAL, Weight.LN1_BIAS: Weight.LN1, Weight.LN2_BIAS: Weight.LN2}
    found |= {bias: Stored(f"{norms[weight]}.bias") for bias, weight in biases.items()}
    slots = family.slots(anatomy)
    for component, weight, bias in (
        (Component.QUERY, Weight.W_Q, Weight.B_Q),
        (Component.KEY, Weight.W_K, Weight.B_K),
        (Component.VALUE, Weight.W_V, Weight.B_V),
    ):
        found[weight], found[bias] = _projection(slots[component], anatomy.d_model, family.input_first)
    shape = (anatomy.heads, anatomy.d_head)
    found[Weight.W_O] = (
        Stored(f"{family.output_projection}.weight", (*shape, anatomy.d_model))
        if family.input_first
        else Stored(f"{family.output_projection}.weight", (anatomy.d_model, *shape), order=(1, 2, 0))
    )
    if family.experts is not None:
        return found | dict(family.experts(anatomy))
    for path, weight, bias in (
        (family.gate_projection, Weight.W_GATE, Weight.B_GATE),
        (family.up_projection, Weight.W_IN, Weight.B_IN),
        (family.down_projection, Weight.W_OUT, Weight.B_OUT),
    ):
        if path is not None:
            found[weight], found[bias] = Stored(f"{path}.weight", order=flip), Stored(f"{path}.bias")
    return found


def _projection(slot: HeadRows, d_model: int, input_first: bool) -> tuple[Stored, Stored]:
    """Weight and bias of queries, keys or values."""
    bias = Stored(f"{slot.module}.bias", slot.split, slot.pick)
    if input_first:
        return Stored(f"{slot.module}.weight", (d_model, *slot.split), (slice(None), *slot.pick), (1, 0, 2)), bias
    return Stored(f"{slot.module}.weight", (*slot.split, d_model), slot.pick, (0, 2, 1)), bias


# --- numbers as bits ---------------------------------------------------------------------------------------------------

_NUMPY = {"float16": np.float16, "float32": np.float32, "float64": np.float64}


def decoded(bits: Bits, dtype: str) -> Numbers:
    """The numbers that bits of a type mean, in float32, or float64 where they are so."""
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


# --- the account -------------------------------------------------------------------------------------------------------


class Parameters(ABC):
    """The weights of one engine: `WeightStore` for its views.

    The first write to a weight notes the digest of what was there; from then on the weight counts as changed while its
    digest is another. Digests are of the weight's own bits and shape, so that both engines tell a change alike.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        places: Mapping[Weight, Stored],
        exclusive: Callable[[], AbstractContextManager[None]],
        *,
        tied: bool,
    ) -> None:
        self.anatomy = anatomy
        self.tied = tied
        self._places = places
        self._exclusive = exclusive
        self._original: dict[WeightSite, str] = {}
        self._current: dict[WeightSite, str] = {}
        self._dirty: set[WeightSite] = set()

    @abstractmethod
    def _array(self, layer: int | None, path: str) -> Array | None:
        """The stored array of that path, as numbers even where it is quantised; None where the model has none."""

    @abstractmethod
    def _quantised(self, layer: int | None, path: str) -> bool: ...

    @abstractmethod
    def _type(self, array: Array) -> str:
        """Its type as numpy would call it."""

    @abstractmethod
    def _bits(self, array: Array, stored: Stored, index: tuple[Any, ...]) -> Bits:
        """A copy of a weight's part in a stored array."""

    @abstractmethod
    def _put(self, layer: int | None, stored: Stored, index: tuple[Any, ...], bits: Bits) -> None:
        """Replace a weight's part."""

    def view(self, site: WeightSite | str) -> WeightView:
        """The view of a weight; `SiteError` where the model does not have it."""
        checked = WeightSite.parse(site).checked(self.anatomy)
        stored = self._places.get(checked.weight)
        if stored is None or self._array(checked.layer, stored.path) is None:
            there = [str(w) for w, place in self._places.items() if self._has(w, place, beside=checked)]
            raise SiteError(
                f"{self.anatomy.architecture} has no {checked.weight}.",
                site=checked,
                remedy=f"{'Layer ' + str(checked.layer) if checked.weight.layered else 'The model'} has {', '.join(there)}.",
            )
        return WeightView(self, checked)

    def _has(self, weight: Weight, place: Stored, *, beside: WeightSite) -> bool:
        return weight.layered == beside.weight.layered and self._array(beside.layer, place.path) is not None

    # --- what a view asks ----------------------------------------------------------------------------------------------

    def dtype(self, site: WeightSite) -> str:
        """See `WeightView.dtype`."""
        path = self._places[site.weight].path
        return "quantised" if self._quantised(site.layer, path) else self._type(self._array(site.layer, path))

    def read(self, site: WeightSite) -> Numbers:
        """See `WeightView.read`."""
        stored = self._places[site.weight]
        with self._exclusive():
            numbers = decoded(self._taken(site), self._type(self._array(site.layer, stored.path)))
        return numbers + np.asarray(stored.shift, numbers.dtype) if stored.shift else numbers

    def write(self, site: WeightSite, values: Numbers, *, tied: bool) -> None:
        """See `WeightView.write`; the values have the weight's shape and are finite."""
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
                f"The values for {site} go up to {abs(values).max():.3g}, more than {dtype} can hold.",
                remedy="Scale them down, or load the model in float32.",
            )
        self.put_bits(site, bits)

    def bits(self, site: WeightSite) -> Bits:
        """The weight as it is stored. Raises `WeightError` where it is quantised."""
        self._check_plain(site)
        return self._taken(site)

    def put_bits(self, site: WeightSite, bits: Bits) -> None:
        """Replace the weight, and note it."""
        whole = WeightSite(None, Weight.W_E) if self.tied and site.weight is Weight.W_U else site.whole
        with self._exclusive():
            if whole not in self._original:
                self._original[whole] = bits_digest(self.bits(whole))
            self._dirty.add(whole)
            self._put(site.layer, self._places[site.weight], site.index(self.anatomy), bits)

    def _taken(self, site: WeightSite) -> Bits:
        stored = self._places[site.weight]
        with self._exclusive():
            return self._bits(self._array(site.layer, stored.path), stored, site.index(self.anatomy))

    def _check_plain(self, site: WeightSite) -> None:
        if self._quantised(site.layer, self._places[site.weight].path):
            raise WeightError(
                f"{site} is quantised: its numbers share their scales, so none of them can be written alone.",
                site=site,
                remedy="Load a checkpoint that is not quantised; mlx_lm.convert --dequantize makes one.",
            )

    # --- what was changed ----------------------------------------------------------------------------------------------

    def changed(self) -> dict[WeightSite, str]:
        """The weights that differ from those loaded, each with the digest of its bits."""
        if self._dirty:
            with self._exclusive():
                while self._dirty:
                    site = self._dirty.pop()
                    self._current[site] = bits_digest(self.bits(site))
        changed = {site: digest for site, digest in dict(self._current).items() if digest != self._original[site]}
        return dict(sorted(changed.items(), key=lambda item: str(item[0])))

    def path(self, site: WeightSite) -> str:
        """Path of the stored array that holds a weight."""
        return self._places[site.weight].path
