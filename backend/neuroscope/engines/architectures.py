"""The table of architectures.

Both engines read it when they load a model. `register` adds to it:

    from dataclasses import replace

    from neuroscope.engines import architectures

    architectures.register(
        replace(architectures.find("llama"), name="mine", attention="attn", query="attn.wq", key="attn.wk", value="attn.wv",
                output_projection="attn.wo", mlx=None)
    )

An installed package adds one by an entry point of the group `neuroscope.architectures`; the command line and the server find it
too. Loading a model that does not fit its description fails, with the path or the shape that is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Any

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.description import Architecture, MlxModule
from neuroscope.engines.layout import Stored
from neuroscope.engines.weights import Weight
from neuroscope.errors import ArgumentError, UnsupportedArchitectureError

__all__ = ["Architecture", "MlxModule", "find", "language_model", "register", "supported", "table"]

_TABLE: dict[str, Architecture] = {}

#: Group of entry points: an architecture's name → the `Architecture` of an installed package.
GROUP = "neuroscope.architectures"


def register(architecture: Architecture) -> None:
    """Add an architecture to the table.

    transformers must be able to load it (`AutoConfig.register`, `AutoModelForCausalLM.register`), and its attention must go
    through transformers' attention functions. Raises `ArgumentError` if the name is taken.
    """
    if not isinstance(architecture, Architecture):
        raise ArgumentError(f"{architecture!r} is not an Architecture.", remedy="register(Architecture(name=…, …))")
    if architecture.name in _TABLE or any(architecture.name == known.part_of for known in _TABLE.values()):
        raise ArgumentError(
            f"There is already an architecture {architecture.name!r}.",
            remedy="Give the other `model_type` in its configuration.",
        )
    _TABLE[architecture.name] = architecture


def table() -> Mapping[str, Architecture]:
    """All architectures by name."""
    return _TABLE


def find(name: str, engine: str = "torch") -> Architecture:
    """An architecture by `model_type`, from the table or from the entry point of that name in an installed package.

    Raises `UnsupportedArchitectureError`, which lists the architectures that the engine supports.
    """
    if name not in _TABLE:
        for entry in entry_points(group=GROUP, name=name):
            register(entry.load())
    found = _TABLE.get(name)
    if found is not None and (engine != "mlx" or found.mlx is not None):
        return found
    parts = {known.part_of for known in _TABLE.values() if known.part_of is not None and known.name in supported(engine)}
    raise UnsupportedArchitectureError(
        f"The engine {engine} has no architecture {name!r}" + (", but torch does." if found is not None else "."),
        remedy=f"Supported: {', '.join(sorted({*supported(engine), *parts}))}. neuroscope.engines.architectures.register adds one.",
    )


def supported(engine: str) -> Collection[str]:
    """Names of the architectures that an engine runs."""
    return [name for name, known in _TABLE.items() if engine != "mlx" or known.mlx is not None]


def language_model(model_type: object) -> Architecture | None:
    """The architecture of the language model in a multimodal model; None for any other model."""
    return next((known for known in _TABLE.values() if known.part_of is not None and known.part_of == model_type), None)


_ROUTER = {Weight.W_ROUTER: Stored("mlp.router.weight", order=(1, 0)), Weight.B_ROUTER: Stored("mlp.router.bias")}


def _experts(anatomy: Anatomy) -> dict[Weight, Stored]:
    """gpt-oss: gate and up interleaved, every matrix (experts, in, out)."""
    path, bias = "mlp.experts.gate_up_proj", (anatomy.experts, anatomy.d_mlp, 2)
    matrix = (anatomy.experts, anatomy.d_model, anatomy.d_mlp, 2)
    return _ROUTER | {
        Weight.W_GATE: Stored(path, matrix, (..., 0)),
        Weight.W_IN: Stored(path, matrix, (..., 1)),
        Weight.W_OUT: Stored("mlp.experts.down_proj"),
        Weight.B_GATE: Stored(f"{path}_bias", bias, (..., 0)),
        Weight.B_IN: Stored(f"{path}_bias", bias, (..., 1)),
        Weight.B_OUT: Stored("mlp.experts.down_proj_bias"),
    }


def _mlx_experts(_: Anatomy) -> dict[Weight, Stored]:
    """gpt-oss in mlx-lm: every matrix (experts, out, in)."""
    return _ROUTER | {
        Weight.W_GATE: Stored("mlp.experts.gate_proj.weight", order=(0, 2, 1)),
        Weight.W_IN: Stored("mlp.experts.up_proj.weight", order=(0, 2, 1)),
        Weight.W_OUT: Stored("mlp.experts.down_proj.weight", order=(0, 2, 1)),
        Weight.B_GATE: Stored("mlp.experts.gate_proj.bias"),
        Weight.B_IN: Stored("mlp.experts.up_proj.bias"),
        Weight.B_OUT: Stored("mlp.experts.down_proj.bias"),
    }


_QWEN: dict[str, Any] = {"rms_norm_eps": 1e-6, "max_position_embeddings": 32_768}
_GEMMA_IN_MLX: dict[str, Any] = {
    "activation": "gelu_pytorch_tanh",
    "activation_setting": "hidden_activation",
    "scales_embedding": True,
}
_GEMMA2 = Architecture(
    name="gemma2",
    mlp_norm="pre_feedforward_layernorm",
    attention_write_norm="post_attention_layernorm",
    mlp_write_norm="post_feedforward_layernorm",
    gain_shift=1.0,
    full_attention_every=2,
    mlx=MlxModule(
        module="gemma2",
        always_tied=True,
        rope_scaling=False,
        defaults={
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 8192,
            "sliding_window": 4096,
            "query_pre_attn_scalar": 256,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        **_GEMMA_IN_MLX,
    ),
)

for _architecture in (
    Architecture(
        name="gpt2",
        base="transformer",
        embedding="wte",
        position_embedding="wpe",
        layers="h",
        final_norm="ln_f",
        rotary=None,
        attention="attn",
        attention_norm="ln_1",
        query="attn.c_attn",
        key="attn.c_attn",
        value="attn.c_attn",
        output_projection="attn.c_proj",
        mlp_norm="ln_2",
        gate_projection=None,
        up_projection="mlp.c_fc",
        down_projection="mlp.c_proj",
        input_first=True,
        layer_norm=True,
        mlx=MlxModule(
            module="gpt2",
            differs={"base": "model", "input_first": False},
            activation="gelu_new",
            always_tied=True,
            defaults={"n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "layer_norm_epsilon": 1e-5},
        ),
    ),
    Architecture(
        name="gpt_neox",
        base="gpt_neox",
        embedding="embed_in",
        final_norm="final_layer_norm",
        unembedding="embed_out",
        attention="attention",
        query="attention.query_key_value",
        key="attention.query_key_value",
        value="attention.query_key_value",
        interleaved=True,
        output_projection="attention.dense",
        gate_projection=None,
        up_projection="mlp.dense_h_to_4h",
        down_projection="mlp.dense_4h_to_h",
        layer_norm=True,
        parallel=True,
        cache_argument="layer_past",
        mlx=MlxModule(
            module="gpt_neox",
            differs={"base": "model", "layers": "h", "unembedding": "model.embed_out"},
            activation="gelu",
            partial_rotation="rotary_pct",
            rope_scaling=False,
            defaults={"layer_norm_eps": 1e-5, "max_position_embeddings": 2048},
        ),
    ),
    Architecture(name="llama", mlx=MlxModule(module="llama", defaults={"rms_norm_eps": 1e-6, "max_position_embeddings": 2048})),
    Architecture(
        name="mistral",
        full_attention_every=None,
        mlx=MlxModule(
            module="llama", defaults={"rms_norm_eps": 1e-6, "max_position_embeddings": 131_072, "sliding_window": 4096}
        ),
    ),
    Architecture(name="qwen2", mlx=MlxModule(module="qwen2", defaults=_QWEN)),
    Architecture(name="qwen3", mlx=MlxModule(module="qwen3", defaults=_QWEN)),
    Architecture(
        name="phi3",
        query="self_attn.qkv_proj",
        key="self_attn.qkv_proj",
        value="self_attn.qkv_proj",
        gate_projection="mlp.gate_up_proj",
        up_projection="mlp.gate_up_proj",
        full_attention_every=None,
        mlx=MlxModule(
            module="phi3",
            partial_rotation="partial_rotary_factor",
            rope_scaling=False,
            defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 4096},
        ),
    ),
    _GEMMA2,
    replace(
        _GEMMA2,
        name="gemma3_text",
        full_attention_every=6,
        rotary_by_layer_type=True,
        part_of="gemma3",
        prefixes={"language_model.model.": "model.", "language_model.lm_head.": "lm_head.", "model.language_model.": "model."},
        mlx=MlxModule(
            module="gemma3_text",
            windows=True,
            defaults={
                "vocab_size": 262_208,
                "hidden_size": 2304,
                "intermediate_size": 9216,
                "num_hidden_layers": 26,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "head_dim": 256,
                "max_position_embeddings": 131_072,
                "query_pre_attn_scalar": 256,
                "sliding_window": 4096,
                "rope_theta": 1_000_000.0,
            },
            **_GEMMA_IN_MLX,
        ),
    ),
    Architecture(
        name="gpt_oss",
        full_attention_every=2,
        experts=_experts,
        attention_sinks=True,
        mlx=MlxModule(
            module="gpt_oss",
            differs={"experts": _mlx_experts, "down_projection": "mlp.experts.down_proj"},
            windows=True,
            defaults={
                "rms_norm_eps": 1e-5,
                "sliding_window": 128,
                "num_experts_per_tok": 4,
                "num_local_experts": 128,
                "rope_theta": 150_000.0,
                "rope_parameters": {
                    "rope_type": "yarn",
                    "factor": 32.0,
                    "beta_fast": 32.0,
                    "beta_slow": 1.0,
                    "truncate": False,
                    "original_max_position_embeddings": 4096,
                },
            },
        ),
    ),
):
    register(_architecture)
