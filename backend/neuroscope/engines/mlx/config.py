"""Hugging Face configurations translated for mlx-lm, and checked for settings that it would ignore silently.

transformers 5 nests the rotary settings under `rope_parameters`, where most of mlx-lm does not look: it would silently use a
base of 10,000. A nonlinearity or a scale that mlx-lm's code does not support raises an error here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines.architectures import Architecture, MlxModule
from neuroscope.errors import UnsupportedArchitectureError

#: Kinds of rotary scaling whose parity with torch is tested.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")

_Config = dict[str, Any]


def translated(config: _Config, architecture: Architecture) -> _Config:
    """The configuration, with settings added under the names that mlx-lm reads.

    Raises `UnsupportedArchitectureError` for settings that mlx-lm does not support for this architecture.
    """
    mlx = of_mlx(architecture)
    found = {**mlx.defaults, **config}
    if mlx.module == "gpt2":
        _standard_names(found)
    found["num_key_value_heads"] = found.get("num_key_value_heads") or found["num_attention_heads"]
    found["head_dim"] = found.get("head_dim") or found["hidden_size"] // found["num_attention_heads"]
    found["layer_types"] = architecture.layer_types(found.get)
    if mlx.module == "gemma3_text":
        found["sliding_window_pattern"] = _period(found["layer_types"])
    _refuse(found, architecture)
    _rotation(found, mlx)
    return found


def of_mlx(architecture: Architecture) -> MlxModule:
    """The description of mlx-lm's model."""
    assert architecture.mlx is not None, "loading found it by engine"
    return architecture.mlx


def _standard_names(config: _Config) -> None:
    config.update(
        hidden_size=config["n_embd"],
        num_hidden_layers=config["n_layer"],
        num_attention_heads=config["n_head"],
        max_position_embeddings=config["n_positions"],
        intermediate_size=config.get("n_inner"),
        hidden_act=config.get("activation_function"),
        n_ctx=config["n_positions"],
    )


def activation_of(config: _Config, mlx: MlxModule) -> str:
    """Hugging Face's name of the MLP's nonlinearity."""
    return config.get(mlx.activation_setting) or mlx.activation


def _refuse(config: _Config, architecture: Architecture) -> None:
    wrong: list[str] = []
    mlx = of_mlx(architecture)
    activation = activation_of(config, mlx)
    if architecture.experts is None and activation != mlx.activation:
        wrong.append(f"the nonlinearity {activation!r}, not {mlx.activation!r}")
    for name in ("scale_attn_by_inverse_layer_idx", "use_bidirectional_attention", "use_sliding_window"):
        if config.get(name):
            wrong.append(name)
    if config.get("scale_attn_weights") is False:
        wrong.append("attention scores that are not scaled")
    if mlx.always_tied and config.get("tie_word_embeddings") is False:
        wrong.append("an unembedding separate from the embedding")
    if mlx.module == "gemma3_text":
        if config["sliding_window_pattern"] is None:
            wrong.append("full-attention layers at irregular intervals")
        wrong.extend(name for name in ("attn_logit_softcapping", "final_logit_softcapping") if config.get(name))
    if wrong:
        raise UnsupportedArchitectureError(
            f"mlx-lm's {config['model_type']} does not support what this configuration asks for: {'; '.join(wrong)}.",
            remedy="Load it with the engine torch.",
        )


def _period(types: list[str]) -> int | None:
    """Gemma 3: the period of full-attention layers; None if irregular."""
    full = [layer for layer, kind in enumerate(types) if kind == "full_attention"]
    period = full[0] + 1 if full else len(types) + 1
    return period if full == list(range(period - 1, len(types), period)) else None


def _rotation(config: _Config, mlx: MlxModule) -> None:
    """Put the rotary settings where mlx-lm reads them.

    As in transformers, older files' `rope_scaling` takes precedence over `rope_parameters`; in Gemma 3 over those of full
    attention.
    """
    given = config.get("rope_parameters") or mlx.defaults.get("rope_parameters") or {}
    older = config.get("rope_scaling") or {}
    if mlx.module == "gemma3_text":
        local = given.get("sliding_attention") or {}
        if _rope_type(local) != "default":
            raise _no_rope(_rope_type(local))
        config["rope_local_base_freq"] = local.get("rope_theta") or config.get("rope_local_base_freq") or 10_000.0
        merged = {"rope_type": "default", **(given.get("full_attention") or {}), **older}
    else:
        merged = older or given
    scaling = {"rope_type": _rope_type(merged)} | {k: v for k, v in merged.items() if k not in ("type", "rope_type")}
    if scaling["rope_type"] not in (ROPE_TYPES if mlx.rope_scaling else ("default",)):
        raise _no_rope(scaling["rope_type"])
    theta = scaling.pop("rope_theta", None) or config.get("rope_theta") or config.get("rotary_emb_base")
    config["rope_theta"] = theta = theta or 10_000.0
    share = scaling.pop("partial_rotary_factor", None)
    if mlx.module == "gpt_neox":
        config["rotary_emb_base"] = theta
        config.setdefault("rotary_pct", 0.25)
    if mlx.partial_rotation is not None:
        share = config.get(mlx.partial_rotation) if share is None else share
        config[mlx.partial_rotation] = 1.0 if share is None else share
    elif share not in (None, 1.0):
        raise UnsupportedArchitectureError(
            f"mlx-lm's {mlx.module} rotates whole heads, not {share} of them.", remedy="Load it with the engine torch."
        )
    config["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling
    config["rope_parameters"] = None


def _rope_type(settings: _Config) -> str:
    return settings.get("rope_type") or settings.get("type") or "default"


def _no_rope(kind: str) -> UnsupportedArchitectureError:
    return UnsupportedArchitectureError(
        f"The engine mlx does not support the rotary scaling {kind!r} for this architecture.",
        remedy=f"Supported: {', '.join(ROPE_TYPES)}. The engine torch supports more.",
    )


def yarn(dims: int, base: float, settings: _Config) -> tuple[NDArray[np.float32], float]:
    """YaRN's wavelengths divided by 2π (dims/2,), and its factor for queries and keys.

    Source: Peng et al. 2023, "YaRN: Efficient Context Window Extension of Large Language Models". mlx-lm always rounds the
    range of blended dimensions to integers; gpt-oss is trained with `truncate: false`, without rounding.
    """
    factor, context = settings["factor"], settings["original_max_position_embeddings"]

    def turning(rotations: float) -> float:
        """The dimension that makes this many rotations within the original context."""
        return dims * math.log(context / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = turning(settings.get("beta_fast") or 32), turning(settings.get("beta_slow") or 1)
    if settings.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    ramp = np.clip((np.arange(dims // 2) - low) / max(high - low, 0.001), 0, 1)
    plain = base ** (-np.arange(0, dims, 2) / dims)
    frequencies = plain / factor * ramp + plain * (1 - ramp)

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    attention = settings.get("attention_factor")
    if attention is None:
        weights = settings.get("mscale"), settings.get("mscale_all_dim")
        attention = scale(weights[0]) / scale(weights[1]) if weights[0] and weights[1] else scale(1)
    return (1 / frequencies).astype(np.float32), float(attention)
