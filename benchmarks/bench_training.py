"""A step of a circuit's training beside a plain torch step:  python -m benchmarks.bench_training bundled:gpt2-medium

Both take the same prompts and answers, forward, backward and AdamW; the plain step is the bare Hugging Face model with all of its weights.
The figures are medians over rounds in which the two take turns. peak: how far memory rises during three steps, in a process of its own for each (Linux).
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarks.peers.harness import forget_peak, peak

from neuroscope import TransformerModel
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.tuning import StepSettings
from neuroscope.tasks.dataset import Dataset
from neuroscope.tuning import parts
from neuroscope.tuning.objectives import TaskItems

KINDS = ("plain", "circuit", "all weights")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", choices=KINDS, help="measure the peak of one of them alone")
    options = parser.parse_args()
    if options.peak:
        print(peak_of(step_of(options.peak, *loaded(options.model, options.batch))))
        return
    model, examples = loaded(options.model, options.batch)
    steps = {name: step_of(name, model, examples) for name in KINDS}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(options.rounds + 3):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            if round_ >= 3:
                seconds[name].append(time.perf_counter() - begun)
    found = {name: float(np.median(times)) for name, times in seconds.items()}
    ratios = {name: found[name] / found["plain"] for name in found}
    peaks = {name: alone(name, options) for name in KINDS}
    if options.json:
        print(json.dumps({"model": options.model, "seconds": found, "ratios": ratios, "peaks": peaks}, indent=1))
    else:
        for name in found:
            print(f"{name:<14}{1000 * found[name]:8.1f} ms  {ratios[name]:5.2f} of plain  peak {peaks[name]:8.1f} MB")


def loaded(name: str, batch: int) -> tuple[TransformerModel, list[Any]]:
    """The model, and items of a task."""
    model = TransformerModel.from_hugging_face(name, engine="torch")
    return model, list(Dataset.load("larger_number", n=batch).for_model(model))


def step_of(kind: str, model: TransformerModel, examples: list[Any]) -> Callable[[], None]:
    """A step of one kind, on a copy of the model."""
    own: Any = model.engine
    if kind == "plain":
        return plain_step(copy.deepcopy(own.model).requires_grad_(True), model, examples)
    nodes = [Site(layer, Component.MLP_OUTPUT) for layer in range(0, model.architecture.layers, 2)]
    nodes += [Site(layer, Component.HEAD_OUTPUT, head=0) for layer in range(model.architecture.layers)]
    return tuned_step(model, examples, nodes if kind == "circuit" else None)


def peak_of(step: Callable[[], None]) -> float:
    """How far memory rises above what it was, in MB."""
    forget_peak()
    before = peak()
    for _ in range(3):
        step()
    return peak() - before


def alone(kind: str, options: argparse.Namespace) -> float:
    """`peak_of` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_training", options.model, "--batch", str(options.batch), "--peak", kind]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def plain_step(bare: Any, model: TransformerModel, examples: list[Any]) -> Callable[[], None]:
    batch = model.encode([example.clean for example in examples])
    answers = torch.tensor([model.answer_token(example.clean, example.answer) for example in examples])
    ids, real = torch.tensor(batch.ids), torch.tensor(batch.real).long()
    rows, last = torch.arange(batch.rows), torch.tensor(batch.column(-1))
    optimiser = torch.optim.AdamW(bare.parameters(), lr=3e-4, weight_decay=0.01)

    def step() -> None:
        optimiser.zero_grad()
        logits = bare(input_ids=ids, attention_mask=real, use_cache=False).logits[rows, last]
        torch.nn.functional.cross_entropy(logits, answers).backward()
        optimiser.step()

    return step


def tuned_step(model: TransformerModel, examples: list[Any], nodes: list[Site] | None) -> Callable[[], None]:
    engine, items = model.engine.copy(), TaskItems(model, examples)
    sites = None if nodes is None else parts.weights_of(model, nodes).sites
    tuner, rows = engine.tuner(sites, StepSettings()), np.arange(len(examples))
    return lambda: void(tuner.step(lambda: [items.loss(engine, rows)], [1.0]))


def void(_: object) -> None:
    """Nothing."""


if __name__ == "__main__":
    main()
