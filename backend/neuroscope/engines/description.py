"""The description of an architecture: paths of its parts, and its variations from Llama."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.layout import HeadRows, Stored
from neuroscope.engines.sites import Component
from neuroscope.engines.weights import Weight
from neuroscope.errors import UnsupportedArchitectureError

Slot = TypeVar("Slot", bound=HeadRows)
#: How the weights of a mixture of experts are stored.
Experts = Callable[[Anatomy], Mapping[Weight, Stored]]


@dataclass(frozen=True, kw_only=True)
class MlxModule:
    """How mlx-lm's model of an architecture differs from that of transformers.

    module:             its module in `mlx_lm.models`.
    differs:            fields of the `Architecture` that differ.
    activation:         Hugging Face name of its MLP's nonlinearity; configurations with another are refused.
    activation_setting: the setting of the configuration that names it.
    windows:            whether it supports sliding windows; if not, only short prompts run bare.
    scales_embedding:   whether it multiplies the embedding by √d_model.
    always_tied:        whether its unembedding is always the embedding.
    partial_rotation:   its setting for the share of each head that is rotated; None if it rotates whole heads.
    rope_scaling:       whether it supports rotary scalings.
    defaults:           defaults of settings for which mlx-lm assumes other values.
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
    """The description of an architecture. The defaults are Llama's.

    name:                 `model_type` of its configuration.
    base:                 path from the model to the part without the unembedding. From there: `embedding`, `position_embedding`,
                          `layers`, `final_norm`, and `rotary`, which makes the rotations of positions (None: there are none).
    unembedding:          path from the model; `get_output_embeddings` of transformers' model takes precedence.
    attention … :         paths from a layer. `attention_write_norm` and `mlp_write_norm` are norms of what is written to the
                          stream (Gemma); `gate_projection` is None if the MLP is not gated.
    query, key, value:    projections. One path for all three means one fused matrix: all queries, all keys, all values, or,
                          with `interleaved`, query, key and value head by head (as many key-value heads as heads).
    gate_projection, up_projection: one path for both means one fused matrix, gates first.
    input_first:          whether matrices are stored (in, out) instead of (out, in) as in `nn.Linear`.
    layer_norm:           whether norms are LayerNorm, which centre; else RMSNorm.
    gain_shift:           difference between a norm's gain and its stored weight (Gemma: 1).
    parallel:             whether attention and MLP read the same stream, unless the configuration says so.
    full_attention_every: n, if the configuration does not list its layers' types: each n-th layer has full attention, the
    others
                          a sliding window, if the configuration has one; None: all have a window.
    rotary_by_layer_type: whether `rotary` is called once for each type of layer.
    cache_argument:       the argument by which a layer of transformers takes the cache of keys and values.
    experts:              how the weights of a mixture of experts of gpt-oss's kind are stored.
    attention_sinks:      whether heads have sinks.
    part_of:              `model_type` of multimodal models whose language model this is; `prefixes` maps the prefixes of its
                          weights there, by the versions that wrote them, to those in a language model alone.
    mlx:                  mlx-lm's model; None if the engine mlx does not run it.
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
        """The positions of all heads' queries, keys and values among the features of their projections."""
        heads, groups, d_head = anatomy.heads, anatomy.key_value_heads, anatomy.d_head
        paths = {Component.QUERY: self.query, Component.KEY: self.key, Component.VALUE: self.value}
        counts = {Component.QUERY: heads, Component.KEY: groups, Component.VALUE: groups}
        if len(set(paths.values())) == 3:
            return {c: kind(path, counts[c], (counts[c], d_head), (slice(None),)) for c, path in paths.items()}
        if len(set(paths.values())) == 2 or (self.interleaved and heads != groups):
            what = f"{groups} interleaved key-value heads of {heads} heads" if self.interleaved else "two of three fused"
            raise UnsupportedArchitectureError(
                f"{self.name}: queries, keys and values cannot be told apart: {what}.",
                remedy="Give each its own matrix, or one matrix for all three.",
            )
        if self.interleaved:
            return {c: kind(path, heads, (heads, 3, d_head), (slice(None), i)) for i, (c, path) in enumerate(paths.items())}
        starts = dict(zip(paths, (0, heads, heads + groups), strict=True))
        split = (heads + 2 * groups, d_head)
        return {c: kind(p, counts[c], split, (slice(starts[c], starts[c] + counts[c]),)) for c, p in paths.items()}

    def layer_types(self, setting: Callable[[str], Any]) -> list[str]:
        """The kind of every layer, "sliding_attention" or "full_attention"; `setting` as in `anatomy`."""
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
        """Sizes from a configuration. `setting` returns the value of a setting, or None.

        Raises `UnsupportedArchitectureError` for a missing size.
        """
        for name in ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size"):
            if not setting(name):
                raise UnsupportedArchitectureError(
                    f"The configuration of {self.name} has no {name}.",
                    remedy="If it has it under another name, add that to attribute_map of its class.",
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
    """Most tokens of a text. Beyond this, LongRoPE changes the rotation of all tokens, which makes cached keys invalid."""
    rope = setting("rope_parameters") or setting("rope_scaling") or {}
    longest = setting("max_position_embeddings") or 0
    if (rope.get("rope_type") or rope.get("type")) in ("longrope", "su"):
        original = rope.get("original_max_position_embeddings") or setting("original_max_position_embeddings") or longest
        return int(min(original, longest or original))
    return int(longest)
