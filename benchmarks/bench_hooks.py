"""What a hook costs when it is a Smalltalk block, beside the same hook in Python, over a generation of 100 tokens.

    python benchmarks/bench_hooks.py [--model bundled:gpt2-medium] [--repeats 15] [--tokens 100]

The three kinds of run (no hook, Python, block) take turns, so that whatever else the machine does falls on all alike; times
are the process's own CPU time, the least of all turns, which others' load can only lengthen. Beside them, what one call of
the action costs alone, as generation calls it for each token.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from neuroscope.hooks.hook import ActivationHook, HookContext, acting, arity
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

    def generation(hook: ActivationHook | None) -> float:
        with model.hook_manager.temporarily(*([] if hook is None else [hook])):
            return timed(lambda: model.generate(PROMPT, max_tokens=options.tokens, task_type="formalWriting"))

    pairs = {
        "steering, per position (script 3)": (ActivationHook(layer, "residual", steering), STEERING),
        "20 neurons, conditional (script 7)": (ActivationHook(layer, "mlp", neuron_wise, formal), NEURON_WISE),
    }
    print(f"{options.tokens} tokens from {options.model}, least of {options.repeats} turns, CPU time")
    print(f"{'':<36}{'generation, ms':^46}{'one call, µs':^20}")
    print(f"{'hook':<36}{'none':>8}{'Python':>10}{'block':>10}{'block / Python':>16}{'Python':>12}{'block':>8}")
    for name, (python, text) in pairs.items():
        block = workspace.run(text.replace("LAYER", str(layer)))
        kinds = [None, python, block]
        turns = [[generation(hook) for hook in kinds] for _ in range(options.repeats + 1)][1:]
        none, own, theirs = (min(column) * 1e3 for column in zip(*turns, strict=True))
        calls = [one_call(model, hook) for hook in (python, block)]
        print(f"{name:<36}{none:>8.1f}{own:>10.1f}{theirs:>10.1f}{theirs / own:>16.3f}{calls[0]:>12.1f}{calls[1]:>8.1f}")


def timed(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def one_call(model: TransformerModel, hook: ActivationHook, *, calls: int = 200, turns: int = 7) -> float:
    """Microseconds of CPU time that one call of a hook's action takes on one token's activations."""
    ops, width = model.engine.ops, model.architecture.width(hook.site.component)
    assert width is not None
    activations = ActivationTensor(ops.zeros((1, 1, width) if hook.component == "mlp" else (width,)), ops)
    arguments = [activations, 9][: arity(hook.action, 2)]
    context = HookContext(model, "formalWriting", None, hook.layer, hook.component, "decode", 9)

    def several() -> None:
        for _ in range(calls):
            hook.action(*arguments)

    with acting(context):
        return min(timed(several) for _ in range(turns)) / calls * 1e6


if __name__ == "__main__":
    main()
