"""The table of architectures: where each keeps its parts, and what else must be known of it.

Both engines read it when a model is loaded, and so does whoever else must know an architecture. `register` adds to it:

    from dataclasses import replace

    from neuroscope.engines import architectures

    architectures.register(
        replace(architectures.find("llama"), name="mine", attention="attn", query="attn.wq", key="attn.wk", value="attn.wv",
                output_projection="attn.wo", mlx=None)
    )

An installed package adds one by an entry point of the group `neuroscope.architectures`, which the command line and the server
find too. A model that does not fit its description is refused when it is loaded, with the path or the shape that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Any, TypeVar

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.layout import HeadRows, Stored
from neuroscope.engines.sites import Component
from neuroscope.engines.weights import Weight
from neuroscope.errors import ArgumentError, UnsupportedArchitectureError

Slot = TypeVar("Slot", bound=HeadRows)
#: Where the weights of a mixture of experts are.
Experts = Callable[[Anatomy], Mapping[Weight, Stored]]


@dataclass(frozen=True, kw_only=True)
class MlxModule:
    """mlx-lm's model of an architecture, as far as it differs from that of transformers.

    module:             its module in `mlx_lm.models`.
    differs:            fields of the `Architecture` that are others there.
    activation:         what its MLP computes, by its Hugging Face name; a configuration that asks for another is refused.
    activation_setting: the setting of the configuration that names it.
    windows:            whether it knows the sliding windows; where not, only short prompts run bare.
    scales_embedding:   whether it multiplies the embedding by √d_model.
    always_tied:        whether it has no unembedding of its own.
    partial_rotation:   its setting for the share of each head that is rotated; None where it rotates whole heads.
    rope_scaling:       whether it knows rotary scalings.
    defaults:           what a configuration means where it is silent, where mlx-lm takes it to mean something else.
    """

    module: str
    differs: Mapping[str, Any] = field(default_factory=dict)
    activation: str = "silu"
    activation_setting: str = "hidden_act"
    windows: bool = False
    scales_embedding: bool = False
    always_tied: bool = False
    partial_rotation: str | None = None
    rope_scaling: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What must be known of an architecture. What is not given is as in Llama.

    name:                 `model_type` of its configuration.
    base:                 path from the model to the part without the unembedding. From there: `embedding`, `position_embedding`,
                          `layers`, `final_norm`, and `rotary`, which makes the rotations of positions (None: there are none).
    unembedding:          path from the model; where `get_output_embeddings` of transformers' model names it, that is it.
    attention … :         paths from a layer. `attention_write_norm` and `mlp_write_norm` are norms of what is written to the
                          stream (Gemma); `gate_projection` is None where the MLP is not gated.
    query, key, value:    projections. One path for all three means one fused matrix: all queries, all keys, all values, or,
                          with `interleaved`, query, key and value head by head (as many key-value heads as heads).
    gate_projection, up_projection: one path for both means one fused matrix, gates first.
    input_first:          whether matrices are stored (in, out), and not (out, in) as by `nn.Linear`.
    layer_norm:           whether norms are LayerNorm, which centre; else RMSNorm.
    gain_shift:           the norms' gains less this are what is stored (Gemma: 1).
    parallel:             whether attention and MLP read the same stream, where the configuration does not say.
    full_attention_every: where the configuration does not list its layers' types, every so-manieth layer has full attention
                          and the others a sliding window, if the configuration has one; None: all have a window.
    rotary_by_layer_type: whether `rotary` is asked once for every type of layers.
    cache_argument:       under which name a layer of transformers takes the cache of keys and values.
    experts:              where the weights of a mixture of experts of gpt-oss's kind are.
    attention_sinks:      whether heads have sinks.
    part_of:              `model_type` of models of several parts whose language model this is; `prefixes` are those of its
                          weights there, by the versions that wrote them, with their names in a language model alone.
    mlx:                  mlx-lm's model; None where the engine mlx does not run it.
    """

    name: str
    base: str = "model"
    embedding: str = "embed_tokens"
    position_embedding: str | None = None
    layers: str = "layers"
    final_norm: str = "norm"
    rotary: str | None = "rotary_emb"
    unembedding: str = "lm_head"
    attention: str = "self_attn"
    attention_norm: str = "input_layernorm"
    attention_write_norm: str | None = None
    query: str = "self_attn.q_proj"
    key: str = "self_attn.k_proj"
    value: str = "self_attn.v_proj"
    interleaved: bool = False
    output_projection: str = "self_attn.o_proj"
    mlp: str = "mlp"
    mlp_norm: str = "post_attention_layernorm"
    mlp_write_norm: str | None = None
    gate_projection: str | None = "mlp.gate_proj"
    up_projection: str = "mlp.up_proj"
    down_projection: str = "mlp.down_proj"
    input_first: bool = False
    layer_norm: bool = False
    gain_shift: float = 0.0
    parallel: bool = False
    full_attention_every: int | None = 1
    rotary_by_layer_type: bool = False
    cache_argument: str = "past_key_values"
    experts: Experts | None = None
    attention_sinks: bool = False
    part_of: str | None = None
    prefixes: Mapping[str, str] = field(default_factory=dict)
    mlx: MlxModule | None = None

    @property
    def gated(self) -> bool:
        """Whether an MLP has three matrices: gate, up and down."""
        return self.moe or self.gate_projection is not None

    @property
    def moe(self) -> bool:
        """Whether its MLPs are mixtures of experts."""
        return self.experts is not None

    def path(self, part: str) -> str:
        """The path of `embedding`, `layers`, … from the model."""
        return f"{self.base}.{getattr(self, part)}" if self.base else str(getattr(self, part))

    def in_mlx(self) -> Architecture:
        """The same in mlx-lm's model."""
        return self if self.mlx is None else replace(self, **self.mlx.differs)

    def slots(self, anatomy: Anatomy, kind: type[Slot]) -> dict[Component, Slot]:
        """Where queries, keys and values of all heads lie among the features of their projections."""
        heads, groups, d_head = anatomy.heads, anatomy.key_value_heads, anatomy.d_head
        paths = {Component.QUERY: self.query, Component.KEY: self.key, Component.VALUE: self.value}
        counts = {Component.QUERY: heads, Component.KEY: groups, Component.VALUE: groups}
        if len(set(paths.values())) == 3:
            return {c: kind(path, counts[c], (counts[c], d_head), (slice(None),)) for c, path in paths.items()}
        if len(set(paths.values())) == 2 or (self.interleaved and heads != groups):
            what = f"{groups} interleaved key-value heads of {heads} heads" if self.interleaved else "two of three fused"
            raise UnsupportedArchitectureError(
                f"{self.name}: queries, keys and values cannot be told apart: {what}.",
                remedy="Give each a matrix of its own, or one matrix for all three.",
            )
        if self.interleaved:
            return {c: kind(path, heads, (heads, 3, d_head), (slice(None), i)) for i, (c, path) in enumerate(paths.items())}
        starts = dict(zip(paths, (0, heads, heads + groups), strict=True))
        split = (heads + 2 * groups, d_head)
        return {c: kind(p, counts[c], split, (slice(starts[c], starts[c] + counts[c]),)) for c, p in paths.items()}

    def layer_types(self, setting: Callable[[str], Any]) -> list[str]:
        """ "sliding_attention" or "full_attention" for every layer; see `anatomy`."""
        given = setting("layer_types")
        if given is not None:
            for kind in set(given) - {"full_attention", "sliding_attention"}:
                raise UnsupportedArchitectureError(
                    f"{self.name}: {kind!r} is not known.", remedy="Layers have full_attention or sliding_attention."
                )
            return list(given)
        period = setting("sliding_window_pattern") or setting("_sliding_window_pattern") or self.full_attention_every
        layers = range(1, setting("num_hidden_layers") + 1)
        return ["full_attention" if period and layer % period == 0 else "sliding_attention" for layer in layers]

    def anatomy(self, setting: Callable[[str], Any]) -> Anatomy:
        """Sizes from a configuration, which answers a setting by its name, or None.

        Raises `UnsupportedArchitectureError` for a size that it lacks.
        """
        for name in ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size"):
            if not setting(name):
                raise UnsupportedArchitectureError(
                    f"The configuration of {self.name} has no {name}.",
                    remedy="Its class says by attribute_map under which name it has it.",
                )
        heads, d_model, window = setting("num_attention_heads"), setting("hidden_size"), setting("sliding_window")
        parallel = setting("use_parallel_residual")
        return Anatomy(
            architecture=self.name,
            layers=setting("num_hidden_layers"),
            heads=heads,
            key_value_heads=setting("num_key_value_heads") or heads,
            d_model=d_model,
            d_head=setting("head_dim") or d_model // heads,
            d_mlp=setting("intermediate_size") or setting("n_inner") or 4 * d_model,
            vocabulary=setting("vocab_size"),
            context=_context(setting),
            experts=setting("num_local_experts") if self.moe else 0,
            experts_per_token=setting("num_experts_per_tok") if self.moe else 0,
            parallel=self.parallel if parallel is None else bool(parallel),
            attention_sinks=self.attention_sinks,
            sliding_windows=tuple(window if kind == "sliding_attention" else None for kind in self.layer_types(setting)),
        )


def _context(setting: Callable[[str], Any]) -> int:
    """Tokens that a text may have. LongRoPE rotates all tokens of a longer text otherwise: its keys could not be kept."""
    rope = setting("rope_parameters") or setting("rope_scaling") or {}
    longest = setting("max_position_embeddings") or 0
    if (rope.get("rope_type") or rope.get("type")) in ("longrope", "su"):
        original = rope.get("original_max_position_embeddings") or setting("original_max_position_embeddings") or longest
        return int(min(original, longest or original))
    return int(longest)


# --- the table ---------------------------------------------------------------------------------------------------------

_TABLE: dict[str, Architecture] = {}

#: Entry points by which an installed package adds an architecture: its name, and where the `Architecture` is.
GROUP = "neuroscope.architectures"


def register(architecture: Architecture) -> None:
    """Add an architecture to the table, for all models that are loaded from now on.

    transformers must be able to load it (`AutoConfig.register`, `AutoModelForCausalLM.register`), and its attention must
    go through transformers' attention functions. Raises `ArgumentError` for a name that is taken.
    """
    if not isinstance(architecture, Architecture):
        raise ArgumentError(f"{architecture!r} is not an Architecture.", remedy="register(Architecture(name=…, …))")
    if architecture.name in _TABLE or any(architecture.name == known.part_of for known in _TABLE.values()):
        raise ArgumentError(
            f"There is an architecture {architecture.name!r} already.",
            remedy="Give the other `model_type` in its configuration.",
        )
    _TABLE[architecture.name] = architecture


def table() -> Mapping[str, Architecture]:
    """All architectures by name."""
    return _TABLE


def find(name: str, engine: str = "torch") -> Architecture:
    """An architecture by `model_type`, from the table or from the entry point of that name in an installed package.

    Raises `UnsupportedArchitectureError`, which says what an engine supports.
    """
    if name not in _TABLE:
        for entry in entry_points(group=GROUP, name=name):
            register(entry.load())
    found = _TABLE.get(name)
    if found is not None and (engine != "mlx" or found.mlx is not None):
        return found
    parts = {known.part_of for known in _TABLE.values() if known.part_of is not None and known.name in supported(engine)}
    raise UnsupportedArchitectureError(
        f"The engine {engine} has no architecture {name!r}" + (", torch does." if found is not None else "."),
        remedy=f"Supported: {', '.join(sorted({*supported(engine), *parts}))}. neuroscope.engines.architectures.register adds one.",
    )


def supported(engine: str) -> Collection[str]:
    """Names of the architectures that an engine runs."""
    return [name for name, known in _TABLE.items() if engine != "mlx" or known.mlx is not None]


def language_model(model_type: object) -> Architecture | None:
    """The architecture of the language model in a model of several parts; None where a model is no such."""
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
    mlx=MlxModule(module="gemma2", always_tied=True, rope_scaling=False, **_GEMMA_IN_MLX),
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
        ),
    ),
    Architecture(name="llama", mlx=MlxModule(module="llama")),
    Architecture(name="mistral", full_attention_every=None, mlx=MlxModule(module="llama")),
    Architecture(name="qwen2", mlx=MlxModule(module="qwen2")),
    Architecture(name="qwen3", mlx=MlxModule(module="qwen3")),
    Architecture(
        name="phi3",
        query="self_attn.qkv_proj",
        key="self_attn.qkv_proj",
        value="self_attn.qkv_proj",
        gate_projection="mlp.gate_up_proj",
        up_projection="mlp.gate_up_proj",
        full_attention_every=None,
        mlx=MlxModule(module="phi3", partial_rotation="partial_rotary_factor", rope_scaling=False),
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
        ),
    ),
):
    register(_architecture)
