"""Checks of a loaded model against its description: the shapes of all weights, the norms, and the sum in a layer.

They are cheap: shapes, three vectors through norms, and one token through one layer. `verify` finds what they cannot, such as
two exchanged square matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope.engines.architectures import Architecture
from neuroscope.engines.layout import OPTIONAL, get_module
from neuroscope.engines.protocol import Port, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.weights import WeightSite
from neuroscope.errors import SiteError, UnsupportedArchitectureError

if TYPE_CHECKING:
    from neuroscope.engines.decoder import Decoder
    from neuroscope.engines.parameters import Parameters

_WAY = (
    Component.RESIDUAL_PRE,
    Component.VALUE,
    Component.ATTENTION_PATTERN,
    Component.HEAD_OUTPUT,
    Component.ATTENTION,
    Component.MLP_READ,
    Component.MLP_OUTPUT,
    Component.RESIDUAL,
)
_REMEDY = "Correct the architecture's description: neuroscope.engines.architectures."
#: Tolerance of the norms' check, relative to the largest number; bfloat16 needs this much.
_ROUNDING = 0.05


def check_shapes(architecture: Architecture, parameters: Parameters, layers: Sequence[Any]) -> None:
    """Raises `UnsupportedArchitectureError` for a missing path or an unexpected shape."""
    anatomy, where = parameters.anatomy, architecture.path("layers")
    if len(layers) != anatomy.layers:
        raise _misfit(architecture, f"{where} holds {len(layers)} layers, its configuration says {anatomy.layers}")
    if architecture.attention_norm == architecture.mlp_norm:
        raise _misfit(architecture, f"attention and MLP share one norm, {architecture.mlp_norm}, but need one each")
    for module in layers:
        get_module(module, architecture.attention)
        get_module(module, architecture.mlp)
    for index in (None, *range(len(layers))):
        for weight, stored, shape in parameters.stored_shapes(index):
            expected = stored.apart(WeightSite(index, weight).shape(anatomy))
            path = stored.path if index is None else f"{where}.{index}.{stored.path}"
            if shape is None and weight not in OPTIONAL:
                if index is not None:
                    get_module(layers[index], stored.path)  # raises if there is no such path
                raise _misfit(architecture, f"it has no {path}, where {weight} should be")
            if shape is not None and not _merges(expected, shape):
                raise _misfit(architecture, f"{path}, where {weight} should be, has the shape {shape}; it would be {expected}")


def check_norms(engine: Decoder[Any]) -> None:
    """Raises `UnsupportedArchitectureError` if a norm before attention or MLP is not of the described kind."""
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


def check_layer(engine: Decoder[Any]) -> None:
    """Raises `UnsupportedArchitectureError` if the first layer does not compute what is described."""
    architecture, calls = engine.architecture, engine.block_calls
    # Not the first or last token, which may be padding without an embedding.
    sites = {kind: Site(0, kind) for kind in _WAY}
    try:
        run = engine.forward(
            TokenBatch.of([[engine.anatomy.vocabulary // 2]]), capture=list(sites.values()), stop=1, logits=None
        )
    except TypeError as error:
        raise _misfit(architecture, f"its layers cannot be called: {error}") from error
    engine.block_calls = calls
    if sites[Component.ATTENTION_PATTERN] not in run.activations:
        raise _misfit(architecture, "its attention does not go through transformers' ALL_ATTENTION_FUNCTIONS")
    found = {kind: engine.ops.to_numpy(run[site])[0, 0] for kind, site in sites.items()}
    values = np.repeat(found[Component.VALUE], engine.anatomy.group, axis=0)
    before, between = found[Component.RESIDUAL_PRE], found[Component.RESIDUAL_PRE] + found[Component.ATTENTION]
    reads = "that attention reads" if engine.anatomy.parallel else "behind attention"
    pattern = engine.ops.to_numpy(run[sites[Component.ATTENTION_PATTERN]])[0, :, 0]
    for what, kind, expected in (
        (f"heads do not read the values of {architecture.value}", Component.HEAD_OUTPUT, pattern * values),
        (
            f"{architecture.mlp_norm} does not read the stream {reads}",
            Component.MLP_READ,
            before if engine.anatomy.parallel else between,
        ),
        (
            "attention and MLP are not what a layer adds to the stream",
            Component.RESIDUAL,
            between + found[Component.MLP_OUTPUT],
        ),
    ):
        if abs(found[kind] - expected).max() > _ROUNDING * abs(expected).max():
            raise _misfit(architecture, what)


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
    return UnsupportedArchitectureError(
        f"The model does not fit the description of {architecture.name!r}: {what}.", remedy=_REMEDY
    )
