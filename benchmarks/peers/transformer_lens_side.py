"""TransformerLens 4's side: its patching module and `run_with_cache`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from harness import Job, Work, difference, main, transformers_model
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer

EARLY = 5


def prepare(work: Work) -> Mapping[str, Mapping[str, Job]]:
    import pandas

    model = TransformerBridge.boot_transformers(
        str(work.weights),
        hf_model=transformers_model(work, attn_implementation="eager"),
        tokenizer=AutoTokenizer.from_pretrained(work.weights),
        device="cpu",
    )
    bare = transformers_model(work)

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return difference(logits, work.sweep_answers)

    def patched(name: str, **options: Any) -> Mapping[str, Any]:
        with torch.inference_mode():
            _, cache = model.run_with_cache(work.sweep_clean)
            found = getattr(patching, name)(model, work.sweep_corrupt, cache, metric, **options)
        return {"values": found.flatten().numpy()}

    def chosen() -> Mapping[str, Any]:
        """Some of the cells of layer × position × head: all of them would take a quarter of an hour."""
        with torch.inference_mode():
            _, cache = model.run_with_cache(work.sweep_clean)
            found = patching.generic_activation_patch(
                model,
                work.sweep_corrupt,
                cache,
                metric,
                patching.layer_pos_head_vector_patch_setter,
                "z",
                index_df=pandas.DataFrame(work.cells.numpy(), columns=["layer", "pos", "head"]),
            )
        return {"values": found.numpy()}

    def plain() -> Mapping[str, Any]:
        with torch.inference_mode():
            bare(input_ids=work.capture)
        return {}

    names = [
        f"blocks.{layer}.{kind}"
        for layer in range(model.cfg.n_layers)
        for kind in ("hook_out", "attn.hook_out", "mlp.hook_out")
    ]

    def captured() -> Mapping[str, Any]:
        with torch.inference_mode():
            _, cache = model.run_with_cache(work.capture, names_filter=names)
        return {"values": torch.stack([cache[name] for name in names[:3]]).numpy()}

    return {
        "heads": {"job": lambda: patched("get_act_patch_attn_head_out_all_pos")},
        "cells": {"job": chosen},
        "own": {"job": chosen},
        "streams": {"job": lambda: patched("get_act_patch_resid_pre")},
        "capture": {"bare": plain, "job": captured},
    }


if __name__ == "__main__":
    main(prepare)
