"""The layout of weights in stored arrays, as shapes and indices that torch, MLX and numpy all understand.

Checkpoints fuse, transpose and interleave matrices. A `Stored` describes one weight as a view of a stored array; `places` lists
all weights of an architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neuroscope.engines.sites import Component
from neuroscope.engines.weights import Weight
from neuroscope.errors import UnsupportedArchitectureError, did_you_mean

if TYPE_CHECKING:
    from neuroscope.engines.anatomy import Anatomy
    from neuroscope.engines.architectures import Architecture
    from neuroscope.engines.protocol import Array

#: Weights that a model of an architecture may lack.
OPTIONAL = frozenset({Weight.Q_NORM, Weight.K_NORM, Weight.SINKS}) | {
    w for w in Weight if w.value.split(".")[-1].startswith("b")
}


@dataclass(frozen=True)
class Stored:
    """A weight as a view of a stored array.

    path:   the array's path from its layer, or from the model for a weight outside the layers.
    split:  the array's shape with its fused axes split; None: unchanged.
    part:   index into that, which selects the weight.
    order:  the remaining axes in the order of the weight; None: unchanged.
    shift:  difference between the weight and its stored value.
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

    def apart(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the stored array, with its fused axes split, for a weight of a given shape."""
        if self.split is not None or self.order is None:
            return self.split or shape
        return tuple(shape[self.order.index(axis)] for axis in range(len(shape)))


@dataclass(frozen=True)
class HeadRows:
    """Queries, keys or values of all heads among the output features of a projection.

    module:  the projection's path from its layer.
    heads:   number of heads.
    split:   shape of the features, with heads and fused parts before d_head.
    pick:    index of these heads in that shape; the result is (heads, d_head).
    """

    module: str
    heads: int
    split: tuple[int, ...]
    pick: tuple[Any, ...]

    @property
    def alone(self) -> bool:
        """Whether the projection has no other features."""
        return self.split[:-1] == (self.heads,)


def find_module(root: Any, path: str) -> Any:
    """The part of a model at a dotted path, or None."""
    for name in path.split("."):
        root = getattr(root, name, None)
    return root


def get_module(root: Any, path: str) -> Any:
    """The part of a model at a dotted path. Raises `UnsupportedArchitectureError` if there is none."""
    found = root
    for name in path.split("."):
        root, found = found, getattr(found, name, None)
        if found is None:
            children = [str(child) for child in getattr(root, "_modules", None) or root if isinstance(child, str)]
            raise UnsupportedArchitectureError(
                f"There is nothing at the path {path!r}: {type(root).__name__} has no {name!r}.",
                remedy=did_you_mean(name, children, listing="It has") + " Correct the architecture's description.",
            )
    return found


def places(architecture: Architecture, anatomy: Anatomy, unembedding: str) -> dict[Weight, Stored]:
    """Where each weight is stored, if the model has it. `unembedding` is the path of the module that computes logits."""
    a, shift = architecture, architecture.gain_shift
    found = {
        Weight.W_E: Stored(f"{a.path('embedding')}.weight"),
        Weight.W_U: Stored(f"{unembedding}.weight", order=(1, 0)),
        Weight.Q_NORM: Stored(f"{a.attention}.q_norm.weight", shift=shift),
        Weight.K_NORM: Stored(f"{a.attention}.k_norm.weight", shift=shift),
        Weight.SINKS: Stored(f"{a.attention}.sinks"),
        Weight.B_O: Stored(f"{a.output_projection}.bias"),
    }
    if a.position_embedding is not None:
        found[Weight.W_POS] = Stored(f"{a.path('position_embedding')}.weight")
    norms = {
        Weight.LN_FINAL: a.path("final_norm"),
        Weight.LN1: a.attention_norm,
        Weight.LN1_POST: a.attention_write_norm,
        Weight.LN2: a.mlp_norm,
        Weight.LN2_POST: a.mlp_write_norm,
    }
    found |= {weight: Stored(f"{path}.weight", shift=shift) for weight, path in norms.items() if path is not None}
    biases = {Weight.LN_FINAL_BIAS: Weight.LN_FINAL, Weight.LN1_BIAS: Weight.LN1, Weight.LN2_BIAS: Weight.LN2}
    found |= {bias: Stored(f"{norms[weight]}.bias") for bias, weight in biases.items()}
    slots = a.slots(anatomy, HeadRows)
    for component, weight, bias in (
        (Component.QUERY, Weight.W_Q, Weight.B_Q),
        (Component.KEY, Weight.W_K, Weight.B_K),
        (Component.VALUE, Weight.W_V, Weight.B_V),
    ):
        slot = slots[component]
        found[weight] = _matrix(a, slot.module, anatomy.d_model, slot.split, slot.pick, heads=True)
        found[bias] = Stored(f"{slot.module}.bias", slot.split, slot.pick)
    shape = (anatomy.heads, anatomy.d_head)
    found[Weight.W_O] = (
        Stored(f"{a.output_projection}.weight", (*shape, anatomy.d_model))
        if a.input_first
        else Stored(f"{a.output_projection}.weight", (anatomy.d_model, *shape), order=(1, 2, 0))
    )
    if a.experts is not None:
        return found | dict(a.experts(anatomy))
    fused = a.gate_projection == a.up_projection
    inner = ((a.gate_projection, Weight.W_GATE, Weight.B_GATE), (a.up_projection, Weight.W_IN, Weight.B_IN))
    for index, (path, weight, bias) in enumerate(inner):
        if path is not None:
            split, pick = ((2, anatomy.d_mlp), (index,)) if fused else ((anatomy.d_mlp,), ())
            found[weight] = _matrix(a, path, anatomy.d_model, split, pick)
            found[bias] = Stored(f"{path}.bias", split, pick)
    found[Weight.W_OUT] = Stored(f"{a.down_projection}.weight", order=None if a.input_first else (1, 0))
    found[Weight.B_OUT] = Stored(f"{a.down_projection}.bias")
    return found


def _matrix(
    a: Architecture, path: str, d_model: int, split: tuple[int, ...], pick: tuple[Any, ...], *, heads: bool = False
) -> Stored:
    """A matrix that reads the stream, ([heads,] d_model, features), in a projection with its features split and picked so."""
    if a.input_first:
        return Stored(f"{path}.weight", (d_model, *split), (slice(None), *pick), (1, 0, 2) if heads else None)
    return Stored(f"{path}.weight", (*split, d_model), pick, (0, 2, 1) if heads else (1, 0))
