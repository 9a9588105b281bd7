"""Where each component lives in mlx-lm's modules of each supported architecture.

One `Family` per layout, as for torch. What differs from transformers in mlx-lm's own code is said here too, and put
right in `mlx_config` and `mlx_loading`, so that both engines give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.parameters import FamilyPaths, HeadRows, Stored
from neuroscope.engines.sites import Component
from neuroscope.engines.weights import Weight

Array = mx.array


class HeadSlot(HeadRows):
    """A per-head array inside a projection's output (rows, positions, features)."""

    def read(self, output: Array) -> Array:
        """(rows, positions, heads, d_head) of a projection's output."""
        return mx.unflatten(output, -1, self.split)[(slice(None), slice(None), *self.pick)]

    def weight(self, module: nn.Module) -> Array:
        """The slot's own rows of the projection: (heads, d_head, d_model)."""
        return mx.unflatten(matrix(module), 0, self.split)[self.pick]

    def bias(self, module: nn.Module) -> Array | None:
        """(heads, d_head), or None without bias."""
        return mx.unflatten(module.bias, 0, self.split)[self.pick] if "bias" in module else None


def matrix(module: nn.Module) -> Array:
    """A projection's or an embedding's matrix as (out, in), unpacked where it is quantised."""
    return _unpacked(module, slice(None))


def matrix_rows(module: nn.Module, ids: Array) -> Array:
    """Some rows of that matrix: (…, in) for ids (…)."""
    return _unpacked(module, ids)


def _unpacked(module: nn.Module, rows: Any) -> Array:
    if "scales" not in module:
        return module.weight[rows]
    biases = module.get("biases")
    return mx.dequantize(
        module.weight[rows],
        module.scales[rows],
        None if biases is None else biases[rows],
        group_size=module.group_size,
        bits=module.bits,
        mode=module.mode,
    )


def get_module(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name)
    return root


@dataclass(frozen=True, kw_only=True)
class Family(FamilyPaths):
    """What MLX must know of a layout beside its paths.

    module:         mlx-lm's module of the architecture.
    heads:          where the unembedding may live; the first that the model has is meant, and the embedding else.
    windows:        whether mlx-lm's own model knows the sliding windows; where not, only short prompts run bare.
    activation:     what mlx-lm's MLP computes, by its Hugging Face name; a configuration that asks for another is refused.
    scales_embedding: whether the embedding is multiplied by √d_model.
    """

    module: str
    slots: Callable[[Anatomy], dict[Component, HeadSlot]]
    activation: str
    heads: tuple[str, ...] = ()
    scales_embedding: bool = False
    windows: bool = False
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


def _llama(module: str, **changes: Any) -> Family:
    settings: dict[str, Any] = {
        "module": module,
        "embedding": "model.embed_tokens",
        "layers": "model.layers",
        "final_norm": "model.norm",
        "heads": ("lm_head",),
        "attention": "self_attn",
        "attention_norm": "input_layernorm",
        "output_projection": "self_attn.o_proj",
        "mlp_norm": "post_attention_layernorm",
        "gate_projection": "mlp.gate_proj",
        "up_projection": "mlp.up_proj",
        "down_projection": "mlp.down_proj",
        "slots": _separate,
        "activation": "silu",
    }
    return Family(**{**settings, **changes})


_GEMMA = {
    "mlp_norm": "pre_feedforward_layernorm",
    "attention_write_norm": "post_attention_layernorm",
    "mlp_write_norm": "post_feedforward_layernorm",
    "activation": "gelu_pytorch_tanh",
    "scales_embedding": True,
    "gain_shift": 1.0,
}


def _experts(_: Anatomy) -> dict[Weight, Stored]:
    """gpt-oss: every matrix (experts, out, in)."""
    paths = {
        "mlp.experts.gate_proj": (Weight.W_GATE, Weight.B_GATE),
        "mlp.experts.up_proj": (Weight.W_IN, Weight.B_IN),
        "mlp.experts.down_proj": (Weight.W_OUT, Weight.B_OUT),
    }
    found = {weight: Stored(f"{path}.weight", order=(0, 2, 1)) for path, (weight, _) in paths.items()}
    found |= {bias: Stored(f"{path}.bias") for path, (_, bias) in paths.items()}
    return found | {
        Weight.W_ROUTER: Stored("mlp.router.weight", order=(1, 0)),
        Weight.B_ROUTER: Stored("mlp.router.bias"),
    }


#: model_type of the Hugging Face configuration → layout.
FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        module="gpt2",
        embedding="model.wte",
        position_embedding="model.wpe",
        layers="model.h",
        final_norm="model.ln_f",
        attention="attn",
        attention_norm="ln_1",
        output_projection="attn.c_proj",
        mlp_norm="ln_2",
        up_projection="mlp.c_fc",
        down_projection="mlp.c_proj",
        slots=_gpt2_slots,
        activation="gelu_new",
    ),
    "gpt_neox": Family(
        module="gpt_neox",
        embedding="model.embed_in",
        layers="model.h",
        final_norm="model.final_layer_norm",
        heads=("model.embed_out",),
        attention="attention",
        attention_norm="input_layernorm",
        output_projection="attention.dense",
        mlp_norm="post_attention_layernorm",
        up_projection="mlp.dense_h_to_4h",
        down_projection="mlp.dense_4h_to_h",
        slots=_neox_slots,
        activation="gelu",
    ),
    "llama": _llama("llama"),
    "mistral": _llama("llama", window_everywhere=True),
    "qwen2": _llama("qwen2"),
    "qwen3": _llama("qwen3"),
    "gemma2": _llama("gemma2", **_GEMMA),
    "gemma3_text": _llama("gemma3_text", **_GEMMA, windows=True),
    "gpt_oss": _llama("gpt_oss", windows=True, down_projection="mlp.experts.down_proj", experts=_experts),
}

#: Hugging Face's names of nonlinearities.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": nn.silu,
    "gelu": nn.gelu,
    "gelu_new": nn.gelu_approx,
    "gelu_pytorch_tanh": nn.gelu_approx,
}
