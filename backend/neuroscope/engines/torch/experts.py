"""The experts of a gpt-oss layer, run so that every expert's neurons can be read and rewritten.

Used only in layers whose neurons a run captures or edits; other layers use transformers' kernels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuroscope.engines.torch.packed import PackedMatrix, times

#: Called with the layer's neurons (tokens, experts · d_mlp), zero where a token was not routed; returns the array to use.
NeuronTap = Callable[[Tensor], Tensor]


def run_experts(
    experts: nn.Module, x: Tensor, indices: Tensor, weights: Tensor, tap: NeuronTap, *, first: int = 0, total: int | None = None
) -> Tensor:
    """Outputs (tokens, d_model) for inputs (tokens, d_model) routed to `indices` (tokens, k) with `weights` (tokens, k).

    first, total: of `total` experts, the module holds those from `first` on, and others run elsewhere; None: it holds all.
    """
    gate_up, gate_up_bias = experts.gate_up_proj, experts.gate_up_proj_bias
    down, down_bias = experts.down_proj, experts.down_proj_bias
    assert isinstance(gate_up, Tensor | PackedMatrix)
    assert isinstance(gate_up_bias, Tensor)
    assert isinstance(down, Tensor | PackedMatrix)
    assert isinstance(down_bias, Tensor)
    count, width = gate_up.shape[0], down.shape[1]
    parts = []
    total = count if total is None else total
    here = slice(first, first + count)
    routed = torch.zeros(x.shape[0], total, dtype=weights.dtype, device=x.device).scatter(1, indices, weights)[:, here]
    hit = torch.zeros(x.shape[0], total, dtype=torch.bool, device=x.device).scatter(
        1, indices, torch.ones_like(indices, dtype=torch.bool)
    )[:, here]
    for expert in range(count):
        rows = hit[:, expert].nonzero(as_tuple=True)[0]
        part = x.new_zeros(x.shape[0], width)
        if len(rows):
            activations = experts._apply_gate(times(x[rows], gate_up, expert) + gate_up_bias[expert])  # type: ignore[operator]
            part = part.index_copy(0, rows, activations)
        parts.append(part)
    neurons = tap(torch.cat(parts, dim=1)).unflatten(1, (count, width))
    out = torch.zeros_like(x)
    for expert in range(count):
        rows = hit[:, expert].nonzero(as_tuple=True)[0]
        if len(rows):
            written = times(neurons[rows, expert], down, expert) + down_bias[expert]
            out = out.index_add(0, rows, written * routed[rows, expert, None])
    return out


def dense_router(indices: Tensor, scores: Tensor, experts: int) -> Tensor:
    """Router output as (tokens, experts): the weight of each expert, zero where not routed."""
    return torch.zeros(scores.shape[0], experts, dtype=scores.dtype, device=scores.device).scatter(1, indices, scores)


def sparse_router(dense: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(scores, indices) from dense weights: the k largest by magnitude, more if an edit routes a token to more."""
    k = max(k, int((dense != 0).sum(1).max()))
    indices = dense.abs().topk(k, dim=1).indices
    return dense.gather(1, indices), indices
