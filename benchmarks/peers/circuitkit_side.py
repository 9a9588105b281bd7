"""circuitkit's side: its EAP and EAP-IG, on TransformerLens 3's HookedTransformer as it wants it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from circuitkit.backends.eap.attribute import get_scores_eap, get_scores_eap_ig
from circuitkit.backends.eap.graph import Graph
from harness import Job, Work, difference, main, transformers_model
from transformer_lens import HookedTransformer
from transformer_lens import loading_from_pretrained as loading
from transformers import AutoTokenizer

BATCH = 8


class Batches:
    """The pairs as texts, in batches, the way its data loaders give them. `templated` keeps a start token from being added."""

    pair_padding_side = "right"
    templated = True

    def __init__(self, clean: list[str], corrupt: list[str], answers: torch.Tensor) -> None:
        self.clean, self.corrupt, self.answers = clean, corrupt, answers

    def __iter__(self) -> Iterator[tuple[list[str], list[str], torch.Tensor]]:
        for first in range(0, len(self.clean), BATCH):
            last = first + BATCH
            yield self.clean[first:last], self.corrupt[first:last], self.answers[first:last]


def prepare(work: Work) -> Mapping[str, Mapping[str, Job]]:
    tokenizer = AutoTokenizer.from_pretrained(work.weights)
    source = transformers_model(work)
    # `from_pretrained` takes known names only; these are its steps for a folder.
    config = loading.get_pretrained_model_config(str(work.weights), hf_cfg=source.config.to_dict(), fold_ln=False, device="cpu")
    model = HookedTransformer(config, tokenizer)
    state = loading.get_pretrained_state_dict(str(work.weights), config, source)
    model.load_and_process_state_dict(
        state, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    model.set_use_split_qkv_input(True)
    model.set_use_attn_result(True)
    model.set_use_hook_mlp_in(True)
    model.set_ungroup_grouped_query_attention(True)
    texts = [[tokenizer.decode(row) for row in rows] for rows in (work.pairs_clean, work.pairs_corrupt)]
    batches = Batches(*texts, work.pairs_answers)

    def metric(logits: torch.Tensor, _clean: torch.Tensor, _lengths: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        return difference(logits, answers) * len(answers)  # it sums over examples and divides by their number in the end

    def scored(method: Any, **options: Any) -> Mapping[str, Any]:
        return {"values": method(model, Graph.from_model(model), batches, metric, quiet=True, **options).detach().numpy()}

    return {
        "eap": {"job": lambda: scored(get_scores_eap)},
        "eap_ig": {"job": lambda: scored(get_scores_eap_ig, steps=5)},
    }


if __name__ == "__main__":
    main(prepare)
