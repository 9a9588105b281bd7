"""A loaded model against its description in the table: shapes of all weights, and what a norm computes.

Cheap: shapes, and three vectors through norms. What it cannot see, such as two square matrices in each other's place, `verify` sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope.engines.architectures import Architecture
from neuroscope.engines.layout import OPTIONAL, get_module
from neuroscope.engines.protocol import Port
from neuroscope.engines.weights import WeightSite
from neuroscope.errors import SiteError, UnsupportedArchitectureError

if TYPE_CHECKING:
    from neuroscope.engines.decoder import Decoder
    from neuroscope.engines.parameters import Parameters

_REMEDY = "Correct the architecture's description: neuroscope.engines.architectures."
#: Share of the largest number by which a norm may miss what its description says, as bfloat16 does.
_ROUNDING = 0.05


def check_shapes(architecture: Architecture, parameters: Parameters, layers: Sequence[Any]) -> None:
    """Raises `UnsupportedArchitectureError` for a path that leads nowhere and for a shape that is not the described one."""
    anatomy, where = parameters.anatomy, architecture.path("layers")
    if len(layers) != anatomy.layers:
        raise _misfit(architecture, f"{where} holds {len(layers)} layers, its configuration says {anatomy.layers}")
    for module in layers:
        get_module(module, architecture.attention)
        get_module(module, architecture.mlp)
    for index in (None, *range(len(layers))):
        for weight, stored, shape in parameters.stored_shapes(index):
            expected = stored.apart(WeightSite(index, weight).shape(anatomy))
            path = stored.path if index is None else f"{where}.{index}.{stored.path}"
            if shape is None and weight not in OPTIONAL:
                if index is not None:
                    get_module(layers[index], stored.path)  # says where it ends
                raise _misfit(architecture, f"it has no {path}, where {weight} should be")
            if shape is not None and not _merges(expected, shape):
                raise _misfit(architecture, f"{path}, where {weight} should be, has the shape {shape}; it would be {expected}")


def check_norms(engine: Decoder[Any]) -> None:
    """Raises `UnsupportedArchitectureError` where the norms before the parts of a layer are not of the described kind."""
    architecture, view = engine.architecture, engine.parameters.view
    x = np.random.default_rng(0).standard_normal((1, 1, engine.anatomy.d_model)) + 0.5
    for name, port, path in (
        ("0.ln1", Port.ATTENTION, architecture.attention_norm),
        ("0.ln2", Port.MLP, architecture.mlp_norm),
        ("ln_final", Port.FINAL, architecture.path("final_norm")),
    ):
        with engine.exclusive():
            found = engine.ops.to_numpy(engine.normalise(0, port, engine.ops.asarray(x)))
        centred = x - x.mean() if architecture.layer_norm else x
        try:
            bias = view(f"{name}.b").read()
        except SiteError:
            bias = np.zeros(1)
        expected = centred / np.sqrt((centred**2).mean()) * view(f"{name}.w").read() + bias
        if abs(found - expected).max() > _ROUNDING * abs(expected).max():
            kind = "LayerNorm" if architecture.layer_norm else "RMSNorm"
            gain = f"weight + {architecture.gain_shift:g}" if architecture.gain_shift else "weight"
            raise _misfit(architecture, f"{path} is not a {kind} with the gain {gain}")


def _merges(parts: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a shape is `parts` with neighbours multiplied."""
    left = list(parts)
    for size in shape:
        product = 1
        while left and product < size:
            product *= left.pop(0)
        if product != size:
            return False
    return not left


def _misfit(architecture: Architecture, what: str) -> UnsupportedArchitectureError:
    return UnsupportedArchitectureError(f"The model is not as {architecture.name!r} is described: {what}.", remedy=_REMEDY)
