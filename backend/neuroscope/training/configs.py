"""The two architectures that ship: deep and narrow, because scripts name layers 10 and 12."""

from __future__ import annotations

from typing import Any

from neuroscope.training.vocabulary import SIZE

CONTEXT = 256

#: Name in the documented scripts → its stand-in.
NAMES = ("gpt2-medium", "gpt-oss-20b")


def config(name: str) -> Any:
    """The Hugging Face configuration of a bundled model."""
    from transformers import GPT2Config, GptOssConfig

    ends = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    if name == "gpt2-medium":
        return GPT2Config(
            vocab_size=SIZE,
            n_positions=CONTEXT,
            n_embd=112,
            n_layer=13,
            n_head=7,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **ends,
        )
    if name == "gpt-oss-20b":
        return GptOssConfig(
            vocab_size=SIZE,
            hidden_size=128,
            intermediate_size=128,
            num_hidden_layers=13,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=16,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=64,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 2.0,
                "original_max_position_embeddings": CONTEXT // 2,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
            },
            router_aux_loss_coef=0.01,
            initializer_range=0.05,
            **ends,
        )
    raise ValueError(f"No bundled model is called {name!r}: they are {', '.join(NAMES)}.")
