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

from neuroscope.errors import UnsupportedArchitectureError
from neuroscope.models.anatomy import Anatomy
from neuroscope.models.sites import Component


@dataclass(frozen=True)
class HeadSlot:
    """A per-head array inside a projection's output (rows, positions, features).

    `layout` is how the features are ordered: "heads" (heads · d_head, starting at `first`), or "interleaved"
    (per head: query, key, value one after another; `part` says which).
    """

    module: str
    heads: int
    d_head: int
    layout: str = "heads"
    first: int = 0
    part: int = 0

    def read(self, output: Tensor) -> Tensor:
        """(rows, positions, heads, d_head), a view."""
        if self.layout == "interleaved":
            return output.unflatten(-1, (self.heads, 3, self.d_head))[..., self.part, :]
        width = self.heads * self.d_head
        return output[..., self.first : self.first + width].unflatten(-1, (self.heads, self.d_head))

    def write(self, output: Tensor, value: Tensor) -> Tensor:
        """`output` with the slot replaced; a new tensor, so that gradients flow."""
        if self.layout == "interleaved":
            parts = list(output.unflatten(-1, (self.heads, 3, self.d_head)).unbind(-2))
            parts[self.part] = value
            return torch.stack(parts, dim=-2).flatten(-3)
        width = self.heads * self.d_head
        flat = value.flatten(-2)
        if output.shape[-1] == width:
            return flat
        return torch.cat([output[..., : self.first], flat, output[..., self.first + width :]], dim=-1)

    def weight(self, module: nn.Module) -> Tensor:
        """The slot's own rows of the projection, (heads, d_head, d_model), a view."""
        matrix = output_by_input(module)
        if self.layout == "interleaved":
            return matrix.unflatten(0, (self.heads, 3, self.d_head))[:, self.part]
        return matrix[self.first : self.first + self.heads * self.d_head].unflatten(0, (self.heads, self.d_head))

    def bias(self, module: nn.Module) -> Tensor | None:
        """(heads, d_head), a view; None without bias."""
        bias = getattr(module, "bias", None)
        if bias is None:
            return None
        if self.layout == "interleaved":
            return bias.unflatten(0, (self.heads, 3, self.d_head))[:, self.part]
        return bias[self.first : self.first + self.heads * self.d_head].unflatten(0, (self.heads, self.d_head))


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


@dataclass(frozen=True)
class Family:
    """Paths are relative to a layer, except `base`, `embedding`, `layers` and `final_norm` (relative to the model)."""

    base: str
    embedding: str
    layers: str
    final_norm: str
    attention: str
    attention_norm: str
    output_projection: str
    mlp: str
    mlp_norm: str
    neurons: str
    slots: Callable[[Anatomy], dict[Component, HeadSlot]]
    call: Callable[[nn.Module, int, Tensor, CallState, dict[str, Any]], Any]
    position_embedding: str | None = None
    rotary: str | None = None
    rotary_by_layer_type: bool = False
    attention_write_norm: str | None = None
    mlp_write_norm: str | None = None
    moe: bool = False
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
    width = anatomy.heads * anatomy.d_head
    return {
        component: HeadSlot("attn.c_attn", anatomy.heads, anatomy.d_head, first=index * width)
        for index, component in enumerate((Component.QUERY, Component.KEY, Component.VALUE))
    }


def _neox_slots(anatomy: Anatomy) -> dict[Component, HeadSlot]:
    return {
        component: HeadSlot("attention.query_key_value", anatomy.heads, anatomy.d_head, "interleaved", part=index)
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
        "neurons": "mlp.down_proj",
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
        neurons="mlp.c_proj",
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
        neurons="mlp.dense_4h_to_h",
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
    "gpt_oss": _llama(moe=True),
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
