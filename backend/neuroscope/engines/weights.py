"""Weights: the grammar for parameters of a model, and views that read and write them.

Names and orientation are those of TransformerLens (Nanda & Bloom 2022), even if a checkpoint fuses, transposes or interleaves:
a matrix is (in, out), and the model computes `x @ W`.

    10.attn.W_Q             (heads, d_model, d_head)
    10.attn.W_Q[3]          (d_model, d_head): head 3
    10.mlp.W_out            (d_mlp, d_model); mixture of experts: (experts, d_mlp, d_model)
    10.mlp.W_out[1043]      (d_model,): what neuron 1043 writes (mixture of experts: expert · d_mlp + neuron)
    10.mlp.experts[2].W_in  (d_model, d_mlp): expert 2 alone
    embed.W_E[50]           (d_model,): the embedding of token 50

Layers, heads, neurons, experts and tokens count from zero; a negative layer counts from the end. Case and underscores
do not matter.

>>> str(WeightSite.parse("10.attn.wq[3]")), str(WeightSite.parse("10.mlp.experts[2].W_in"))
('10.attn.W_Q[3]', '10.mlp.experts[2].W_in')
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuroscope.errors import ArgumentError, SiteError, did_you_mean
from neuroscope.naming import fold
from neuroscope.vocabulary import public, python_only

if TYPE_CHECKING:
    from neuroscope.engines.anatomy import Anatomy
    from neuroscope.tensors.extensions import TensorsOfWeights as _Extended
else:
    from neuroscope.extensions import Extensible as _Extended

Numbers = NDArray[np.floating[Any]]
#: The bits of stored numbers, as unsigned integers of their size.
Bits = NDArray[np.unsignedinteger[Any]]


class Weight(StrEnum):
    """Weights that can be read and written. Gains are a norm's factors, even if their difference from one is stored."""

    W_E = "embed.W_E"  # (vocabulary, d_model); Gemma multiplies it by √d_model when it runs
    W_POS = "pos_embed.W_pos"  # (context, d_model)
    W_U = "unembed.W_U"  # (d_model, vocabulary)
    LN_FINAL = "ln_final.w"  # (d_model,): gain of the norm before the unembedding
    LN_FINAL_BIAS = "ln_final.b"
    LN1 = "ln1.w"  # (d_model,): gain of the norm before attention
    LN1_BIAS = "ln1.b"
    LN1_POST = "ln1_post.w"  # of the norm after attention (Gemma)
    LN2 = "ln2.w"  # of the norm before the MLP
    LN2_BIAS = "ln2.b"
    LN2_POST = "ln2_post.w"  # of the norm after the MLP (Gemma)
    W_Q = "attn.W_Q"  # (heads, d_model, d_head)
    W_K = "attn.W_K"  # (key-value heads, d_model, d_head)
    W_V = "attn.W_V"  # (key-value heads, d_model, d_head)
    W_O = "attn.W_O"  # (heads, d_head, d_model)
    B_Q = "attn.b_Q"  # (heads, d_head)
    B_K = "attn.b_K"  # (key-value heads, d_head)
    B_V = "attn.b_V"  # (key-value heads, d_head)
    B_O = "attn.b_O"  # (d_model,)
    Q_NORM = "attn.q_norm"  # (d_head,): gain of the norm of every query (Qwen 3, Gemma 3)
    K_NORM = "attn.k_norm"  # (d_head,)
    SINKS = "attn.sinks"  # (heads,): score of the attention sink (gpt-oss)
    W_GATE = "mlp.W_gate"  # (d_model, d_mlp): goes through the nonlinearity if the MLP is gated
    W_IN = "mlp.W_in"  # (d_model, d_mlp)
    W_OUT = "mlp.W_out"  # (d_mlp, d_model)
    B_GATE = "mlp.b_gate"  # (d_mlp,)
    B_IN = "mlp.b_in"  # (d_mlp,)
    B_OUT = "mlp.b_out"  # (d_model,)
    W_ROUTER = "mlp.W_router"  # (d_model, experts)
    B_ROUTER = "mlp.b_router"  # (experts,)

    def __str__(self) -> str:
        return self.value

    @property
    def layered(self) -> bool:
        """Whether every layer has one."""
        return self not in _GLOBAL

    @property
    def per_expert(self) -> bool:
        """Whether every expert of a mixture has one."""
        return self in _PER_EXPERT


_GLOBAL = frozenset({Weight.W_E, Weight.W_POS, Weight.W_U, Weight.LN_FINAL, Weight.LN_FINAL_BIAS})
_PER_EXPERT = frozenset({Weight.W_GATE, Weight.W_IN, Weight.W_OUT, Weight.B_GATE, Weight.B_IN, Weight.B_OUT})
_BY_NAME = {fold(weight.value): weight for weight in Weight}

#: The axes of each weight. A star marks the one that an index selects from; weights not listed are (d_model,).
_AXES: dict[Weight, tuple[str, ...]] = {
    Weight.W_E: ("vocabulary*", "d_model"),
    Weight.W_POS: ("context*", "d_model"),
    Weight.W_U: ("d_model", "vocabulary*"),
    Weight.W_Q: ("heads*", "d_model", "d_head"),
    Weight.W_K: ("key_value_heads*", "d_model", "d_head"),
    Weight.W_V: ("key_value_heads*", "d_model", "d_head"),
    Weight.W_O: ("heads*", "d_head", "d_model"),
    Weight.B_Q: ("heads*", "d_head"),
    Weight.B_K: ("key_value_heads*", "d_head"),
    Weight.B_V: ("key_value_heads*", "d_head"),
    Weight.Q_NORM: ("d_head",),
    Weight.K_NORM: ("d_head",),
    Weight.SINKS: ("heads*",),
    Weight.W_GATE: ("d_model", "d_mlp*"),
    Weight.W_IN: ("d_model", "d_mlp*"),
    Weight.W_OUT: ("d_mlp*", "d_model"),
    Weight.B_GATE: ("d_mlp*",),
    Weight.B_IN: ("d_mlp*",),
    Weight.W_ROUTER: ("d_model", "experts*"),
    Weight.B_ROUTER: ("experts*",),
}

_NAME = re.compile(
    r"\s*(?:(?P<layer>-?\d+)\s*\.)?\s*(?P<group>\w+)\s*(?:\.\s*experts\s*\[\s*(?P<expert>\d+)\s*\])?"
    r"\s*\.\s*(?P<name>\w+)\s*(?:\[\s*(?P<unit>\d+)\s*\])?\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class WeightSite:
    """A parameter of a model, or a part of it: `unit` selects a head, a neuron, an expert of the router or a token."""

    layer: int | None
    weight: Weight
    expert: int | None = None
    unit: int | None = None

    @classmethod
    def parse(cls, text: str | WeightSite) -> WeightSite:
        """Read the grammar of this module. Raises `SiteError` that quotes the text."""
        if isinstance(text, WeightSite):
            return text
        match = _NAME.fullmatch(text)
        if match is None:
            raise SiteError(
                f"{text!r} is not a weight.",
                site=text,
                remedy="Write layer.group.name, with optional [head or neuron]: 5.attn.W_Q[3], 10.mlp.W_out, embed.W_E",
            )
        name = f"{match['group']}.{match['name']}"
        weight = _BY_NAME.get(fold(name))
        if weight is None:
            raise SiteError(
                f"There is no weight {name!r}.",
                site=text,
                remedy=did_you_mean(name, [w.value for w in Weight], listing="Weights"),
            )
        numbers = (None if match[part] is None else int(match[part]) for part in ("layer", "expert", "unit"))
        layer, expert, unit = numbers
        return cls(layer, weight, expert, unit)

    def __str__(self) -> str:
        group, name = self.weight.value.split(".")
        text = f"{group}.{name}" if self.expert is None else f"{group}.experts[{self.expert}].{name}"
        text = text if self.layer is None else f"{self.layer}.{text}"
        return text if self.unit is None else f"{text}[{self.unit}]"

    @property
    def whole(self) -> WeightSite:
        """The same weight without expert and unit."""
        return WeightSite(self.layer, self.weight)

    def checked(self, anatomy: Anatomy) -> WeightSite:
        """This site with a non-negative layer, with its numbers checked against the model.

        Raises `SiteError` that names what is out of range, and the range.
        """
        weight, site = self.weight, self
        if weight.layered:
            site = replace(self, layer=anatomy.checked_layer(self.layer, self))
        elif self.layer is not None:
            raise SiteError(f"{weight} belongs to no layer.", site=self, remedy=f"Write {weight}.")
        if self.expert is not None and not (weight.per_expert and anatomy.experts):
            what = f"{anatomy.architecture} has no experts" if weight.per_expert else f"{weight} belongs to no expert"
            raise SiteError(f"{what}.", site=self, remedy=f"Write {self.whole}.")
        if self.expert is not None and self.expert >= anatomy.experts:
            raise SiteError(
                f"There is no expert {self.expert}: the model has {anatomy.experts}.",
                site=self,
                remedy=f"Experts run from 0 to {anatomy.experts - 1}.",
            )
        if self.unit is not None:
            count = self._units(anatomy)
            if count is None:
                raise SiteError(f"{weight} cannot be indexed.", site=self, remedy=f"Write {self.whole}.")
            if self.unit >= count:
                raise SiteError(
                    f"There is no part {self.unit} of {self.whole}: it has {count}.",
                    site=self,
                    remedy=f"They run from 0 to {count - 1}.",
                )
        return site

    def shape(self, anatomy: Anatomy) -> tuple[int, ...]:
        """Shape of the values at a checked site."""
        whole = tuple(int(getattr(anatomy, axis.rstrip("*"))) for axis in self._axes(anatomy))
        picked = self.index(anatomy)[:-1]
        return tuple(size for size, part in zip(whole, picked, strict=True) if isinstance(part, slice))

    def index(self, anatomy: Anatomy) -> tuple[Any, ...]:
        """Index of the part in the whole weight; it yields an array even for a single number."""
        axes, expert, unit = self._axes(anatomy), self.expert, self.unit
        if axes[0] == "experts" and expert is None and unit is not None:
            expert, unit = divmod(unit, anatomy.d_mlp)
        picked: list[Any] = []
        for position, axis in enumerate(axes):
            number = expert if axis == "experts" and position == 0 else unit if axis.endswith("*") else None
            picked.append(slice(None) if number is None else number)
        return (*picked, ...)

    def _axes(self, anatomy: Anatomy) -> tuple[str, ...]:
        axes = _AXES.get(self.weight, ("d_model",))
        return ("experts", *axes) if anatomy.experts and self.weight.per_expert else axes

    def _units(self, anatomy: Anatomy) -> int | None:
        axes = self._axes(anatomy)
        marked = next((axis for axis in axes if axis.endswith("*")), None)
        if marked is None:
            return None
        every = anatomy.experts if axes[0] == "experts" and self.expert is None else 1
        return int(getattr(anatomy, marked.rstrip("*"))) * every


@public
@dataclass(frozen=True, eq=False)
class WeightSnapshot:
    """A copy of a weight's bits. `dtype` is the stored type; `digest` the SHA-256 of the bits."""

    name: str
    dtype: str
    _bits: Bits

    @property
    def digest(self) -> str:
        return bits_digest(self._bits)

    @property
    @python_only
    def bits(self) -> Bits:
        """The stored numbers as unsigned integers, in the weight's shape."""
        return self._bits

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WeightSnapshot):
            return NotImplemented
        same = self.name == other.name and self.dtype == other.dtype
        return same and np.array_equal(self._bits, other._bits)

    def __hash__(self) -> int:
        return hash((self.name, self.dtype, self.digest))

    def print_string(self) -> str:
        return f"a WeightSnapshot({self.name}, {self.dtype}, {self.digest[:12]}…)"

    __repr__ = print_string


def bits_digest(bits: Bits) -> str:
    """SHA-256 of stored numbers, in the order of the weight's shape."""
    return hashlib.sha256(np.ascontiguousarray(bits).tobytes()).hexdigest()


class WeightStore(Protocol):
    """The engine's weights, as a view uses them."""

    @property
    def anatomy(self) -> Anatomy: ...
    @property
    def tied(self) -> bool: ...
    def dtype(self, site: WeightSite) -> str: ...
    def read(self, site: WeightSite) -> Numbers: ...
    def rounded(self, site: WeightSite, values: Numbers, *, tied: bool) -> Bits: ...
    def bits(self, site: WeightSite) -> Bits: ...
    def dequantise(self, site: WeightSite) -> None: ...
    def put_bits(self, site: WeightSite, bits: Bits) -> None: ...


@public
class WeightView(_Extended):
    """A weight of a loaded model, to read and write: `model weights: '10.mlp.W_out'`.

    A write affects every model object on these weights at once and changes their `weights_hash`; restoring a snapshot restores
    the old bits and hash. No run sees half of a write.
    """

    def __init__(self, store: WeightStore, site: WeightSite) -> None:
        self._store = store
        self._site = site

    @property
    def name(self) -> str:
        return str(self._site)

    @property
    @python_only
    def checked_site(self) -> WeightSite:
        return self._site

    @property
    def shape(self) -> tuple[int, ...]:
        return self._site.shape(self._store.anatomy)

    @property
    def dtype(self) -> str:
        """The stored type, or "quantised"."""
        return self._store.dtype(self._site)

    @property
    def tied(self) -> bool:
        """Whether it is embedding and unembedding at once."""
        return self._store.tied and self._site.weight in (Weight.W_E, Weight.W_U)

    @python_only
    def overlaps(self, other: WeightView) -> bool:
        """Whether this weight and another of the same model share a number."""
        one, two = (replace(view._site, weight=Weight.W_E) if view.tied else view._site for view in (self, other))
        if one.whole != two.whole:
            return False
        parts = zip(one.index(self._store.anatomy)[:-1], two.index(self._store.anatomy)[:-1], strict=True)
        return all(a == b or isinstance(a, slice) or isinstance(b, slice) for a, b in parts)

    @python_only
    def read(self) -> Numbers:
        """A copy, in float32 (float64 if stored so). A quantised weight is dequantised."""
        return self._store.read(self._site)

    def dequantise(self) -> None:
        """Store the whole matrix that holds this weight (all experts of a layer, say) as plain numbers from now on, so that it can be edited.

        The numbers stay the same, and so does the hash; the memory grows, by four to eight times that of the matrix. Nothing happens to
        one that is not quantised. Raises `WeightError` on MLX.
        """
        self._store.dequantise(self._site)

    def write(self, values: Any, tied: bool = False, dequantise: bool = False) -> None:
        """Replace the weight by `values` of its shape, rounded to the stored type. Raises what `rounded` raises.

        dequantise: consent to `dequantise` a quantised weight before.
        """
        if dequantise:
            self.dequantise()
        self._store.put_bits(self._site, self.rounded(values, tied).bits)

    def rounded(self, values: Any, tied: bool = False) -> WeightSnapshot:
        """What writing `values` would leave, without writing them.

        Raises `ArgumentError` for another shape and for values that are not finite or too large for the type, `WeightError` for
        a quantised weight. If embedding and unembedding are one matrix, a write to either changes both, which raises
        `WeightError` unless `tied`.
        """
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise ArgumentError(f"The values for {self.name} are not an array: {error}", remedy=self._wanted()) from error
        if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
            raise ArgumentError(f"{self.name} holds real numbers, not {array.dtype}.", remedy=self._wanted())
        if array.shape != self.shape:
            raise ArgumentError(f"{self.name} has the shape {self.shape}, not {array.shape}.", remedy=self._wanted())
        if not np.isfinite(array).all():
            raise ArgumentError(f"The values for {self.name} are NaN or infinite.", remedy="Check how they were computed.")
        return WeightSnapshot(self.name, self.dtype, self._store.rounded(self._site, array, tied=tied))

    def snapshot(self) -> WeightSnapshot:
        """A snapshot of the weight. Raises `WeightError` for a quantised weight."""
        bits = self._store.bits(self._site)
        bits.flags.writeable = False
        return WeightSnapshot(self.name, self.dtype, bits)

    def restore(self, snapshot: WeightSnapshot) -> None:
        """Restore a snapshot of this weight, bit for bit. Raises `ArgumentError` for one of another weight or type."""
        if not isinstance(snapshot, WeightSnapshot):
            raise ArgumentError(f"{snapshot!r} is not a snapshot.", remedy=f"Take one with weights({self.name!r}).snapshot().")
        if (snapshot.name, snapshot.dtype, snapshot.bits.shape) != (self.name, self.dtype, self.shape):
            raise ArgumentError(
                f"A snapshot of {snapshot.name} {snapshot.bits.shape} in {snapshot.dtype} cannot restore {self.name} "
                f"{self.shape} in {self.dtype}.",
                remedy="Restore each weight from its own snapshot, on a model loaded in the same type.",
            )
        self._store.put_bits(self._site, snapshot.bits)

    def print_string(self) -> str:
        return f"a WeightView({self.name}, {' × '.join(map(str, self.shape)) or 'one number'}, {self.dtype})"

    __repr__ = print_string

    def _wanted(self) -> str:
        return f"Give an array of real numbers with the shape {self.shape}."


def hash_of(loaded: str, changed: Mapping[str, str]) -> str:
    """The hash that identifies weights: of those loaded, and of the changes since."""
    return hashlib.sha256(json.dumps([loaded, dict(changed)]).encode()).hexdigest() if changed else loaded
