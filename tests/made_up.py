"""An architecture that NeuroScope does not know, as its author would write it for transformers, and its description.

Its layout is like no other's: one matrix for queries, keys and values of grouped heads, with a bias; an MLP that is not gated;
parts of a layer within parts; names of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb

from neuroscope.engines.architectures import Architecture


class MadeUpConfig(PreTrainedConfig):
    model_type = "made_up"
    vocab_size: int = 97
    hidden_size: int = 32
    intermediate_size: int = 48
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 128
    tie_word_embeddings: bool = False
    rope_parameters: Any = None


class Mixing(nn.Module):
    is_causal = True

    def __init__(self, config: MadeUpConfig, index: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, index
        self.sizes = [config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads]
        self.num_key_value_groups = self.sizes[0] // self.sizes[1]
        self.d_head = config.hidden_size // self.sizes[0]
        self.everything = nn.Linear(config.hidden_size, sum(self.sizes) * self.d_head)
        self.back = nn.Linear(self.sizes[0] * self.d_head, config.hidden_size)

    def forward(self, x: Tensor, rotation: Any, attention_mask: Any, cache: Any, **settings: Any) -> tuple[Tensor, None]:
        every = self.everything(x).unflatten(-1, (-1, self.d_head)).transpose(1, 2)
        query, key, value = every.split(self.sizes, dim=1)
        query, key = apply_rotary_pos_emb(query, key, *rotation)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        heads, _ = attend(self, query, key, value, attention_mask, scaling=self.d_head**-0.5, **settings)
        return self.back(heads.flatten(2)), None


class Thinking(nn.Module):
    def __init__(self, config: MadeUpConfig) -> None:
        super().__init__()
        self.widen = nn.Linear(config.hidden_size, config.intermediate_size)
        self.narrow = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(nn.functional.silu(self.widen(x)))


class Storey(nn.Module):
    def __init__(self, config: MadeUpConfig, index: int) -> None:
        super().__init__()
        self.work = nn.ModuleDict({"mix": Mixing(config, index), "think": Thinking(config)})
        self.first, self.second = LlamaRMSNorm(config.hidden_size), LlamaRMSNorm(config.hidden_size)

    def forward(
        self, x: Tensor, attention_mask: Any = None, position_embeddings: Any = None, memory: Any = None, **settings: Any
    ) -> Tensor:
        x = x + self.work["mix"](self.first(x), position_embeddings, attention_mask, memory, **settings)[0]
        return x + self.work["think"](self.second(x))


class MadeUpForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = MadeUpConfig
    base_model_prefix = "trunk"
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: MadeUpConfig) -> None:
        super().__init__(config)
        self.trunk = nn.ModuleDict(
            {
                "words": nn.Embedding(config.vocab_size, config.hidden_size),
                "storeys": nn.ModuleList(Storey(config, index) for index in range(config.num_hidden_layers)),
                "roof": LlamaRMSNorm(config.hidden_size),
                "turn": LlamaRotaryEmbedding(config),
            }
        )
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        x = self.trunk["words"](input_ids)
        mask = create_causal_mask(self.config, x, attention_mask, past_key_values=past_key_values, position_ids=position_ids)
        rotation = self.trunk["turn"](x, position_ids)
        for storey in self.trunk["storeys"]:
            x = storey(x, attention_mask=mask, position_embeddings=rotation, memory=past_key_values)
        return CausalLMOutputWithPast(logits=self.lm_head(self.trunk["roof"](x)), past_key_values=past_key_values)


AutoConfig.register("made_up", MadeUpConfig)
AutoModelForCausalLM.register(MadeUpConfig, MadeUpForCausalLM)

MADE_UP = Architecture(
    name="made_up",
    base="trunk",
    embedding="words",
    layers="storeys",
    final_norm="roof",
    rotary="turn",
    attention="work.mix",
    attention_norm="first",
    query="work.mix.everything",
    key="work.mix.everything",
    value="work.mix.everything",
    output_projection="work.mix.back",
    mlp="work.think",
    mlp_norm="second",
    gate_projection=None,
    up_projection="work.think.widen",
    down_projection="work.think.narrow",
    cache_argument="memory",
)


def random_model(seed: int = 0) -> MadeUpForCausalLM:
    torch.manual_seed(seed)
    model = MadeUpForCausalLM(MadeUpConfig())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2) if parameter.ndim > 1 else parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()
