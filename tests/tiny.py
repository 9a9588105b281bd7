"""Tiny random models of every supported architecture on every engine, and a tokenizer of plain words."""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers import logging as transformers_logging

from neuroscope.engines.protocol import Engine
from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.models.model import TransformerModel

VOCABULARY = 97
LAYERS = 3

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2}
_HALF_ROTATED = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
_ROPE = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 2.0, "original_max_position_embeddings": 64}

#: Grouped queries, mixture of experts with sinks, sliding windows shorter than the prompts, parallel blocks, both norms.
CONFIGS: dict[str, Any] = {
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=LAYERS, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**_COMMON),
    "gpt_neox sequential": lambda: GPTNeoXConfig(**_COMMON, use_parallel_residual=False),
    "gpt_neox without attention bias": lambda: GPTNeoXConfig(**_COMMON, attention_bias=False),
    "llama": lambda: LlamaConfig(**_GROUPED),
    "mistral": lambda: MistralConfig(**_GROUPED, sliding_window=5),
    "qwen2": lambda: Qwen2Config(**_GROUPED),
    "qwen3": lambda: Qwen3Config(**_GROUPED, head_dim=16),
    "phi3": lambda: Phi3Config(**_GROUPED, rms_norm_eps=1e-6, sliding_window=5, rope_parameters=_HALF_ROTATED),
    "gemma2": lambda: Gemma2Config(**_GROUPED, head_dim=8, sliding_window=5),
    "gemma3": lambda: Gemma3TextConfig(
        **_GROUPED, head_dim=8, sliding_window=5, layer_types=["sliding_attention", "sliding_attention", "full_attention"]
    ),
    "gpt_oss": lambda: GptOssConfig(
        **_GROUPED, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=5, rope_parameters=_ROPE
    ),
}
ARCHITECTURES = tuple(CONFIGS)

HAVE_MLX = all(importlib.util.find_spec(package) for package in ("mlx", "mlx_lm"))
needs_mlx = pytest.mark.skipif(not HAVE_MLX, reason="needs MLX: pip install 'neuroscope-interp[mlx]'")
#: Every engine, for `pytest.mark.parametrize` and fixtures.
ENGINES = ("torch", pytest.param("mlx", marks=needs_mlx))


def hf_model(architecture: str, *, seed: int = 0, scale: float = 0.2) -> Any:
    """A Hugging Face model with weights large enough that every part matters."""
    transformers_logging.set_verbosity_error()
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(CONFIGS[architecture]())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=scale)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def engine(architecture: str, *, seed: int = 0, scale: float = 0.2) -> TorchEngine:
    return TorchEngine(hf_model(architecture, seed=seed, scale=scale))


def engine_on(name: str, architecture: str, *, seed: int = 0, scale: float = 0.2) -> Engine:
    """The same random model on the engine of that name."""
    if name == "torch":
        return engine(architecture, seed=seed, scale=scale)
    return TransformerModel.from_hugging_face(str(saved(architecture, seed, scale)), engine=name).engine


def engine_of(name: str, model: Any) -> Engine:
    """A Hugging Face model made by hand, on the engine of that name."""
    if name == "torch":
        return TorchEngine(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        return TransformerModel.from_hugging_face(folder, engine=name).engine


@cache
def saved(architecture: str, seed: int = 0, scale: float = 0.2) -> Path:
    """A folder with such a model and its tokenizer, as `save_pretrained` writes them."""
    folder = Path(_folders().name) / f"{architecture}-{seed}-{scale}".replace(" ", "-")
    hf_model(architecture, seed=seed, scale=scale).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@cache
def _folders() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="neuroscope-tiny-")


def tokenizer() -> PreTrainedTokenizerFast:
    """Words `w3` … `w96` (and a few special ones), one token each, separated by spaces."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, **{f"w{index}": index for index in range(3, VOCABULARY)}}
    tokens = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def model(architecture: str = "gpt2", *, seed: int = 0, scale: float = 0.2, on: str = "torch") -> TransformerModel:
    found = engine_on(on, architecture, seed=seed, scale=scale)
    return TransformerModel(found, tokenizer(), f"tiny {architecture}", f"hash-{seed}")
