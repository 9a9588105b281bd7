"""Where each component lives in the Hugging Face modules of each supported architecture.

One `Family` per layout. It names modules and says how a layer is called; it holds no logic of runs. To support a
new architecture, add an entry to `FAMILIES` (most only need the Llama layout) and let `model.verify()` judge it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.parameters import FamilyPaths, HeadRows, Stored
from neuroscope.engines.sites import Component
from neuroscope.engines.weights import Weight
from neuroscope.errors import UnsupportedArchitectureError


class HeadSlot(HeadRows):
    """A per-head array inside a projection's output (rows, positions, features)."""

    def read(self, output: Tensor) -> Tensor:
        """(rows, positions, heads, d_head), a view."""
        return output.unflatten(-1, self.split).select(self._axis, self.part)

    def write(self, output: Tensor, value: Tensor) -> Tensor:
        """`output` with the slot replaced; a new tensor, so that gradients flow."""
        if self.parts == 1:
            return value.flatten(-2)
        parts = list(output.unflatten(-1, self.split).unbind(self._axis))
        parts[self.part] = value
        return torch.stack(parts, dim=self._axis).flatten(-3)

    def weight(self, module: nn.Module) -> Tensor:
        """The slot's own rows of the projection, (heads, d_head, d_model), a view."""
        return output_by_input(module).unflatten(0, self.split)[self.pick]

    def bias(self, module: nn.Module) -> Tensor | None:
        """(heads, d_head), a view; None without bias."""
        bias = getattr(module, "bias", None)
        return None if bias is None else bias.unflatten(0, self.split)[self.pick]

    @property
    def _axis(self) -> int:
        return -2 if self.interleaved else -3


def output_by_input(module: nn.Module) -> Tensor:
    """The projection's matrix as (out, in), whichever way the module stores it."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight if isinstance(module, nn.Linear) else weight.T  # GPT-2's Conv1D stores (in, out)


def get_module(root: nn.Module, path: str) -> nn.Module:
    for name in path.split("."):
        root = getattr(root, name)
    return root


@dataclass
class CallState:
    """What every layer of one run is given beside the residual stream."""

    position_ids: Tensor
    masks: Sequence[Tensor | None]
    rotation: Any
    cache: Any


@dataclass(frozen=True, kw_only=True)
class Family(FamilyPaths):
    """What torch must know of a layout beside its paths: how a layer is called, and what rotates its positions."""

    base: str
    mlp: str
    slots: Callable[[Anatomy], dict[Component, HeadSlot]]
    call: Callable[[nn.Module, int, Tensor, CallState, dict[str, Any]], Any]
    rotary: str | None = None
    rotary_by_layer_type: bool = False
    window_everywhere: bool = False


def _separate(anatomy: Anatomy) -> dict[Component, HeadSlot]:
    def slot(name: str, heads: int) -> HeadSlot:
        return HeadSlot(f"self_attn.{name}", heads, anatomy.d_head)

    return {
        Component.QUERY: slot("q_proj", anatomy.heads),
        Component.KEY: slot("k_proj", anatomy.key_value_heads),
        Component.VALUE: slot("v_proj", anatomy.key_value_heads),
    }


def _gpt2_slots(anatomy: Anatomy) -> dict[Component, HeadSlot]:
    return {
        component: HeadSlot("attn.c_attn", anatomy.heads, anatomy.d_head, parts=3, part=index)
        for index, component in enumerate((Component.QUERY, Component.KEY, Component.VALUE))
    }


def _neox_slots(anatomy: Anatomy) -> dict[Component, HeadSlot]:
    return {
        component: HeadSlot("attention.query_key_value", anatomy.heads, anatomy.d_head, parts=3, part=index, interleaved=True)
        for index, component in enumerate((Component.QUERY, Component.KEY, Component.VALUE))
    }


def _call_llama(layer: nn.Module, index: int, x: Tensor, state: CallState, extra: dict[str, Any]) -> Any:
    rotation = state.rotation[index] if isinstance(state.rotation, dict) else state.rotation
    return layer(
        x,
        attention_mask=state.masks[index],
        position_ids=state.position_ids,
        past_key_values=state.cache,
        use_cache=state.cache is not None,
        position_embeddings=rotation,
        **extra,
    )


def _call_gemma(layer: nn.Module, index: int, x: Tensor, state: CallState, extra: dict[str, Any]) -> Any:
    rotation = state.rotation[index] if isinstance(state.rotation, dict) else state.rotation
    return layer(
        x,
        attention_mask=state.masks[index],
        position_ids=state.position_ids,
        past_key_values=state.cache,
        position_embeddings=rotation,
        **extra,
    )


def _call_gpt2(layer: nn.Module, index: int, x: Tensor, state: CallState, extra: dict[str, Any]) -> Any:
    return layer(
        x,
        past_key_values=state.cache,
        attention_mask=state.masks[index],
        use_cache=state.cache is not None,
        **extra,
    )


def _call_neox(layer: nn.Module, index: int, x: Tensor, state: CallState, extra: dict[str, Any]) -> Any:
    return layer(
        x,
        attention_mask=state.masks[index],
        position_ids=state.position_ids,
        layer_past=state.cache,
        use_cache=state.cache is not None,
        position_embeddings=state.rotation,
        **extra,
    )


def _llama(**changes: Any) -> Family:
    settings: dict[str, Any] = {
        "base": "model",
        "embedding": "model.embed_tokens",
        "layers": "model.layers",
        "final_norm": "model.norm",
        "attention": "self_attn",
        "attention_norm": "input_layernorm",
        "output_projection": "self_attn.o_proj",
        "mlp": "mlp",
        "mlp_norm": "post_attention_layernorm",
        "gate_projection": "mlp.gate_proj",
        "up_projection": "mlp.up_proj",
        "down_projection": "mlp.down_proj",
        "slots": _separate,
        "call": _call_llama,
        "rotary": "model.rotary_emb",
    }
    return Family(**{**settings, **changes})


_GEMMA = {
    "mlp_norm": "pre_feedforward_layernorm",
    "attention_write_norm": "post_attention_layernorm",
    "mlp_write_norm": "post_feedforward_layernorm",
    "call": _call_gemma,
    "gain_shift": 1.0,
}


def _experts(anatomy: Anatomy) -> dict[Weight, Stored]:
    """gpt-oss: gate and up interleaved, every matrix (experts, in, out)."""
    gate_up = (anatomy.experts, anatomy.d_model, anatomy.d_mlp, 2), (anatomy.experts, anatomy.d_mlp, 2)
    pairs = enumerate(((Weight.W_GATE, Weight.B_GATE), (Weight.W_IN, Weight.B_IN)))
    return {
        weight: Stored(path, split, (..., which))
        for which, pair in pairs
        for weight, path, split in zip(
            pair, ("mlp.experts.gate_up_proj", "mlp.experts.gate_up_proj_bias"), gate_up, strict=True
        )
    } | {
        Weight.W_OUT: Stored("mlp.experts.down_proj"),
        Weight.B_OUT: Stored("mlp.experts.down_proj_bias"),
        Weight.W_ROUTER: Stored("mlp.router.weight", order=(1, 0)),
        Weight.B_ROUTER: Stored("mlp.router.bias"),
    }


#: model_type of the Hugging Face configuration → layout.
FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        base="transformer",
        embedding="transformer.wte",
        position_embedding="transformer.wpe",
        layers="transformer.h",
        final_norm="transformer.ln_f",
        attention="attn",
        attention_norm="ln_1",
        output_projection="attn.c_proj",
        mlp="mlp",
        mlp_norm="ln_2",
        up_projection="mlp.c_fc",
        down_projection="mlp.c_proj",
        input_first=True,
        slots=_gpt2_slots,
        call=_call_gpt2,
    ),
    "gpt_neox": Family(
        base="gpt_neox",
        embedding="gpt_neox.embed_in",
        layers="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        attention="attention",
        attention_norm="input_layernorm",
        output_projection="attention.dense",
        mlp="mlp",
        mlp_norm="post_attention_layernorm",
        up_projection="mlp.dense_h_to_4h",
        down_projection="mlp.dense_4h_to_h",
        slots=_neox_slots,
        call=_call_neox,
        rotary="gpt_neox.rotary_emb",
    ),
    "llama": _llama(),
    "mistral": _llama(window_everywhere=True),
    "qwen2": _llama(),
    "qwen3": _llama(),
    "gemma2": _llama(**_GEMMA),
    "gemma3_text": _llama(**_GEMMA, rotary_by_layer_type=True),
    "gpt_oss": _llama(experts=_experts),
}


def family_of(config: Any) -> Family:
    """The layout for a configuration; `UnsupportedArchitectureError` lists what is supported."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise UnsupportedArchitectureError(
            f"No anatomy describes the architecture {config.model_type!r}.",
            remedy=f"Supported: {', '.join(sorted(FAMILIES))}.",
        )
    return family


def anatomy_of(config: Any, family: Family) -> Anatomy:
    """Sizes from a Hugging Face configuration."""
    heads = config.num_attention_heads
    d_model = config.hidden_size
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    d_mlp = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * d_model
    layers = config.num_hidden_layers
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if types is not None:
        windows = tuple(window if kind == "sliding_attention" else None for kind in types)
    else:
        windows = (window if family.window_everywhere else None,) * layers
    return Anatomy(
        architecture=config.model_type,
        layers=layers,
        heads=heads,
        key_value_heads=key_value_heads,
        d_model=d_model,
        d_head=getattr(config, "head_dim", None) or d_model // heads,
        d_mlp=d_mlp,
        vocabulary=config.vocab_size,
        context=getattr(config, "max_position_embeddings", 0),
        experts=getattr(config, "num_local_experts", 0) if family.moe else 0,
        experts_per_token=getattr(config, "num_experts_per_tok", 0) if family.moe else 0,
        parallel=bool(getattr(config, "use_parallel_residual", False)),
        attention_sinks=family.moe,
        sliding_windows=windows,
    )
