"""NeuroScope's side of the benchmark, with the bare model's passes beside it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from harness import Job, Work, difference, main, transformers_model

from neuroscope import ActivationPatcher, TransformerModel
from neuroscope.circuits.attribution import edge_scores
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.circuits.sweeps import sweep
from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.tasks.metrics import PromptMetric
from neuroscope.tasks.pairs import PairBatch

EARLY = 5


def _pairs(clean: torch.Tensor, corrupt: torch.Tensor, answers: torch.Tensor) -> PairBatch:
    metric = PromptMetric("logit_difference", answers[:, 0].numpy(), answers[:, 1].numpy())
    return PairBatch(TokenBatch.of(clean.tolist()), TokenBatch.of(corrupt.tolist()), metric)


def prepare(work: Work) -> Mapping[str, Mapping[str, Job]]:
    model = TransformerModel.from_hugging_face(str(work.weights))
    engine = model.engine
    bare: Any = engine.model  # the plain transformers model; the engine drives its layers
    layers, heads = model.architecture.layers, model.architecture.heads
    pair = _pairs(work.sweep_clean, work.sweep_corrupt, work.sweep_answers)
    pairs = _pairs(work.pairs_clean, work.pairs_corrupt, work.pairs_answers)
    positions = pair.clean.positions

    def swept(sites: list[Site]) -> Mapping[str, Any]:
        runs = PairRuns(engine, pair)
        return {"values": sweep(runs, runs.corrupt, runs.clean, sites).mean(1)}

    def scores(method: str, steps: int) -> Mapping[str, Any]:
        return {"values": edge_scores(engine, pairs, method=method, steps=steps, rule="paper")}

    def passes(steps: int) -> Mapping[str, Any]:
        """The passes that attribution needs, and nothing else: clean, corrupt, and forward and backward for each step."""
        for first in range(0, len(work.pairs_clean), 8):
            clean, corrupt = work.pairs_clean[first : first + 8], work.pairs_corrupt[first : first + 8]
            with torch.inference_mode():
                bare(input_ids=clean)
                bare(input_ids=corrupt)
            for _ in range(steps):
                embedded = bare.get_input_embeddings()(clean).requires_grad_()
                difference(bare(inputs_embeds=embedded).logits, work.pairs_answers[first : first + 8]).backward()
        return {}

    batch = TokenBatch.of(work.capture.tolist())
    wanted = [
        Site(layer, kind) for layer in range(layers) for kind in (Component.RESIDUAL, Component.ATTENTION, Component.MLP_OUTPUT)
    ]

    @functools.cache
    def short() -> Any:
        model = transformers_model(work).base_model
        name = "h" if hasattr(model, "h") else "layers"
        setattr(model, name, getattr(model, name)[: EARLY + 1])
        return model

    def plain() -> Mapping[str, Any]:
        with torch.inference_mode():
            bare(input_ids=work.capture)
        return {}

    def needed() -> Mapping[str, Any]:
        with torch.inference_mode():
            short()(input_ids=work.capture)
        return {}

    def captured() -> Mapping[str, Any]:
        run = engine.forward(batch, capture=wanted)
        return {"values": np.stack([engine.ops.to_numpy(run[site]) for site in wanted[:3]])}

    def early() -> Mapping[str, Any]:
        site = Site(EARLY, Component.RESIDUAL)
        return {"values": engine.ops.to_numpy(engine.forward(batch, capture=[site], stop=EARLY + 1, logits=None)[site])}

    def own() -> Mapping[str, Any]:
        """The same map from the prompts' texts, with shares, as a user asks for it; values in the order of the cells."""
        texts = json.loads((work.weights.parent / "texts.json").read_text(encoding="utf-8"))
        found = ActivationPatcher(model).patch(texts, "heads@*")
        return {"values": np.array([one.metric for one in found]).reshape(layers, heads, positions).transpose(0, 2, 1)}

    head_output, residual = Component.HEAD_OUTPUT, Component.RESIDUAL
    streams = [Site(None, Component.EMBEDDING, position=p) for p in range(positions)]
    streams += [Site(layer, residual, position=p) for layer in range(layers - 1) for p in range(positions)]
    return {
        "heads": {"job": lambda: swept([Site(layer, head_output, head=h) for layer in range(layers) for h in range(heads)])},
        "cells": {
            "job": lambda: swept(
                [
                    Site(layer, head_output, head=h, position=p)
                    for layer in range(layers)
                    for p in range(positions)
                    for h in range(heads)
                ]
            )
        },
        "own": {"job": own},
        "streams": {"job": lambda: swept(streams)},
        "eap": {"passes": lambda: passes(1), "job": lambda: scores("eap", 1)},
        "eap_ig": {"passes": lambda: passes(5), "job": lambda: scores("eap_ig", 5)},
        "capture": {"bare": plain, "job": captured},
        "early": {"bare": needed, "job": early},
    }


if __name__ == "__main__":
    main(prepare)
