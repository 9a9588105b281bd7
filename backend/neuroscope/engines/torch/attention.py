"""Attention with taps: fused without them, explicit if scores or patterns are captured or edited.

The function is registered with transformers under `NAME` and gets the run's taps through the keyword arguments that every
decoder layer passes to its attention. Sinks (gpt-oss) and soft-capping (Gemma 2) always take the explicit path, since fused
kernels support neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

if TYPE_CHECKING:
    from neuroscope.engines.torch.packing import Parts

NAME = "neuroscope"

#: Called with the scaled scores and then with the pattern, each (rows, heads, positions, keys); returns the array to use.
MatrixTap = Callable[[Tensor], Tensor]


class AttentionTaps:
    """A run's taps on attention matrices, by layer index."""

    def __init__(self) -> None:
        self.scores: dict[int, MatrixTap] = {}
        self.pattern: dict[int, MatrixTap] = {}

    def __bool__(self) -> bool:
        return bool(self.scores or self.pattern)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    neuroscope_taps: AttentionTaps | None = None,
    neuroscope_parts: Parts | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """(rows, heads, positions, d_head) each → (rows, positions, heads, d_head). A boolean mask is true for visible keys."""
    how: dict[str, Any] = {"scaling": scaling, "softcap": softcap, "s_aux": s_aux}
    if neuroscope_parts is not None:
        return neuroscope_parts.attention(module, query, key, value, **how), None
    layer = module.layer_idx
    assert isinstance(layer, int)
    tap_scores = neuroscope_taps.scores.get(layer) if neuroscope_taps else None
    tap_pattern = neuroscope_taps.pattern.get(layer) if neuroscope_taps else None
    return attend(query, key, value, attention_mask, tap_scores=tap_scores, tap_pattern=tap_pattern, **how), None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None,
    softcap: float | None,
    s_aux: Tensor | None,
    tap_scores: MatrixTap | None,
    tap_pattern: MatrixTap | None,
) -> Tensor:
    """Attention of some rows, fused without taps. Shapes as in `attention`."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    causal = attention_mask is None and query.shape[2] > 1
    if tap_scores is None and tap_pattern is None and softcap is None and s_aux is None:
        out = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, is_causal=causal, scale=scaling
        )
        return out.transpose(1, 2)

    scores = (query @ key.transpose(2, 3)) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if tap_scores is not None:
        scores = tap_scores(scores)
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril(scores.shape[-1] - scores.shape[-2])
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + attention_mask
    if s_aux is not None:
        sinks = s_aux.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
        # The largest score is subtracted first, as in transformers: in half precision that rounds.
        combined = torch.cat([scores, sinks], dim=-1)
        pattern = (combined - combined.max(-1, keepdim=True).values).softmax(-1)[..., :-1]
    else:
        pattern = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    if tap_pattern is not None:
        pattern = tap_pattern(pattern)
    return (pattern.to(value.dtype) @ value).transpose(1, 2)


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
