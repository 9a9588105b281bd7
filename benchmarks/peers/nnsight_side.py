"""nnsight's side: the same captures in a trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from harness import Job, Work, main, transformers_model
from nnsight import LanguageModel
from transformers import AutoTokenizer


def prepare(work: Work) -> Mapping[str, Mapping[str, Job]]:
    bare = transformers_model(work)
    model = LanguageModel(transformers_model(work), tokenizer=AutoTokenizer.from_pretrained(work.weights))

    def plain() -> Mapping[str, Any]:
        with torch.inference_mode():
            bare(input_ids=work.capture)
        return {}

    def captured() -> Mapping[str, Any]:
        with torch.inference_mode(), model.trace({"input_ids": work.capture}):
            kept = []
            for layer in model.model.layers:  # Llama's names: nnsight keeps each architecture's own
                kept += [layer.self_attn.output[0], layer.mlp.output, layer.output]
            kept = kept.save()
        return {"values": torch.stack([kept[2].reshape(kept[0].shape), kept[0], kept[1]]).numpy()}

    return {"capture": {"bare": plain, "job": captured}}


if __name__ == "__main__":
    main(prepare)
