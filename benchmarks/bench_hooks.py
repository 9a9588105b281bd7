"""What a hook costs when it is a Smalltalk block, beside the same hook in Python, over a generation of 100 tokens.

    python benchmarks/bench_hooks.py [--model bundled:gpt2-medium] [--repeats 15] [--tokens 100]

The three kinds of run (no hook, Python, block) take turns, so that whatever else the machine does falls on all alike; times
are the process's own CPU time. Prints medians, and the median over the turns of block / Python.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from neuroscope.hooks.hook import ActivationHook, HookContext
from neuroscope.models.model import TransformerModel
from neuroscope.steering.vectors import SteeringVectors
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope_dsl.workspace import Workspace

PROMPT = "Informal: Thanks for the gift, Mary! Formal:"
NEURONS = list(range(0, 200, 10))

STEERING = """ActivationHook layer: LAYER component: #residual action: [:activations :tokenPosition |
    tokenPosition > 5 ifTrue: [
        steeringVector := SteeringVectors load: #formalStyle.
        activations := activations + (steeringVector * 0.1)].
    activations]"""

NEURON_WISE = """ActivationHook layer: LAYER component: #mlp
    condition: [:context | context taskType = #formalWriting]
    action: [:activations |
        neurons do: [:neuronId |
            current := activations at: neuronId.
            activations at: neuronId put: (current * 1.5)].
        activations]"""


def steering(activations: ActivationTensor, position: int) -> ActivationTensor:
    if position > 5:
        vector = SteeringVectors.load("formalStyle")
        activations = activations + vector * 0.1
    return activations


def neuron_wise(activations: ActivationTensor) -> ActivationTensor:
    for neuron in NEURONS:
        current = activations[neuron]
        activations[neuron] = current * 1.5
    return activations


def formal(context: HookContext) -> bool:
    return context.task_type == "formalWriting"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="bundled:gpt2-medium")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=100)
    options = parser.parse_args()

    model = TransformerModel.from_hugging_face(options.model)
    model._tokenizer.eos_token_id = None  # every run writes all its tokens
    layer = model.architecture.layers // 2
    workspace = Workspace()
    workspace.bind("model", model)
    workspace.bind("neurons", NEURONS)

    def generation(hook: ActivationHook | None) -> Callable[[], float]:
        def run() -> float:
            hooks = [] if hook is None else [hook]
            with model.hook_manager.temporarily(*hooks):
                start = time.process_time()
                model.generate(PROMPT, max_tokens=options.tokens, task_type="formalWriting")
                return time.process_time() - start

        return run

    pairs = {
        "steering, per position (script 3)": (ActivationHook(layer, "residual", steering), STEERING),
        "20 neurons, conditional (script 7)": (ActivationHook(layer, "mlp", neuron_wise, formal), NEURON_WISE),
    }
    print(f"{options.tokens} tokens from {options.model}, medians of {options.repeats} turns, ms of CPU time")
    print(f"{'hook':<36}{'none':>10}{'Python':>10}{'block':>10}{'block / Python':>16}")
    for name, (python, text) in pairs.items():
        block = workspace.run(text.replace("LAYER", str(layer)))
        kinds = [generation(None), generation(python), generation(block)]
        for run in kinds:
            run()
        turns = [[run() for run in kinds] for _ in range(options.repeats)]
        none, own, theirs = (statistics.median(column) * 1e3 for column in zip(*turns, strict=True))
        ratio = statistics.median(turn[2] / turn[1] for turn in turns)
        print(f"{name:<36}{none:>10.1f}{own:>10.1f}{theirs:>10.1f}{ratio:>16.3f}")


if __name__ == "__main__":
    main()
